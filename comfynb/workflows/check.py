"""What a server would refuse in a graph, and what it lacks for it: known before anything is sent.

ComfyUI checks a prompt when it takes it (execution.py, validate_prompt and validate_inputs,
v0.3.75) and answers 400, which costs nothing either. But one POST tells of one graph, a class that
is missing hides all that is wrong beside it, and a name that is not in a list comes without those
that look like it. So the same is checked here, for all scenes at once, with what the server says of
its node types.

A problem is an *error* only where the server is certain to refuse the graph. It is a *warning*

- where another output of the graph is not concerned: the server runs that and skips the rest;
- where a class may judge for itself: classes of custom nodes often do, and a server of v0.3.75
  does not look at choices of the newer encoding at all;
- where a fraction stands in the place of a whole number: the server cuts it.

Node types may be older than what the server has by now: who refuses because of an error asks the
server anew first (`comfynb.servers.server_types`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from comfynb.values import describe, is_number, nearest, short
from comfynb.workflows.graph import is_link, links
from comfynb.workflows.knobs import listed, nearest_choices, range_text, suggest
from comfynb.workflows.node_types import InputType, NodeTypes
from comfynb.workflows.report import Problem, Report, Severity

_MODELS: Mapping[str, str] = {
    "ckpt_name": "checkpoint", "unet_name": "diffusion model", "vae_name": "VAE",
    "lora_name": "LoRA", "control_net_name": "ControlNet", "style_model_name": "style model",
    "clip_name": "text encoder", "clip_name1": "text encoder", "clip_name2": "text encoder",
    "clip_name3": "text encoder", "clip_name4": "text encoder", "model_name": "model",
    "gligen_name": "GLIGEN model", "hypernetwork_name": "hypernetwork",
}  # fmt: skip
"""What stands in a list of files, by the name of the input (ComfyUI nodes.py)."""

_LISTED_SUFFIXES = {
    "image": {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff"},
    "video": {".mp4", ".webm", ".mkv", ".mov", ".avi"},
    "audio": {".mp3", ".wav", ".flac", ".ogg"},
}
"""Files of the input folder that ComfyUI lists; others may be there without being listed."""


class Checker:
    """Checks graphs that share most of their nodes: each distinct node is looked at once.

    Args:
        node_types: What the server has.
        uploads: Names of input files that will be there when the graph is run.
    """

    def __init__(self, node_types: NodeTypes, uploads: Collection[str] = ()) -> None:
        self._types, self._uploads = node_types, uploads
        # By identity; the node is kept, so that no other can take its id.
        self._seen: dict[int, tuple[Any, tuple[Problem, ...]]] = {}

    def check(self, graph: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Return what is wrong with one graph in API format; `scenes` is left open."""
        bad: dict[str, tuple[Problem, ...]] = {}
        for node_id, node in graph.items():
            seen = self._seen.get(id(node))
            if seen is None:
                seen = self._seen[id(node)] = node, tuple(self._node(node_id, node))
            if seen[1]:
                bad[node_id] = seen[1]
        missing = [p for problems in bad.values() for p in problems if not p.input]
        outputs = [node_id for node_id, node in graph.items() if self._is_output(node)]
        if not outputs and not missing:
            return (_NO_OUTPUT,)
        if not bad:
            return ()
        needed = {output: _behind(graph, output) for output in outputs}
        everywhere = set.union(set(), *needed.values())
        found = [
            problem
            for node_id, problems in bad.items()
            for problem in problems
            if node_id in everywhere or problem in missing
        ]
        doomed = missing or all(
            any(p.is_error for node_id in behind & bad.keys() for p in bad[node_id])
            for behind in needed.values()
        )
        if not doomed:
            found = [_spared(problem) for problem in found]
        return tuple(found)

    def _is_output(self, node: Mapping[str, Any]) -> bool:
        class_type = node["class_type"]
        return class_type in self._types and self._types[class_type].output_node

    def _node(self, node_id: str, node: Mapping[str, Any]) -> Iterator[Problem]:
        class_type, given = node["class_type"], node["inputs"]
        if class_type not in self._types:
            alike = tuple(nearest(class_type, list(self._types)))
            text = f"the server has no node type {short(class_type)}{suggest(alike)}"
            install = "" if alike else ". Install the custom node that brings it"
            yield Problem(node_id, class_type, "", text + install, nearest=alike)
            return
        judges = self._judges_itself(class_type)
        for name, known in self._types[class_type].inputs.items():
            if name not in given:
                # Those that grow with what is put into them are in a graph under other names.
                if known.required and not known.type.startswith("COMFY_"):
                    yield Problem(node_id, class_type, name, "this input is required and missing")
            elif not is_link(given[name]) and known.is_widget:
                found = self._value(known, given[name])
                if found is not None:
                    message, severity, alike = found
                    severity = "warning" if judges else severity
                    yield Problem(node_id, class_type, name, message, (), severity, alike)

    def _judges_itself(self, class_type: str) -> bool:
        """Whether a class may have a check of its own, which replaces the server's."""
        module = self._types.object_info[class_type].get("python_module")
        return isinstance(module, str) and module.startswith("custom_nodes")

    def _value(self, known: InputType, value: Any) -> tuple[str, Severity, tuple[str, ...]] | None:
        """Return what is wrong with a value that stands in a graph, or None."""
        if known.type in ("INT", "FLOAT"):
            return _number(known, value)
        if known.choices is None or value in known.choices or isinstance(value, list | dict):
            return None
        if known.upload is not None or known.name == "latent":
            return self._file(known, str(value))
        certain: Severity = "warning" if "options" in known.options else "error"
        alike = tuple(nearest_choices(value, known.choices))
        what = _MODELS.get(known.name)
        if what is not None:
            have = suggest(alike) or (listed(known.choices) if known.choices else ": it has none")
            return f"the server has no {what} {short(value)}{have}", certain, alike
        hint = suggest(alike) or listed(known.choices)
        return f"{describe(value)} is none of its choices{hint}", certain, alike

    def _file(self, known: InputType, name: str) -> tuple[str, Severity, tuple[str, ...]] | None:
        """Judge an input file by its name; the list has those of the top folder only."""
        if name in self._uploads or "/" in name or "\\" in name or name.endswith("]"):
            return None
        alike = tuple(nearest_choices(name, known.choices or ()))
        kind = known.upload or "file"
        suffixes = _LISTED_SUFFIXES.get(kind, {".latent"})
        listed_there = PurePosixPath(name).suffix.lower() in suffixes or not name
        text = f"the server's input folder has no {kind} {short(name)}{suggest(alike)}"
        return text, "error" if listed_there else "warning", alike


def _number(known: InputType, value: Any) -> tuple[str, Severity, tuple[str, ...]] | None:
    """Judge a number as the server does, which first makes one of what is there."""
    whole = known.type == "INT"
    try:
        number = int(value) if whole else float(value)
    except (TypeError, ValueError, OverflowError):
        kind = "a whole number" if whole else "a number"
        return f"it takes {kind}, not {describe(value)}", "error", ()
    low, high = known.minimum, known.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        return f"it takes {range_text(low, high)}, not {describe(value)}", "error", ()
    if whole and is_number(value) and number != value:
        return f"it takes a whole number: the server cuts {value} to {number}", "warning", ()
    return None


_NO_OUTPUT = Problem(
    "", "", "", "the workflow has no output node: add one that keeps the picture, such as SaveImage"
)


def _behind(graph: Mapping[str, Any], output: str) -> set[str]:
    """Return an output node and all that it needs."""
    found, waiting = {output}, [output]
    while waiting:
        for _, source, _ in links(graph[waiting.pop()]):
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _spared(problem: Problem) -> Problem:
    if not problem.is_error:
        return problem
    text = f"{problem.message}. The server leaves out what needs this node and runs the rest"
    return replace(problem, severity="warning", message=text)


def check_graphs(
    graphs: Iterable[tuple[str, Mapping[str, Any]]],
    node_types: NodeTypes | None,
    *,
    server: str,
    uploads: Collection[str] = (),
    of: int | None = None,
) -> Report:
    """Check the graphs of scenes.

    Args:
        graphs: Scene id and graph of each; nodes that graphs share should be the same objects.
        node_types: What the server has; None: not known.
        server: Its label.
        uploads: Names of input files that will be there when the graphs are run.
        of: How many scenes the workflow has in all, where only some are checked; None: these.

    Returns:
        A report in which each problem stands once, with the scenes that it concerns.
    """
    pairs = list(graphs)
    if node_types is None:
        return Report(server, len(pairs) if of is None else of, checked=False)
    checker = Checker(node_types, uploads)
    found: dict[Problem, list[str]] = {}
    for scene, graph in pairs:
        for problem in checker.check(graph):
            found.setdefault(problem, []).append(scene)
    count = len(pairs) if of is None else of
    problems = [
        replace(problem, scenes=() if len(scenes) == count else tuple(scenes))
        for problem, scenes in found.items()
    ]
    return Report(server, count, tuple(sorted(problems, key=_order)))


def _order(problem: Problem) -> tuple[bool, bool]:
    """Errors before warnings, and what concerns all before what concerns some."""
    return not problem.is_error, bool(problem.scenes)

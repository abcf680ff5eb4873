"""Knobs: what can be turned in a workflow, found by following links and not by node ids.

Everything starts at the sampler. Its own values are `seed`, `steps`, `cfg`, `sampler`, `scheduler`
and `denoise`; where one of them is linked instead, as with SamplerCustomAdvanced, the link is
followed. Its conditioning leads to the texts `positive` and `negative`, its latent to `width`,
`height`, `batch_size` and `image`, its model to `checkpoint`. What is not unique is settled so:

- of several samplers the first counts: the one whose latent comes from no other, then by id;
- of several nodes that would do, the nearest to the sampler counts, then the first by the name
  of the input that leads there;
- a node whose title is the name of a knob, such as "positive", is that knob, whatever links say.

A text that both conditionings reach is `positive` alone. One behind ConditioningZeroOut has no
effect and is no knob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comfynb.errors import WorkflowError
from comfynb.values import MAX_SEED, as_whole, describe, has_lone_surrogate, is_number, native
from comfynb.workflows.graph import is_link, links

KNOBS = (
    "positive", "negative", "seed", "steps", "cfg", "sampler", "scheduler", "denoise",
    "width", "height", "batch_size", "checkpoint", "image",
)  # fmt: skip

SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"})

_TEXTS = (("text",), ("text_g", "text_l"), ("clip_l", "t5xxl"), ("prompt",))
"""Inputs of text encoders; SDXL's and Flux's have two that say the same."""

_OF_SAMPLER = {
    "seed": (("noise_seed", "seed"), ("noise",)),
    "steps": (("steps",), ("sigmas",)),
    "cfg": (("cfg",), ("guider",)),
    "sampler": (("sampler_name",), ("sampler",)),
    "scheduler": (("scheduler",), ("sigmas",)),
    "denoise": (("denoise",), ("sigmas",)),
}
"""Knob -> its inputs, and the sampler's links behind which they may be instead."""

_WHOLE = frozenset(
    {"seed", "noise_seed", "steps", "width", "height", "batch_size", "start_at_step", "end_at_step"}
)
"""Knobs and inputs that take whole numbers only; elsewhere JSON's 8 may well stand for 8.0."""

_LATENT_LINKS = ("latent_image", "latent", "samples", "pixels", "image", "images")

_NOT_CONDITIONING = frozenset(
    {"clip", "clip_vision", "clip_vision_output", "control_net", "image", "latent", "mask", "model",
     "pixels", "samples", "style_model", "vae"}
)  # fmt: skip


class Place(NamedTuple):
    """Where a knob's value is: one input, or several of one node that hold the same."""

    node: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Knob:
    """Something that can be turned.

    Attributes:
        name: What to call it in `with_knobs`.
        node: Id of its node.
        input: Name of its input.
        value: What it is set to.
        node_type: Class of its node.
        title: Title of its node, or the class where it has none.
        also: Other inputs of that node that are set to the same value.
    """

    name: str
    node: str
    input: str
    value: Any
    node_type: str
    title: str
    also: tuple[str, ...] = field(default=(), repr=False)

    def check(self, value: Any) -> Any:
        """Return a value as this knob takes it.

        Args:
            value: Of the same kind as the one there now: text, number, whole number, or true
                or false. Seeds go from 0 to 2**64 - 1. Other ranges and choices are the
                server's to judge.

        Raises:
            WorkflowError: It is of another kind, or out of range.
        """
        value = native(value)
        expected, fitted = _KINDS[self._kind()]
        result = fitted(value)
        if result is None:
            raise WorkflowError(f"{self} takes {expected}, not {describe(value)}")
        if {self.name, self.input} & {"seed", "noise_seed"} and not 0 <= result <= MAX_SEED:
            raise WorkflowError(
                f"{self}: the seed {describe(value)} is out of range. Seeds go from 0 to 2**64 - 1"
            )
        if isinstance(result, str) and has_lone_surrogate(result):
            raise WorkflowError(f"{self}: the text holds half a character. Write it anew")
        return result

    def _kind(self) -> str:
        if isinstance(self.value, bool):
            return "switch"
        if isinstance(self.value, int | float):
            return "whole" if {self.name, self.input} & _WHOLE else "number"
        return "text" if isinstance(self.value, str) else "any"

    def __str__(self) -> str:
        return f"the knob {self.name!r} (node {self.node}, {self.node_type}.{self.input})"


_KINDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "switch": ("true or false", lambda value: value if isinstance(value, bool) else None),
    "whole": ("a whole number", as_whole),
    "number": ("a number", lambda value: value if is_number(value) else None),
    "text": ("text", lambda value: value if isinstance(value, str) else None),
    "any": (
        "text, a number, true or false",
        lambda value: value if isinstance(value, str | bool) or is_number(value) else None,
    ),
}


def title_of(node: Mapping[str, Any]) -> str:
    """Return a node's title, or its class where it has none."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) and title else str(node["class_type"])


def make_knob(graph: Mapping[str, Any], name: str, place: Place) -> Knob:
    """Return the knob at a place, with its value in this graph."""
    node = graph[place.node]
    first, *also = place.inputs
    return Knob(
        name, place.node, first, node["inputs"][first], node["class_type"], title_of(node), (*also,)
    )


def find_knobs(graph: Mapping[str, Any]) -> dict[str, Place]:
    """Return where the knobs in `KNOBS` are, as far as the graph has them, in that order."""
    found = {**_by_links(graph), **_by_title(graph)}
    return {name: found[name] for name in KNOBS if name in found}


def find_aliases(graph: Mapping[str, Any]) -> dict[str, list[Place]]:
    """Return every other name of a value: "id.input", "Title.input", and "Title" of a single one.

    A name that several nodes share has several places.
    """
    aliases: dict[str, list[Place]] = {}
    for node_id, node in graph.items():
        own = [name for name, value in node["inputs"].items() if not is_link(value)]
        names = [(f"{prefix}.{name}", name) for name in own for prefix in {node_id, title_of(node)}]
        if len(own) == 1:
            names.append((title_of(node), own[0]))
        for alias, name in names:
            aliases.setdefault(alias, []).append(Place(node_id, (name,)))
    return aliases


def _by_title(graph: Mapping[str, Any]) -> dict[str, Place]:
    titled: dict[str, list[Place]] = {}
    for node_id, node in graph.items():
        name = title_of(node)
        own = [key for key, value in node["inputs"].items() if not is_link(value)]
        if name in KNOBS and (name in own or len(own) == 1):
            place = Place(node_id, (name if name in own else own[0],))
            titled.setdefault(name, []).append(place)
    return {name: places[0] for name, places in titled.items() if len(places) == 1}


def _by_links(graph: Mapping[str, Any]) -> dict[str, Place]:
    found: dict[str, Place | None] = {}
    sampler = _first_sampler(graph)
    if sampler is not None:
        for name, (inputs, through) in _OF_SAMPLER.items():
            kind = _kind_of(name)
            found[name] = _value(graph, sampler, inputs, kind) or _upstream(
                graph, sampler, inputs, through, kind
            )
        found["positive"] = _text(graph, sampler, "positive")
        negative = _text(graph, sampler, "negative")
        found["negative"] = negative if negative != found["positive"] else None
        for name in ("width", "height", "batch_size", "image"):
            found[name] = _upstream(graph, sampler, (name,), _LATENT_LINKS, _kind_of(name))
        found["checkpoint"] = _upstream(
            graph, sampler, ("ckpt_name", "unet_name"), ("model", "guider"), str
        )
    if found.get("image") is None:  # a picture that steers in another way, if there is one only
        loaders = [key for key, node in graph.items() if node["class_type"] == "LoadImage"]
        if len(loaders) == 1 and isinstance(graph[loaders[0]]["inputs"].get("image"), str):
            found["image"] = Place(loaders[0], ("image",))
    return {name: place for name, place in found.items() if place is not None}


def _first_sampler(graph: Mapping[str, Any]) -> str | None:
    for is_sampler in (_is_core_sampler, _looks_like_sampler):
        samplers = {node_id for node_id, node in graph.items() if is_sampler(node)}
        first = [
            node_id
            for node_id in samplers
            if samplers.isdisjoint(_walk(graph, node_id, _LATENT_LINKS))
        ]
        if first:
            return min(first, key=_natural)
    return None


def _is_core_sampler(node: Mapping[str, Any]) -> bool:
    return node["class_type"] in SAMPLERS


def _looks_like_sampler(node: Mapping[str, Any]) -> bool:
    """Whether it is a sampler of somebody's own: it takes what a sampler takes."""
    inputs = node["inputs"]
    return is_link(inputs.get("positive")) and "steps" in inputs and "cfg" in inputs


def _natural(node_id: str) -> tuple[bool, int, str]:
    """Order ids as people do: 9 before 10, numbers before words."""
    return (False, len(node_id), node_id) if node_id.isdecimal() else (True, 0, node_id)


def _kind_of(name: str) -> type | tuple[type, ...]:
    return str if name in {"sampler", "scheduler", "image"} else (int, float)


def _walk(graph: Mapping[str, Any], start: str, through: tuple[str, ...]) -> Iterator[str]:
    """Yield the nodes behind these links, nearest first, then by the name of the link."""
    seen, level = {start}, [start]
    while level:
        sources = [
            source
            for node_id in level
            for name, source, _ in sorted(links(graph[node_id]))
            if name in through
        ]
        level = [source for source in dict.fromkeys(sources) if source not in seen]
        seen.update(level)
        yield from level


def _upstream(
    graph: Mapping[str, Any],
    start: str,
    inputs: tuple[str, ...],
    through: tuple[str, ...],
    kind: type | tuple[type, ...],
) -> Place | None:
    """Return the nearest place behind these links that has one of the inputs."""
    places = (_value(graph, node_id, inputs, kind) for node_id in _walk(graph, start, through))
    return next((place for place in places if place is not None), None)


def _value(
    graph: Mapping[str, Any], node_id: str, inputs: tuple[str, ...], kind: type | tuple[type, ...]
) -> Place | None:
    """Return where the first of a node's inputs has its value, which a primitive may hold."""
    own = graph[node_id]["inputs"]
    for name in inputs:
        if _is_a(own.get(name), kind):
            return Place(node_id, (name,))
        if is_link(own.get(name)):
            source = own[name][0]
            held = graph[source]["inputs"]
            values = [key for key, value in held.items() if _is_a(value, kind)]
            for key in (name, "value"):
                if key in values:
                    return Place(source, (key,))
            if len(values) == 1 and not any(is_link(value) for value in held.values()):
                return Place(source, (values[0],))
    return None


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _text(graph: Mapping[str, Any], sampler: str, role: str) -> Place | None:
    """Return the text that a sampler's positive or negative conditioning is made of."""
    inputs = graph[sampler]["inputs"]
    if is_link(inputs.get("guider")):
        inputs = graph[inputs["guider"][0]]["inputs"]
    start = inputs.get(role, inputs.get("conditioning") if role == "positive" else None)
    level = [(start[0], start[1])] if is_link(start) else []
    seen: set[tuple[str, int]] = set()
    while level:
        for node_id, _ in level:
            place = _text_in(graph, node_id)
            if place is not None:
                return place
        seen.update(level)
        further = [link for node_id, slot in level for link in _conditioning(graph[node_id], slot)]
        level = [link for link in dict.fromkeys(further) if link not in seen]
    return None


def _text_in(graph: Mapping[str, Any], node_id: str) -> Place | None:
    own = graph[node_id]["inputs"]
    for group in _TEXTS:
        held = tuple(name for name in group if isinstance(own.get(name), str))
        if held:
            return Place(node_id, held)
        linked = _value(graph, node_id, group, str)
        if linked is not None:
            return linked
    return None


def _conditioning(node: Mapping[str, Any], slot: int) -> Iterator[tuple[str, int]]:
    """Yield the links that a node makes its conditioning of."""
    if node["class_type"] == "ConditioningZeroOut":
        return
    found = {name: (source, out) for name, source, out in links(node)}
    if "positive" in found and "negative" in found:  # as ControlNetApplyAdvanced: two in, two out
        yield found["positive" if slot == 0 else "negative"]
        return
    for name in sorted(found):
        if name not in _NOT_CONDITIONING:
            yield found[name]

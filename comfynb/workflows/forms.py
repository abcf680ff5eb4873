"""The forms in which people have workflows, told apart by what is in them.

A name of the library; JSON in API format or in the format of ComfyUI's editor ("UI"), as a file,
a dict or bytes; a picture that ComfyUI saved; a keyframe. A picture carries both formats: the API
format counts, since it is what made the picture. What the editor saves needs a server's node
classes to be understood, so it is kept as it is until they are known (`Source.graph`).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from comfynb.errors import WorkflowError
from comfynb.keyframes import Keyframe
from comfynb.values import nearest, short
from comfynb.workflows.convert import check_editor, convert, is_editor_format
from comfynb.workflows.graph import Graph, parse_graph
from comfynb.workflows.metadata import picture_kind, texts_of
from comfynb.workflows.node_types import NodeTypes

LIBRARY = ("txt2img", "img2img")
"""Our own workflows, for any checkpoint that CheckpointLoaderSimple can load."""

MAX_BYTES = 10_000_000
"""Of JSON. Large workflows of thousands of nodes have about 1 MB."""

MAX_PICTURE_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """A workflow as it came.

    Attributes:
        name: The library's name, or the file's without its suffix, or "workflow".
        form: Such as "API", "UI", "library", "keyframe", or "PNG, API inside".
        data: A checked graph, or what the editor saved.
        is_editor: Whether it is the latter.
        where: What errors begin with: the file, or "".
    """

    name: str
    form: str
    data: Mapping[str, Any] = field(repr=False)
    is_editor: bool = False
    where: str = ""

    def graph(self, node_types: NodeTypes | None) -> Graph:
        """Return the graph in API format.

        Args:
            node_types: The classes of the server that is to run it; only what the editor saved
                needs them.

        Raises:
            WorkflowError: They are needed and None; or as `convert` says.
        """
        if not self.is_editor:
            return dict(self.data)
        if node_types is None:
            raise WorkflowError(
                f"{self.where}the workflow is in the format of ComfyUI's own editor, and only a "
                "server can say what its values mean. Give it to comfynb.connect(workflow=...), "
                "or choose Workflow > Export (API) in ComfyUI and load that file"
            )
        try:
            return convert(self.data, node_types)
        except WorkflowError as error:
            raise WorkflowError(f"{self.where}{error}") from error.__cause__


def read_source(source: Any) -> Source:
    """Read a workflow in any of its forms.

    Args:
        source: As `Workflow.load` takes it.

    Raises:
        WorkflowError: It cannot be read, or is no workflow; names the file and the node.
    """
    if isinstance(source, Keyframe):
        return _of_keyframe(source)
    if isinstance(source, Mapping):
        return _of_data("workflow", "", _copied(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _of_bytes("workflow", "", bytes(source))
    if source in LIBRARY:
        file = resources.files("comfynb.workflows") / "library" / f"{source}.json"
        return Source(str(source), "library", parse_graph(json.loads(file.read_text("utf-8"))))
    if not isinstance(source, str | os.PathLike):
        raise WorkflowError(
            f"a workflow cannot be loaded from {short(source)}. Give a file (JSON, or a picture "
            "that ComfyUI saved), a graph as a dict, bytes, a keyframe, or "
            + " or ".join(map(repr, LIBRARY))
        )
    path = Path(source)
    if isinstance(source, str) and not path.suffix and not path.exists():
        similar = nearest(source, LIBRARY)
        hint = f"; did you mean {similar[0]!r}?" if similar else "."
        raise WorkflowError(
            f"there is no workflow {short(source)}: neither such a file nor one of the "
            f"library{hint} The library has {' and '.join(map(repr, LIBRARY))}"
        )
    return _of_bytes(path.stem, f"{path}: ", _read(path))


def _copied(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a copy of what may be converted only later; a graph is copied when it is checked."""
    if not is_editor_format(data):
        return data
    try:
        return copy.deepcopy(data)
    except RecursionError:
        raise WorkflowError("the workflow is nested too deeply. Save it again in ComfyUI") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES and picture_kind(content) is not None:
                content += file.read(MAX_PICTURE_BYTES + 1 - len(content))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise WorkflowError(
            f"{path}: the workflow cannot be read ({reason}). Look at the name; "
            f"the current folder is {Path.cwd()}"
        ) from error
    return content


def _of_bytes(name: str, where: str, content: bytes) -> Source:
    kind = picture_kind(content)
    limit = MAX_BYTES if kind is None else MAX_PICTURE_BYTES
    if len(content) > limit:
        what = "A workflow holds no pictures" if kind is None else "It is no picture of ComfyUI's"
        raise WorkflowError(
            f"{where}the file is bigger than {limit // 1_000_000} MB. {what}: is it the right file?"
        )
    if kind is not None:
        return _of_picture(name, where, content, kind)
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WorkflowError(
            f"{where}the file is not JSON ({error}), and no PNG, WebP or JPEG either. "
            "Save it again in ComfyUI, best with Workflow > Export (API)"
        ) from error
    return _of_data(name, where, data)


def _of_picture(name: str, where: str, content: bytes, kind: str) -> Source:
    try:
        texts = texts_of(content, kind)
    except WorkflowError as error:
        raise WorkflowError(f"{where}{error}") from error.__cause__
    found: list[Source] = []
    broken: WorkflowError | None = None
    for text in ("prompt", "workflow"):  # the API format first
        if text in texts:
            try:
                found.append(
                    _of_data(name, where, _json(texts[text], f"{where}the {text}"), inside=kind)
                )
            except WorkflowError as error:
                broken = broken or error
    if found:
        return found[0]
    if broken is not None:
        raise broken
    held = f" (it has: {', '.join(map(short, list(texts)[:5]))})" if texts else ""
    raise WorkflowError(
        f"{where}there is no workflow of ComfyUI's in this {kind} picture{held}. Pictures lose it "
        "when they are edited, sent by messengers, or saved with --disable-metadata: "
        "find the original, or the workflow's file"
    )


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WorkflowError(f"{what} in the picture is not JSON ({error})") from error


def _of_data(name: str, where: str, data: Any, *, inside: str | None = None) -> Source:
    # What goes to POST /prompt has the graph under "prompt", where a node would have a class.
    if isinstance(data, Mapping) and isinstance(data.get("prompt"), Mapping):
        data = data if "class_type" in data["prompt"] else data["prompt"]
    is_editor = is_editor_format(data)
    try:
        if is_editor:
            check_editor(data)
        else:
            data = parse_graph(data)
    except WorkflowError as error:
        raise WorkflowError(f"{where}{error}") from error.__cause__
    form = "UI" if is_editor else "API"
    return Source(name, f"{inside}, {form} inside" if inside else form, data, is_editor, where)


def _of_keyframe(keyframe: Keyframe) -> Source:
    graph = keyframe.workflow
    if graph is None and keyframe.pictures is not None:
        graph = keyframe.pictures.workflow(keyframe.id)
    if graph is None:
        left_out = keyframe.pictures.leaves_out if keyframe.pictures is not None else ()
        hint = "Load its picture's file, which may hold it, or the workflow's own"
        if left_out:
            hint = (
                f"Its log leaves out {' and '.join(left_out)}, in its pictures too. Load the "
                "workflow's own file; grid(scenes) finds what was made with it"
            )
        raise WorkflowError(
            f"the workflow of the keyframe of {short(keyframe.scene.label)} was not kept. {hint}"
        )
    return Source("workflow", "keyframe", parse_graph(graph))

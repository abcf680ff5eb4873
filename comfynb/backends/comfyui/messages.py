"""What a ComfyUI says on its WebSocket, as typed values.

Facts: ComfyUI 0.3.75, recorded. Text frames are {"type", "data"}; binary frames begin with a
big-endian uint32 (server.py, BinaryEventTypes). Custom nodes add types and keys of their own, so
what is unknown is ignored, and what is malformed is skipped by raising `MalformedMessageError`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 2000
"""Characters of an error text that we keep; tracebacks carry tensor dumps of tens of kB."""


class MalformedMessageError(ValueError):
    """A frame that does not have the shape its type promises."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The queue's length changed; the first one opens the connection."""

    sid: str | None


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    """The worker took the prompt."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionCached:
    """These nodes will not be run again."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """A node begins; node None: the prompt left the worker. A late joiner hears no prompt id."""

    prompt_id: str | None
    node: str | None


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A step of a node that reports them."""

    prompt_id: str | None
    node: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class NodeStates:
    """Cumulative states; to us only a sign of life."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Executed:
    """A node with something to show is done; `output` names its files.

    The id is the one that the history knows: "2.0.0.1" for a node that node 2 expanded to.
    """

    prompt_id: str
    node: str
    output: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExecutionSuccess:
    """All nodes are done; history may not know it yet (measured: up to 1.5 s later)."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionFailed:
    """A node raised. `blocked` ones are not the end: the prompt goes on."""

    prompt_id: str
    node: str
    node_type: str
    exception: str
    message: str

    @property
    def blocked(self) -> bool:
        """Whether an ExecutionBlocker spoke and the rest of the graph still runs."""
        return self.exception == "ExecutionBlocked"


@dataclass(frozen=True, slots=True)
class ExecutionInterrupted:
    """Somebody interrupted it."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """A preview, or a result of SaveImageWebsocket; type 1 frames name no node and no prompt."""

    prompt_id: str | None
    node: str | None
    mime: str
    data: bytes


Message = (
    ServerStatus
    | ExecutionStart
    | ExecutionCached
    | Executing
    | NodeProgress
    | NodeStates
    | Executed
    | ExecutionSuccess
    | ExecutionFailed
    | ExecutionInterrupted
    | ImageFrame
)


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str | int):
        raise MalformedMessageError(f"{key} is a {type(value).__name__}")
    return str(value)


def _maybe(data: Mapping[str, Any], key: str) -> str | None:
    return None if data.get(key) is None else _text(data, key)


def _number(data: Mapping[str, Any], key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedMessageError(f"{key} is a {type(value).__name__}")
    return value


def _failed(data: Mapping[str, Any]) -> ExecutionFailed:
    return ExecutionFailed(
        _text(data, "prompt_id"),
        str(data.get("node_id") or ""),
        str(data.get("node_type") or ""),
        str(data.get("exception_type") or ""),
        str(data.get("exception_message") or "").strip()[:MAX_TEXT],
    )


def _executed(data: Mapping[str, Any]) -> Executed:
    output = data.get("output")  # null for cached nodes without anything to show
    return Executed(
        _text(data, "prompt_id"), _text(data, "node"), output if isinstance(output, dict) else {}
    )


def _cached(data: Mapping[str, Any]) -> ExecutionCached:
    nodes = data.get("nodes")
    return ExecutionCached(
        _text(data, "prompt_id"), tuple(map(str, nodes)) if isinstance(nodes, list) else ()
    )


def _status(data: Mapping[str, Any]) -> ServerStatus:
    return ServerStatus(_maybe(data, "sid"))


_TEXT: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "status": _status,
    "execution_start": lambda d: ExecutionStart(_text(d, "prompt_id")),
    "execution_cached": _cached,
    "executing": lambda d: Executing(_maybe(d, "prompt_id"), _maybe(d, "node")),
    "progress": lambda d: NodeProgress(
        _maybe(d, "prompt_id"), _text(d, "node"), _number(d, "value"), _number(d, "max")
    ),
    "progress_state": lambda d: NodeStates(_text(d, "prompt_id")),
    "executed": _executed,
    "execution_success": lambda d: ExecutionSuccess(_text(d, "prompt_id")),
    "execution_error": _failed,
    "execution_interrupted": lambda d: ExecutionInterrupted(_text(d, "prompt_id")),
}


def parse_text(frame: str) -> Message | None:
    """Parse a text frame; None for a type we do not know.

    Raises:
        MalformedMessageError: If it is not what its type promises.
    """
    body = _json(frame)
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        raise MalformedMessageError("no type")
    return parse_event(body["type"], body.get("data"))


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)  # takes bare NaN, which ComfyUI writes
    except (ValueError, RecursionError) as exc:
        raise MalformedMessageError(f"not JSON: {exc}") from None


def parse_event(kind: str, data: object) -> Message | None:
    """Parse an event by its type, from the socket or from a history entry's messages.

    Raises:
        MalformedMessageError: If it is not what its type promises.
    """
    parser = _TEXT.get(kind)
    if parser is None:
        return None
    if not isinstance(data, dict):
        raise MalformedMessageError(f"{kind} without data")
    return parser(data)


_FORMATS = {1: "image/jpeg", 2: "image/png"}


def _plain_image(payload: bytes) -> ImageFrame:
    (kind,) = struct.unpack_from(">I", payload)
    return ImageFrame(None, None, _FORMATS.get(kind, "image/jpeg"), payload[4:])


def _image_with_metadata(payload: bytes) -> ImageFrame:
    (length,) = struct.unpack_from(">I", payload)
    meta = _json(payload[4 : 4 + length])
    if not isinstance(meta, dict) or length > len(payload) - 4:
        raise MalformedMessageError("the metadata of a picture is no mapping, or cut off")
    mime = meta.get("image_type")
    return ImageFrame(
        _maybe(meta, "prompt_id"),
        _maybe(meta, "display_node_id") or _maybe(meta, "node_id"),
        mime if isinstance(mime, str) and mime in _FORMATS.values() else "image/jpeg",
        payload[4 + length :],
    )


_BINARY: Mapping[int, Callable[[bytes], ImageFrame]] = {1: _plain_image, 4: _image_with_metadata}


def parse_binary(frame: bytes) -> ImageFrame | None:
    """Parse a binary frame; None for a type we do not know (3 is text for the browser).

    Raises:
        MalformedMessageError: If it is too short, or its metadata is not JSON.
    """
    try:
        (kind,) = struct.unpack_from(">I", frame)
        parser = _BINARY.get(kind)
        return None if parser is None else parser(frame[4:])
    except struct.error as exc:
        raise MalformedMessageError(f"binary frame: {exc}") from None

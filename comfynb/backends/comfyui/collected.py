"""What the nodes of one prompt gave: files to fetch, frames of the socket, texts.

A node's output is a mapping such as {"images": [{"filename", "subfolder", "type"}], "text": [...]},
the same in `executed` and in the history. Files stand under any key ("images", "gifs", "audio",
"3d", ...), texts under "text" as PreviewAny gives them; all else is for the browser. Whatever a
server says here is bounded: how many things, how long a text, which names can exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfynb.backends.base import Given
from comfynb.errors import BackendError, ServerGoneError
from comfynb.values import has_lone_surrogate, short

SOCKET_RESULT = "SaveImageWebsocket"
"""Its results travel as binary frames and never reach the history (ComfyUI 0.3.75)."""

MOST_GIVEN = 1000
"""Files, frames and texts that one prompt may give."""
LONGEST_TEXT = 100_000
"""Characters of one text that are kept."""
LONGEST_NAME = 1000
"""Characters of a file's name, and of its folder's; file systems take 255 bytes."""

T = TypeVar("T")
Said = Mapping[str, Any]
"""What a node says of its outputs."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file as ComfyUI names it, for GET /view."""

    filename: str
    subfolder: str
    type: str


Fetch = Callable[[FileRef], Awaitable[bytes]]


@dataclass(slots=True)
class _OfNode:
    """What one node gave."""

    frames: list[bytes] = field(default_factory=list)
    files: list[tuple[FileRef, asyncio.Future[bytes]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    promised: int = 0
    """Frames that it said it would send."""

    @property
    def is_temporary(self) -> bool:
        """Whether it only showed what it gave, as PreviewImage does."""
        return bool(self.files) and all(ref.type == "temp" for ref, _ in self.files)


class Collected:
    """What the nodes of a prompt gave so far. Used on our loop only."""

    def __init__(self, graph: Mapping[str, Any], fetch: Fetch, warn: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            graph: Of the prompt.
            fetch: Gets the bytes of a file; begun as soon as a node names one.
            warn: Told of what is left out.
        """
        self._graph, self._fetch, self._warn = graph, fetch, warn
        self._by_node: dict[str, _OfNode] = {}
        self._reported: dict[str, None] = {}
        self._given = 0

    @property
    def reported(self) -> KeysView[str]:
        """Ids of the nodes that said what they gave."""
        return self._reported.keys()

    @property
    def sent(self) -> set[str]:
        """Ids of the nodes that sent frames."""
        return {node for node, gave in self._by_node.items() if gave.frames}

    def take(self, node: str, output: Said) -> None:
        """Note what a node gave and begin to fetch it; the second time nothing happens."""
        if node in self._reported:
            return
        self._reported[node] = None
        gave = self._of(node)
        for ref in self._room_for(self._sound(node, _files(output))):
            gave.files.append((ref, asyncio.ensure_future(self._fetch(ref))))
        gave.texts += self._room_for(self._said(node, output))

    def take_frame(self, node: str, data: bytes) -> None:
        """Note a picture that a node sent over the socket."""
        self._of(node).frames += self._room_for([data])

    def promise(self, node: str, frames: float) -> None:
        """Note how many pictures a node is about to send."""
        if 0 < frames <= MOST_GIVEN:
            self._of(node).promised = int(frames)

    async def given(self, on_lost: Callable[[str, BackendError], None]) -> tuple[Given, ...]:
        """Wait for the bytes; return what came, in the order of the graph.

        Args:
            on_lost: Told the node of a file that cannot be had, and why.

        Raises:
            ServerGoneError: The server is gone.
        """
        order = {node: position for position, node in enumerate(self._graph)}

        def place(node: str) -> tuple[bool, int, str]:
            # What was saved comes before what was only looked at: it is the keyframe's picture.
            return self._by_node[node].is_temporary, order.get(root(node), len(order)), node

        given: list[Given] = []
        for node in sorted(self._by_node, key=place):
            gave = self._by_node[node]
            parts = [(data, "", False) for data in gave.frames]
            for ref, fetching in gave.files:
                try:
                    parts.append((await fetching, ref.filename, False))
                except ServerGoneError:
                    raise
                except BackendError as exc:
                    on_lost(node, exc)
            parts += [(text.encode("utf-8", "replace"), "", True) for text in gave.texts]
            given += [Given(node, index, *part) for index, part in enumerate(parts)]
            if 0 < len(gave.frames) < gave.promised:
                self._warn(
                    f"{len(gave.frames)} of {gave.promised} pictures of node "
                    f"{name_of(self._graph, node)} came: what is sent over the socket is lost "
                    "when it breaks. SaveImage keeps every one"
                )
        return tuple(given)

    async def drop(self) -> None:
        """Nobody wants the bytes any more, or all are here."""
        fetches = [fetching for gave in self._by_node.values() for _, fetching in gave.files]
        for fetching in fetches:
            fetching.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    def _of(self, node: str) -> _OfNode:
        return self._by_node.setdefault(node, _OfNode())

    def _sound(self, node: str, refs: Iterable[FileRef]) -> Iterator[FileRef]:
        """Leave out files that cannot be asked for."""
        for ref in refs:
            parts = (ref.filename, ref.subfolder, ref.type)
            if any(len(part) > LONGEST_NAME or has_lone_surrogate(part) for part in parts):
                name = name_of(self._graph, node)
                self._warn(f"node {name} named a file that cannot exist: {short(parts)}")
            else:
                yield ref

    def _said(self, node: str, output: Said) -> Iterator[str]:
        """Find the texts of a node, cut where they are endless."""
        texts = output.get("text", ())
        for said in texts if isinstance(texts, list | tuple) else (texts,):
            if not isinstance(said, str | int | float):
                continue
            text = str(said)
            if len(text) > LONGEST_TEXT:
                self._warn(
                    f"node {name_of(self._graph, node)} gave a text of {len(text):,} characters; "
                    f"the first {LONGEST_TEXT:,} are kept"
                )
            yield text[:LONGEST_TEXT]

    def _room_for(self, given: Iterable[T]) -> list[T]:
        """Return as much of it as a prompt may still give; say once that there was more."""
        taken = []
        for one in given:
            if self._given == MOST_GIVEN:
                text = f"the prompt gave more than {MOST_GIVEN:,} outputs; the rest is left out"
                self._warn(text)
            self._given += 1
            if self._given > MOST_GIVEN:
                break
            taken.append(one)
        return taken


def _files(output: Said) -> Iterator[FileRef]:
    for entries in output.values():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
                subfolder, folder = entry.get("subfolder") or "", entry.get("type") or "output"
                yield FileRef(entry["filename"], str(subfolder), str(folder))


def root(node: str) -> str:
    """Return the node of a graph that a node belongs to: "2" for "2.0.0.1", its expansion."""
    return node.partition(".")[0]


def class_of(graph: Mapping[str, Any], node: str) -> str:
    """Return the class of a node, or "" where the graph has no such node."""
    entry = graph.get(root(node))
    return str(entry.get("class_type", "")) if isinstance(entry, Mapping) else ""


def name_of(graph: Mapping[str, Any], node: str) -> str:
    """Return what to call a node: "9 (SaveImage)"."""
    return f"{node} ({class_of(graph, node)})"

"""What came out of a cell: plain values that every room shares.

A keyframe is one row of the log, even where its prompt gave several pictures. It holds no
pixels: an `Output` names bytes by their sha256, and a `Pictures` store (the log's folder, or
memory where there is no log) gives them when asked. So a thousand keyframes weigh little, and
one that came from a file, a socket or a query is the same thing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from comfynb.errors import KeyframeFailedError
from comfynb.scenes import Scene

if TYPE_CHECKING:
    from PIL import Image

Status = Literal[
    "queued", "submitted", "running", "done", "cached", "failed", "cancelled", "lost", "unknown"
]
"""Where a cell stands.

`cached`: found in the log. `lost`: the server forgot it. `unknown`: its server is not connected.
"""

Kind = Literal["image", "animation", "video", "audio", "text", "file"]
"""What an output is to who looks at it; a `file` is of a type that comfynb knows nothing of."""

ENDED: frozenset[Status] = frozenset({"done", "cached", "failed", "cancelled", "lost", "unknown"})
"""The statuses that a run does not change any more."""

MADE: frozenset[Status] = frozenset({"done", "cached"})
"""The statuses of what was made: all that its nodes gave is there."""


THUMBNAIL_PX = 384
"""Longer side of the small copies that are kept of pictures."""


class _Empty(Mapping[str, Any]):
    """A mapping with nothing in it that may be a default of dataclasses.

    `MappingProxyType({})` may not be one before Python 3.12: it has no hash.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return hash(())

    def __repr__(self) -> str:
        return "{}"


EMPTY: Mapping[str, Any] = _Empty()


class Pictures(Protocol):
    """Where the bytes of outputs are kept."""

    @property
    def leaves_out(self) -> tuple[str, ...]:
        """What is not kept with them: nothing, "workflows", or "prompts" and "workflows"."""
        return ()

    def read(self, sha256: str) -> bytes:
        """Return the bytes with that sha256.

        Raises:
            LogError: If they are not there any more.
        """

    def path(self, sha256: str, mime: str) -> Path | None:
        """Return the file that holds them, or None where they are kept in memory."""

    def workflow(self, keyframe: str) -> Mapping[str, Any] | None:
        """Return the graph of the keyframe with that id, or None where it is not kept.

        Raises:
            LogError: If it cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a node gave: a picture, a video, a sound, a text, a file.

    Attributes:
        node: Id of the node that gave it.
        index: Position among what that node gave, from 0.
        sha256: Of the bytes as the server sent them, or as a log keeps them that leaves prompts
            or workflows out; 64 hex digits.
        mime: Found from the bytes, such as "image/png"; "text/plain" for a text (UTF-8),
            "application/octet-stream" for a file of a type that is not known.
        bytes: Size of the file.
        width_px: Width of a picture in pixels; 0 for anything else.
        height_px: Height of a picture in pixels; 0 for anything else.
        frames: Of a picture; more than 1 where it moves.
    """

    node: str
    index: int
    sha256: str
    mime: str
    bytes: int
    width_px: int = 0
    height_px: int = 0
    frames: int = 1

    @property
    def kind(self) -> Kind:
        """What it is; follows from the type and the number of frames."""
        match self.mime.partition("/")[0]:
            case "image":
                return "animation" if self.frames > 1 else "image"
            case "video":
                return "video"
            case "audio":
                return "audio"
            case "text":
                return "text"
        return "file"

    @property
    def is_picture(self) -> bool:
        """Whether it can be opened as a picture: an image, or an animation's first frame."""
        return self.mime.startswith("image/")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no picture, in words that a user can act on.

    Attributes:
        kind: A short stable word: "rejected", "node_error", "server_gone", "bad_picture",
            "no_output", "log_write", "lost", "interrupted", ...
        message: What the server, or we, said; shortened.
        node: The node it is about, as "id (class)", or None.
        hint: What to do next, or "".
    """

    kind: str
    message: str
    node: str | None = None
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.kind}: {self.message}"
        if self.node:
            text += f" (node {self.node})"
        return f"{text}. {self.hint}" if self.hint else text


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the parts took, in milliseconds; None where it is not known.

    Attributes:
        queued_ms: From the POST until the server began.
        executing_ms: From then until its output node reported.
        fetch_ms: Getting the bytes.
        total_ms: From before the POST until the bytes were checked, waiting included.
    """

    queued_ms: float | None = None
    executing_ms: float | None = None
    fetch_ms: float | None = None
    total_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """One result: what was asked, what came, and how.

    Attributes:
        id: uuid5 of the prompt id, so that whoever finds the same prompt writes the same id.
        run: Id of the run that made it.
        key: Content key of its cell.
        scene: What was to be drawn.
        prompt: The positive text as sent (scene and style joined).
        negative: The negative text as sent.
        seed: 0 to 2**64 - 1.
        knobs: Every knob's value as sent.
        workflow: The graph as sent (API format), or None where the log left it out, as in long
            lists; `Workflow.load(keyframe)` finds it.
        axes: Label of this cell on each axis of its sweep.
        status: `done`, `cached`, `failed`, `cancelled` or `lost`.
        outputs: All that its nodes gave, in the order of the graph's output nodes; what was
            saved comes before what was only looked at (PreviewImage).
        error: Why it was not made, or None. What came before it broke off is in `outputs`.
        warnings: What went less than well although it was made.
        unknown_words: Words of the prompt that the model does not know.
        timings: How long it took.
        server: Label of the server, never with a token.
        server_version: What the server calls its version, or "".
        server_cached: The server reused a result of its own; its timings say nothing.
        take: The n-th keyframe of its place, from 1; numbered on read, else None.
        measures: Numbers measured on the picture later, by name.
        created_at: When it was made, UTC.
        rating: 1 to 5, or None; this and the three below were said about it later
            (`log.rate`, ...), and are as they were when it was read from the log.
        tags: Sorted.
        picked: Whether it was chosen.
        note: A text, or "".
        pictures: Where the bytes are.
    """

    id: str
    run: str
    key: str
    scene: Scene
    status: Status
    prompt: str = ""
    negative: str = ""
    seed: int = 0
    knobs: Mapping[str, Any] = EMPTY
    workflow: Mapping[str, Any] | None = field(default=None, repr=False)
    axes: Mapping[str, str] = EMPTY
    outputs: tuple[Output, ...] = ()
    error: Failure | None = None
    warnings: tuple[str, ...] = ()
    unknown_words: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)
    server: str = ""
    server_version: str = ""
    server_cached: bool = False
    take: int | None = None
    measures: Mapping[str, float] = EMPTY
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    rating: int | None = None
    tags: tuple[str, ...] = ()
    picked: bool = False
    note: str = ""
    pictures: Pictures | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Say which and how in a few words: lists of keyframes are what notebooks print."""
        return f"<Keyframe {self.scene.label}: {self.status}>"

    @property
    def ok(self) -> bool:
        """Whether it was made."""
        return self.status in MADE

    @property
    def seconds(self) -> float | None:
        """Seconds the server worked on it; where that was not seen, all that it took."""
        worked = self.timings.executing_ms or self.timings.total_ms
        return None if worked is None else worked / 1000

    @property
    def picture(self) -> Output | None:
        """The first picture among the outputs, which stands for the keyframe in a grid."""
        return next((output for output in self.outputs if output.is_picture), None)

    @property
    def path(self) -> Path | None:
        """File of the first picture, or of the first output where there is no picture.

        None without any, or where they are kept in memory.
        """
        output = self.picture or next(iter(self.outputs), None)
        if output is None or self.pictures is None:
            return None
        return self.pictures.path(output.sha256, output.mime)

    def read(self, output: int | None = None) -> bytes:
        """Return the bytes of an output, exactly as the server sent them.

        In a log that leaves prompts or workflows out, pictures are without what a server wrote
        into them beside their pixels.

        Args:
            output: Position in `outputs`; None: the first picture, or the first output where
                there is no picture.

        Raises:
            KeyframeFailedError: There is no output.
            IndexError: There is none at that position.
            LogError: If its file is gone.
        """
        if not self.outputs or self.pictures is None:
            raise KeyframeFailedError([(self.scene.id, str(self.error or self.status))])
        chosen = (self.picture or self.outputs[0]) if output is None else self.outputs[output]
        return self.pictures.read(chosen.sha256)

    @property
    def image(self) -> Image.Image:
        """The first picture as a PIL image, loaded when asked.

        Raises:
            KeyframeFailedError: If there is none.
            LogError: Its file is gone.
        """
        return self._open(self._first_picture())

    @property
    def thumbnail(self) -> Image.Image:
        """The first picture as a small PIL image, at most 384 px on its longer side.

        It comes from the log's thumbnail, and is quicker than `image` by far where there is one.

        Raises:
            KeyframeFailedError: If there is none.
            LogError: Its file is gone, or cannot be decoded.
        """
        self._first_picture()
        from comfynb.showing.shrink import thumbnail  # noqa: PLC0415 - as for `image`

        return thumbnail(self)

    def thumbnail_html(self, side_px: int = 128) -> str:
        """Return the first picture as an <img> of HTML, for a table of your own.

        It needs no file beside it. Where there is no picture it is a word that says why. As in
        `frame.style.format({"id": lambda id: by_id[id].thumbnail_html()})`.

        Args:
            side_px: Its longer side at most, in pixels of CSS, up to 384; about 3 kB at 96, 5 kB
                at 128. It is sharp on fine screens too.
        """
        from comfynb.showing import keyframe_card  # noqa: PLC0415 - only notebooks need it

        return keyframe_card.thumbnail(self, side_px)

    def _repr_html_(self) -> str:
        from comfynb.showing import keyframe_card  # noqa: PLC0415 - only notebooks need it

        return keyframe_card.card(self)

    @property
    def images(self) -> list[Image.Image]:
        """All pictures as PIL images, in the order of `outputs`; [] without any.

        An animation can be walked through with `seek`.

        Raises:
            LogError: A file is gone.
        """
        return [self._open(output) for output in self.outputs if output.is_picture]

    @property
    def text(self) -> str:
        """What the nodes that give text said, a line break between two texts; "" without any.

        Raises:
            LogError: A file is gone.
        """
        texts = (o.sha256 for o in self.outputs if o.kind == "text" and self.pictures is not None)
        return "\n".join(self._bytes(sha256).decode("utf-8", "replace") for sha256 in texts)

    def _first_picture(self) -> Output:
        picture = self.picture
        if picture is None or self.pictures is None:
            gave = ", ".join(dict.fromkeys(output.kind for output in self.outputs))
            reason = f"no picture, it gave: {gave}" if gave else str(self.error or self.status)
            raise KeyframeFailedError([(self.scene.id, reason)])
        return picture

    def _bytes(self, sha256: str) -> bytes:
        assert self.pictures is not None
        return self.pictures.read(sha256)

    def _open(self, output: Output) -> Image.Image:
        from PIL import Image  # noqa: PLC0415 - only those who look need Pillow

        return Image.open(io.BytesIO(self._bytes(output.sha256)))


def raise_for_failed(keyframes: Sequence[Keyframe]) -> None:
    """Raise one error that names every failed keyframe; return quietly if there is none.

    Raises:
        KeyframeFailedError: If a keyframe has no picture.
    """
    failures = [(k.scene.id, str(k.error or k.status)) for k in keyframes if not k.ok]
    if failures:
        raise KeyframeFailedError(failures)


__all__ = [
    "EMPTY",
    "ENDED",
    "MADE",
    "THUMBNAIL_PX",
    "Failure",
    "Keyframe",
    "Kind",
    "Output",
    "Pictures",
    "Status",
    "Timings",
    "raise_for_failed",
]

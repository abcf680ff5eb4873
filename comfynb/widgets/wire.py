"""What the kernel and a browser say to each other: every kind of message, listed once.

All are custom messages of the widget, `{v: 1, kind, client, ...}`, with pictures in buffers
beside them. A client is one copy of the widget's model in one browser tab; it chose its id by
itself, and ignores what names another. frontend/protocol.ts lists the same kinds.

What a browser says is data from a stranger: `parse` checks each field, its type and its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal, NotRequired, TypedDict, cast, get_args

from comfynb.keyframes import Kind, Status
from comfynb.log.marks import HIGHEST

VERSION: Final = 1
LARGEST_INDEX: Final = 2**31 - 1
MOST_CELLS: Final = 100_000
"""Cells that one message may name."""

Action = Literal["stop", "retry", "retry_failed", "pause", "resume", "regenerate", "snapshot"]
"""What a button may ask for."""

# Browser to kernel.


class Hello(TypedDict):
    """Begin, or begin again, to tell this client; `have`: the version it knows, 0: nothing."""

    v: int
    kind: Literal["hello"]
    client: str
    have: int


class Ack(TypedDict):
    """The batch of that number, and all that was sent before it, has been handled."""

    v: int
    kind: Literal["ack"]
    client: str
    seq: int


# In this form because "from" is a keyword.
See = TypedDict("See", {"v": int, "kind": Literal["see"], "client": str, "from": int, "to": int})
"""The cells `from` to `to - 1` are on screen."""


class Get(TypedDict):
    """Send an output in full."""

    v: int
    kind: Literal["get"]
    client: str
    req: str
    cell: int
    output: int


class Do(TypedDict):
    """Somebody pressed a button; `cells`: for these, else for all that it can mean."""

    v: int
    kind: Literal["do"]
    client: str
    req: str
    name: Action
    cells: NotRequired[list[int]]


class Rate(TypedDict):
    """Somebody rated a picture; `keyframe`: which one they saw, `rating`: 0 takes it back."""

    v: int
    kind: Literal["rate"]
    client: str
    req: str
    cell: int
    keyframe: str
    rating: int


class Pick(TypedDict):
    """Somebody chose a picture, or does so no longer; `keyframe`: which one they saw."""

    v: int
    kind: Literal["pick"]
    client: str
    req: str
    cell: int
    keyframe: str
    picked: bool


FromBrowser = Hello | Ack | See | Get | Do | Rate | Pick

# Kernel to browser.


class Can(TypedDict):
    """Which buttons work; `why` and `why_mark`: what to say where they do not."""

    stop: bool
    retry: bool
    mark: bool
    why: NotRequired[str]
    why_mark: NotRequired[str]


class Head(TypedDict):
    """The line above the tiles.

    `made`, `failed` and `total` count cells. `elapsed_s` is that of the active runs, or of the
    last one; `left_s` an estimate or None; `running` counts active runs. `sheet` is "old" where
    this page cannot refresh the contact sheet in the saved notebook.
    """

    made: int
    failed: int
    total: int
    elapsed_s: float
    left_s: float | None
    active: bool
    running: int
    paused: bool
    server: str
    connection: Literal["none", "connected", "reconnecting", "gone"]
    sheet: Literal["fresh", "old"]
    can: Can


class CellNews(TypedDict):
    """How a cell stands: `n` outputs, made in `ms` milliseconds; `stale`: out of date.

    `rating` and `picked` are what was said about its keyframe; without them, nothing was.
    """

    i: int
    status: Status
    stale: NotRequired[bool]
    step: NotRequired[float]
    steps: NotRequired[float]
    ms: NotRequired[float]
    n: NotRequired[int]
    take: NotRequired[int]
    rating: NotRequired[int]
    picked: NotRequired[bool]
    unknown_words: NotRequired[list[str]]


class PreviewOf(TypedDict):
    """A rough picture; its bytes are the buffer at the same place."""

    i: int
    mime: str


Batch = TypedDict(
    "Batch",
    {
        "v": int,
        "kind": Literal["batch"],
        "client": str,
        "seq": int,
        "from": int,
        "to": int,
        "head": Head,
        "cells": list[CellNews],
        "previews": list[PreviewOf],
    },
)
"""What changed between two versions of the board, as the latest state of each cell."""


class ErrorOf(TypedDict):
    """Why a cell has no picture."""

    kind: str
    message: str
    node: str | None
    hint: str


class OutputOf(TypedDict):
    """One thing that a cell gave; sides are 0 where it is no picture."""

    kind: Kind
    sha256: str
    mime: str
    width_px: int
    height_px: int
    bytes: int


class CellAbout(TypedDict):
    """All there is to say about a cell; seeds are text, they may exceed a browser's numbers.

    `keyframe` is the id of what came out, `tags` and `note` are what was said about it.
    """

    i: int
    id: str
    number: int
    title: str
    prompt: str
    negative: str
    seed: str
    knobs: dict[str, str]
    status: Status
    keyframe: NotRequired[str]
    tags: NotRequired[list[str]]
    note: NotRequired[str]
    error: NotRequired[ErrorOf]
    warnings: list[str]
    outputs: list[OutputOf]
    timings: dict[str, float]
    server: str
    version: NotRequired[str]


class About(TypedDict):
    """Cells that came on screen, or changed there."""

    v: int
    kind: Literal["about"]
    client: str
    cells: list[CellAbout]


class Thumb(TypedDict):
    """A small copy of a cell's first picture, as the buffer.

    Of a cell without pictures the beginning of its first text ("text/plain", UTF-8).
    """

    v: int
    kind: Literal["thumb"]
    client: str
    i: int
    sha256: str
    mime: str
    width_px: int
    height_px: int


class Full(TypedDict):
    """The answer to a `get`; the output is the buffer, exactly as the server made it."""

    v: int
    kind: Literal["full"]
    client: str
    req: str
    i: int
    output: int
    mime: str


class Reply(TypedDict):
    """The answer to a `do`, a `rate` or a `pick`, or to a `get` that failed."""

    v: int
    kind: Literal["reply"]
    client: str
    req: str
    ok: NotRequired[Literal[True]]
    error: NotRequired[str]


class Notice(TypedDict):
    """Something for the grid's own panel: prints of handlers are seen by nobody."""

    v: int
    kind: Literal["notice"]
    client: str
    level: Literal["error", "info"]
    text: str


ToBrowser = Batch | About | Thumb | Full | Reply | Notice


class WireError(ValueError):
    """A message that cannot be understood; the text says why.

    Attributes:
        client: Who sent it, or "" where that cannot be read either.
        req: Of the request that waits for an answer, or "".
    """

    def __init__(self, text: str, *, client: str = "", req: str = "") -> None:
        super().__init__(text)
        self.client, self.req = client, req


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= 2**53 - 1


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_INDEX


def _is_rating(value: object) -> bool:
    return type(value) is int and 0 <= value <= HIGHEST


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_action(value: object) -> bool:
    return isinstance(value, str) and value in get_args(Action)


def _is_cells(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_CELLS and all(map(_is_index, value))


_Check = Callable[[object], bool]
_FIELDS: Final[dict[str, dict[str, _Check]]] = {
    "hello": {"have": _is_count},
    "ack": {"seq": _is_count},
    "see": {"from": _is_index, "to": _is_index},
    "get": {"req": _is_id, "cell": _is_index, "output": _is_index},
    "do": {"req": _is_id, "name": _is_action},
    "rate": {"req": _is_id, "cell": _is_index, "keyframe": _is_id, "rating": _is_rating},
    "pick": {"req": _is_id, "cell": _is_index, "keyframe": _is_id, "picked": _is_bool},
}
_OPTIONAL: Final[dict[str, dict[str, _Check]]] = {"do": {"cells": _is_cells}}


def parse(content: object) -> FromBrowser:
    """Check what a browser said.

    Fields that are not known are left out, so that a newer front end may say more.

    Raises:
        WireError: It is not one of `FromBrowser`.
    """
    if not isinstance(content, dict):
        raise WireError(f"a message must be an object, not {type(content).__name__}")
    client = content.get("client")
    if not _is_id(client):
        raise WireError("a message must name its client by 1 to 64 letters, digits, _ or -")
    req = content.get("req")
    about: dict[str, str] = {"client": str(client), "req": str(req) if _is_id(req) else ""}
    if content.get("v") != VERSION:
        text = f"this kernel speaks version {VERSION}, not {_short(content.get('v'))}"
        raise WireError(f"{text}; reload the page", **about)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise WireError(f"there is no message of the kind {_short(kind)}", **about)
    message: dict[str, Any] = {"v": VERSION, "kind": kind, "client": client}
    for name, check in _FIELDS[kind].items():
        if not check(content.get(name)):
            raise WireError(f"{kind}: {name} cannot be {_short(content.get(name))}", **about)
        message[name] = content[name]
    for name, check in _OPTIONAL.get(kind, {}).items():
        if content.get(name) is not None:
            if not check(content[name]):
                raise WireError(f"{kind}: {name} cannot be {_short(content[name])}", **about)
            message[name] = content[name]
    return cast("FromBrowser", message)


def _short(value: object) -> str:
    if isinstance(value, list | dict) or (isinstance(value, str) and len(value) > 80):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > 2**63:
        return "so large a number"  # Python refuses to write the largest ones in digits
    return repr(value)

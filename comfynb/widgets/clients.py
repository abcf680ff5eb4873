"""What each browser tab is told, and how fast.

A message that a browser does not take in time is lost for good, without a word (measured: a
thousand pictures in flight lose dozens; the server drops above a rate). So nothing is sent faster
than it is acknowledged, and what was missed is never sent again but asked for again:

* the state goes out in numbered batches, at most four unacknowledged, each with the latest state
  of every cell that changed since the version before. A client that missed one says from which
  version on it wants to go on; a slow one is told less often and misses nothing;
* previews are part of the batches, newest only, for the cells on screen;
* thumbnails and descriptions are sent for the cells on screen; at most 24 thumbnails go beyond
  the last acknowledged batch.

A client that owes an acknowledgement for ten seconds (a closed laptop) is forgotten, until it
says hello again. Everything here runs on comfynb's own loop; pictures are read in workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from comfynb import loop
from comfynb.boards.board import Board
from comfynb.errors import ComfynbError, MarkError
from comfynb.keyframes import ENDED, MADE, Keyframe, Output
from comfynb.runs.states import CellState
from comfynb.widgets import telling
from comfynb.widgets.client import SILENCE_SECONDS, Client
from comfynb.widgets.wire import (
    VERSION,
    Ack,
    Action,
    CellAbout,
    Do,
    FromBrowser,
    Get,
    Head,
    Hello,
    Pick,
    PreviewOf,
    Rate,
    See,
    ToBrowser,
    WireError,
)

logger = logging.getLogger(__name__)

BATCH_SECONDS = 0.05
"""Between two batches to one client; the first after a pause goes at once."""
TICK_SECONDS = 1.0
"""How often the head is looked at while nothing else changes."""
FULL_COST = 6
LARGEST_SENT = 64_000_000
"""Bytes of an output that a page is sent; more would hold up everything else on the line."""
LONGEST_EXCERPT = 2000
"""Bytes of a text that stand for it in its tile."""
MOST_CLIENTS = 16
"""More are not remembered: the one that was heard longest ago goes."""
MOST_REQUESTS = 32
"""Requests of one client that may wait for their answer."""
READERS = 2
"""Pictures of one grid that are read or made smaller at once."""
ABOUTS_AT_ONCE = 50
PREVIEWS_AT_ONCE = 8

Request = Get | Do | Rate | Pick
"""What waits for an answer."""
Send = Callable[[ToBrowser, Sequence[bytes]], None]
Act = Callable[[Action, Sequence[int] | None, str], Awaitable[None]]
"""Does what a button asks for (its cells, the client); raises a ComfynbError where it cannot."""


class Clients:
    """All clients of one grid. Used on our loop only, but for being made."""

    def __init__(
        self, board: Board, *, send: Send, act: Act, stale_sheet: Callable[[str], bool]
    ) -> None:
        """Wait for clients to come; nothing is watched before.

        Args:
            board: What is shown.
            send: Takes a message and its buffers.
            act: Does what a button asks for.
            stale_sheet: Whether the saved contact sheet is out of a client's reach.
        """
        self._board, self._send, self._act, self._stale_sheet = board, send, act, stale_sheet
        self._clients: dict[str, Client] = {}
        self._doing: set[asyncio.Future[None]] = set()
        self._reading = asyncio.Semaphore(READERS)
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._clients)

    def close(self) -> None:
        """Tell nobody anything any more."""
        for client in list(self._clients.values()):
            self._forget(client)

    # -- hearing

    def hear(self, message: FromBrowser) -> None:
        """Take what a client says."""
        client = self._clients.get(message["client"])
        if message["kind"] == "hello":
            client = client or self._welcome(message["client"])
            client.heard_at = time.monotonic()
            client.hello(self._known(message))
            return
        if client is None:
            self._where_we_are(message["client"])
            if message["kind"] in ("get", "do", "rate", "pick"):
                self._reply(message, error="this page was not heard of for a while; try again")
            return
        client.heard_at = time.monotonic()
        self._take(client, message)

    def _take(self, client: Client, message: Ack | See | Request) -> None:
        match message["kind"]:
            case "ack":
                client.ack(message["seq"])
            case "see":
                count = len(self._board.state.cells)
                client.see(range(min(message["from"], count), min(message["to"], count)))
            case "get" | "do" | "rate" | "pick" if client.waiting >= MOST_REQUESTS:
                self._reply(message, error="too many requests at once")
            case "get":
                self._begin(client, self._full(client, message))
            case "do":
                deed = self._act(message["name"], message.get("cells"), client.id)
                self._do(client, message, deed)
            case "rate" | "pick":
                self._do(client, message, self._mark(client, message))

    def refuse(self, error: WireError) -> None:
        """Answer a message that could not be understood."""
        if error.req:
            self._post({**self._to(error.client, "reply"), "req": error.req, "error": str(error)})
        elif error.client:
            self.notice(error.client, str(error))

    def notice(self, client: str, text: str) -> None:
        """Show an error in the panel of one client."""
        self._post({**self._to(client, "notice"), "level": "error", "text": text})

    def notice_all(self, text: str) -> None:
        """Show an error in the panel of every client."""
        for client in self._clients:
            self.notice(client, text)

    # -- clients come and go

    def _welcome(self, client_id: str) -> Client:
        while len(self._clients) >= MOST_CLIENTS:
            self._forget(min(self._clients.values(), key=lambda c: c.heard_at))
        client = self._clients[client_id] = Client(client_id)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="comfynb-grid")
        for work in (self._feed, self._feed_thumbs):
            self._begin(client, work(client), request=False)
        return client

    def _forget(self, client: Client) -> None:
        self._clients.pop(client.id, None)
        for task in list(client.tasks):
            task.cancel()
        if not self._clients and self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _begin(
        self, client: Client, work: Coroutine[Any, Any, None], *, request: bool = True
    ) -> None:
        """Do something for a client; an error of our own is shown to it."""

        async def guarded() -> None:
            try:
                await work
            except Exception as exc:
                logger.exception("the grid met an error of comfynb's own")
                self.notice(client.id, f"an error of comfynb's own: {exc!r}; please report it")
                if not request:
                    self._forget(client)

        def done(task: asyncio.Task[None]) -> None:
            work.close()  # it may have been cancelled before it began
            client.tasks.discard(task)
            client.waiting -= request

        client.waiting += request
        task = asyncio.get_running_loop().create_task(guarded())
        client.tasks.add(task)
        task.add_done_callback(done)

    async def _watch(self) -> None:
        async for _ in self._board.subscribe():
            for client in self._clients.values():
                client.wake.set()
                client.wake_thumbs.set()

    def _known(self, message: Hello) -> int:
        """Return the version a client has; one of another life counts as nothing."""
        have = message["have"]
        return have if have <= self._board.state.version else 0

    # -- batches

    async def _feed(self, client: Client) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await client.wake.wait()
            client.wake.clear()
            if client.silent:
                logger.debug("a page was silent for %g s", SILENCE_SECONDS)
                self._forget(client)
                return
            if client.credit and self._tell(client):
                await asyncio.sleep(BATCH_SECONDS)

    def _tell(self, client: Client) -> bool:
        """Send what changed, if anything did."""
        changes = self._board.changes(client.version)
        head = telling.head(self._board, stale_sheet=self._stale_sheet(client.id))
        abouts = self._abouts(client)
        if abouts:
            self._post({**self._to(client.id, "about"), "cells": abouts})
        if not (
            client.owed
            or abouts
            or client.pictures_unmarked
            or changes.version > client.version
            or _head_changed(client, head)
        ):
            return False
        previews, buffers = self._previews(client, changes.cells)
        self._post(
            {
                **self._to(client.id, "batch"),
                "seq": client.next_seq(),
                "from": client.version,
                "to": changes.version,
                "head": head,
                "cells": [telling.news(state) for state in changes.cells],
                "previews": previews,
            },
            buffers,
        )
        client.version, client.head, client.owed = changes.version, head, False
        if len(abouts) == ABOUTS_AT_ONCE:
            client.wake.set()
        return True

    def _where_we_are(self, client_id: str) -> None:
        """Tell a client that we forgot where the board stands, so that it can see a gap."""
        version = self._board.state.version
        self._post(
            {
                **self._to(client_id, "batch"),
                "seq": 0,
                "from": version,
                "to": version,
                "head": telling.head(self._board, stale_sheet=self._stale_sheet(client_id)),
                "cells": [],
                "previews": [],
            }
        )

    def _previews(
        self, client: Client, changed: Sequence[CellState]
    ) -> tuple[list[PreviewOf], list[bytes]]:
        """Return the rough pictures that are new on its screen, and their bytes."""
        sent: list[tuple[int, bytes]] = []
        for state in changed:
            index, data = state.cell.index, state.preview
            if data is None or index not in client.visible:
                client.previews.pop(index, None)
            elif data is not client.previews.get(index) and len(sent) < PREVIEWS_AT_ONCE:
                client.previews[index] = data
                sent.append((index, data))
        return [{"i": i, "mime": _mime(data)} for i, data in sent], [data for _, data in sent]

    def _abouts(self, client: Client) -> list[CellAbout]:
        """Describe cells on screen that were not described as they are now."""
        abouts = []
        for state in self._seen(client):
            k = state.keyframe
            made = None if k is None else (k.id, k.status, k.tags, k.note)
            said = (state.cell.key, state.status in ENDED, made)
            if client.told.get(state.cell.index) != said:
                client.told[state.cell.index] = said
                abouts.append(telling.about(state))
                if len(abouts) == ABOUTS_AT_ONCE:
                    break
        return abouts

    def _seen(self, client: Client) -> Sequence[CellState]:
        return self._board.state.cells[client.visible.start : client.visible.stop]

    # -- pictures

    async def _feed_thumbs(self, client: Client) -> None:
        while True:
            await client.wake_thumbs.wait()
            client.wake_thumbs.clear()
            while client.picture_credit and (wanted := self._next_thumb(client)):
                await self._thumb(client, *wanted)

    def _next_thumb(self, client: Client) -> tuple[int, Keyframe, Output] | None:
        for state in self._seen(client):
            keyframe = state.keyframe
            output = None if keyframe is None else _shown(keyframe)
            if keyframe is not None and output is not None:
                sent = client.thumbs.get(state.cell.index)
                if sent is None or sent[0] != output.sha256:
                    return state.cell.index, keyframe, output
        return None

    async def _thumb(self, client: Client, index: int, keyframe: Keyframe, output: Output) -> None:
        try:
            async with self._reading:
                data = await loop.in_worker(_small, keyframe, output)
        except (ComfynbError, OSError) as exc:
            if index in client.visible:
                client.thumbs[index] = (output.sha256, 0)  # not again and again
                self.notice(client.id, f"{keyframe.scene.label}: {exc}")
            return
        if index not in client.visible:
            return
        client.thumbs[index] = (output.sha256, client.pay())
        self._post(
            {
                **self._to(client.id, "thumb"),
                "i": index,
                "sha256": output.sha256,
                "mime": _mime(data) if output.is_picture else output.mime,
                "width_px": output.width_px,
                "height_px": output.height_px,
            },
            [data],
        )
        client.wake.set()

    async def _full(self, client: Client, message: Get) -> None:
        cells = self._board.state.cells
        index, number = message["cell"], message["output"]
        keyframe = cells[index].keyframe if index < len(cells) else None
        if keyframe is None or number >= len(keyframe.outputs):
            self._reply(message, error="there is no such output")
            return
        output = keyframe.outputs[number]
        if output.kind == "file" or output.bytes > LARGEST_SENT:
            size = f"{output.bytes / 1e6:,.1f} MB"
            why = "no browser shows it" if output.kind == "file" else "too large for a page"
            self._reply(message, error=f"{size}, {why}; the keyframe's .read({number}) gives it")
            return
        await client.until_picture_credit()
        client.pay(FULL_COST)
        try:
            async with self._reading:
                data = await loop.in_worker(keyframe.read, number)
        except (ComfynbError, OSError) as exc:
            self._reply(message, error=str(exc))
            client.wake.set()
            return
        self._post(
            {
                **self._to(client.id, "full"),
                "req": message["req"],
                "i": index,
                "output": number,
                "mime": output.mime,
            },
            [data],
        )
        client.wake.set()

    # -- buttons and marks

    def _do(self, client: Client, message: Do | Rate | Pick, deed: Awaitable[None]) -> None:
        """Do something in a task of its own: a page that goes away does not take it along."""
        doing = asyncio.ensure_future(deed)
        self._doing.add(doing)
        doing.add_done_callback(self._done)
        self._begin(client, self._answer(client, message, doing))

    async def _mark(self, client: Client, message: Rate | Pick) -> None:
        """Keep what somebody said about the picture that they saw, and about no other."""
        index, cells = message["cell"], self._board.state.cells
        keyframe = cells[index].keyframe if index < len(cells) else None
        if keyframe is None or keyframe.id != message["keyframe"]:
            client.told.pop(index, None)  # the description may have been lost on the way
            raise MarkError("another picture has come to this place meanwhile; look at it first")
        if message["kind"] == "rate":
            await self._board.rate(keyframe, message["rating"] or None)
        else:
            await self._board.pick(keyframe, picked=message["picked"])

    def _done(self, doing: asyncio.Future[None]) -> None:
        self._doing.discard(doing)
        if not doing.cancelled():
            doing.exception()  # seen, also where nobody is left to be answered

    async def _answer(
        self, client: Client, message: Do | Rate | Pick, doing: asyncio.Future[None]
    ) -> None:
        try:
            await asyncio.shield(doing)
        except ComfynbError as exc:
            self._reply(message, error=str(exc))
            client.wake.set()
            return
        except Exception as exc:
            logger.exception("a button met an error of comfynb's own")
            self._reply(message, error=f"an error of comfynb's own: {exc!r}; please report it")
            return
        self._reply(message)
        client.wake.set()

    def _reply(self, message: Request, *, error: str | None = None) -> None:
        answer: dict[str, Any] = {"ok": True} if error is None else {"error": error}
        self._post({**self._to(message["client"], "reply"), "req": message["req"], **answer})

    # -- sending

    def _to(self, client_id: str, kind: str) -> dict[str, Any]:
        return {"v": VERSION, "kind": kind, "client": client_id}

    def _post(self, message: Any, buffers: Sequence[bytes] = ()) -> None:
        self._send(message, buffers)


def _head_changed(client: Client, head: Head) -> bool:
    """Whether a client is to be sent the head; the times alone only now and then."""
    if client.head is None:
        return True
    if head["active"] and time.monotonic() - client.told_at >= TICK_SECONDS:
        return True
    times = {"elapsed_s": 0.0, "left_s": None}
    return {**head, **times} != {**client.head, **times}


def _shown(keyframe: Keyframe) -> Output | None:
    """Return what stands for a keyframe in its tile: the first picture, else the first text."""
    if keyframe.status not in MADE:
        return None
    texts = (output for output in keyframe.outputs if output.kind == "text")
    return keyframe.picture or next(texts, None)


def _small(keyframe: Keyframe, output: Output) -> bytes:
    """Return a picture's thumbnail, or the beginning of a text; in a worker."""
    assert keyframe.pictures is not None, "what was made is kept somewhere"
    if output.kind == "text":
        begun = keyframe.pictures.read(output.sha256)[:LONGEST_EXCERPT]
        return begun.decode("utf-8", "ignore").encode()
    from comfynb.showing.shrink import smallest  # noqa: PLC0415 - Pillow takes a while

    small = smallest(keyframe)
    return small if isinstance(small, bytes) else small.read_bytes()


def _mime(data: bytes) -> str:
    """Tell the type from the bytes; previews come as JPEG or PNG, thumbnails as WebP."""
    if data[:4] == b"RIFF":
        return "image/webp"
    return "image/png" if data[:4] == b"\x89PNG" else "image/jpeg"

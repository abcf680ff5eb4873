"""The static twin: a contact sheet beside the live grid, for when there is no kernel.

A saved notebook keeps no widget, only its id. So a sibling output is displayed under a display
id: words at first, then one small JPEG, refreshed now and then and at the end. The live view
hides it. It is what nbconvert, GitHub and a notebook opened tomorrow show.

A page that was reloaded has forgotten display ids: it cannot take a refresh any more (measured),
and shows the sheet as it was saved. `out_of_reach` says so, `show` displays it anew.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import logging
import time
import uuid
from typing import Any

from comfynb import loop
from comfynb.boards.board import Board
from comfynb.runs.states import Snapshot
from comfynb.widgets import notebook

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 30.0
SETTLE_SECONDS = 2.0
"""What changes so soon after a run was active, it made."""
LARGEST_JPEG = 150_000
"""Bytes; a third more where a notebook holds it as base64: 200 kB."""
MARK = "comfynb contact sheet"
"""How the front end knows the twin: its text begins so, and its JPEG has this comment."""
MOST_PAGES = 64

Bundle = dict[str, str]


class Twin:
    """The contact sheet of one grid. `show` and `settle` are called in a notebook's cell."""

    def __init__(self, board: Board) -> None:
        """Prepare; nothing is drawn or shown.

        Args:
            board: What it shows.
        """
        self._board = board
        self._display_id = f"comfynb-{uuid.uuid4().hex}"
        self._context: contextvars.Context | None = None
        self._bundle: Bundle = {}
        self._drawn: object = None
        self._drawn_at = time.monotonic()
        self._drawing = asyncio.Lock()
        self._revision = 0
        self._page_expected = False
        self._pages: dict[str, int | None] = {}  # revision they came at; None: they have it all

    @property
    def shown(self) -> bool:
        """Whether it is displayed somewhere."""
        return self._context is not None

    def show(self) -> None:
        """Display it in the cell that runs, in words as long as there is no picture yet."""
        if self._board.active:
            self._bundle = {"text/plain": _words(self._board)}
        else:
            self._drawn = _fingerprint(self._board.state)
            self._bundle = _drawn(self._board)
        # Refreshes come from other threads and are to count as output of this cell.
        self._context = contextvars.copy_context()
        self._page_expected = not self._pages
        self._pages = dict.fromkeys(self._pages)
        self._publish(self._bundle, update=False)

    async def settle(self) -> None:
        """Show the last word as output of the cell that runs; awaited on any loop.

        nbconvert takes a refresh only from the cell that it is running at that moment.
        """
        if self.shown:
            self._publish(await loop.across(self._current()), update=True)

    def block_until_settled(self) -> None:
        """Do as `settle`, but block."""
        if self.shown:
            self._publish(loop.wait(self._current()), update=True)

    async def watch(self) -> None:
        """Refresh it while runs are active, and when they end; on our loop, for ever.

        What other notebooks make comes when nobody knows whether it is the last: now and then.
        """
        later: asyncio.Task[None] | None = None
        active_at = time.monotonic()
        try:
            async for _ in self._board.subscribe(look=False):
                now = time.monotonic()
                if self._board.active:
                    active_at = now
                just_ended = not self._board.active and now - active_at < SETTLE_SECONDS
                if self.shown and (just_ended or now - self._drawn_at >= REFRESH_SECONDS):
                    await self.refresh()
                elif self.shown and not self._board.active and (later is None or later.done()):
                    later = asyncio.create_task(self._refresh_later(), name="comfynb-twin-later")
        finally:
            if later is not None:
                later.cancel()

    async def _refresh_later(self) -> None:
        await asyncio.sleep(REFRESH_SECONDS)
        await self.refresh()

    async def refresh(self) -> None:
        """Show what is new, if anything; on our loop."""
        assert self._context is not None
        if self._drawn != _fingerprint(self._board.state):
            bundle = await self._current()
            # In a worker: a kernel's publisher may wait for its standard output.
            await loop.in_worker(self._context.copy().run, self._publish, bundle, update=True)

    async def _current(self) -> Bundle:
        """Return it as of now; on our loop."""
        async with self._drawing:
            fingerprint = _fingerprint(self._board.state)
            if fingerprint != self._drawn:
                self._bundle = await loop.in_worker(_drawn, self._board)
                self._drawn, self._drawn_at = fingerprint, time.monotonic()
                self._revision += 1
            return self._bundle

    def _publish(self, bundle: Bundle, *, update: bool) -> None:
        notebook.display(bundle, display_id=self._display_id, update=update)

    def met(self, page: str) -> None:
        """Note a page that shows the grid, when it says hello."""
        if page not in self._pages:
            # The first one is that of the cell; those that come later have been reloaded.
            self._pages[page] = None if self._page_expected else self._revision
            self._page_expected = False
            if len(self._pages) > MOST_PAGES:
                del self._pages[next(iter(self._pages))]

    def out_of_reach(self, page: str) -> bool:
        """Whether a page was reloaded before the last refresh, and so has missed it."""
        came_at = self._pages.get(page)
        return self.shown and came_at is not None and came_at < self._revision


def _fingerprint(state: Snapshot) -> object:
    """Return what tells two sheets apart."""
    ended = (s.keyframe for s in state.cells)
    return tuple(None if k is None else (k.id, k.status) for k in ended)


def _words(board: Board) -> str:
    from comfynb.showing.sheet import summary  # noqa: PLC0415 - Pillow, once there is something to show

    state = board.state
    title = f"{board.title}: " if board.title else ""
    lines = [f"{MARK}: {title}{summary([s.keyframe or s.cell for s in state.cells])}"]
    failed = [s for s in state.cells if s.keyframe is not None and s.keyframe.error is not None]
    lines += [f"{s.cell.scene.label}: {s.keyframe.error}" for s in failed[:10] if s.keyframe]
    return "\n".join(lines)


def _drawn(board: Board) -> Bundle:
    """Draw it, or say why not: nobody's pictures shall be held up by it."""
    try:
        return _draw(board)
    except Exception as exc:
        logger.exception("the contact sheet cannot be drawn")
        return {"text/plain": f"{_words(board)}\nThe sheet cannot be drawn: {exc!r}"}


def _draw(board: Board) -> Bundle:
    """Draw it; in a worker."""
    from comfynb.showing.sheet import contact_sheet, encode_jpeg  # noqa: PLC0415 - as above

    state = board.state
    bundle = {"text/plain": _words(board)}
    if not state.made and board.active:
        return bundle
    sheet = contact_sheet(
        [s.keyframe or s.cell for s in state.cells],
        title=board.title,
        tile_px=_tile_px(len(state.cells)),
    )
    sheet.info["comment"] = MARK.encode()
    jpeg = encode_jpeg(sheet, max_bytes=LARGEST_JPEG)
    bundle["image/jpeg"] = base64.b64encode(jpeg).decode()
    return bundle


def _tile_px(count: int) -> int:
    """Return the width of a tile that lets the sheet fit without spoiling it."""
    return 256 if count <= 16 else 192 if count <= 40 else 128


def wanted(option: Any) -> bool:
    """Read `static_twin`: True, False, or "auto" for wherever the live view can hide it.

    Raises:
        ValueError: It is something else.
    """
    if option not in (True, False, "auto"):
        raise ValueError(f"static_twin must be True, False or 'auto', not {option!r}")
    return not notebook.shows_twins_twice() if option == "auto" else bool(option)

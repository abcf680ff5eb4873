"""What a board shares with other processes through its log.

Two notebooks on one log see each other's pictures and marks. As long as somebody looks at a board,
it follows the log: a picture that another process made for the same content is shown, and a cell
that still waits for it here takes it instead of making it again; what is said about a picture
appears wherever it is shown. While nobody looks nothing is read, and who looks again is brought
up to date first.

What is deleted elsewhere is shown no longer. Its cell says so, as one that was cancelled, and can
be made anew: by Retry the same, by Regenerate another. When it is restored, it is shown again.

A board of an opened log also goes along with later runs over its storyboard (continuity.py): it
shows at any moment what it would show if it were laid out then, and that something was sent and is
being made elsewhere. Who made that may die without a word. So as long as anything is being made it
is laid out anew now and then. A board with a server shows what its own cells ask for, whatever
others change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from comfynb import loop
from comfynb.boards.laying_out import LayOut, Layout
from comfynb.errors import LogError
from comfynb.keyframes import ENDED, MADE, Keyframe
from comfynb.log import Log, News, SubmittedRecord
from comfynb.log.listing import extent
from comfynb.runs.making import making
from comfynb.runs.results import deleted, shared
from comfynb.runs.run import Run
from comfynb.runs.states import CellState, States

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""Between two layouts while anything is being made elsewhere."""


class Sharing:
    """Keeps the states of a board in step with a log while somebody looks. Used on our loop.

    Args:
        log: Which.
        states: Of the board.
        runs: Returns those that feed it.
    """

    def __init__(self, log: Log, states: States, *, runs: Callable[[], Sequence[Run]]) -> None:
        self._log, self._states, self._runs = log, states, runs
        self._lay_out: LayOut | None = None
        self._layout: Layout | None = None
        self._due = 0.0  # when it is to be laid out again at the latest, where anything is sent
        self._lookers = 0
        self._following: asyncio.Task[None] | None = None

    def go_along(self, layout: Layout, lay_out: LayOut) -> None:
        """Show what the log has, from now on; for a board without a server, before any look.

        Args:
            layout: How it is shown now.
            lay_out: Lays it out anew.
        """
        self._layout, self._lay_out = layout, lay_out

    def look(self) -> None:
        """Somebody looks."""
        self._lookers += 1
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name="comfynb-sharing")

    def leave(self) -> None:
        """Somebody looks no longer."""
        self._lookers -= 1
        if not self._lookers:
            self.close()

    def close(self) -> None:
        """Follow no longer."""
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def _follow(self) -> None:
        heard: asyncio.Queue[News] = asyncio.Queue()
        async with self._log.lookout.joined(heard.put_nowait):
            await _told(self._catch_up())
            while True:
                try:
                    async with asyncio.timeout_at(self._due if self._sent() else None):
                        news = await heard.get()
                except TimeoutError:
                    await _told(self._catch_up())
                else:
                    await _told(self._take(news))

    async def _catch_up(self) -> None:
        if self._layout is not None and not self._sent():
            now = await loop.in_worker(extent, self._log.folder)
            if now == self._layout.extent:
                return  # nothing was appended since
        if not await self._lay_out_anew():
            await self._compare(self._states.snapshot().cells)

    async def _take(self, news: News) -> None:
        if self._may_change_the_board(news) and await self._lay_out_anew():
            return
        self._meet(news.keyframes)
        if self._lay_out is not None:
            self._send(news.submitted)
        about = {mark.keyframe for mark in news.marks}
        cells = self._states.snapshot().cells
        await self._compare([s for s in cells if s.keyframe and s.keyframe.id in about])

    # -- boards of opened logs

    def _may_change_the_board(self, news: News) -> bool:
        scenes = {state.cell.scene.id for state in self._states.snapshot().cells}
        return any(mark.field == "deleted" for mark in news.marks) or any(
            cell.scene in scenes for run in news.runs for cell in run.cells
        )

    async def _lay_out_anew(self) -> bool:
        """Take over how the log stands; return whether it still has what is shown."""
        if self._lay_out is None or self._layout is None:
            return False
        self._due = asyncio.get_running_loop().time() + AGAIN_SECONDS
        layout = await loop.in_worker(self._lay_out, self._layout.storyboard)
        if not layout.goes_on_with(self._layout):
            return False  # what was shown was deleted, run and all
        self._layout = layout
        for before, state in zip(self._states.snapshot().cells, layout.cells, strict=True):
            if _what(state) != _what(before):
                self._states.adopt(state)
        return True

    def _sent(self) -> bool:
        """Whether anything is shown as being made elsewhere."""
        cells = self._states.snapshot().cells if self._lay_out is not None else ()
        return any(state.status == "submitted" for state in cells)

    def _send(self, submitted: Iterable[SubmittedRecord]) -> None:
        """Show what was sent, and is being made, where nothing has come of it yet."""
        sent = {record.key: record.created_at for record in submitted}
        for state in self._states.snapshot().cells if sent else ():
            at, shown = sent.get(state.cell.key), state.keyframe
            if at is None or (shown is not None and not state.stale and _settles(shown, at)):
                continue
            older = shown if state.stale else None
            self._states.adopt(replace(state, status="submitted", keyframe=older))

    # -- pictures

    async def _compare(self, cells: Collection[CellState]) -> None:
        """Bring some cells up to date, pictures and marks."""
        if not cells:
            return
        shown = [state.keyframe for state in cells if state.keyframe is not None]
        keys = {state.cell.key for state in cells} | {keyframe.key for keyframe in shown}
        found = await loop.in_worker(self._log.current, "key", keys)
        missing = {keyframe.id for keyframe in shown if keyframe.ok} - {k.id for k in found}
        if missing:
            self._empty(await loop.in_worker(_deleted, self._log, missing))
        self._meet(found)
        self._mark(found)

    def _empty(self, gone: Collection[str]) -> None:
        """Show what was deleted no longer."""
        for state in self._states.snapshot().cells:
            if state.keyframe is not None and state.keyframe.id in gone and state.keyframe.ok:
                making(self._log).forget(state.cell.key)
                self._states.refresh(state.cell, deleted(state.keyframe))

    def _meet(self, keyframes: Iterable[Keyframe]) -> None:
        """Show what was made elsewhere, where it is better than what is shown."""
        best = {keyframe.key: keyframe for keyframe in sorted(keyframes, key=_worth)}
        runs = [run for run in self._runs() if not run.ended]
        for run in runs:
            for keyframe in best.values():
                run.meet(keyframe)
        for state in self._states.snapshot().cells if best else ():
            made = best.get(state.cell.key)
            if made is None or (runs and state.status not in ENDED):
                continue  # a run of ours will end it
            shown = state.keyframe
            if shown is None or state.stale or _worth(shown) < _worth(made):
                ours = made if self._lay_out is not None else shared(state.cell, made)
                self._states.refresh(state.cell, ours)

    # -- marks

    def _mark(self, keyframes: Iterable[Keyframe]) -> None:
        """Take over what is said about keyframes that are shown."""
        for keyframe in keyframes:
            self._states.mark(
                keyframe.id,
                rating=keyframe.rating,
                tags=keyframe.tags,
                picked=keyframe.picked,
                note=keyframe.note,
            )


async def _told(work: Awaitable[None]) -> None:
    """Do something that reads the log; what goes wrong is said, and the board goes on."""
    try:
        await work
    except LogError as exc:
        logger.warning("a board could not be brought up to date: %s", exc)


def _worth(keyframe: Keyframe) -> tuple[bool, datetime]:
    """Return what tells which of two keyframes is shown: a picture first, then the later one."""
    return keyframe.status in MADE, keyframe.created_at


def _settles(keyframe: Keyframe, sent_at: datetime) -> bool:
    """Whether it says more of its cell than that something was sent for it."""
    return keyframe.ok or keyframe.created_at >= sent_at


def _deleted(log: Log, ids: Collection[str]) -> frozenset[str]:
    """Return which of some keyframes are deleted; what is merely not found may be on its way."""
    last = {mark.keyframe: mark.value for mark in log.marks() if mark.field == "deleted"}
    return frozenset(keyframe for keyframe in ids if last.get(keyframe) is True)


def _what(state: CellState) -> object:
    return state.cell, state.status, state.keyframe, state.stale

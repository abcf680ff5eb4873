"""What a board shares with other processes through its log.

Two notebooks on one log see each other's pictures and marks. As long as somebody looks at a board,
it follows the log: a picture that another process made for the same content is shown, and a cell
that still waits for it here takes it instead of making it again; what is said about a picture
appears wherever it is shown. While nobody looks nothing is read, and who looks again is brought
up to date first.

A board of an opened log also goes along with later runs over its storyboard: it shows at any moment
what it would show if it were laid out then. A board with a server shows what its own cells ask
for, whatever others change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime

from comfynb import loop
from comfynb.errors import LogError
from comfynb.keyframes import ENDED, MADE, Keyframe
from comfynb.log import Log, News
from comfynb.runs.results import shared
from comfynb.runs.run import Run
from comfynb.runs.states import CellState, States

logger = logging.getLogger(__name__)

LayOut = Callable[[], tuple[str, Sequence[CellState]]]
"""Reads a log, in a worker; returns the title of what it lays out, and how the cells stand."""


class Sharing:
    """Keeps the states of a board in step with a log while somebody looks. Used on our loop.

    Args:
        log: Which.
        states: Of the board.
        runs: Returns those that feed it.
        lay_out: For a board without a server: how it stands in the log now.
        title: Of the board.
    """

    def __init__(
        self,
        log: Log,
        states: States,
        *,
        runs: Callable[[], Sequence[Run]],
        lay_out: LayOut | None = None,
        title: str = "",
    ) -> None:
        self._log, self._states, self._runs = log, states, runs
        self._lay_out, self._title = lay_out, title
        self._lookers = 0
        self._following: asyncio.Task[None] | None = None

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
                await _told(self._take(await heard.get()))

    async def _catch_up(self) -> None:
        if self._lay_out is not None and await self._lay_out_anew(self._lay_out):
            return
        keys = {state.cell.key for state in self._states.snapshot().cells}
        found = await loop.in_worker(self._log.current, "key", keys)
        self._meet(found)
        self._mark(found)

    async def _take(self, news: News) -> None:
        if (
            self._lay_out is not None
            and self._may_change_the_board(news)
            and await self._lay_out_anew(self._lay_out)
        ):
            return
        self._meet(news.keyframes)
        about = {mark.keyframe for mark in news.marks} & set(self._shown())
        if about:
            self._mark(await loop.in_worker(self._log.current, "id", about))

    def _may_change_the_board(self, news: News) -> bool:
        scenes = {state.cell.scene.id for state in self._states.snapshot().cells}
        return any(mark.field == "deleted" for mark in news.marks) or any(
            cell.scene in scenes for run in news.runs for cell in run.cells
        )

    async def _lay_out_anew(self, lay_out: LayOut) -> bool:
        """Take over how the log stands; return whether it is still about this board."""
        title, now = await loop.in_worker(lay_out)
        shown = self._states.snapshot().cells
        if title != self._title or _scenes(now) != _scenes(shown):
            return False  # its latest run is about something else by now
        for before, state in zip(shown, now, strict=True):
            if _what(state) != _what(before):
                self._states.adopt(state)
        return True

    # -- pictures

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

    def _shown(self) -> Iterable[str]:
        cells = self._states.snapshot().cells
        return (state.keyframe.id for state in cells if state.keyframe is not None)

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


def _scenes(states: Iterable[CellState]) -> list[str]:
    return [state.cell.scene.id for state in states]


def _what(state: CellState) -> object:
    return state.cell, state.status, state.keyframe, state.stale

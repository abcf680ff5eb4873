"""Cells and their latest keyframes, fed by any number of runs, or by none.

A run ends and stays ended; a board goes on: Retry and Regenerate start new runs over some of its
cells, and an opened log gives a board that no run ever feeds. The grid shows a board. To its
runs a board is a watcher like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from functools import partial
from typing import Protocol

from comfynb import loop
from comfynb.boards.laying_out import lay_out
from comfynb.boards.sharing import Sharing
from comfynb.cells import Cell
from comfynb.errors import ClosedError, MarkError
from comfynb.keyframes import ENDED, Keyframe, Status
from comfynb.log import Log, Store
from comfynb.log.marks import Marking, marking
from comfynb.loop import Signal
from comfynb.runs.run import Run
from comfynb.runs.states import CellState, Changes, Snapshot, States


class StartRun(Protocol):
    """Starts a run over some cells of a board."""

    def __call__(
        self, indices: Collection[int], *, force: bool, next_seed: bool, resubmit_lost: bool
    ) -> Run:
        """Start it; see `Board.begin`."""


class Board:
    """Cells and their latest keyframes."""

    def __init__(
        self,
        cells: Iterable[Cell],
        *,
        keyframes: Mapping[int, Keyframe] | None = None,
        start: StartRun | None = None,
        title: str = "",
        store: Store | None = None,
    ) -> None:
        """Lay the cells out; nothing runs yet.

        Args:
            cells: In order.
            keyframes: What there is already, by index of the cell.
            start: How runs are started; None: there is no server, as for an opened log.
            title: What to call it.
            store: Where its keyframes are kept; while somebody looks, what others append to a
                log is shown, and what anybody says about them.
        """
        self.title = title
        self._states = States(list(cells))
        self._marks = marking(store)
        self._one_by_one = asyncio.Lock()  # two clicks count in their order
        self._sharing: Sharing | None = None
        if isinstance(store, Log):
            self._sharing = Sharing(store, self._states, runs=lambda: self.runs)
        self._start = start
        self._following: set[asyncio.Task[None]] = set()
        self._open: set[Run] = set()  # those whose last word has not been copied yet
        self._closed = False
        self._copied = Signal()
        self._given: list[Keyframe] = []  # in order of completion
        self.runs: list[Run] = []
        for state in self._states.snapshot().cells:
            if keyframes and state.cell.index in keyframes:
                keyframe = keyframes[state.cell.index]
                self._adopt(CellState(state.cell, keyframe.status, keyframe=keyframe))

    @classmethod
    def of_log(cls, log: Log, run: str | None = None) -> Board:
        """Lay out a run that a log holds; see `laying_out`.

        Args:
            log: Where from.
            run: Its id; None: the latest, with all cells of its storyboard where it made only
                some of them again.

        Raises:
            LogError: The log cannot be read, or has no such run.
        """
        layout = lay_out(log, run)
        cells = [state.cell for state in layout.cells]
        board = cls(cells, title=layout.storyboard.title, store=log)
        for state in layout.cells:
            board._adopt(state)
        assert board._sharing is not None, "there is a log"
        board._sharing.go_along(layout, partial(lay_out, log, run))
        return board

    @property
    def state(self) -> Snapshot:
        """Every cell at this moment; `ended` means closed."""
        return self._states.snapshot()

    @property
    def active(self) -> bool:
        """Whether a run is feeding it."""
        return any(not run.ended for run in self.runs)

    @property
    def has_server(self) -> bool:
        """Whether runs can be started; not so for an opened log."""
        return self._start is not None

    async def subscribe(
        self, since: int = 0, *, look: bool = True
    ) -> AsyncGenerator[Changes, None]:
        """Yield what changes, from any loop, until the board is closed.

        Args:
            since: The version that is known already; 0: begin with everything.
            look: Whether the log is followed meanwhile, for what others make and say.
        """
        sharing = self._sharing if look else None
        if sharing is not None:
            loop.get().call_soon_threadsafe(sharing.look)
        try:
            async for changes in self._states.subscribe(since):
                yield changes
        finally:
            if sharing is not None:
                loop.get().call_soon_threadsafe(sharing.leave)

    def changes(self, since: int = 0) -> Changes:
        """Return what changed after a version, at this moment."""
        return self._states.since(since)

    async def keyframes(self) -> AsyncGenerator[Keyframe, None]:
        """Yield what is here, then each keyframe as it comes, until no run is active.

        In order of completion, from any loop; a cell that was made again comes again.
        """
        given = 0
        while True:
            await self._copied.until(partial(self._more, given))
            idle = self._idle()  # before the length: what came before the end is seen
            while given < len(self._given):
                given += 1
                yield self._given[given - 1]
            if idle and given == len(self._given):
                return

    async def until_idle(self) -> None:
        """Wait, on any loop, until no run is active and all that they made is here."""
        await self._copied.until(self._idle)

    def block_until_idle(self) -> None:
        """Do as `until_idle`, but block the calling thread."""
        self._copied.block_until(self._idle)

    def result(self) -> list[Keyframe]:
        """Return the keyframes so far, in the order of the cells.

        Raises:
            ComfynbError: What stopped the latest run before its cells could be tried.
        """
        if self.runs and self.runs[-1].error is not None:
            raise self.runs[-1].error
        return [state.keyframe for state in self.state.cells if state.keyframe is not None]

    def _idle(self) -> bool:
        return not self._open

    def _more(self, given: int) -> bool:
        return len(self._given) > given or self._idle()

    def attach(self, run: Run) -> None:
        """Show what a run makes of cells of this board."""
        self.runs = [old for old in self.runs if not old.ended] + [run]
        self._open.add(run)
        loop.get().call_soon_threadsafe(self._follow, run)

    def _follow(self, run: Run) -> None:
        task = asyncio.get_running_loop().create_task(self._copy(run), name="comfynb-board")
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    def _adopt(self, state: CellState) -> None:
        self._states.adopt(state)
        if state.keyframe is not None:
            self._given.append(state.keyframe)

    async def _copy(self, run: Run) -> None:
        paused = False
        try:
            async for changes in run.subscribe():
                given = len(self._given)
                for state in changes.cells:
                    self._adopt(state)
                if changes.paused != paused or changes.ended:
                    # At a run's end too: whoever watches is to look again.
                    paused = changes.paused and not changes.ended
                    self._states.set_paused(paused)
                if len(self._given) > given:
                    self._copied.notify()
        finally:
            self._open.discard(run)
            self._copied.notify()

    def begin(
        self,
        indices: Collection[int] | None = None,
        *,
        force: bool = False,
        next_seed: bool = False,
        resubmit_lost: bool = True,
    ) -> Run:
        """Start a run over some cells.

        Args:
            indices: Which; None: all.
            force: Make them although the log has them.
            next_seed: Give each of them its next seed first, and so another picture.
            resubmit_lost: Send anew what a dead session sent and its server forgot.

        Raises:
            ClosedError: There is no server behind this board, or it or its studio was closed.
            WorkflowError: Another seed is asked for and the workflow has no place for one.
        """
        if self._start is None:
            raise ClosedError(
                "this board shows a log and has no server; make pictures with "
                "comfynb.connect(..., log=...)"
            )
        if self._closed:
            raise ClosedError("this board was closed; make another")
        if indices is None:
            indices = {state.cell.index for state in self.state.cells}
        run = self._start(indices, force=force, next_seed=next_seed, resubmit_lost=resubmit_lost)
        self.attach(run)
        return run

    def retry(self, statuses: Iterable[Status] = ("failed", "cancelled", "lost")) -> Run:
        """Start a run over the cells that have no picture; raises as `begin`."""
        wanted = frozenset(statuses) & ENDED
        return self.begin({s.cell.index for s in self.state.cells if s.status in wanted})

    async def cancel(self, scenes: Collection[str] | None = None) -> None:
        """Cancel in every run that feeds this board; see `Run.cancel`."""
        await asyncio.gather(*(run.cancel(scenes) for run in self.runs if not run.ended))

    @property
    def can_mark(self) -> bool:
        """Whether anything can be said about its pictures, and is kept."""
        return self._marks is not None

    async def rate(self, keyframe: Keyframe, rating: int | None) -> None:
        """Rate a keyframe that is shown here; on our loop. Durable on return, where there is a log.

        Args:
            keyframe: One that was made.
            rating: 1 to 5; None takes the rating back.

        Raises:
            MarkError: There is no picture, or that is no rating, or nothing is kept here.
            LogWriteError: It could not be made durable.
            ClosedError: The log was closed.
        """
        async with self._one_by_one:
            await loop.in_worker(self._marks_for(keyframe).rate, keyframe, rating)
            self._states.mark(keyframe.id, rating=rating)

    async def pick(self, keyframe: Keyframe, *, picked: bool) -> None:
        """Choose a keyframe that is shown here, or do so no longer; as `rate`."""
        async with self._one_by_one:
            marks = self._marks_for(keyframe)
            await loop.in_worker(partial(marks.pick, keyframe, picked=picked))
            self._states.mark(keyframe.id, picked=picked)

    def _marks_for(self, keyframe: Keyframe) -> Marking:
        if self._marks is None:
            raise MarkError(
                "the log of this board is read only, or it has none: what is said about its "
                "pictures could not be kept"
            )
        if not keyframe.outputs:
            raise MarkError(f"{keyframe.scene.label} has no picture to say something about")
        return self._marks

    def close(self) -> None:
        """Stop watching; the runs go on. Safe to call twice."""
        self._closed = True
        loop.get().call_soon_threadsafe(self._close)

    def _close(self) -> None:
        for task in self._following:
            task.cancel()
        if self._sharing is not None:
            self._sharing.close()
        self._states.end()

"""Where every cell stands, for any number of watchers.

Written on comfynb's own loop, read from anywhere. A watcher remembers a version and asks what
changed since; it is given the *latest* state of each changed cell. So progress and previews are
slots that a slow watcher simply sees less often, while an ended cell stays as it ended and can
be missed by nobody; what was made is also listed in order of completion. Watching costs the
writer nothing per watcher.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from comfynb.cells import Cell
from comfynb.keyframes import ENDED, MADE, Keyframe, Status
from comfynb.loop import Signal
from comfynb.runs import lifecycle


@dataclass(frozen=True, slots=True)
class CellState:
    """One cell at one moment.

    Attributes:
        cell: Which.
        status: Where it stands.
        version: Of the change that brought it here.
        step: Steps done by the node that runs, or None before the first.
        steps: Steps that node will make.
        node: Id of that node.
        preview: Bytes of the latest rough picture (JPEG or PNG) while it runs.
        keyframe: What came out, once ended; before that only an older one, which is stale.
        stale: The keyframe was made before this place's prompt or graph was changed.
    """

    cell: Cell
    status: Status = "queued"
    version: int = 0
    step: float | None = None
    steps: float | None = None
    node: str | None = None
    preview: bytes | None = field(default=None, repr=False)
    keyframe: Keyframe | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All cells at one moment.

    Attributes:
        version: Give it to `subscribe(since=...)` to hear what comes after.
        cells: In the order of the storyboard.
        paused: Nothing new is begun.
        ended: Nothing will change any more.
    """

    version: int
    cells: tuple[CellState, ...]
    paused: bool
    ended: bool

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many cells have each status."""
        return Counter(state.status for state in self.cells)

    @property
    def made(self) -> int:
        """How many cells have a picture that is not out of date."""
        return sum(state.status in MADE and not state.stale for state in self.cells)


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since a version.

    Attributes:
        version: Where this leads to.
        cells: The latest state of each cell that changed, oldest change first.
        paused: As in `Snapshot`.
        ended: As in `Snapshot`.
    """

    version: int
    cells: tuple[CellState, ...]
    paused: bool
    ended: bool


class States:
    """The states of some cells."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._lock = threading.Lock()
        self._changed = Signal()
        self._cell_ended = Signal()  # its own: progress wakes nobody who waits for keyframes
        self._version = 1  # 0 is what those know who know nothing
        self._cells = {cell.index: CellState(cell, version=1) for cell in cells}
        self._recent: dict[int, None] = dict.fromkeys(self._cells)  # oldest change first
        self._finished: list[Keyframe] = []
        self._paused = self._ended = False

    # -- writing, on our loop

    def change(self, index: int, **values: Any) -> None:
        """Change one cell's state; ended ones stay as they are.

        Raises:
            ValueError: Its status cannot become what is asked for; see `lifecycle`.
        """
        with self._lock:
            state = self._cells[index]
            if state.status in ENDED:
                return
            lifecycle.check(state.status, values.get("status", state.status))
            self._put(index, replace(state, **values))
        self._changed.notify()

    def finish(self, index: int, keyframe: Keyframe, *, listed: bool = True) -> None:
        """End one cell.

        Args:
            index: Which.
            keyframe: What came out; its status becomes the cell's.
            listed: Whether watchers of keyframes are given it.

        Raises:
            ValueError: It has ended already, or cannot end so; see `lifecycle`.
        """
        with self._lock:
            state = self._cells[index]
            if state.status in ENDED:
                raise ValueError(f"cell {index} has ended already: it is {state.status!r}")
            lifecycle.check(state.status, keyframe.status)
            ended = replace(state, status=keyframe.status, preview=None, keyframe=keyframe)
            self._put(index, ended)
            if listed:
                self._finished.append(keyframe)
        self._changed.notify()
        self._cell_ended.notify()

    def refresh(self, cell: Cell, keyframe: Keyframe | None = None, *, stale: bool = False) -> None:
        """Begin a cell anew: a new key, another run, or what a log has of it.

        Args:
            cell: Which.
            keyframe: What there is of it already.
            stale: Whether that is out of date.
        """
        with self._lock:
            status: Status = "queued" if keyframe is None else keyframe.status
            self._put(cell.index, CellState(cell, status, keyframe=keyframe, stale=stale))
        self._changed.notify()

    def adopt(self, state: CellState) -> None:
        """Take over how a cell stands elsewhere."""
        with self._lock:
            self._put(state.cell.index, state)
        self._changed.notify()

    def mark(self, keyframe_id: str, **marks: Any) -> None:
        """Say what was said about a keyframe, wherever it is shown; the rest stays.

        Args:
            keyframe_id: Which.
            **marks: `rating`, `tags`, `picked` or `note`.
        """
        changed = False
        with self._lock:
            for index, state in self._cells.items():
                if state.keyframe is not None and state.keyframe.id == keyframe_id:
                    marked = replace(state.keyframe, **marks)
                    if marked != state.keyframe:
                        self._put(index, replace(state, keyframe=marked))
                        changed = True
        if changed:
            self._changed.notify()

    def _put(self, index: int, state: CellState) -> None:
        self._version += 1
        self._cells[index] = replace(state, version=self._version)
        self._recent.pop(index, None)
        self._recent[index] = None

    def set_paused(self, paused: bool) -> None:  # noqa: FBT001 - a setter
        """Say that nothing new is begun, or that it goes on."""
        with self._lock:
            self._version += 1
            self._paused = paused
        self._changed.notify()

    def end(self) -> None:
        """Say that nothing will change any more."""
        with self._lock:
            self._version += 1
            self._ended = True
        self._changed.notify()
        self._cell_ended.notify()

    # -- reading, from anywhere

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self._ended

    def of(self, index: int) -> CellState:
        """Return the state of one cell."""
        with self._lock:
            return self._cells[index]

    def snapshot(self) -> Snapshot:
        """Return all states."""
        with self._lock:
            return Snapshot(self._version, tuple(self._cells.values()), self._paused, self._ended)

    def since(self, version: int) -> Changes:
        """Return what changed after `version`."""
        with self._lock:
            changed = []
            for index in reversed(self._recent):
                state = self._cells[index]
                if state.version <= version:
                    break
                changed.append(state)
            changed.reverse()
            return Changes(self._version, tuple(changed), self._paused, self._ended)

    async def subscribe(self, since: int = 0) -> AsyncGenerator[Changes, None]:
        """Yield what changes, on whatever loop the caller has, until the end.

        Args:
            since: The version that is known already; 0: begin with everything.
        """
        while True:
            await self._changed.until(partial(self._news, since))
            changes = self.since(since)
            if changes.version > since:
                since = changes.version
                yield changes
            if changes.ended:
                return

    def _news(self, version: int) -> bool:
        return self._version > version or self._ended

    def _more(self, given: int) -> bool:
        return len(self._finished) > given or self._ended

    async def finished(self) -> AsyncGenerator[Keyframe, None]:
        """Yield each keyframe in order of completion, on any loop, until the end."""
        given = 0
        while True:
            await self._cell_ended.until(partial(self._more, given))
            ended = self._ended  # before the length: what is listed before the end is seen
            while given < len(self._finished):
                given += 1
                yield self._finished[given - 1]
            if ended and given == len(self._finished):
                return

    async def until_ended(self) -> None:
        """Wait for the end, on any loop."""
        await self._cell_ended.until(lambda: self._ended)

    def block_until_ended(self) -> None:
        """Wait for the end in the calling thread."""
        self._cell_ended.block_until(lambda: self._ended)

    def keyframes(self) -> list[Keyframe]:
        """Return what came out so far, in the order of the cells."""
        return [s.keyframe for s in self.snapshot().cells if s.keyframe is not None]

"""Attempts at the cells of a run: prompts that are on servers, and who hears of them.

An attempt is one prompt id. Whoever finds the prompt on a server, in whatever process, writes its
result under the same id (law 3). A run makes its own attempts (sending.py) and follows those that
dead sessions left (adopting.py); of several at one cell the first picture wins (racing.py). What
they share is here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from comfynb import stores
from comfynb.backends.base import Event, Preview, Progress, Released, Started, Warned
from comfynb.cells import Cell
from comfynb.errors import ComfynbError
from comfynb.keyframes import Keyframe
from comfynb.log import Store
from comfynb.runs.racing import Race
from comfynb.runs.results import Results
from comfynb.runs.states import States
from comfynb.servers.lanes import Lane, Slot

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 2
"""How often a cell that its server lost is sent in all."""
AGAIN_SECONDS = 1.0
"""Between two tries to take off a server what comes too late."""


class Attempts:
    """The prompts of one run. Used on our loop only.

    Attributes:
        results: Of the run; a server's name and version are added to what comes from it.
        store: Where results are kept.
        states: Told how the cells stand.
        unwanted: Indices of the cells that were given up.
        tries: How often each cell came back from a server, lost or not, by its index.
    """

    def __init__(self, results: Results, store: Store, states: States) -> None:
        self.results, self.store, self.states = results, store, states
        self.unwanted: set[int] = set()
        self.tries: Counter[int] = Counter()
        self._there: dict[str, tuple[int, Lane]] = {}

    async def cancel(self, indices: Collection[int]) -> None:
        """Take the prompts of some cells off every server; return when they are gone."""
        by_lane: dict[Lane, list[str]] = {}
        for prompt_id, (index, lane) in self._there.items():
            if index in indices:
                by_lane.setdefault(lane, []).append(prompt_id)
        await asyncio.gather(*(lane.backend.cancel(ids) for lane, ids in by_lane.items()))

    def requeue(self, cell: Cell) -> None:
        """Say that a cell is to be sent, from wherever an attempt had brought it."""
        self.states.change(cell.index, status="queued", preview=None, step=None)

    def may_try(self, cell: Cell, lane: Lane) -> bool:
        """Whether a cell that a server lost may be sent to it once more."""
        return self.tries[cell.index] < MOST_ATTEMPTS and not lane.backend.billed

    def may_try_on(self, server: str, cell: Cell, lanes: Sequence[Lane]) -> bool:
        """The same, of a server by its label."""
        return all(self.may_try(cell, lane) for lane in lanes if lane.label == server)

    @contextmanager
    def on(self, lane: Lane, cell: Cell, prompt_id: str) -> Iterator[None]:
        """A prompt is on a server meanwhile: `cancel` finds it there."""
        self._there[prompt_id] = cell.index, lane
        try:
            yield
        finally:
            del self._there[prompt_id]

    def call_off(self, race: Race) -> None:
        """Let what is left of a race end by itself: the run need not wait for it."""
        for task, late in race.left.items():
            if not task.done():
                lane = late.lane  # one that is adopted goes on to another
                lane.hold()
                stores.hold_again(self.store)
                lane.spawn(self._end(lane, late.prompt_id, task), name="comfynb-late")

    async def _end(self, lane: Lane, prompt_id: str, task: asyncio.Task[Keyframe | None]) -> None:
        """Once its line stands, take off the server what waits or runs; keep what is made."""
        try:
            with suppress(ComfynbError):  # its server is gone for good
                while not task.done():
                    await lane.open()
                    await lane.backend.cancel([prompt_id])
                    if not lane.backend.can_interrupt:
                        break
                    # One that is adopted may not have been found on its server yet.
                    await asyncio.wait({task}, timeout=AGAIN_SECONDS)
            await asyncio.wait({task})
        finally:
            lane.let_go()
            stores.let_go(self.store)


class Ear:
    """Hears what happens to a prompt and tells how its cell stands.

    Attributes:
        warned: What the server said that a user should know.
    """

    def __init__(self, cell: Cell, states: States, slot: Slot | None = None) -> None:
        self.warned: list[str] = []
        self._cell, self._states, self._slot = cell, states, slot

    def __call__(self, event: Event) -> None:
        """Take what the backend says."""
        change, index = self._states.change, self._cell.index
        match event:
            case Started():
                change(index, status="running")
            case Progress(node, value, maximum):
                change(index, status="running", node=node, step=value, steps=maximum)
            case Preview(node, data, _):
                change(index, node=node, preview=data)
            case Warned(message):
                logger.warning("%s: %s", self._cell.scene.label, message)
                self.warned.append(message)
            case Released():
                if self._slot is not None:
                    self._slot.free()

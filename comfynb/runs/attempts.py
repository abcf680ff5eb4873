"""Attempts at one cell: send it and keep what comes, or adopt what a dead session sent.

An attempt is one prompt id, chosen and written down before anything is sent: whoever finds the
prompt on a server, in whatever process, writes its result under the same id (law 3). What comes
out is a keyframe that is durable; or None, where the cell is to be sent once more. Of several
servers, another may make an attempt where the line to the first is down; see racing.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from comfynb import loop, stores
from comfynb.backends.base import Event, Preview, Progress, Released, Started, Warned
from comfynb.cells import Cell
from comfynb.errors import BackendError, ClosedError, ComfynbError, ServerGoneError, WorkerDeadError
from comfynb.keyframes import Keyframe
from comfynb.log import Store, SubmittedRecord
from comfynb.runs import failures
from comfynb.runs.making import making
from comfynb.runs.racing import Attempt, Race
from comfynb.runs.results import Results
from comfynb.runs.states import States
from comfynb.runs.uploading import uploaded
from comfynb.servers.lanes import Lane, Slot, Work

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 2
"""How often a cell that its server lost is sent in all."""
AGAIN_SECONDS = 1.0
"""Between two tries to take off a server what comes too late."""


class Attempts:
    """Makes the cells of one run, on its lanes. Used on our loop only.

    Attributes:
        unwanted: Indices of the cells that were given up.
    """

    def __init__(
        self,
        results: Results,
        store: Store,
        states: States,
        drop: Callable[[Lane, ComfynbError], bool],
    ) -> None:
        """Prepare.

        Args:
            results: Of the run; a server's name and version are added to what comes from it.
            store: Where results are kept.
            states: Told how the cells stand.
            drop: Told of a server that is gone; whether another one is left.
        """
        self.unwanted: set[int] = set()
        self._results, self._store, self._states = results, store, states
        self._drop = drop
        self._lost: Counter[int] = Counter()
        self._there: dict[str, tuple[int, Lane]] = {}
        self._races: dict[int, Race] = {}

    async def make(self, cell: Cell, lane: Lane, slot: Slot) -> Keyframe | None:
        """Send a cell and keep what comes; None: its server lost it, or went away: once more.

        Raises:
            ServerGoneError: The last server is gone.
            BackendError: It cannot take this cell.
            LogWriteError: What came, or that it is sent, could not be written.
        """
        race = self._races[cell.index] = Race(partial(self._attempt, cell))
        race.begin(lane, slot)
        try:
            keyframe = await race.winner()
        finally:
            del self._races[cell.index]
            for task, late in race.left.items():
                self._call_off(late, task)
        if keyframe is None:
            self._requeue(cell)
        return keyframe

    def stand_in(self, lane: Lane, down: Callable[[Lane], float]) -> Work | None:
        """Return work for a server with a free place, in the stead of one whose line is down.

        Args:
            lane: The server.
            down: Tells for how many seconds the line to one has been down.
        """
        for index, race in self._races.items():
            if index not in self.unwanted and race.wants(lane, down):
                return partial(_stand_in, race, lane)
        return None

    async def _attempt(self, cell: Cell, attempt: Attempt) -> Keyframe | None:
        try:
            return await self._try(cell, attempt)
        except ServerGoneError as exc:
            if self._drop(attempt.lane, exc):
                return None
            raise

    async def _try(self, cell: Cell, attempt: Attempt) -> Keyframe | None:
        """Send a cell to one server and keep what comes; None: nothing did, or it is too late.

        Raises:
            ServerGoneError: The server is gone.
            BackendError: It cannot take this cell.
            LogWriteError: What came, or that it is sent, could not be written.
        """
        lane, prompt_id, begun = attempt.lane, attempt.prompt_id, time.monotonic()
        try:
            info = await lane.open()  # away while the run was paused, it may be back
        except ServerGoneError:
            raise
        except BackendError as exc:  # it was there when the run began
            raise ServerGoneError(str(exc), server=lane.label) from exc
        results = replace(self._results, server=lane.label, server_version=info.version)
        graph = await uploaded(cell, lane.backend, self._store)
        sent = SubmittedRecord(
            prompt_id=prompt_id,
            run=results.run,
            key=cell.key,
            scene=cell.scene.id,
            server=lane.label,
            session="",
            created_at=datetime.now(UTC),
        )
        await loop.in_worker(
            self._store.add_submitted,
            prompt_id=prompt_id,
            run=sent.run,
            key=sent.key,
            scene=sent.scene,
            server=sent.server,
        )
        if cell.index in self.unwanted:
            return results.unmade(cell, "cancelled", failures.CANCELLED)
        if attempt.late.is_set():
            return None
        self._requeue(cell)  # from wherever an attempt whose line is down had brought it
        self._states.change(cell.index, status="submitted")
        ear = _Ear(cell, self._states, attempt.slot)
        attempt.begun = True
        try:
            with self._on(lane, cell, prompt_id):
                outcome = await lane.backend.render(prompt_id, graph, ear)
        except asyncio.CancelledError:
            if not lane.backend.can_interrupt:
                making(self._store).abandon(sent)  # what runs comes to its end there
            raise
        except WorkerDeadError:
            raise  # nothing of it will ever run
        except ServerGoneError:
            if not attempt.late.is_set():
                making(self._store).abandon(sent)  # it may have been drawn when it is back
            raise
        if attempt.late.is_set() and outcome.status != "done":
            return None
        if cell.index in self.unwanted and outcome.status in ("cancelled", "lost"):
            outcome = replace(outcome, status="cancelled", failure=failures.CANCELLED)  # by us
        self._lost[cell.index] += 1
        if outcome.status == "lost" and self._may_try(cell, lane):
            return None
        return await loop.in_worker(results.keep, cell, prompt_id, outcome, ear.warned, begun)

    def _call_off(self, late: Attempt, task: asyncio.Task[Keyframe | None]) -> None:
        """Let an attempt end by itself whose cell has its picture: the run need not wait for it."""
        lane = late.lane  # one that is adopted goes on to another
        lane.hold()
        stores.hold_again(self._store)
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
            stores.let_go(self._store)

    async def adopt(
        self,
        cell: Cell,
        sent: Sequence[SubmittedRecord],
        lanes: Sequence[Lane],
        *,
        resubmit_lost: bool,
    ) -> Keyframe | None:
        """Finish what a dead session sent for a cell; None: it is to be sent anew.

        Args:
            cell: Which.
            sent: Its prompts, in the order in which they were sent; at least one.
            lanes: The servers that are connected: each is asked.
            resubmit_lost: Whether a cell that its server forgot may be sent anew.

        Raises:
            LogWriteError: What came could not be written.
        """
        self._states.change(cell.index, status="submitted")
        by_id = {record.prompt_id: record for record in sent}
        unasked: list[str] = []

        async def ask(attempt: Attempt) -> Keyframe | None:
            record = by_id[attempt.prompt_id]
            keyframe, asked = await self._adopt_one(cell, record, attempt, lanes)
            if not asked:
                unasked.append(record.server)
            return keyframe

        race = Race(ask)  # of more than one, where the line to a server was down
        for record in reversed(sent):
            race.adopt(_likeliest(record, lanes)[0], record.prompt_id)
        try:
            keyframe = await race.winner()
        finally:
            for task, late in race.left.items():
                if not task.done():
                    self._call_off(late, task)
        if keyframe is not None:
            stopped = keyframe.status == "cancelled"  # by somebody; now it is wanted
            if stopped and resubmit_lost and self._may_try_on(keyframe.server, cell, lanes):
                self._requeue(cell)
                return None
            return keyframe
        if cell.index in self.unwanted:
            return self._results.unmade(cell, "cancelled", failures.CANCELLED)
        if unasked:
            server = unasked[0]
            results, failure = replace(self._results, server=server), failures.unknown(server)
            return results.unmade(cell, "unknown", failure)
        self._lost[cell.index] += 1
        server = sent[-1].server
        if resubmit_lost and self._may_try_on(server, cell, lanes):
            self._requeue(cell)
            return None
        results, failure = replace(self._results, server=server), failures.lost_before(server)
        return results.unmade(cell, "lost", failure)

    async def _adopt_one(
        self, cell: Cell, record: SubmittedRecord, attempt: Attempt, lanes: Sequence[Lane]
    ) -> tuple[Keyframe | None, bool]:
        """Finish a prompt, and tell whether a server said what became of it.

        Raises:
            LogWriteError: What came could not be written.
        """
        asked = set()
        for lane in _likeliest(record, lanes):
            attempt.lane = lane
            try:
                keyframe = await self._adopt_from(attempt, cell, record)
            except (BackendError, ClosedError) as exc:
                logger.warning("%s could not be asked: %s", lane.label, exc)
                continue
            if keyframe is not None or attempt.late.is_set():
                return keyframe, True
            asked.add(lane.label)
        if record.server not in asked:
            return None, False
        making(self._store).settled(record)
        return None, True

    async def _adopt_from(
        self, attempt: Attempt, cell: Cell, record: SubmittedRecord
    ) -> Keyframe | None:
        """Finish a prompt on one server; None: it has none of it, or it is too late."""
        lane = attempt.lane
        lane.hold()  # it may be another studio's
        try:
            info = await lane.open()
            ear = _Ear(cell, self._states)
            with self._on(lane, cell, record.prompt_id):
                outcome = await lane.backend.adopt(
                    record.prompt_id, cell.graph, ear, sent_at=record.created_at
                )
        finally:
            lane.let_go()
        if outcome is None or outcome.status == "lost":
            return None
        if attempt.late.is_set() and outcome.status != "done":
            return None
        if cell.index in self.unwanted and outcome.status == "cancelled":
            outcome = replace(outcome, failure=failures.CANCELLED)
        results = replace(
            self._results, run=record.run, server=lane.label, server_version=info.version
        )
        made = await loop.in_worker(results.keep, cell, record.prompt_id, outcome, ear.warned)
        making(self._store).settled(record)
        return made

    async def cancel(self, indices: Collection[int]) -> None:
        """Take the prompts of some cells off every server; return when they are gone."""
        by_lane: dict[Lane, list[str]] = {}
        for prompt_id, (index, lane) in self._there.items():
            if index in indices:
                by_lane.setdefault(lane, []).append(prompt_id)
        await asyncio.gather(*(lane.backend.cancel(ids) for lane, ids in by_lane.items()))

    def _requeue(self, cell: Cell) -> None:
        self._states.change(cell.index, status="queued", preview=None, step=None)

    def _may_try(self, cell: Cell, lane: Lane) -> bool:
        return self._lost[cell.index] < MOST_ATTEMPTS and not lane.backend.billed

    def _may_try_on(self, server: str, cell: Cell, lanes: Sequence[Lane]) -> bool:
        return all(self._may_try(cell, lane) for lane in lanes if lane.label == server)

    @contextmanager
    def _on(self, lane: Lane, cell: Cell, prompt_id: str) -> Iterator[None]:
        """A prompt is on a server meanwhile: `cancel` finds it there."""
        self._there[prompt_id] = cell.index, lane
        try:
            yield
        finally:
            del self._there[prompt_id]


def _likeliest(record: SubmittedRecord, lanes: Sequence[Lane]) -> list[Lane]:
    """Return the server that a prompt was sent to first.

    Another may be the same machine under another name.
    """
    return sorted(lanes, key=lambda lane: lane.label != record.server)


def _stand_in(race: Race, lane: Lane, slot: Slot) -> Coroutine[Any, Any, None]:
    task = race.begin(lane, slot)  # at once: no third server should take it too
    return _ended(task)


async def _ended(task: asyncio.Task[Keyframe | None]) -> None:
    await asyncio.wait({task})


class _Ear:
    """Hears what happens to a prompt and tells how its cell stands.

    Attributes:
        warned: What the server said that a user should know.
    """

    def __init__(self, cell: Cell, states: States, slot: Slot | None = None) -> None:
        self.warned: list[str] = []
        self._cell, self._states, self._slot = cell, states, slot

    def __call__(self, event: Event) -> None:
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

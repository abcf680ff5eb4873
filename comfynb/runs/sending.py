"""Sending the cells of a run: chosen, written down, sent, and kept when they come.

The prompt id is chosen and written down before anything is sent. What comes out is a keyframe that
is durable; or None, where the cell is to be sent once more. Of several servers, another may make
an attempt where the line to the first is down; see racing.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from comfynb import loop
from comfynb.cells import Cell
from comfynb.errors import BackendError, ComfynbError, ServerGoneError, WorkerDeadError
from comfynb.keyframes import Keyframe
from comfynb.log import SubmittedRecord
from comfynb.runs import failures
from comfynb.runs.attempts import Attempts, Ear
from comfynb.runs.making import making
from comfynb.runs.racing import Attempt, Race
from comfynb.runs.uploading import uploaded
from comfynb.servers.lanes import Lane, Slot, Work


class Sending:
    """Makes the cells of one run, on its lanes. Used on our loop only."""

    def __init__(self, attempts: Attempts, drop: Callable[[Lane, ComfynbError], bool]) -> None:
        """Prepare.

        Args:
            attempts: Of the run.
            drop: Told of a server that is gone; whether another one is left.
        """
        self._attempts, self._drop = attempts, drop
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
            self._attempts.call_off(race)
        if keyframe is None:
            self._attempts.requeue(cell)
        return keyframe

    def stand_in(self, lane: Lane, down: Callable[[Lane], float]) -> Work | None:
        """Return work for a server with a free place, in the stead of one whose line is down.

        Args:
            lane: The server.
            down: Tells for how many seconds the line to one has been down.
        """
        for index, race in self._races.items():
            if index not in self._attempts.unwanted and race.wants(lane, down):
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
        results = replace(self._attempts.results, server=lane.label, server_version=info.version)
        graph = await uploaded(cell, lane.backend, self._attempts.store)
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
            self._attempts.store.add_submitted,
            prompt_id=prompt_id,
            run=sent.run,
            key=sent.key,
            scene=sent.scene,
            server=sent.server,
        )
        if cell.index in self._attempts.unwanted:
            return results.unmade(cell, "cancelled", failures.CANCELLED)
        if attempt.late.is_set():
            return None
        self._attempts.requeue(cell)
        self._attempts.states.change(cell.index, status="submitted")
        ear = Ear(cell, self._attempts.states, attempt.slot)
        attempt.begun = True
        try:
            with self._attempts.on(lane, cell, prompt_id):
                outcome = await lane.backend.render(prompt_id, graph, ear)
        except asyncio.CancelledError:
            if not lane.backend.can_interrupt:
                making(self._attempts.store).abandon(sent)  # what runs comes to its end there
            raise
        except WorkerDeadError:
            raise  # nothing of it will ever run
        except ServerGoneError:
            if not attempt.late.is_set():
                making(self._attempts.store).abandon(sent)  # it may have been drawn when it is back
            raise
        if attempt.late.is_set() and outcome.status != "done":
            return None
        if cell.index in self._attempts.unwanted and outcome.status in ("cancelled", "lost"):
            outcome = replace(outcome, status="cancelled", failure=failures.CANCELLED)  # by us
        self._attempts.tries[cell.index] += 1
        if outcome.status == "lost" and self._attempts.may_try(cell, lane):
            return None
        return await loop.in_worker(results.keep, cell, prompt_id, outcome, ear.warned, begun)


def _stand_in(race: Race, lane: Lane, slot: Slot) -> Coroutine[Any, Any, None]:
    task = race.begin(lane, slot)  # at once: no third server should take it too
    return _ended(task)


async def _ended(task: asyncio.Task[Keyframe | None]) -> None:
    await asyncio.wait({task})

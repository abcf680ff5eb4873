"""Attempts at one cell: send it and keep what comes, or adopt what a dead session sent.

An attempt is one prompt id, chosen and written down before anything is sent: whoever finds the
prompt on a server, in whatever process, writes its result under the same id (law 3). What comes
out is a keyframe that is durable; or None, where the cell is to be sent once more.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from comfynb import failures, loop
from comfynb.backends.base import Event, Preview, Progress, Released, Started, Warned
from comfynb.cells import Cell
from comfynb.errors import BackendError, ClosedError, ServerGoneError, WorkerDeadError
from comfynb.keyframes import Keyframe
from comfynb.lanes import Lane, Slot
from comfynb.log import Store, SubmittedRecord
from comfynb.making import making
from comfynb.results import Results
from comfynb.states import States
from comfynb.uploading import uploaded

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 2
"""How often a cell that its server lost is sent in all."""


class Attempts:
    """Makes the cells of one run, on its lanes. Used on our loop only.

    Attributes:
        unwanted: Indices of the cells that were given up.
    """

    def __init__(self, results: Results, store: Store, states: States) -> None:
        """Prepare.

        Args:
            results: Of the run; a server's name and version are added to what comes from it.
            store: Where results are kept.
            states: Told how the cells stand.
        """
        self.unwanted: set[int] = set()
        self._results, self._store, self._states = results, store, states
        self._lost: Counter[int] = Counter()
        self._there: dict[str, tuple[int, Lane]] = {}

    async def make(self, cell: Cell, lane: Lane, slot: Slot) -> Keyframe | None:
        """Send a cell and keep what comes; None: its server lost it, once more.

        Raises:
            ServerGoneError: The server is gone.
            BackendError: It cannot take this cell.
            LogWriteError: What came, or that it is sent, could not be written.
        """
        try:
            info = await lane.open()  # away while the run was paused, it may be back
        except ServerGoneError:
            raise
        except BackendError as exc:  # it was there when the run began
            raise ServerGoneError(str(exc), server=lane.label) from exc
        results = replace(self._results, server=lane.label, server_version=info.version)
        prompt_id, begun = str(uuid.uuid4()), time.monotonic()
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
        self._states.change(cell.index, status="submitted")
        ear = _Ear(cell, self._states, slot)
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
            making(self._store).abandon(sent)  # it may have been drawn when the server is back
            raise
        if cell.index in self.unwanted and outcome.status in ("cancelled", "lost"):
            outcome = replace(outcome, status="cancelled", failure=failures.CANCELLED)  # by us
        self._lost[cell.index] += 1
        if outcome.status == "lost" and self._may_try(cell, lane):
            self._requeue(cell)
            return None
        return await loop.in_worker(results.keep, cell, prompt_id, outcome, ear.warned, begun)

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
        unasked: str | None = None
        for record in reversed(sent):
            # The server that it was sent to is the most likely one; another may be the same
            # machine under another name.
            asked = set()
            for lane in sorted(lanes, key=lambda lane: lane.label != record.server):
                try:
                    keyframe = await self._adopt_from(lane, cell, record)
                except (BackendError, ClosedError) as exc:
                    logger.warning("%s could not be asked: %s", lane.label, exc)
                    continue
                if keyframe is not None:
                    stopped = keyframe.status == "cancelled"  # by somebody; now it is wanted
                    if stopped and resubmit_lost and self._may_try(cell, lane):
                        self._requeue(cell)
                        return None
                    return keyframe
                asked.add(lane.label)
            if record.server in asked:
                making(self._store).settled(record)
            else:
                unasked = unasked or record.server
        if cell.index in self.unwanted:
            return self._results.unmade(cell, "cancelled", failures.CANCELLED)
        if unasked is not None:
            results, failure = replace(self._results, server=unasked), failures.unknown(unasked)
            return results.unmade(cell, "unknown", failure)
        self._lost[cell.index] += 1
        server = sent[-1].server
        sent_to = [lane for lane in lanes if lane.label == server]
        if resubmit_lost and all(self._may_try(cell, lane) for lane in sent_to):
            self._requeue(cell)
            return None
        results, failure = replace(self._results, server=server), failures.lost_before(server)
        return results.unmade(cell, "lost", failure)

    async def _adopt_from(self, lane: Lane, cell: Cell, record: SubmittedRecord) -> Keyframe | None:
        """Finish a prompt on one server; None: it does not know it, or not any more."""
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

    @contextmanager
    def _on(self, lane: Lane, cell: Cell, prompt_id: str) -> Iterator[None]:
        """A prompt is on a server meanwhile: `cancel` finds it there."""
        self._there[prompt_id] = cell.index, lane
        try:
            yield
        finally:
            del self._there[prompt_id]


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

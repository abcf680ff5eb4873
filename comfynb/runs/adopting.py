"""Adopting what dead sessions sent: their prompts are on servers, finished, waiting or forgotten.

Each is asked for and followed like one of ours, and what it comes to is written under the id that
its session would have used; so two that adopt the same prompt cannot double it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from comfynb import loop
from comfynb.cells import Cell
from comfynb.errors import BackendError, ClosedError
from comfynb.keyframes import Failure, Keyframe, Status
from comfynb.log import SubmittedRecord
from comfynb.runs import failures
from comfynb.runs.attempts import Attempts, Ear
from comfynb.runs.making import making
from comfynb.runs.racing import Attempt, Race
from comfynb.servers.lanes import Lane

logger = logging.getLogger(__name__)


class Adopting:
    """Follows what was sent for the cells of one run before it began. Used on our loop only.

    Args:
        attempts: Of the run.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

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
        self._attempts.states.change(cell.index, status="submitted")
        by_id = {record.prompt_id: record for record in sent}
        unasked: list[str] = []

        async def ask(attempt: Attempt) -> Keyframe | None:
            record = by_id[attempt.prompt_id]
            keyframe, asked = await self._follow(cell, record, attempt, lanes)
            if not asked:
                unasked.append(record.server)
            return keyframe

        race = Race(ask)  # of more than one, where the line to a server was down
        for record in reversed(sent):
            race.adopt(_likeliest(record, lanes)[0], record.prompt_id)
        try:
            keyframe = await race.winner()
        finally:
            self._attempts.call_off(race)
        if keyframe is not None:
            stopped = keyframe.status == "cancelled"  # by somebody; now it is wanted
            if (
                stopped
                and resubmit_lost
                and self._attempts.may_try_on(keyframe.server, cell, lanes)
            ):
                self._attempts.requeue(cell)
                return None
            return keyframe
        if cell.index in self._attempts.unwanted:
            return self._attempts.results.unmade(cell, "cancelled", failures.CANCELLED)
        if unasked:
            return self._unmade(cell, "unknown", failures.unknown, unasked[0])
        self._attempts.tries[cell.index] += 1
        server = sent[-1].server
        if resubmit_lost and self._attempts.may_try_on(server, cell, lanes):
            self._attempts.requeue(cell)
            return None
        return self._unmade(cell, "lost", failures.lost_before, server)

    def _unmade(
        self, cell: Cell, status: Status, why: Callable[[str], Failure], server: str
    ) -> Keyframe:
        results = replace(self._attempts.results, server=server)
        return results.unmade(cell, status, why(server))

    async def _follow(
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
                keyframe = await self._follow_on(attempt, cell, record)
            except (BackendError, ClosedError) as exc:
                logger.warning("%s could not be asked: %s", lane.label, exc)
                continue
            if keyframe is not None or attempt.late.is_set():
                return keyframe, True
            asked.add(lane.label)
        if record.server not in asked:
            return None, False
        making(self._attempts.store).settled(record)
        return None, True

    async def _follow_on(
        self, attempt: Attempt, cell: Cell, record: SubmittedRecord
    ) -> Keyframe | None:
        """Finish a prompt on one server; None: it has none of it, or it is too late."""
        lane = attempt.lane
        lane.hold()  # it may be another studio's
        try:
            info = await lane.open()
            ear = Ear(cell, self._attempts.states)
            with self._attempts.on(lane, cell, record.prompt_id):
                outcome = await lane.backend.adopt(
                    record.prompt_id, cell.graph, ear, sent_at=record.created_at
                )
        finally:
            lane.let_go()
        if outcome is None or outcome.status == "lost":
            return None
        if attempt.late.is_set() and outcome.status != "done":
            return None
        if cell.index in self._attempts.unwanted and outcome.status == "cancelled":
            outcome = replace(outcome, failure=failures.CANCELLED)
        results = replace(
            self._attempts.results, run=record.run, server=lane.label, server_version=info.version
        )
        made = await loop.in_worker(results.keep, cell, record.prompt_id, outcome, ear.warned)
        making(self._attempts.store).settled(record)
        return made


def _likeliest(record: SubmittedRecord, lanes: Sequence[Lane]) -> list[Lane]:
    """Return the server that a prompt was sent to first.

    Another may be the same machine under another name.
    """
    return sorted(lanes, key=lambda lane: lane.label != record.server)

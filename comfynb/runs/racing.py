"""One cell on its way: on one server as a rule, on another too where the first one's line is down.

A server that does not answer may be drawing, may be done, or may be gone for good: nobody can tell
before it is back. What it has is not given up, for nothing that was made may be lost; but another
server that is free makes the cell meanwhile. The first picture wins. So a cell is drawn twice at
worst, and given once.

What a server was not sent yet, since its line is down, it loses to the other at once.

A session that dies may leave a cell on two servers. Whoever adopts it follows both prompts, and
again the first picture wins.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from comfynb.errors import ComfynbError
from comfynb.keyframes import Keyframe
from comfynb.servers.lanes import Lane, Slot

logger = logging.getLogger(__name__)

MOVE_SECONDS = 3.0
"""How long the line to a server that was sent a cell must be down before another makes it too.
Most breaks are over sooner: a proxy that reloads, a network that changes."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One prompt for a cell.

    Attributes:
        lane: Its server; of one that is adopted, the one that is asked.
        slot: Its place there.
        prompt_id: Chosen before anything is sent.
        begun: Whether the backend was given it.
        late: Set once the cell has its picture from elsewhere.
    """

    lane: Lane
    slot: Slot
    prompt_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    begun: bool = False
    late: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def unsent(self) -> bool:
        """Whether its server has certainly never heard of it."""
        return not self.begun or self.lane.backend.holds_back(self.prompt_id)

    def stranded(self, down: float) -> bool:
        """Whether another server should make the cell too.

        Args:
            down: Seconds for which the line to its server has been down.
        """
        if self.unsent:
            return down > 0
        return down >= MOVE_SECONDS and not self.lane.backend.billed


Do = Callable[[Attempt], Coroutine[Any, Any, Keyframe | None]]


class Race:
    """The attempts at one cell. Used on our loop only."""

    def __init__(self, do: Do) -> None:
        """Prepare.

        Args:
            do: Makes one attempt; None is an attempt of which nothing came.
        """
        self._do = do
        self._running: dict[asyncio.Task[Keyframe | None], Attempt] = {}
        self._tried: set[Lane] = set()
        self._ended = asyncio.Event()

    @property
    def left(self) -> dict[asyncio.Task[Keyframe | None], Attempt]:
        """The attempts that go on, by their tasks."""
        return dict(self._running)

    def wants(self, lane: Lane, down: Callable[[Lane], float]) -> bool:
        """Whether a server with a free place should make the cell too.

        Args:
            lane: The server.
            down: Tells for how many seconds the line to one has been down.
        """
        return lane not in self._tried and all(
            attempt.stranded(down(attempt.lane)) for attempt in self._running.values()
        )

    def begin(self, lane: Lane, slot: Slot) -> asyncio.Task[Keyframe | None]:
        """Begin an attempt; one whose server has never heard of it ends for this."""
        for task, attempt in self.left.items():
            if attempt.unsent:
                del self._running[task]
                task.cancel()
                attempt.slot.free()
        attempt = Attempt(lane, slot)
        task = lane.spawn(self._do(attempt), name="comfynb-attempt")
        self._tried.add(lane)
        self._enter(task, attempt)
        return task

    def adopt(self, lane: Lane, prompt_id: str) -> None:
        """Follow an attempt that a dead session began; it has its place on its server.

        Args:
            lane: The server that is asked first.
            prompt_id: Under which it was sent.
        """
        attempt = Attempt(lane, Slot(lambda: None), prompt_id, begun=True)
        # Not by the lane: that may be another studio's, and others may be asked after it.
        self._enter(asyncio.create_task(self._do(attempt), name="comfynb-attempt"), attempt)

    def _enter(self, task: asyncio.Task[Keyframe | None], attempt: Attempt) -> None:
        task.add_done_callback(self._note)
        self._running[task] = attempt

    def _note(self, task: asyncio.Task[Keyframe | None]) -> None:
        """Have `winner` look; an error that it may not raise is in the logger at least."""
        self._ended.set()
        error = None if task.cancelled() else task.exception()
        attempt = self._running.get(task)
        if error is None or attempt is None:
            return
        if isinstance(error, ComfynbError):
            logger.info("%s: an attempt at a cell ended: %s", attempt.lane.label, error)
        elif attempt.late.is_set() or len(self._running) > 1:
            logger.error("an attempt stopped on an error of comfynb's own", exc_info=error)

    async def winner(self) -> Keyframe | None:
        """Wait for the first picture; where none comes, for the end of the last attempt.

        Raises:
            ComfynbError: The last attempt did, and none had come to a keyframe.
        """
        told: Keyframe | None = None
        try:
            while True:
                self._ended.clear()
                for task in [task for task in self._running if task.done()]:
                    del self._running[task]
                    failed = task.cancelled() or task.exception() is not None
                    told = (None if failed else task.result()) or told
                    if (told is not None and told.ok) or not self._running:
                        return told or task.result()
                await self._ended.wait()
        except asyncio.CancelledError:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            self._running.clear()
            raise
        finally:
            for attempt in self._running.values():
                attempt.late.set()

"""How a run is watched: generator, await, blocking wait and subscription are equal (law 7)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any

from comfynb.errors import ComfynbError
from comfynb.keyframes import Keyframe
from comfynb.runs.states import Changes, Snapshot, States


class Watched(ABC):
    """Something with cells that come to an end, for any number of watchers on any loops.

    Attributes:
        error: What stopped it before its cells could be tried, or None.
    """

    def __init__(self, states: States) -> None:
        self.error: ComfynbError | None = None
        self._states = states

    @property
    def state(self) -> Snapshot:
        """Every cell at this moment."""
        return self._states.snapshot()

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self._states.ended

    @abstractmethod
    async def cancel(self) -> None:
        """Give everything up; return when nothing of it is on a server."""

    def subscribe(self, since: int = 0) -> AsyncGenerator[Changes, None]:
        """Yield what changes, from any loop, until the end; see `States.subscribe`."""
        return self._states.subscribe(since)

    async def keyframes(self) -> AsyncGenerator[Keyframe, None]:
        """Yield each keyframe as soon as it is durable, in order of completion.

        Raises:
            ComfynbError: What stopped the run before its cells could be tried.
        """
        async for keyframe in self._states.finished():
            yield keyframe
        if self.error is not None:
            raise self.error

    def __aiter__(self) -> AsyncIterator[Keyframe]:
        """Observe; leaving does not cancel."""
        return self.keyframes()

    def __await__(self) -> Generator[Any, None, list[Keyframe]]:
        """Wait for the end; cancelled meanwhile, cancel the run."""
        return self._wait_or_cancel().__await__()

    async def _wait_or_cancel(self) -> list[Keyframe]:
        try:
            await self._states.until_ended()
        except asyncio.CancelledError:
            await self.cancel()
            raise
        return self.result()

    def wait(self) -> list[Keyframe]:
        """Block until the end; interrupted, the run goes on.

        Returns:
            The keyframes in the order of the storyboard.

        Raises:
            ComfynbError: What stopped the run before its cells could be tried.
        """
        self._states.block_until_ended()
        return self.result()

    def result(self) -> list[Keyframe]:
        """Return the keyframes so far, in the order of the storyboard; see `wait`."""
        if self.error is not None:
            raise self.error
        return self._states.keyframes()

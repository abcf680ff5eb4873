"""One server as this process uses it, shared by all runs.

A server has one worker. So a lane lets two prompts stand there: one runs, one waits, and the GPU
never idles between them. Everything else stays in the runs' own queues, where pause, cancel and
reordering are local and free. Runs take turns, so that a long one does not starve a short one.

A lane lives as long as anybody holds it: studios, and runs while they are active.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from comfynb import loop
from comfynb.backends.base import Backend, ServerInfo
from comfynb.errors import ClosedError, ComfynbError

logger = logging.getLogger(__name__)

T = TypeVar("T")

SLOTS = 2
"""Prompts of ours on a server at once: one running, one waiting (what krita-ai-diffusion does)."""


class Slot:
    """The right to have one prompt on the server."""

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed: Callable[[], None] | None = freed

    def free(self) -> None:
        """Give it back; harmless when done twice."""
        freed, self._freed = self._freed, None
        if freed is not None:
            freed()


Work = Callable[[Slot], Coroutine[Any, Any, None]]


class Feed(Protocol):
    """Something with cells to make, that is: a run."""

    def take(self, lane: Lane) -> Work | None:
        """Give a lane its next piece of work; None when there is nothing to begin now."""

    async def cancel(self) -> None:
        """Give up all work; return when nothing of it is on the server."""


class Lane:
    """A backend, its slots, and whose turn it is. Used on our loop only, but for `hold`."""

    def __init__(self, key: Hashable, backend: Backend) -> None:
        self.backend = backend
        self.users = 0
        self._key = key
        self._feeds: deque[Feed] = deque()
        self._busy = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def label(self) -> str:
        """Name of the server."""
        return self.backend.label

    async def open(self) -> ServerInfo:
        """Connect, or find the connection standing; raises as `Backend.open`."""
        return await self.backend.open()

    def add(self, feed: Feed) -> None:
        """Give a run its turns."""
        self._feeds.append(feed)
        self.wake()

    def remove(self, feed: Feed) -> None:
        """End a run's turns."""
        with contextlib.suppress(ValueError):
            self._feeds.remove(feed)

    def wake(self) -> None:
        """Look for work: something became free, or ready."""
        while self._busy < SLOTS:
            work = self._next()
            if work is None:
                return
            self._busy += 1
            slot = Slot(self._freed)
            task = asyncio.get_running_loop().create_task(work(slot))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, slot))

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Begin something beside the slots, which ends with this lane at the latest."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """Take the slot back from work that did not give it, or never came to begin."""
        self._tasks.discard(task)
        slot.free()

    def _next(self) -> Work | None:
        for _ in range(len(self._feeds)):
            feed = self._feeds[0]
            self._feeds.rotate(-1)
            work = feed.take(self)
            if work is not None:
                return work
        return None

    def _freed(self) -> None:
        self._busy -= 1
        self.wake()

    def hold(self) -> None:
        """Say that somebody needs this lane.

        Raises:
            ClosedError: Its last user has let go of it.
        """
        with _lock:
            if _lanes.get(self._key) is not self:
                raise ClosedError(f"the studio for {self.label} was closed; connect again")
            self.users += 1

    def let_go(self) -> None:
        """Say, on any thread, that one of them does not any more; the last one closes it."""
        with _lock:
            self.users -= 1
            if self.users > 0 or _lanes.get(self._key) is not self:
                return
            del _lanes[self._key]
            closing = loop.start(self.aclose())
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)

    async def aclose(self) -> None:
        """End what runs here and close the backend.

        Runs hold their lane, so there are some only when the interpreter ends.
        """
        feeds = list(self._feeds)
        await asyncio.gather(*(feed.cancel() for feed in feeds), return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.backend.aclose()
        except ComfynbError:
            logger.exception("%s: closing failed", self.label)


_lock = threading.RLock()  # re-entrant: a garbage collection may let go while we hold it
_lanes: dict[Hashable, Lane] = {}
_closing: set[Any] = set()


def lane(key: Hashable, make: Callable[[], Backend]) -> Lane:
    """Return the process's lane for a server, held once for the caller.

    Args:
        key: Tells servers (with their credentials) apart.
        make: Makes the backend if there is none yet; sends nothing.
    """
    with _lock:
        if key not in _lanes:
            _lanes[key] = Lane(key, make())
        found = _lanes[key]
        found.hold()
        return found


def connected() -> list[Lane]:
    """Return the lanes of this process whose servers are connected, whoever holds them."""
    with _lock:
        return [lane for lane in _lanes.values() if lane.backend.line == "connected"]


def hold_all(lanes: Sequence[Lane]) -> None:
    """Hold some lanes, or none of them.

    Raises:
        ClosedError: The last user of one has let go of it.
    """
    held: list[Lane] = []
    try:
        for each in lanes:
            each.hold()
            held.append(each)
    except ClosedError:
        for each in held:
            each.let_go()
        raise


def wait_closed(timeout: float = 15.0) -> None:
    """Block until every lane that was let go of is closed.

    Args:
        timeout: Seconds for each.
    """
    for closing in list(_closing):
        closing.result(timeout)


def _close_all() -> None:
    """Leave no prompt, socket or process behind when the interpreter ends."""
    with _lock:
        lanes = list(_lanes.values())
        _lanes.clear()
    for left in lanes:
        with contextlib.suppress(Exception):
            loop.start(left.aclose()).result(5.0)


# Closing needs workers, and those end before `atexit` begins: hence the hook that they use
# themselves (CPython 3.9 to 3.14). Hooks run in reverse order, so ours comes first.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _forget_after_fork() -> None:
    """Their sockets belong to the parent: a child makes its own."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.RLock()
    _lanes.clear()
    _closing.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)

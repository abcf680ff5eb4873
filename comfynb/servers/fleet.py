"""The servers of one run: which take cells, which are away, and what they are called together.

Each lane takes a cell from the run's queue whenever it has a free slot, so a slow server is given
fewer and none waits for another. One that is away, or lacks what the cells need, is left out with
a warning and tried again now and then; the run stops only when no server is left. While the line
to one is down, the others may make what it has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from comfynb.backends.base import Line, ServerInfo
from comfynb.errors import ComfynbError
from comfynb.servers.lanes import Feed, Lane

logger = logging.getLogger(__name__)

LATE_SECONDS = 3.0
"""How long the first server that is there waits for the others, which may have orphans of ours."""
AGAIN_SECONDS = 10.0
"""Between two tries to reach a server that is away."""
WATCH_SECONDS = 0.25
"""Between two looks at how the lines stand, where there are several."""

_BEST_FIRST: tuple[Line, ...] = ("connected", "reconnecting", "none", "gone")

Admit = Callable[[Lane], Awaitable[None]]


class Fleet:
    """The lanes of one run. Used on our loop only, but for what it is called and how it stands.

    Attributes:
        lanes: All of them.
        live: Those that are there and may take cells.
        versions: What their servers call their versions, by label.
    """

    def __init__(self, lanes: Sequence[Lane], admit: Admit) -> None:
        """Prepare; nothing is connected.

        Args:
            lanes: At least one.
            admit: Asked about each server that is there; raises where it cannot take the cells.
        """
        self.lanes = tuple(lanes)
        self.live: list[Lane] = []
        self.versions: dict[str, str] = {}
        self._admit = admit
        self._feed: Feed | None = None
        self._refused: dict[Lane, ComfynbError] = {}
        self._settled = asyncio.Event()
        self._connecting: dict[Lane, asyncio.Task[None]] = {}
        self._down_since: dict[Lane, float] = {}
        self._watching: asyncio.Task[None] | None = None

    # -- from any thread

    @property
    def label(self) -> str:
        """Names of the servers."""
        return ", ".join(lane.label for lane in self.lanes)

    @property
    def lines(self) -> Mapping[str, Line]:
        """How the line to each server stands, by its label."""
        return {lane.label: lane.backend.line for lane in self.lanes}

    @property
    def line(self) -> Line:
        """How the best line stands: pictures come as long as there is one."""
        return min(self.lines.values(), key=_BEST_FIRST.index)

    # -- on our loop

    async def open(self) -> None:
        """Connect to all; return when at least one is there.

        Raises:
            ComfynbError: None is: what the first one's error was.
        """
        for lane in self.lanes:
            self._connect(lane)
        await self._until(lambda: bool(self.live) or not self._pending)
        with suppress(TimeoutError):
            async with asyncio.timeout(LATE_SECONDS):
                await self._until(lambda: not self._pending)
        if not self.live:
            raise self._refused[self.lanes[0]]

    def feed(self, feed: Feed) -> None:
        """Give a run its turns on every lane that is there, and on those that come."""
        self._feed = feed
        for lane in self.live:
            lane.add(feed)
        if len(self.lanes) > 1:
            self._watching = asyncio.create_task(self._watch(), name="comfynb-lines")

    async def _watch(self) -> None:
        """See which lines are down: nothing else would wake those that can stand in."""
        while True:
            for lane in self.lanes:
                if lane.backend.line == "connected":
                    self._down_since.pop(lane, None)
                else:
                    self._down_since.setdefault(lane, time.monotonic())
            if self._down_since:
                self.wake()
            await asyncio.sleep(WATCH_SECONDS)

    def down(self, lane: Lane) -> float:
        """Return for how many seconds the line to a server has been down; 0: it stands."""
        now = time.monotonic()
        return now - self._down_since.get(lane, now)

    def may_take(self, lane: Lane) -> bool:
        """Whether a lane should be given a cell now: not while it reconnects and others do not."""
        return lane.backend.line != "reconnecting" or all(
            other.backend.line == "reconnecting" for other in self.live
        )

    def drop(self, lane: Lane, error: ComfynbError) -> bool:
        """Give a lane nothing more until it can be reached again.

        Args:
            lane: Whose server is gone, or cannot take the cells.
            error: Why.

        Returns:
            Whether another one is left.
        """
        if lane in self.live and len(self.live) > 1:
            self._leave(lane)
            self._connect(lane, after=error)
            return True
        return any(other is not lane for other in self.live)

    def wake(self) -> None:
        """Have every lane look for work."""
        for lane in self.live:
            lane.wake()

    async def aclose(self) -> None:
        """Take nothing more."""
        for lane in list(self.live):
            self._leave(lane)
        tasks = [*self._connecting.values(), *filter(None, [self._watching])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # We are the run's and would hold it: with it go its studio and its server, and those
        # should go at once, not whenever somebody collects rings.
        self._connecting.clear()
        self._feed, self._admit = None, _anything

    # -- one lane

    @property
    def _pending(self) -> bool:
        return any(lane not in self.live and lane not in self._refused for lane in self.lanes)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._settled.clear()
            await self._settled.wait()

    def _leave(self, lane: Lane) -> None:
        self.live.remove(lane)
        if self._feed is not None:
            lane.remove(self._feed)

    def _connect(self, lane: Lane, *, after: ComfynbError | None = None) -> None:
        trying = self._try(lane, after)
        self._connecting[lane] = asyncio.create_task(trying, name="comfynb-fleet")

    async def _try(self, lane: Lane, error: ComfynbError | None) -> None:
        """Reach a server, trying again for as long as the run lasts."""
        while True:
            if error is not None:
                self._refuse(lane, error)
                await asyncio.sleep(AGAIN_SECONDS)
            try:
                info: ServerInfo = await lane.open()
                await self._admit(lane)
            except ComfynbError as exc:
                error = exc
            except Exception as exc:
                logger.exception("%s: an error of comfynb's own", lane.label)
                error = ComfynbError(f"an error of comfynb's own: {exc!r}; please report it")
            else:
                break
        self._refused.pop(lane, None)
        self.versions[lane.label] = info.version
        self.live.append(lane)
        self._settled.set()
        if self._feed is not None:
            lane.add(self._feed)

    def _refuse(self, lane: Lane, error: ComfynbError) -> None:
        if lane not in self._refused and len(self.lanes) > 1:
            logger.warning("%s is given no pictures to make for now: %s", lane.label, error)
        self._refused[lane] = error
        self._settled.set()


async def _anything(lane: Lane) -> None:
    """Admit a server: nothing is wanted of it any more."""

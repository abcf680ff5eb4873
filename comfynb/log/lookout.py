"""One look a second at a log, for all boards of this process that want to know.

Who joins is told what is appended from then on, and reads what was there before by itself, after
joining: so nothing falls in between. Nobody looks while nobody wants to know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from comfynb import loop
from comfynb.errors import LogError
from comfynb.log.news import News

if TYPE_CHECKING:
    from comfynb.log.following import Follower

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks."""

Tell = Callable[[News], object]


class Lookout:
    """Looks at a log while somebody wants to know. Used on our loop only.

    Args:
        follower: Makes what looks; called in a worker.
    """

    def __init__(self, follower: Callable[[], Follower]) -> None:
        self._make = follower
        self._told: list[Tell] = []
        self._looking: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @asynccontextmanager
    async def joined(self, tell: Tell) -> AsyncIterator[None]:
        """Have `tell` called with whatever is appended after this has been entered."""
        self._told.append(tell)
        try:
            if self._looking is None:
                self._ready.clear()
                self._looking = asyncio.create_task(self._look(), name="comfynb-log-lookout")
            await self._ready.wait()
            yield
        finally:
            self._told.remove(tell)
            if not self._told and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        follower = await loop.in_worker(self._make)
        said = False
        while True:
            try:
                news = await loop.in_worker(follower.look)
                self._ready.set()
                if news is not None:
                    for tell in list(self._told):
                        tell(news)
            except LogError as exc:
                if not said:
                    logger.warning("%s", exc)
                said = True
            await asyncio.sleep(LOOK_SECONDS)

"""One copy of the widget in one browser tab: what it knows, and how much it may be sent.

Pure bookkeeping: nothing is sent from here. Used on comfynb's own loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from comfynb.widgets.wire import Head

CREDIT = 4
"""Batches to one client that may be unacknowledged."""
PICTURE_CREDIT = 24
"""Thumbnails to one client beyond its last acknowledged batch; a full picture counts as six."""
SILENCE_SECONDS = 10.0
"""A client that owes an acknowledgement for so long is forgotten."""


class Client:
    """One copy of the widget in one browser tab, as we know it.

    Attributes:
        id: It chose it by itself.
        version: Of the board; what it was sent leads there.
        visible: The cells on its screen.
        told: What was said about each visible cell, as a fingerprint.
        previews: The rough pictures it was sent last.
        thumbs: Of each visible cell the thumbnail that was sent: sha256, and `pictures` then.
        heard_at: When it said something; seconds, monotonic.
        told_at: When it was sent a batch.
        waiting: Requests that are not answered yet.
        owed: A batch is due, whether there is news or not: it said hello.
        head: As it was sent.
        wake: Set where there may be something to tell.
    """

    def __init__(self, client_id: str) -> None:
        self.id = client_id
        self.version = 0
        self.visible = range(0)
        self.told: dict[int, object] = {}
        self.previews: dict[int, bytes] = {}
        self.thumbs: dict[int, tuple[str, int]] = {}
        self.heard_at, self.told_at = time.monotonic(), 0.0
        self.waiting = 0
        self.owed = True
        self.head: Head | None = None
        self.wake, self.wake_thumbs = asyncio.Event(), asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._seq = 0
        self._unacked: deque[tuple[int, int]] = deque()  # number of a batch, pictures before it
        self._pictures = self._pictures_acked = 0
        self._acked = asyncio.Event()

    def hello(self, have: int) -> None:
        """Go on from a version; what is on its way counts as lost."""
        self.version, self.owed = have, True
        self._unacked.clear()
        lost = [i for i, (_, number) in self.thumbs.items() if number > self._pictures_acked]
        for index in lost:
            del self.thumbs[index]
        self._pictures_acked = self._pictures
        if have == 0:
            self.told.clear()
            self.thumbs.clear()
        self._go_on()

    def see(self, visible: range) -> None:
        """Remember what is on its screen, and forget what was told of the rest."""
        self.visible = visible
        self.told = {i: said for i, said in self.told.items() if i in visible}
        self.previews = {i: data for i, data in self.previews.items() if i in visible}
        self.thumbs = {i: sent for i, sent in self.thumbs.items() if i in visible}
        self._go_on()

    def ack(self, seq: int) -> None:
        """Take back the credit of a batch and of all that was sent before it."""
        while self._unacked and self._unacked[0][0] <= seq:
            self._pictures_acked = self._unacked.popleft()[1]
        self._go_on()

    def _go_on(self) -> None:
        self.wake.set()
        self.wake_thumbs.set()
        self._acked.set()

    def next_seq(self) -> int:
        """Number a batch that is about to be sent."""
        self._seq += 1
        self._unacked.append((self._seq, self._pictures))
        self.told_at = time.monotonic()
        return self._seq

    def pay(self, cost: int = 1) -> int:
        """Take the credit of a picture that is about to be sent; return `pictures`."""
        self._pictures += cost
        return self._pictures

    async def until_picture_credit(self) -> None:
        """Wait until a picture may be sent."""
        while not self.picture_credit:
            self._acked.clear()
            await self._acked.wait()

    @property
    def credit(self) -> bool:
        """Whether a batch may be sent."""
        return len(self._unacked) < CREDIT

    @property
    def picture_credit(self) -> bool:
        """Whether a picture may be sent."""
        return self._pictures - self._pictures_acked < PICTURE_CREDIT

    @property
    def pictures_unmarked(self) -> bool:
        """Whether pictures were sent behind which no batch asks for an acknowledgement."""
        marked = self._unacked[-1][1] if self._unacked else self._pictures_acked
        return self._pictures > marked

    @property
    def silent(self) -> bool:
        """Whether it owes an acknowledgement for too long."""
        return bool(self._unacked) and time.monotonic() - self.heard_at > SILENCE_SECONDS

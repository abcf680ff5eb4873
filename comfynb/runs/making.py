"""What this process is making right now, so that no key is made twice at once.

Two runs that share a cell: the first makes it, the second waits for it. One of these stands for
each store, since a picture in another log is of no use to this one.

It also remembers what this process has sent to a server that then went away. The log lists only
what dead sessions have left; but when the server is back, a prompt of our own is to be asked for
before it is sent again just as much.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from weakref import WeakKeyDictionary

from comfynb.keyframes import Keyframe
from comfynb.log import Store, SubmittedRecord


class Making:
    """The keys in flight of one store. Used on our loop only."""

    def __init__(self) -> None:
        self._runs = 0
        self._in_flight: dict[str, asyncio.Future[Keyframe | None]] = {}
        self._made: dict[str, Keyframe] = {}
        self._abandoned: dict[str, SubmittedRecord] = {}

    def enter(self) -> None:
        """A run begins. From here on it sees here what is made, and in the log what was."""
        self._runs += 1

    def leave(self) -> None:
        """A run ends; the last one takes the memory with it."""
        self._runs -= 1
        if not self._runs:
            self._made.clear()

    def made(self, key: str) -> Keyframe | None:
        """Return the keyframe made for this key while any run was active."""
        return self._made.get(key)

    def forget(self, key: str) -> None:
        """Say that what was made for this key is there no longer."""
        self._made.pop(key, None)

    def in_flight(self, key: str) -> asyncio.Future[Keyframe | None] | None:
        """Return what to await while somebody makes this key."""
        return self._in_flight.get(key)

    def begin(self, key: str) -> None:
        """Say that the caller makes this key."""
        self._in_flight.setdefault(key, asyncio.get_running_loop().create_future())

    def end(self, key: str, keyframe: Keyframe | None) -> None:
        """Say what came out; None: nothing that others could share, they make it themselves."""
        if keyframe is not None and keyframe.ok:
            self._made[key] = keyframe
            for record in self.abandoned({key}):
                self.settled(record)
        future = self._in_flight.pop(key, None)
        if future is not None and not future.done():
            future.set_result(keyframe)

    def abandon(self, record: SubmittedRecord) -> None:
        """Say that a prompt's server went away: nobody knows what became of it."""
        self._abandoned[record.prompt_id] = record

    def abandoned(self, keys: Collection[str]) -> list[SubmittedRecord]:
        """Return the abandoned prompts of some keys, in the order in which they were sent."""
        return [record for record in self._abandoned.values() if record.key in keys]

    def settled(self, record: SubmittedRecord) -> None:
        """Say that it is known what became of a prompt."""
        self._abandoned.pop(record.prompt_id, None)


_by_store: WeakKeyDictionary[Store, Making] = WeakKeyDictionary()


def making(store: Store) -> Making:
    """Return the one `Making` of a store."""
    return _by_store.setdefault(store, Making())


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_by_store.clear)  # the parent makes that, not the child

"""A value that is worked out while somebody waits for a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Works a value out once, for whoever is first: another thread, or who needs it.

    Args:
        work: Makes the value. Where it raises, who needs the value is told, and may ask again.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._made: list[T] = []
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Work it out now, in whatever thread this is."""
        with suppress(Exception):
            self.get()

    def get(self) -> T:
        """Return it; waits for a thread that is just working it out."""
        with self._lock:
            if not self._made:
                self._made.append(self._work())
            return self._made[0]

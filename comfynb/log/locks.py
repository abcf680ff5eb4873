"""Which sessions live: each holds a lock on its segment, and loses it with its process.

A session is one open log of one process. All its segments end in the same eight hex digits, and
while it lives the newest of them is locked. The lock protects nothing (each file has one writer):
it only tells others that this writer may still come back to what it began.

Where locks do not exist (Windows, many network and cloud mounts) nobody can be told dead from
alive: there every session counts as living, and what a dead one left behind stays as it is.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

SEGMENT = re.compile(r"\d{13}-([0-9a-f]{8})\.jsonl")
"""A segment that its session may still be writing, and the session's digits."""

_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


def take(descriptor: int) -> bool | None:
    """Take the lock of an open file for as long as it is open; never waits.

    Returns:
        Whether it was taken; None where the file system has no locks.
    """
    return _take(descriptor, shared=False)


def _take(descriptor: int, *, shared: bool) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        return False if exc.errno in _HELD else None
    return True


def living(segments: Path) -> frozenset[str] | None:
    """Return the sessions that live, as the eight digits in their segments' names.

    Args:
        segments: The `seg` folder of a log; must exist.

    Returns:
        None where that cannot be known: nobody may be taken for dead.

    Raises:
        OSError: The folder or a segment cannot be read.
    """
    if not _has_locks(segments):
        return None
    alive = set()
    for name in os.listdir(segments):  # noqa: PTH208 - names, not paths
        found = SEGMENT.fullmatch(name)
        if found is not None and not _is_free(segments / name):
            alive.add(found[1])
    return frozenset(alive)


def _has_locks(folder: Path) -> bool:
    if fcntl is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _take(descriptor, shared=True) is True
    finally:
        os.close(descriptor)


def _is_free(path: Path) -> bool:
    # Shared: two that look at the same time do not take each other for its writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:  # sealed meanwhile; its writer, if it lives, has a newer one
        return True
    except OSError as exc:
        if exc.errno == errno.ELOOP:  # a link is nobody's segment
            return True
        raise
    try:
        return _take(descriptor, shared=True) is True
    finally:
        os.close(descriptor)

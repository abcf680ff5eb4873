"""Appending rows: one file per process, which nobody else ever writes.

A row is one line, written in one call to a file opened for appending, and made durable before
the call returns. Nothing is shared, so no lock is needed for correctness: two processes write two
segments, and readers see both. Where the system has `flock` the segment is locked as long as its
writer lives, which tells others that they must not take it for an orphan.

Every row is numbered within its session as it is written (`seq`), in the order in which it stands
in the file. Whoever follows a log remembers one number of each session, and with that knows what
is new, whatever becomes of the files (following.py).

A segment that has grown long is retired: the session goes on in a new one, and whoever retired
it seals it (sealing.py). The new one is locked before the old one is let go, so that a living
session always holds a lock (locks.py).

A segment that another process has claimed all the same (a lock lost in a network partition) has
another name or none: the writer notices after each row and writes that row again into a new
segment; readers keep one row of each id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from comfynb.log import locks
from comfynb.log.folder import CREATE, FULL, sync_data, sync_folder, temporary_name, write_all

FORMS = (".jsonl", ".claimed.jsonl", ".parquet")
"""The endings under which the rows of a segment can be."""

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that this process began.

    Attributes:
        path: Where it is, unless somebody claimed it.
        descriptor: Open for appending; holds the lock.
        inode: Of the file, with its device.
    """

    path: Path
    descriptor: int
    inode: tuple[int, int]

    def is_there(self) -> bool:
        """Whether the file still has its name."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return False
        return (status.st_ino, status.st_dev) == self.inode

    def close(self) -> None:
        """Give up the lock."""
        os.close(self.descriptor)


class SegmentWriter:
    """Appends lines to this process's segment; opened at the first one. Thread-safe.

    Args:
        folder: The log's `seg` folder; must exist when a line is appended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Re-entrant: a garbage collection that closes a log may fall into its own call.
        self._lock = threading.RLock()
        self._segment: Segment | None = None
        self._size = 0
        self._rows = 0
        self._begin_session()

    def _begin_session(self) -> None:
        self._pid = os.getpid()
        self._session = uuid.uuid4().hex
        self._seq = 0

    @property
    def session(self) -> str:
        """Which open log of which process this is: 32 hex digits, another in a forked child."""
        with self._lock:
            self._notice_fork()
            return self._session

    def append(self, line: bytes, *, sync: bool) -> None:
        """Append a row, with its number in this session.

        Args:
            line: A JSON object of at least one name, with its line feed.
            sync: Return only when it, and every line before it, is durable. Without, it survives
                the end of this process but not a power cut.

        Raises:
            OSError: It could not be written; no part of it is left, and what stood before is safe.
        """
        with self._lock:
            self._notice_fork()
            self._seq += 1  # also of a row that cannot be written: gaps mean nothing
            line = b'%b,"seq":%d}\n' % (line.removesuffix(b"}\n"), self._seq)
            for attempt in range(1, _ATTEMPTS + 1):
                segment = self._open()
                try:
                    write_all(segment.descriptor, line)
                except OSError:
                    self._undo(segment)
                    raise
                try:
                    if sync:
                        sync_data(segment.descriptor)
                except OSError as exc:
                    # The system may have thrown the unwritten pages away and would call the next
                    # sync of this file a success: never trust the file again.
                    self._undo(segment)
                    self._leave()
                    if exc.errno in FULL or attempt == _ATTEMPTS:
                        raise
                    continue
                self._size += len(line)
                self._rows += 1
                if segment.is_there():
                    return
                self._leave()
            raise OSError(errno.EIO, "segments are taken away as fast as they are made")

    @property
    def rows(self) -> int:
        """How many lines the segment has."""
        return self._rows

    @property
    def size(self) -> int:
        """Size of the segment in bytes."""
        return self._size

    def roll(self) -> Segment | None:
        """Go on in a new segment.

        Returns:
            The one before, to be sealed and closed by the caller; None: there was none.

        Raises:
            OSError: No new one could be made; the old one goes on.
        """
        with self._lock:
            self._notice_fork()
            if self._segment is None:
                return None
            session = self._session
        fresh = self._create(session)  # appending goes on meanwhile
        with self._lock:
            retired = self._segment
            if retired is None or session != self._session:
                fresh.close()
                return None
            self._segment, self._size, self._rows = fresh, 0, 0
            return retired

    def retire(self) -> Segment | None:
        """End the segment; another line would open a new one.

        Returns:
            The segment, to be sealed and closed by the caller; None: there was none.
        """
        with self._lock:
            self._notice_fork()
            retired, self._segment = self._segment, None
            return retired

    def __del__(self) -> None:
        self._leave()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():  # a child: the segment and the session are its parent's
            self._leave()
            self._begin_session()

    def _open(self) -> Segment:
        self._notice_fork()
        if self._segment is None:
            self._segment = self._create(self._session)
            self._size = self._rows = 0
        return self._segment

    def _create(self, session: str) -> Segment:
        path = self._new_path(session)
        descriptor = self._create_locked(path)
        try:
            status = os.fstat(descriptor)
            sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            raise
        return Segment(path, descriptor, (status.st_ino, status.st_dev))

    def _new_path(self, session: str) -> Path:
        stamp = time.time_ns() // 1_000_000
        while True:
            path = self.folder / f"{stamp:013d}-{session[:8]}.jsonl"
            if not any(os.path.lexists(path.with_suffix(end)) for end in FORMS):
                return path
            stamp += 1  # two segments of this session within a millisecond

    def _create_locked(self, path: Path) -> int:
        """Create a segment that has its lock, where locks exist, before it has its name."""
        if os.name == "nt":  # an open file cannot be renamed there, nor locked
            return os.open(path, CREATE | os.O_APPEND, 0o666)
        temporary = temporary_name(self.folder)
        descriptor = os.open(temporary, CREATE | os.O_APPEND, 0o666)
        try:
            locks.take(descriptor)
            temporary.rename(path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return descriptor

    def _leave(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _undo(self, segment: Segment) -> None:
        """Take a line that is not whole off the end again, or leave the file as it is."""
        try:
            os.ftruncate(segment.descriptor, self._size)
        except OSError:
            self._leave()  # readers pass over a torn end; a line behind it would be lost

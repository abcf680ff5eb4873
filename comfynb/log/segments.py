"""Appending rows: one file per process, which nobody else ever writes.

A row is one line, written in one call to a file opened for appending, and made durable before
the call returns. Nothing is shared, so no lock is needed for correctness: two processes write two
segments, and readers see both. Where the system has `flock` the segment is locked as long as its
writer lives, which tells others that they must not take it for an orphan.

A segment that another process has claimed all the same (a lock lost in a network partition) has
another name or none: the writer notices after each row and writes that row again into a new
segment; readers keep one row of each id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
import uuid
from pathlib import Path

from comfynb.log import locks
from comfynb.log.folder import CREATE, FULL, sync_data, sync_folder, write_all

_ATTEMPTS = 3


class SegmentWriter:
    """Appends lines to this process's segment; opened at the first one. Thread-safe.

    Args:
        folder: The log's `seg` folder; must exist when a line is appended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Re-entrant: a garbage collection that closes a log may fall into its own call.
        self._lock = threading.RLock()
        self._descriptor: int | None = None
        self._path = folder
        self._file = (0, 0)  # inode and device
        self._size = 0
        self._pid = os.getpid()
        self._session = uuid.uuid4().hex

    @property
    def session(self) -> str:
        """Which open log of which process this is: 32 hex digits, another in a forked child."""
        with self._lock:
            self._notice_fork()
            return self._session

    def append(self, line: bytes, *, sync: bool) -> None:
        """Append a line.

        Args:
            line: With its line feed.
            sync: Return only when it, and every line before it, is durable. Without, it survives
                the end of this process but not a power cut.

        Raises:
            OSError: It could not be written; no part of it is left, and what stood before is safe.
        """
        with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                descriptor = self._open()
                try:
                    write_all(descriptor, line)
                except OSError:
                    self._undo(descriptor)
                    raise
                try:
                    if sync:
                        sync_data(descriptor)
                except OSError as exc:
                    # The system may have thrown the unwritten pages away and would call the next
                    # sync of this file a success: never trust the file again.
                    self._undo(descriptor)
                    self._leave()
                    if exc.errno in FULL or attempt == _ATTEMPTS:
                        raise
                    continue
                self._size += len(line)
                if self._is_ours():
                    return
                self._leave()
            raise OSError(errno.EIO, "segments are taken away as fast as they are made")

    def __del__(self) -> None:
        self._leave()

    def close(self) -> None:
        """Close the segment; another line would open a new one."""
        with self._lock:
            self._leave()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():  # a child: the segment and the session are its parent's
            self._leave()
            self._pid, self._session = os.getpid(), uuid.uuid4().hex

    def _open(self) -> int:
        self._notice_fork()
        if self._descriptor is None:
            self._path = self._new_path()
            self._descriptor = self._create_locked(self._path)
            status = os.fstat(self._descriptor)
            self._file, self._size = (status.st_ino, status.st_dev), 0
            sync_folder(self.folder)
        return self._descriptor

    def _new_path(self) -> Path:
        stamp = time.time_ns() // 1_000_000
        while True:
            path = self.folder / f"{stamp:013d}-{self._session[:8]}.jsonl"
            if not any(self.folder.glob(f"{path.stem}.*")):
                return path
            stamp += 1  # two segments of this session within a millisecond

    def _create_locked(self, path: Path) -> int:
        """Create a segment that has its lock, where locks exist, before it has its name."""
        if os.name == "nt":  # an open file cannot be renamed there, nor locked
            return os.open(path, CREATE | os.O_APPEND, 0o666)
        temporary = self.folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
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
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _undo(self, descriptor: int) -> None:
        """Take a line that is not whole off the end again, or leave the file as it is."""
        try:
            os.ftruncate(descriptor, self._size)
        except OSError:
            self._leave()  # readers pass over a torn end; a line behind it would be lost

    def _is_ours(self) -> bool:
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        return (there.st_ino, there.st_dev) == self._file

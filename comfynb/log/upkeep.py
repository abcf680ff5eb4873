"""Sealing, adopting and merging beside the appending, in a thread of their own.

Appending only says that there may be something to do. A thread then does it and ends; it takes
none of the locks that an append waits for for longer than a moment, and lets the first pictures of
a session come first. What goes wrong here (a full disk, a folder that was removed) loses nothing
and stops nobody: the segment stays as it is, and the next one tries again.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from comfynb.log.listing import list_segments
from comfynb.log.segments import Segment, SegmentWriter

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

logger = logging.getLogger(__name__)

SEAL_ROWS = 1000
"""Rows after which a segment is sealed."""

WORTH_ROWS = 100
"""A segment that is closed with fewer rows is left to the next who opens the log: JSON lines are
read as quickly, and closing should not take the time to load DuckDB."""

FIRST_DELAY = 3.0
"""Seconds for which what others left behind waits after the first append."""


class Upkeep:
    """Keeps the segments of a log tidy. Thread-safe.

    Args:
        root: The log folder.
        segment: The writer of this process.
    """

    def __init__(self, root: Path, segment: SegmentWriter) -> None:
        self.root = root
        self.segment = segment
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        # Re-entrant: a garbage collection that closes a log may fall into its own call.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._connection: DuckDBPyConnection | None = None
        self._wanted = False
        self._stopped = threading.Event()

    def opened(self) -> None:
        """Look after what others left behind; called before the first append."""
        listing = list_segments(self.root)
        if listing.active or listing.replaced or len(listing.sealed) > 1:
            self._wake(FIRST_DELAY)

    def appended(self) -> None:
        """Seal the segment if it has grown long; called after each append."""
        if self.segment.rows >= SEAL_ROWS:
            self._wake()

    def close(self) -> None:
        """Stop, and seal the segment; blocks, a merge is broken off. Safe to call twice."""
        self._stop()
        rows = self.segment.rows
        retired = self.segment.retire()
        if retired is not None:
            self._end(retired, worth=rows >= WORTH_ROWS)

    def _stop(self) -> None:
        self._notice_fork()
        self._stopped.set()
        with self._lock:
            thread = self._thread
            if self._connection is not None:
                self._connection.interrupt()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _wake(self, delay: float = 0.0) -> None:
        self._notice_fork()
        with self._lock:
            self._wanted = True
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(
                    target=self._work, args=(delay,), name="comfynb-log-upkeep", daemon=True
                )
                atexit.register(self._stop)  # DuckDB must not be at work while Python ends
                self._thread.start()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():  # a child has no thread, and perhaps a lock nobody releases
            self._begin()

    def _work(self, delay: float) -> None:
        try:
            if not self._stopped.wait(delay):
                self._tidy_up()
        finally:
            atexit.unregister(self._stop)

    def _tidy_up(self) -> None:
        from comfynb.log import merging, sealing  # noqa: PLC0415 - DuckDB takes 0.1 s

        while True:
            with self._lock:
                if not self._wanted or self._stopped.is_set():
                    self._thread = None
                    return
                self._wanted = False
            try:
                with sealing.database() as connection, self._interruptible(connection):
                    if self.segment.rows >= SEAL_ROWS:
                        retired = self.segment.roll()
                        if retired is not None:
                            self._end(retired, worth=True)
                    if not self._stopped.is_set():
                        sealing.adopt(self.root / "seg", connection)
                    if not self._stopped.is_set():
                        merging.merge(self.root, connection)
            except Exception as exc:  # noqa: BLE001 - the top of a thread
                self._report(exc)

    @contextlib.contextmanager
    def _interruptible(self, connection: DuckDBPyConnection) -> Iterator[None]:
        with self._lock:
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def _end(self, retired: Segment, *, worth: bool) -> None:
        """Seal a segment of ours where that is worth it, and give it up."""
        try:
            if not retired.is_there():
                return  # claimed by somebody; its rows are safe with them
            if retired.path.stat().st_size == 0:
                retired.path.unlink()
            elif worth:
                from comfynb.log import sealing  # noqa: PLC0415 - DuckDB takes 0.1 s

                with sealing.database() as connection:
                    sealing.seal(retired.path, connection)
        except Exception as exc:  # noqa: BLE001 - its lines stay, nothing is lost
            self._report(exc)
        finally:
            retired.close()

    def _report(self, exc: Exception) -> None:
        with contextlib.suppress(OSError):
            if not self._stopped.is_set() and (self.root / "seg").is_dir():
                logger.warning("the log at %s could not be tidied up: %s", self.root, exc)

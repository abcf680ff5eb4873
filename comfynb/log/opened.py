"""What every part of an open log stands on: its folder, made when it is first written to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from comfynb.errors import ClosedError, LogWriteError
from comfynb.log import folder as files
from comfynb.log import leaving, records
from comfynb.log.blobs import Blobs
from comfynb.log.schema import LARGEST_ROW
from comfynb.log.segments import SegmentWriter
from comfynb.log.upkeep import Upkeep

if TYPE_CHECKING:
    from comfynb.log.reader import Reader


class Opened:
    """A log folder with what writes to it and reads from it."""

    def _open(
        self, folder: str | os.PathLike[str], *, read_only: bool, leave_out: str | Iterable[str]
    ) -> None:
        """Begin; see `Log`."""
        # Absolute at once: a notebook may change its working directory.
        self.folder = Path(folder).expanduser().absolute()
        self.read_only = read_only
        self._leaving = leaving.Leaving(self.folder, leave_out)
        self._blobs = Blobs(self.folder)
        self._segment = SegmentWriter(self.folder / "seg")
        self._upkeep = Upkeep(self.folder, self._segment)
        # Re-entrant: a garbage collection that closes a log may fall into its own call.
        self._lock = threading.RLock()
        self._created = False
        self._closed = False
        self._opened_reader: Reader | None = None
        files.check_version(self.folder)

    @property
    def shown(self) -> str:
        """The folder as it is named on screen: from the working directory, or from home.

        Notebooks are saved with what they show, and passed on; an absolute path is nobody's
        business.
        """
        for start, sign in ((Path.cwd(), ""), (Path.home(), "~/")):
            if self.folder.is_relative_to(start):
                return f"{sign}{self.folder.relative_to(start).as_posix()}"
        return str(self.folder)

    @property
    def leaves_out(self) -> tuple[str, ...]:
        """What is not written into it: nothing, "workflows", or "prompts" and "workflows".

        Raises:
            LogError: The folder is not that of a log any more.
        """
        return tuple(sorted(self._leaving.words))

    @property
    def _reader(self) -> Reader:
        with self._lock:
            if self._opened_reader is None:
                from comfynb.log.reader import Reader  # noqa: PLC0415 - DuckDB takes 0.1 s

                self._opened_reader = Reader(self.folder)
            return self._opened_reader

    def _append(self, row: records.Row, *, what: str, sync: bool = True) -> None:
        self._append_line(records.line(row), what=what, sync=sync)

    def _append_line(self, line: bytes, *, what: str, sync: bool = True) -> None:
        if len(line) > LARGEST_ROW:
            raise LogWriteError(
                f"{what} takes {len(line)} bytes as a row; at most {LARGEST_ROW} can be read "
                "again. Make it in several runs",
                folder=str(self.folder),
            )
        self._write(lambda: self._segment.append(line, sync=sync), what=what)
        self._upkeep.appended()

    def _check_writable(self) -> None:
        if self._closed:
            raise ClosedError(f"the log at {self.folder} was closed: open it again to append")
        if self.read_only:
            raise LogWriteError(
                f"the log at {self.folder} was opened with read_only=True: open it without to "
                "append",
                folder=str(self.folder),
            )
        self._leaving.check()

    def _begin(self, what: str) -> frozenset[str]:
        """Make the folder, and return what is left out: that stands in it."""
        self._write(lambda: None, what=what)
        words = self._leaving.words
        self._leaving.check()
        return words

    def _write(self, write: Callable[[], None], *, what: str) -> None:
        self._check_writable()
        try:
            try:
                self._create()
                write()
            except FileNotFoundError:  # the folder was removed since: begin a new one
                self._created = False
                self._create()
                write()
        except OSError as exc:
            raise files.write_error(exc, self.folder, what) from exc

    def _create(self) -> None:
        with self._lock:
            if not self._created:
                files.create(self.folder, self._leaving.words)
                self._created = True
                self._upkeep.opened()

"""What any process appends to a log, as soon as it is there.

No process tells another anything: who follows looks once a second, at names and sizes first, which
costs next to nothing while nothing happens. Lines that were added to a segment are read from where
the last look ended. But segments are sealed and merged meanwhile, so files alone cannot say what
is new; rows can. Each has its number in its session, so that one number a session, the cursor, says
exactly which rows have been seen, in whatever file they are by now, and after a restart too.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from comfynb.errors import LogError
from comfynb.keyframes import Pictures
from comfynb.log.listing import Listing, list_segments
from comfynb.log.news import Cursor, News

CALM_NS = 2_000_000_000
"""A folder that was changed less long ago may be changed again within one tick of its clock."""

_ATTEMPTS = 50

_MARK = b'"kind":"mark"'
"""As this process writes it (`records.json_text`)."""


class Follower:
    """Looks at a log again and again. Every look blocks for milliseconds; one at a time.

    Args:
        root: The log folder; need not exist yet.
        pictures: Where the bytes of its keyframes are.
        cursor: What was seen already; None: all that is there at the first look.
        ours: Of the session with this id nothing but marks is given: who asks knows the rest.
    """

    def __init__(
        self, root: Path, pictures: Pictures, cursor: Cursor | None = None, *, ours: str = ""
    ) -> None:
        self.root = root
        self._pictures, self._ours = pictures, ours
        self._cursor = cursor
        self._sealed: set[Path] = set()  # looked at: they never change
        self._ends: dict[Path, int] = {}  # of whole lines in growing files, in bytes
        self._calm: _Stamp | None = None  # of a folder that had been left alone for a while

    def look(self) -> News | None:
        """Return what was appended since the last look, if anything.

        Raises:
            LogError: The log cannot be read; the next look may be luckier, and misses nothing.
        """
        try:
            stamp = _stamp(self.root, self._ends)
            if stamp == self._calm:
                return None
            news = self._look()
        except OSError as exc:
            raise LogError(
                f"cannot follow the log at {self.root}: {exc}", folder=str(self.root)
            ) from exc
        whole = stamp.is_calm and stamp.sizes.keys() == self._ends.keys()
        self._calm = stamp if whole else None
        return news

    def _look(self) -> News | None:
        listing = list_segments(self.root)
        for _ in range(_ATTEMPTS):
            try:
                return self._read(listing)
            except OSError:
                before, listing = listing, list_segments(self.root)
                if listing == before and not self._pass_over_unsound(listing):
                    raise  # no file went meanwhile, and none is to blame
        return self._read(listing)

    def _pass_over_unsound(self, listing: Listing) -> bool:
        """Pass over what looks whole and cannot be read; the reader names it in a warning."""
        from comfynb.log import views  # noqa: PLC0415 - DuckDB takes 0.1 s

        new = tuple(path for path in listing.sealed if path not in self._sealed)
        unsound = set(views.unsound(Listing(sealed=new)))
        self._sealed |= unsound
        return bool(unsound)

    def _read(self, listing: Listing) -> News | None:
        """Read what these files have beyond the last look.

        All of them or none: were one left out, its rows would have smaller numbers than those
        that are seen, and count as seen.
        """
        with tempfile.TemporaryDirectory(prefix="comfynb-follow-") as folder:
            ends, tails = {}, []
            for path in listing.active:
                ends[path], lines = self._lines(path)
                if lines:
                    tails.append(Path(folder, path.name))
                    tails[-1].write_bytes(lines)
            sealed = tuple(path for path in listing.sealed if path not in self._sealed)
            news = self._news(Listing(sealed, tuple(tails))) if sealed or tails else None
        self._sealed.update(listing.sealed)
        self._ends = ends
        self._cursor = self._cursor or {}
        return news

    def _news(self, added: Listing) -> News | None:
        from comfynb.log import fresh  # noqa: PLC0415 - DuckDB takes 0.1 s

        if self._cursor is None:
            self._cursor = fresh.last(added)
            return None
        news = fresh.news(added, self._cursor, ours=self._ours, pictures=self._pictures)
        if news is not None:
            self._cursor = news.cursor
        return news

    def _lines(self, path: Path) -> tuple[int, bytes]:
        """Return where the whole lines of a file end, and those since the last look."""
        begin = self._ends.get(path, 0)
        with path.open("rb") as file:
            file.seek(begin)
            added = file.read()
        lines = added[: added.rfind(b"\n") + 1]
        ours = self._ours and path.name.split(".")[0].endswith(self._ours[:8])
        return begin + len(lines), b"" if ours and _MARK not in lines else lines


class _Stamp(NamedTuple):
    """What a `seg` folder looks like from outside."""

    changed_ns: int
    sizes: Mapping[Path, int]

    @property
    def is_calm(self) -> bool:
        """Whether the names in it would show any further change."""
        return time.time_ns() - self.changed_ns > CALM_NS


def _stamp(root: Path, growing: Iterable[Path]) -> _Stamp:
    try:
        changed_ns = (root / "seg").stat().st_mtime_ns
    except FileNotFoundError:
        return _Stamp(0, {})
    sizes = {}
    for path in growing:
        with contextlib.suppress(FileNotFoundError):
            sizes[path] = path.stat().st_size
    return _Stamp(changed_ns, sizes)

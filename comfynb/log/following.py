"""What any process appends to a log, as soon as it is there.

No process tells another anything: who follows looks once a second, at names and sizes first, which
costs next to nothing while nothing happens. Lines that were added to a segment are read from where
the last look ended. But segments are sealed and merged meanwhile, so files alone cannot say what
is new; rows can. Each has its number in its session, so that one number a session, the cursor, says
exactly which rows have been seen, in whatever file they are by now, and after a restart too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import duckdb

from comfynb.errors import LogError, SceneError
from comfynb.keyframes import Keyframe, Pictures
from comfynb.log import records, views
from comfynb.log.listing import Listing, list_segments
from comfynb.log.marks import mark_of
from comfynb.log.news import Cursor, News
from comfynb.log.schema import Kind

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CALM_NS = 2_000_000_000
"""A folder that was changed less long ago may be changed again within one tick of its clock."""

_ATTEMPTS = 50

_LAST = """
    SELECT coalesce(log_session, ''), max(coalesce(seq, 0)) FROM log_rows
    WHERE id IS NOT NULL GROUP BY ALL
"""
_NEW = """
    SELECT id, kind, coalesce(log_session, '') AS session, coalesce(seq, 0) AS number
    FROM log_rows
    LEFT JOIN (SELECT unnest($sessions::VARCHAR[]) AS known, unnest($numbers::BIGINT[]) AS seen)
        ON coalesce(log_session, '') = known
    WHERE id IS NOT NULL AND coalesce(seq, 0) > coalesce(seen, -1)
        AND (kind = 'mark' OR coalesce(log_session, '') <> $ours)
"""
_MARK = b'"kind":"mark"'
"""As this process writes it (`records.json_text`)."""

Record = TypeVar("Record")


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
        self._cursor = None if cursor is None else dict(cursor)
        self._sealed: frozenset[Path] = frozenset()  # looked at: they never change
        self._ends: dict[Path, int] = {}  # of whole lines in growing files, in bytes
        self._calm: _Stamp | None = None  # of a folder that had been left alone for a while

    def look(self) -> News | None:
        """Return what was appended since the last look, if anything.

        Raises:
            LogError: The log cannot be read; the next look may be luckier, and misses nothing.
        """
        try:
            stamp = _stamp(self.root, self._ends)
            if self._calm is not None and stamp == self._calm:
                return None
            news = self._look()
            self._calm = (
                stamp if stamp.is_calm and stamp.sizes.keys() == self._ends.keys() else None
            )
        except (duckdb.Error, OSError) as exc:
            raise LogError(
                f"cannot follow the log at {self.root}: {exc}", folder=str(self.root)
            ) from exc
        return news

    def _look(self) -> News | None:
        listing = list_segments(self.root)
        for _ in range(_ATTEMPTS):
            try:
                return self._read(listing)
            except (duckdb.Error, OSError):
                before, listing = listing, list_segments(self.root)
                if listing == before:  # it was no file that went meanwhile
                    listing = self._sound(listing)
                    if listing == before:
                        raise
        return self._read(listing)

    def _sound(self, listing: Listing) -> Listing:
        """Leave out what looks whole and cannot be read; the reader names it in a warning."""
        sealed = [
            path
            for path in listing.sealed
            if path in self._sealed or views.is_sound(Listing(sealed=(path,)))
        ]
        return dataclasses.replace(listing, sealed=tuple(sealed))

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
            news = None
            if self._cursor is None or sealed or tails:
                with views.connect(Listing(sealed, tuple(tails))) as connection:
                    news = self._news(connection)
        self._sealed, self._ends = frozenset(listing.sealed), ends
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

    def _news(self, connection: DuckDBPyConnection) -> News | None:
        if self._cursor is None:
            self._cursor = dict(connection.execute(_LAST).fetchall())
            return None
        new = connection.execute(
            _NEW,
            {
                "sessions": list(self._cursor),
                "numbers": list(self._cursor.values()),
                "ours": self._ours,
            },
        ).fetchall()
        if not new:
            return None
        cursor = dict(self._cursor)
        for _, _, session, number in new:
            cursor[session] = max(number, cursor.get(session, 0))
        ids: dict[str, list[str]] = {}
        for row_id, kind, _, _ in new:
            ids.setdefault(kind, []).append(row_id)
        news = News(
            runs=_records(connection, "run", ids, records.run_of),
            submitted=_records(connection, "submitted", ids, records.submitted_of),
            keyframes=_records(connection, "result", ids, self._keyframe),
            marks=_records(connection, "mark", ids, mark_of),
            cursor=cursor,
        )
        self._cursor = cursor
        return news

    def _keyframe(self, row: records.Row) -> Keyframe:
        return records.keyframe_of(row, self._pictures)


def _records(
    connection: DuckDBPyConnection,
    kind: Kind,
    ids: Mapping[str, list[str]],
    read: Callable[[dict[str, Any]], Record],
) -> tuple[Record, ...]:
    if kind not in ids:
        return ()
    answer = connection.execute(views.new_rows(kind), {"ids": ids[kind]})
    names = [column[0] for column in answer.description]
    found = []
    for row in answer.fetchall():
        with contextlib.suppress(SceneError, TypeError):  # not a row of ours
            found.append(read(dict(zip(names, row, strict=True))))
    return tuple(found)


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

"""What rows some files have that were not seen yet: the questions of following.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from comfynb.errors import SceneError
from comfynb.keyframes import Pictures
from comfynb.log import records, views
from comfynb.log.listing import Listing
from comfynb.log.marks import mark_of
from comfynb.log.news import Cursor, News
from comfynb.log.schema import Kind

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

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

Record = TypeVar("Record")


def last(listing: Listing) -> Cursor:
    """Return the cursor of who has seen all rows of a listing.

    Raises:
        OSError: A file is gone, or cannot be read.
    """
    with _opened(listing) as connection:
        return dict(connection.execute(_LAST).fetchall())


def news(listing: Listing, cursor: Cursor, *, ours: str, pictures: Pictures) -> News | None:
    """Return the rows of a listing that are not seen yet, if any.

    Args:
        listing: Files.
        cursor: What was seen.
        ours: A session of which nothing but marks is wanted.
        pictures: Where the bytes of the keyframes are.

    Raises:
        OSError: A file is gone, or cannot be read.
    """
    with _opened(listing) as connection:
        sessions, numbers = list(cursor), list(cursor.values())
        known = {"sessions": sessions, "numbers": numbers, "ours": ours}
        rows = connection.execute(_NEW, known).fetchall()
        if not rows:
            return None
        seen = dict(cursor)
        ids: dict[str, list[str]] = {}
        for row_id, kind, session, number in rows:
            seen[session] = max(number, seen.get(session, 0))
            ids.setdefault(kind, []).append(row_id)
        read = partial(records.keyframe_of, pictures=pictures)
        return News(
            runs=_records(connection, "run", ids, records.run_of),
            submitted=_records(connection, "submitted", ids, records.submitted_of),
            keyframes=_records(connection, "result", ids, read),
            marks=_records(connection, "mark", ids, mark_of),
            cursor=seen,
        )


@contextlib.contextmanager
def _opened(listing: Listing) -> Iterator[DuckDBPyConnection]:
    try:
        with views.connect(listing) as connection:
            yield connection
    except duckdb.Error as exc:
        raise OSError(str(exc)) from exc


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

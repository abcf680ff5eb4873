"""Many small sealed segments become one: a hundred files take longer to open than to read.

A merge is two files. The list of what it replaces is written first and means nothing alone; the
Parquet file beside it is the commit point: once it is there under its name, readers see it and
not what went into it. Then the inputs go. Who is killed in between leaves work for the next one,
never a row that is missing or counted twice.

One process at a time merges, under a lock that others do not wait for. Where locks do not exist
nobody merges unasked; two at once would write the same rows twice, which readers see once.
"""

# ruff: noqa: S608 - SQL from our own schema and quoted paths

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from comfynb.log import locks
from comfynb.log.folder import TEMPORARY, is_left_behind
from comfynb.log.listing import Listing, list_segments
from comfynb.log.schema import COLUMNS, ROW_VERSION
from comfynb.log.sealing import write_parquet
from comfynb.log.segments import FORMS
from comfynb.log.views import BEST_OF_ID, path_list, read_json

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILES = 32
"""More small sealed segments than this are merged."""

SMALL_ROWS = 20_000
"""A sealed segment of fewer rows is small."""

LARGEST_ROWS = 50_000
"""No merge makes a file of more rows, unless a single segment has more already."""

_LOCK = ".compact.lock"


def merge(root: Path, connection: DuckDBPyConnection, *, force: bool = False) -> int:
    """Merge small sealed segments where there are many, and finish what others began.

    Args:
        root: The log folder.
        connection: From `sealing.database`.
        force: Merge also where there are few, or no locks.

    Returns:
        How many segments went into merges.

    Raises:
        OSError, duckdb.Error: A merge could not be written; everything stays as it is.
    """
    _remove_litter(root / "seg")
    least = 2 if force else FILES + 1
    listing = list_segments(root)
    if len(listing.sealed) < least and not listing.replaced:
        return 0
    with _lock(root / "seg") as alone:
        if alone is False or (alone is None and not force):
            return 0
        for path in _certainly_replaced(list_segments(root), connection):
            path.unlink(missing_ok=True)
        merged = 0
        for paths in _groups(root, connection, least):
            _merge(paths, connection)
            merged += len(paths)
        return merged


def _merge(paths: list[Path], connection: DuckDBPyConnection) -> None:
    stems = sorted(path.stem for path in paths)
    digits = hashlib.sha256(",".join(stems).encode()).hexdigest()[:8]
    target = paths[0].with_name(f"m{time.time_ns() // 1_000_000:013d}-{digits}.parquet")
    write_parquet(_query(paths, connection), target, connection, replaces=stems)
    for stem in stems:
        _remove(target.parent, stem)


def _query(paths: list[Path], connection: DuckDBPyConnection) -> str:
    """Return the query for the rows of some files, one of each id.

    What this version has no column for stays as it is; what it has one for gets its type.
    """
    files = f"read_parquet({path_list(paths)}, union_by_name=true"
    there = [column[0] for column in connection.execute(f"FROM {files}) LIMIT 0").description]
    types = {column.name: column.type for column in COLUMNS}
    columns = [f"TRY_CAST({c.name} AS {c.type}) AS {c.name}" for c in COLUMNS if c.name in there]
    columns += ['"' + name.replace('"', '""') + '"' for name in there if name not in types]
    query = f"SELECT {', '.join(columns)} FROM {files}"
    # Only narrow columns are looked at to find rows that are there twice, mostly none: sorting
    # whole rows would take a gigabyte.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE twice AS SELECT filename, file_row_number FROM "
        f"{files}, filename=true, file_row_number=true) QUALIFY {BEST_OF_ID} > 1"
    )
    if connection.execute("SELECT count(*) FROM twice").fetchall() == [(0,)]:
        return f"{query})"
    return (
        f"{query}, filename=true, file_row_number=true) AS r WHERE NOT EXISTS (FROM twice AS t "
        "WHERE t.filename = r.filename AND t.file_row_number = r.file_row_number)"
    )


def _groups(root: Path, connection: DuckDBPyConnection, least: int) -> Iterator[list[Path]]:
    """Give the files that shall become one, oldest first."""
    sealed = list_segments(root).sealed
    if len(sealed) < least:
        return
    counted = ((path, _small(path, connection)) for path in sealed)
    rows = {path: count for path, count in counted if count is not None}
    if len(rows) < least:
        return
    group: list[Path] = []
    for path in sorted(rows, key=lambda path: path.name.removeprefix("m")):
        if group and sum(rows[p] for p in group) + rows[path] > LARGEST_ROWS:
            yield group
            group = []
        group.append(path)
    if len(group) > 1:
        yield group


def _small(path: Path, connection: DuckDBPyConnection) -> int | None:
    """Return how many rows a file has that may go into a merge; None where it shall not."""
    file = f"read_parquet({path_list([path])})"
    try:
        ((rows, version),) = connection.execute(f"SELECT count(*), max(v) FROM {file}").fetchall()
        if rows >= SMALL_ROWS or (version or 0) > ROW_VERSION:
            return None
        # Read whole first: one that is damaged inside stays, and does not stop the others.
        connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {file}").fetchall()
    except duckdb.InterruptException:
        raise
    except duckdb.Error:
        return None
    return int(rows)


def _remove_litter(segments: Path) -> None:
    """Remove what processes that were killed left half written."""
    for entry in os.scandir(segments):
        with contextlib.suppress(FileNotFoundError):
            old = is_left_behind(entry.stat(follow_symlinks=False))
            # The list of a merge goes after it: without it, what it replaced would count again.
            orphaned = entry.name.endswith(".replaces") and not os.path.lexists(
                segments / f"{entry.name.removesuffix('.replaces')}.parquet"
            )
            if old and (entry.name.startswith(TEMPORARY) or orphaned):
                os.unlink(entry.path)  # noqa: PTH108 - a directory entry


def _certainly_replaced(listing: Listing, connection: DuckDBPyConnection) -> Iterator[Path]:
    """Give the replaced files of which every row is in a file that counts.

    A list of what a merge replaces may have been copied here from somewhere else, and is not
    believed where rows would be lost.
    """
    kept = f"SELECT id FROM read_parquet({path_list(listing.sealed)})"
    for path in listing.replaced:
        source = read_json([path])
        if path.suffix == ".parquet":
            source = f"read_parquet({path_list([path])})"
        with contextlib.suppress(duckdb.IOException):  # gone meanwhile
            query = f"SELECT count(*) FROM {source} WHERE id NOT IN ({kept})"
            if connection.execute(query).fetchall() == [(0,)]:
                yield path


def _remove(segments: Path, stem: str) -> None:
    # The list of a merge goes last: without it, its inputs would count again.
    for end in (*FORMS, ".replaces"):
        (segments / f"{stem}{end}").unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(segments: Path) -> Iterator[bool | None]:
    """Take the lock of the folder; gives False where another holds it, None without locks."""
    descriptor = os.open(segments / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        yield locks.take(descriptor)
    finally:
        os.close(descriptor)

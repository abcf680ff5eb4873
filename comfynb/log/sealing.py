"""From JSON lines to Parquet: a segment that has ended is sealed, whoever ended it.

A sealed segment is a tenth of the size and a tenth of the time to read, and never changes again.
The order of the steps is what makes it safe to be killed anywhere: the Parquet file is written
under a name that nobody looks at, made durable, and renamed; only then do the lines go. As long
as a line may still be added (its writer holds the lock) nobody else touches a segment.

A segment with a damaged line, or with rows of a newer comfynb, stays as it is: what we cannot
read is not ours to throw away. Only a torn last line, which was never acknowledged, is left out.
"""

# ruff: noqa: S608 - SQL from our own schema and quoted paths

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from comfynb.log import locks
from comfynb.log.folder import sync_folder, temporary_name
from comfynb.log.records import json_text
from comfynb.log.schema import COLUMNS, LARGEST_ROW, ROW_VERSION
from comfynb.log.views import path_list, read_json

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

logger = logging.getLogger(__name__)

_CLAIMABLE = re.compile(r"(\d{13}-[0-9a-f]{8})(\.claimed)?\.jsonl")
_KNOWN = frozenset(column.name for column in COLUMNS)


@contextlib.contextmanager
def database() -> Iterator[DuckDBPyConnection]:
    """Open a database for rewriting segments, which leaves most of the machine to others."""
    with tempfile.TemporaryDirectory(prefix="comfynb-seal-") as spill:
        connection = duckdb.connect(
            ":memory:",
            config={"threads": 1, "memory_limit": "1GB", "temp_directory": spill},
        )
        try:
            connection.execute("SET autoinstall_known_extensions = false")
            connection.execute("SET autoload_known_extensions = false")
            yield connection
        finally:
            connection.close()


def seal(path: Path, connection: DuckDBPyConnection) -> bool:
    """Seal a segment that nobody writes any more; the caller holds its lock, where locks exist.

    Args:
        path: Its JSON lines; gone afterwards.
        connection: From `database`.

    Returns:
        False where it stays as it is, because we cannot read all of it.

    Raises:
        OSError, duckdb.Error: It could not be written, and stays as it is.
    """
    lines, torn = _lines(path)
    if not lines:
        if torn:
            logger.warning("%s was nothing but a torn line, and is removed", path)
        path.unlink()
        return True
    with contextlib.ExitStack() as cleanup:
        source = path
        if _has_unknown_columns(path, connection):
            source = cleanup.enter_context(_with_extra(path))
        rows, version = connection.execute(
            f"SELECT count(*), max(v) FROM {read_json([source])} WHERE id IS NOT NULL"
        ).fetchall()[0]
        # A last line without its line feed may be whole all the same.
        if rows not in (lines, lines + torn) or (version or 0) > ROW_VERSION:
            logger.debug("%s is not sealed: %d of %d lines are rows of ours", path, rows, lines)
            return False
        stem = path.name.split(".")[0]
        target = path.with_name(f"{stem}.parquet")
        query = f"SELECT * FROM {read_json([source])} WHERE id IS NOT NULL"
        write_parquet(query, target, connection)
    if torn and rows == lines:
        logger.warning("the torn last line of %s was left out when it was sealed", path)
    path.unlink(missing_ok=True)  # who tidies up may have been quicker
    return True


def write_parquet(
    query: str, target: Path, connection: DuckDBPyConnection, *, replaces: list[str] | None = None
) -> None:
    """Write the answer of a query as a file that appears at once, whole and durable.

    Args:
        query: One SELECT.
        target: The file.
        connection: From `database`.
        replaces: Stems of the segments that the file hides, beside its own; they are written
            first, and count for nothing until the file is there.

    Raises:
        OSError, duckdb.Error: It could not be written; nothing is left behind.
    """
    descriptor, name = tempfile.mkstemp(prefix="comfynb-", suffix=".parquet")
    os.close(descriptor)
    temporary = temporary_name(target.parent)
    try:
        # DuckDB locks what it writes, which is not possible everywhere: let it write elsewhere.
        connection.execute(
            f"COPY ({query}) TO {path_list([Path(name)])[1:-1]} "
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 4096, "
            "KV_METADATA {comfynb_format: '1'})"
        )
        with Path(name).open("rb") as source, temporary.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if replaces is not None:
            _write_replaces(target.with_suffix(".replaces"), replaces)
        temporary.rename(target)
    finally:
        for leftover in (Path(name), temporary):
            leftover.unlink(missing_ok=True)
    sync_folder(target.parent)


def adopt(segments: Path, connection: DuckDBPyConnection) -> int:
    """Seal the segments that dead sessions left behind.

    Each is taken under its own lock, which its writer holds while it lives, and renamed: a writer
    that was taken for dead all the same (a lock lost on a network) sees that, and writes its last
    row again elsewhere.

    Args:
        segments: The `seg` folder.
        connection: From `database`.

    Returns:
        How many were sealed; always 0 where locks do not exist.

    Raises:
        OSError, duckdb.Error: A segment could not be sealed, and stays as it is.
    """
    sealed = 0
    for name in sorted(os.listdir(segments)):  # noqa: PTH208 - names, not paths
        found = _CLAIMABLE.fullmatch(name)
        if found is None:
            continue
        path = segments / name
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:  # sealed meanwhile, a link, or not ours to write
            continue
        try:
            taken = locks.take(descriptor)
            if taken is None:
                return sealed
            if taken and _is_at(path, descriptor):
                if not found[2]:
                    claimed = path.with_name(f"{found[1]}.claimed.jsonl")
                    path.rename(claimed)
                    sync_folder(segments)
                    path = claimed
                sealed += seal(path, connection)
        except duckdb.InvalidInputException as exc:  # no rows of ours; the next may be
            logger.warning("%s cannot be sealed and stays as it is: %s", path, exc)
        finally:
            os.close(descriptor)
    return sealed


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        there, ours = path.lstat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)


def _lines(path: Path) -> tuple[int, bool]:
    """Return how many lines a file has, and whether something stands behind the last of them."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        for line in file:
            last = line
            lines += line.endswith(b"\n") and bool(line.strip())
    return lines, not last.endswith(b"\n")


def _has_unknown_columns(path: Path, connection: DuckDBPyConnection) -> bool:
    source = (
        f"read_json_objects({path_list([path])}, format='newline_delimited', ignore_errors=true, "
        f"maximum_object_size={LARGEST_ROW})"
    )
    names = connection.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {source}").fetchall()
    return not {name for (name,) in names} <= _KNOWN


@contextlib.contextmanager
def _with_extra(path: Path) -> Iterator[Path]:
    """Give a copy of a segment in which `extra` holds what this version has no columns for."""
    with tempfile.TemporaryDirectory(prefix="comfynb-seal-") as folder:
        copy = Path(folder, "rows.jsonl")
        with path.open("rb") as source, copy.open("wb") as target:
            for line in source:
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict) and not row.keys() <= _KNOWN:
                    extra = {name: row.pop(name) for name in row.keys() - _KNOWN}
                    row["extra"] = json_text(extra)
                    target.write(json_text(row).encode() + b"\n")
                else:
                    target.write(line)
        yield copy


def _write_replaces(path: Path, stems: list[str]) -> None:
    temporary = temporary_name(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(json.dumps(stems).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)

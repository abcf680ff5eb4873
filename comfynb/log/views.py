"""The SQL over a log: views on the files of one listing, in a DuckDB that can touch no others.

Every question gets a database of its own, in memory, with these views:

    keyframes   one row a keyframe, the common knobs as typed columns, `take` numbered by place
    latest      of each place (scene, axes, seed) the keyframe made last
    runs        one row a run
    submitted   one row a prompt that was about to be sent
    log_rows    every row of every kind as it was written, what the others are made from

The files may come from a stranger, and so may the question: after the views are made the
database may read the listed files, write nothing, load nothing, and not be told otherwise.
"""

# ruff: noqa: S608 - SQL from our own schema and from quoted paths; a user's query stays as it is

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from comfynb.errors import QueryError
from comfynb.log.listing import Listing
from comfynb.log.schema import (
    KNOB_COLUMNS,
    LARGEST_ROW,
    Kind,
    casts,
    json_columns,
    names,
    typed_nulls,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VIEWS = ("keyframes", "latest", "runs", "submitted")

PLACE = "scene, axes, seed"
BEST_OF_ID = (
    "row_number() OVER (PARTITION BY id ORDER BY status = 'done' DESC NULLS LAST, created_at)"
)
"""1 for the row of an id that counts: two processes may have asked a server about the same prompt,
and the one that found its picture is believed."""

ALLOWED = (
    "A query is one SELECT over the views " + ", ".join(VIEWS) + "; it can read nothing but "
    "the log and write nothing"
)


def connect(listing: Listing) -> DuckDBPyConnection:
    """Open a database with the views over a listing, and lock it.

    Raises:
        duckdb.Error: A file of the listing is gone.
    """
    connection = duckdb.connect(":memory:")
    try:
        for statement in _lock(listing):
            connection.execute(statement)
        for statement in _views(listing):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def check(query: str) -> None:
    """Refuse a query that is not exactly one SELECT.

    Raises:
        QueryError: It is something else, or nothing that DuckDB understands.
    """
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as exc:
        raise QueryError(f"{exc}. {ALLOWED}") from exc
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        what = f"{len(kinds)} statements" if len(kinds) != 1 else f"a statement of type {kinds[0]}"
        raise QueryError(f"log.sql() was given {what}. {ALLOWED}")


def count_rows(files: Iterable[Path]) -> str:
    """Return the query for how many lines of each file of JSON lines are rows."""
    return (
        f"SELECT filename, count(*) FROM {read_json(files, filename=True)} "
        "WHERE id IS NOT NULL GROUP BY filename"
    )


def find() -> str:
    """Return the query for the `done` keyframes of `$keys`, latest first.

    It looks at the rows of these keys only, and so cannot number takes: at 100,000 rows that
    takes a tenth of the view's time.
    """
    return (
        f"SELECT * EXCLUDE (workflow), NULL AS take "
        f"FROM ({_distinct('result', 'AND key IN (SELECT unnest($keys))')}) "
        "WHERE status = 'done' ORDER BY created_at DESC, id DESC"
    )


def _lock(listing: Listing) -> Iterable[str]:
    yield "SET autoinstall_known_extensions = false"
    yield "SET autoload_known_extensions = false"
    yield "SET python_enable_replacements = false"  # else a name may mean a variable of the caller
    yield "SET temp_directory = ''"
    yield f"SET allowed_paths = {path_list([*listing.sealed, *listing.active])}"
    yield "SET enable_external_access = false"
    yield "SET lock_configuration = true"


def _views(listing: Listing) -> Iterable[str]:
    sources = [f"SELECT {typed_nulls()} WHERE false"]
    if listing.sealed:
        sources.append(
            f"SELECT * FROM read_parquet({path_list(listing.sealed)}, union_by_name=true)"
        )
    if listing.active:
        sources.append(f"SELECT * FROM {read_json(listing.active)}")
    # BY NAME: what an older comfynb did not write is NULL, what a newer one added is passed over.
    yield f"CREATE VIEW log_rows AS {' UNION ALL BY NAME '.join(sources)}"
    hidden = {"id", "kind", "v", "log_session", "extra"}
    results = [name for name in names("result") if name not in hidden]
    last = ["scene_json", "workflow"]
    knobs = (
        f"TRY_CAST(json_extract_string(TRY_CAST(knobs['{knob}'] AS JSON), '$') AS {kind}) AS {knob}"
        for knob, kind in KNOB_COLUMNS.items()
    )
    columns = [
        "id",
        *(name for name in results if name not in last),
        f"row_number() OVER (PARTITION BY {PLACE} ORDER BY created_at, id) AS take",
        "timings.total_ms / 1000 AS seconds",
        *knobs,
        *last,
    ]
    yield f"CREATE VIEW keyframes AS SELECT {', '.join(columns)} FROM ({_distinct('result')})"
    yield (
        "CREATE VIEW latest AS SELECT * FROM keyframes "
        f"QUALIFY row_number() OVER (PARTITION BY {PLACE} ORDER BY take DESC) = 1"
    )
    others = "SELECT * EXCLUDE (kind, v, log_session, extra)"
    yield f"CREATE VIEW runs AS {others} FROM ({_distinct('run')})"
    yield f"CREATE VIEW submitted AS {others} FROM ({_distinct('submitted')})"


def _distinct(kind: Kind, condition: str = "") -> str:
    """Return a query for the rows of a kind, one of each id."""
    return (
        f"SELECT {casts(kind)} FROM log_rows WHERE kind = '{kind}' AND id IS NOT NULL {condition} "
        f"QUALIFY {BEST_OF_ID} = 1"
    )


def read_json(files: Iterable[Path], *, filename: bool = False) -> str:
    """Return the SQL source of files of JSON lines, with all columns of the schema."""
    # All columns even where one is asked for: a name that is not listed costs 0.1 ms a row,
    # as an error that is then ignored (DuckDB 2.0.0). Only what is selected is made into values.
    return (
        f"read_json({path_list(files)}, format='newline_delimited', columns={json_columns()}, "
        f"ignore_errors=true, maximum_object_size={LARGEST_ROW}, filename={filename})"
    )


def path_list(paths: Iterable[Path]) -> str:
    """Return paths as an SQL list."""
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"


__all__ = ["ALLOWED", "VIEWS", "check", "connect", "count_rows", "find", "path_list", "read_json"]

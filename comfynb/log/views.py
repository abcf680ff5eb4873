"""The SQL over a log: views on the files of one listing, in a DuckDB that can touch no others.

Each listing gets a database of its own, in memory, in which a question finds these views:

    keyframes   one row a keyframe, the common knobs as typed columns, `take` numbered by place,
                and what its marks say now
    latest      of each place (scene, axes, seed) the keyframe made last
    runs        one row a run
    submitted   one row a prompt that was about to be sent
    marks       one row for each thing that was ever said about a keyframe
    log_rows    every row of every kind as it was written, what the others are made from

Five more are for ourselves: `results` (keyframes without takes and marks), `places` (the takes
alone), `marked` (what marks say now, one row a keyframe that has some), `placed` (all three) and
`flat` (for frames). To number takes, rows are sorted, and to sort wide rows takes a hundred times
as long as to sort their ids and to look them up: who wants many columns joins the two.

The files may come from a stranger, and so may the question: the database may read the listed
files, write nothing, load nothing, and not be told otherwise.
"""

# ruff: noqa: S608 - SQL from our own schema and from quoted paths; a user's query stays as it is

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb

from comfynb.errors import QueryError
from comfynb.log.listing import Listing
from comfynb.log.schema import (
    KNOB_COLUMNS,
    LARGEST_ROW,
    ROW_VERSION,
    Kind,
    casts,
    json_columns,
    names,
    typed_nulls,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VIEWS = ("keyframes", "latest", "runs", "submitted", "marks")

PLACE = "scene, axes, seed"
BEST_OF_ID = (
    "row_number() OVER (PARTITION BY id ORDER BY status = 'done' DESC NULLS LAST, created_at)"
)
"""1 for the row of an id that counts: two processes may have asked a server about the same prompt,
and the one that found its picture is believed."""

DELETED = (
    "SELECT target FROM log_rows WHERE kind = 'mark' AND field = 'deleted' AND target IS NOT NULL "
    "GROUP BY target HAVING arg_max(value, (created_at, id)) = 'true'"
)
"""The ids of deleted keyframes and runs: the mark that was made last counts."""

ALLOWED = (
    "A query is one SELECT over the views " + ", ".join(VIEWS) + "; it can read nothing but "
    "the log and write nothing"
)


def connect(listing: Listing) -> DuckDBPyConnection:
    """Open a database with the view `log_rows` over a listing, and lock it.

    Raises:
        duckdb.Error: A file of the listing is gone.
    """
    connection = duckdb.connect(":memory:")
    try:
        for statement in _lock(listing):
            connection.execute(statement)
        connection.execute(_log_rows(listing))
    except BaseException:
        connection.close()
        raise
    return connection


def open_views(connection: DuckDBPyConnection, listing: Listing) -> None:
    """Make all views in a database that is not locked, for queries of our own.

    Raises:
        duckdb.Error: A file of the listing is gone.
    """
    connection.execute(_log_rows(listing))
    found = survey(connection)
    for name in _VIEWS:
        connection.execute(view(name, found))


@dataclass(frozen=True, slots=True)
class Survey:
    """What has to be known of the rows before the other views are made.

    Attributes:
        doubled: Some keyframe may be there twice, which takes four times as long to read.
        version: The greatest row version.
        marked: There are marks, which otherwise need not be looked for.
    """

    doubled: bool
    version: int
    marked: bool = False


_UNKNOWN = Survey(doubled=True, version=ROW_VERSION + 1, marked=True)
"""To be on the safe side, where few rows are asked for and all would have to be looked at."""


def survey(connection: DuckDBPyConnection) -> Survey:
    """Look at the ids and versions of all rows."""
    # Hashes are compared in half the time; two ids with one hash only cost the time to be sure.
    ((rows, ids, version, marked),) = connection.execute(
        "SELECT count(*), count(DISTINCT hash(id)), (SELECT max(v) FROM log_rows), "
        "EXISTS (SELECT 1 FROM log_rows WHERE kind = 'mark') "
        "FROM log_rows WHERE kind = 'result' AND id IS NOT NULL"
    ).fetchall()
    return Survey(rows != ids, version or 0, marked)


def mentioned(query: str) -> list[str]:
    """Return the views that a query may use, and those that they need, in order of making.

    To make one takes as long as to open the files, so that only what is needed is made.
    """
    text = query.casefold()
    wanted = {name for name in _NEEDS if name in text}
    wanted |= {other for name in wanted for other in _NEEDS[name]}
    return [name for name in _NEEDS if name in wanted]


_NEEDS = {
    "results": (),
    "places": ("results",),
    "marked": (),
    "placed": ("results", "places", "marked"),
    "keyframes": ("marked",),
    "latest": ("results", "places", "marked", "placed"),
    "flat": ("results", "places", "marked", "placed"),
    "runs": (),
    "submitted": (),
    "marks": (),
}


def check(query: str, connection: DuckDBPyConnection) -> None:
    """Refuse a query that is not exactly one SELECT.

    The connection is asked, not the module: that would open a database of its own and keep it.

    Raises:
        QueryError: It is something else, or nothing that DuckDB understands.
    """
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as exc:
        raise QueryError(f"{exc}. {ALLOWED}") from exc
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        what = f"{len(kinds)} statements" if len(kinds) != 1 else f"a statement of type {kinds[0]}"
        raise QueryError(f"log.sql() was given {what}. {ALLOWED}")


def _is_sound(listing: Listing) -> bool:
    """Whether every value of the rows of a listing can be read; takes as long as to read all."""
    try:
        with connect(listing) as connection:
            connection.execute("SELECT max(hash(COLUMNS(*))) FROM log_rows").fetchall()
    except duckdb.Error:
        return False
    return True


def unsound(listing: Listing) -> Iterator[Path]:
    """Give the files of a listing that cannot be read to their end, or are gone."""
    for path in listing.sealed:
        if not _is_sound(Listing(sealed=(path,))):
            yield path
    for path in listing.active:
        if not _is_sound(Listing(active=(path,))):
            yield path


def count_rows(files: Iterable[Path]) -> str:
    """Return the query for how many lines of each file of JSON lines are rows."""
    return (
        f"SELECT filename, count(*) FROM {read_json(files, filename=True)} "
        "WHERE id IS NOT NULL GROUP BY filename"
    )


def with_marks(column: Literal["id", "key"]) -> str:
    """Return the query for the keyframes with `$values` in a column, with marks, without takes.

    In order of making, without their workflows. It looks at these rows only, and needs no survey
    of all of them.
    """
    rows = _results(_UNKNOWN, condition=f"AND {column} IN (SELECT unnest($values))")
    return (
        f"SELECT * EXCLUDE (workflow) REPLACE ({_MAPS}), NULL AS take "
        f"FROM ({_with_marks(_UNKNOWN, rows)}) ORDER BY created_at, id"
    )


def new_rows(kind: Kind) -> str:
    """Return the query for the rows of a kind with `$ids`, for a database with `log_rows` alone.

    Keyframes have no workflow, no take and no marks.
    """
    condition = "AND id IN (SELECT unnest($ids))"
    rows = _distinct(kind, _UNKNOWN, condition)
    if kind == "result":
        rows = (
            f"SELECT * EXCLUDE (workflow) REPLACE ({_MAPS}), NULL AS take "
            f"FROM ({_results(_UNKNOWN, condition=condition)})"
        )
    return f"SELECT * FROM ({rows}) ORDER BY created_at, id"


def keyframes(condition: str) -> str:
    """Return the query for keyframes in order of making, without their workflows.

    Args:
        condition: On the columns of `keyframes`, and `newest`: the last take of its place.
    """
    return (
        f"SELECT * EXCLUDE (workflow, made, newest) REPLACE ({_MAPS}) "
        f"FROM placed WHERE {condition} ORDER BY made"
    )


def view(name: str, found: Survey) -> str:
    """Return the statement that makes a view."""
    return f"CREATE OR REPLACE VIEW {name} AS {_VIEWS[name](found)}"


def _lock(listing: Listing) -> Iterable[str]:
    yield "SET autoinstall_known_extensions = false"
    yield "SET autoload_known_extensions = false"
    yield "SET python_enable_replacements = false"  # else a name may mean a variable of the caller
    yield "SET temp_directory = ''"
    yield "SET enable_external_file_cache = false"  # segments grow
    yield f"SET allowed_paths = {path_list([*listing.sealed, *listing.active])}"
    yield "SET enable_external_access = false"
    yield "SET lock_configuration = true"


_TAKE = f"row_number() OVER (PARTITION BY {PLACE} ORDER BY created_at, id)"
_LAST = ("scene_json", "workflow")
# As `Keyframe.seconds`.
_SECONDS = "coalesce(nullif(timings.executing_ms, 0), timings.total_ms) / 1000 AS seconds"
_KNOBS = [
    f"TRY_CAST(json_extract_string(TRY_CAST(knobs['{knob}'] AS JSON), '$') AS {kind}) AS {knob}"
    for knob, kind in KNOB_COLUMNS.items()
]
# DuckDB takes 50 us to make a dict of a map; Python reads one out of JSON text in 3.
_MAPS = (
    "'{' || array_to_string(list_transform(map_entries(knobs), "
    "lambda e: to_json(e.key)::VARCHAR || ':' || coalesce(e.value, 'null')), ',') || '}' AS knobs, "
    "to_json(axes)::VARCHAR AS axes, to_json(measures)::VARCHAR AS measures"
)


def _results(found: Survey, *more: str, condition: str = "") -> str:
    hidden = {"id", "kind", "v", "log_session", "seq", "extra", *_LAST}
    columns = ["id", *(name for name in names("result") if name not in hidden), *more]
    columns += [_SECONDS, *_KNOBS, *_LAST]
    return f"SELECT {', '.join(columns)} FROM ({_distinct('result', found, condition)})"


def _places(_: Survey) -> str:
    last = f"row_number() OVER (PARTITION BY {PLACE} ORDER BY created_at DESC, id DESC) = 1"
    made = "row_number() OVER (ORDER BY created_at, id)"
    return f"SELECT id, {_TAKE} AS take, {made} AS made, {last} AS newest FROM results"


def _flat(_: Survey) -> str:
    """Return what a frame shows: texts and numbers, and lists only where there can be several."""
    parts = [f"timings.{name}" for name in ("queued_ms", "executing_ms", "fetch_ms", "total_ms")]
    parts += [f"error.{name} AS error_{name}" for name in ("kind", "message", "node", "hint")]
    return (
        f"SELECT * EXCLUDE (newest, timings, error, scene_json, workflow) REPLACE ({_MAPS}), "
        f"{', '.join(parts)} FROM placed"
    )


# What a field does not know (of a stranger, or a newer comfynb) is passed over, not believed.
_UNDERSTOOD = """value IS NULL OR CASE
    WHEN field = 'rating' THEN value IN ('1', '2', '3', '4', '5')
    WHEN field = 'pick' OR starts_with(field, 'tag:') THEN value = 'true'
    WHEN field = 'note' THEN json_type(TRY_CAST(value AS JSON)) = 'VARCHAR'
    WHEN starts_with(field, 'versus:') THEN substr(field, 8) <> target
        AND value IN (to_json(target)::VARCHAR, to_json(substr(field, 8))::VARCHAR)
    ELSE false END"""


def _with_marks(found: Survey, rows: str) -> str:
    """Return a query for rows with what their marks say."""
    if not found.marked:  # a join takes time even with nothing to join
        return (
            "SELECT *, NULL::TINYINT AS rating, []::VARCHAR[] AS tags, false AS picked, "
            f"NULL::VARCHAR AS note, 0 AS wins, 0 AS losses FROM ({rows})"
        )
    return (
        "SELECT * REPLACE (coalesce(tags, []) AS tags, coalesce(picked, false) AS picked, "
        "coalesce(wins, 0) AS wins, coalesce(losses, 0) AS losses) "
        f"FROM ({rows}) LEFT JOIN marked USING (id)"
    )


def _marked(found: Survey) -> str:
    """Return what was said last in each field, one row a keyframe that has marks."""
    rows = _distinct("mark", dataclasses.replace(found, doubled=True))
    last = "PARTITION BY target, field ORDER BY created_at DESC NULLS LAST, id DESC"
    # No WITH, and a GROUP BY outermost: so DuckDB leaves the join out where nobody wants its
    # columns (2.0.0; a WITH that is used twice keeps it).
    return f"""
        SELECT said.id AS id,
            max(TRY_CAST(said.value AS TINYINT)) FILTER (said.field = 'rating') AS rating,
            list_sort(list(substr(said.field, 5)) FILTER (starts_with(said.field, 'tag:'))) AS tags,
            bool_or(said.field = 'pick') AS picked,
            max(json_extract_string(TRY_CAST(said.value AS JSON), '$'))
                FILTER (said.field = 'note') AS note,
            (count(*) FILTER (said.field = 'win'))::INTEGER AS wins,
            (count(*) FILTER (said.field = 'loss'))::INTEGER AS losses
        FROM (
            SELECT unnest(CASE
                WHEN NOT starts_with(field, 'versus:')
                    THEN [{{'id': target, 'field': field, 'value': value}}]
                WHEN json_extract_string(TRY_CAST(value AS JSON), '$') = target
                    THEN [{{'id': target, 'field': 'win', 'value': NULL}},
                        {{'id': substr(field, 8), 'field': 'loss', 'value': NULL}}]
                ELSE [{{'id': target, 'field': 'loss', 'value': NULL}},
                    {{'id': substr(field, 8), 'field': 'win', 'value': NULL}}]
                END) AS said
            FROM (
                SELECT target, field, value
                FROM (SELECT * REPLACE (nullif(value, 'null') AS value) FROM ({rows}))
                WHERE target IS NOT NULL AND ({_UNDERSTOOD})
                QUALIFY row_number() OVER ({last}) = 1
            ) WHERE value IS NOT NULL
        ) GROUP BY said.id"""


def _others(kind: Kind) -> Callable[[Survey], str]:
    def query(found: Survey) -> str:
        rows = _distinct(kind, dataclasses.replace(found, doubled=True))
        return f"SELECT * EXCLUDE (kind, v, log_session, seq, extra) FROM ({rows})"

    return query


_VIEWS: dict[str, Callable[[Survey], str]] = {
    "results": _results,
    "places": _places,
    "marked": _marked,
    "placed": lambda found: _with_marks(found, "FROM results JOIN places USING (id)"),
    "keyframes": lambda found: _with_marks(found, _results(found, f"{_TAKE} AS take")),
    "latest": lambda _: "SELECT * EXCLUDE (made, newest) FROM placed WHERE newest",
    "flat": _flat,
    "runs": _others("run"),
    "submitted": _others("submitted"),
    "marks": _others("mark"),
}


def _log_rows(listing: Listing) -> str:
    sources = [f"SELECT {typed_nulls()} WHERE false"]
    if listing.sealed:
        sealed = f"read_parquet({path_list(listing.sealed)}, union_by_name=true)"
        sources.append(f"SELECT * FROM {sealed}")
    if listing.active:
        sources.append(f"SELECT * FROM {read_json(listing.active)}")
    # BY NAME: what an older comfynb did not write is NULL, what a newer one added is passed over.
    return f"CREATE VIEW log_rows AS {' UNION ALL BY NAME '.join(sources)}"


def _distinct(kind: Kind, found: Survey, condition: str = "") -> str:
    """Return a query for the rows of a kind, one of each id."""
    once = f"QUALIFY {BEST_OF_ID} = 1" if found.doubled else ""
    # What a newer comfynb means by a column may be something else.
    ours = f"AND (v IS NULL OR v <= {ROW_VERSION})" if found.version > ROW_VERSION else ""
    there = f"AND id NOT IN ({DELETED})" if found.marked else ""
    return (
        f"SELECT {casts(kind)} FROM log_rows WHERE kind = '{kind}' AND id IS NOT NULL "
        f"{ours} {there} {condition} {once}"
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

"""The columns of the log, in one place: JSON lines, Parquet, views and docs come from here.

Rows are of a kind. `run`: what a run is about to make, written before its first prompt.
`submitted`: a prompt is about to be sent. `result`: a keyframe. `mark`: something said later about
a keyframe; of each field the last one counts. A row has only the columns
of its kind; the others are NULL.

New columns are added at the end and may be NULL; a name is never given another type or meaning,
so that any version can read the rows of any other: it ignores columns that it does not know, and
keeps them as JSON in `extra` when it seals a segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ROW_VERSION = 1
"""Raised when what a column means changes; adding columns does not raise it."""

Kind = Literal["run", "submitted", "result", "mark"]

LARGEST_ROW = 128 * 2**20
"""Bytes of the largest row that is written and read; DuckDB's own limit of 16 MiB is less than a
run of 10,000 cells can take."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: In JSON, Parquet and SQL.
        type: DuckDB's.
        kinds: The kinds of rows that fill it.
        meaning: For the docs; with the unit where it has one.
    """

    name: str
    type: str
    kinds: tuple[Kind, ...]
    meaning: str


_ALL: tuple[Kind, ...] = ("run", "submitted", "result", "mark")
_MADE: tuple[Kind, ...] = ("run", "submitted", "result")
_MAP = "MAP(VARCHAR, VARCHAR)"
_ERROR = "STRUCT(kind VARCHAR, message VARCHAR, node VARCHAR, hint VARCHAR)"
_TIMINGS = "STRUCT(queued_ms DOUBLE, executing_ms DOUBLE, fetch_ms DOUBLE, total_ms DOUBLE)"
_OUTPUTS = (
    'STRUCT(node VARCHAR, "index" INTEGER, sha256 VARCHAR, mime VARCHAR, bytes BIGINT, '
    "width_px INTEGER, height_px INTEGER, frames INTEGER)[]"
)

COLUMNS = (
    Column("id", "VARCHAR", _ALL, "Of the row. Readers keep one row of each id."),
    Column("kind", "VARCHAR", _ALL, "run, submitted, result or mark."),
    Column("v", "SMALLINT", _ALL, "Version of the row's meaning: 1."),
    Column("log_session", "VARCHAR", _ALL, "Which open log of which process wrote it; random."),
    Column("seq", "BIGINT", _ALL, "Number of the row in its session, from 1, in order of writing."),
    Column("created_at", "TIMESTAMP", _ALL, "When it was made, UTC, in microseconds."),
    Column("run", "VARCHAR", _MADE, "Id of the run."),
    Column("server", "VARCHAR", _MADE, "Label of the server, without tokens."),
    Column("prompt_id", "VARCHAR", ("submitted",), "The prompt's id on its server, ours."),
    Column("key", "VARCHAR", ("submitted", "result"), "Content key of the cell: 64 hex digits."),
    Column("scene", "VARCHAR", ("submitted", "result"), "Id of the scene."),
    Column("title", "VARCHAR", ("result",), "What the scene is called in grids."),
    Column("prompt", "VARCHAR", ("result",), "Positive text as sent: scene and style."),
    Column("negative", "VARCHAR", ("result",), "Negative text as sent."),
    Column("seed", "UBIGINT", ("result",), "0 to 2**64 - 1."),
    Column("knobs", _MAP, ("result",), "Every knob's value as sent, each as JSON text."),
    Column("axes", _MAP, ("result",), "Label of the cell on each axis of its sweep."),
    Column("status", "VARCHAR", ("result",), "done, failed, cancelled or lost."),
    Column("server_cached", "BOOLEAN", ("result",), "The server reused a result; no timings."),
    Column("error", _ERROR, ("result",), "Why there is no picture: a word, why, where, what next."),
    Column("timings", _TIMINGS, ("result",), "How long its parts took, in milliseconds."),
    Column("server_version", "VARCHAR", ("result",), "What the server calls its version."),
    Column("outputs", _OUTPUTS, ("result",), "What its nodes gave: types, sizes, sha256 in hex."),
    Column("warnings", "VARCHAR[]", ("result",), "What went less than well."),
    Column("unknown_words", "VARCHAR[]", ("result",), "Words that the model does not know."),
    Column("measures", "MAP(VARCHAR, DOUBLE)", ("result",), "Numbers measured on the picture."),
    Column("scene_json", "VARCHAR", ("result",), "The scene as it was given, as JSON text."),
    Column("workflow", "VARCHAR", ("run", "result"), "The graph in API format, as JSON text."),
    Column("storyboard", "VARCHAR", ("run",), "What was to be drawn, as JSON text."),
    Column("sweep", "VARCHAR", ("run",), "The axes and their values, as JSON text."),
    Column("cells", "VARCHAR", ("run",), "The cells in order with their keys, as JSON text."),
    Column("checkpoint", "VARCHAR", ("run",), "The checkpoint chosen for the library workflow."),
    Column("versions", "VARCHAR", ("run",), "What made it: names and versions, as JSON text."),
    Column("target", "VARCHAR", ("mark",), "Id of the keyframe that it is about."),
    Column("field", "VARCHAR", ("mark",), "rating, pick, note, tag:NAME or versus:ID."),
    Column("value", "VARCHAR", ("mark",), "What is said, as JSON text; null takes it back."),
    Column("extra", "VARCHAR", _ALL, "What a newer comfynb wrote beside these, as JSON text."),
)

KNOB_COLUMNS = {
    "steps": "INTEGER",
    "cfg": "DOUBLE",
    "sampler": "VARCHAR",
    "scheduler": "VARCHAR",
    "checkpoint": "VARCHAR",
    "denoise": "DOUBLE",
    "width": "INTEGER",
    "height": "INTEGER",
}
"""The common knobs: columns of the view `keyframes` beside the map of all; sides in pixels."""


def names(kind: Kind) -> list[str]:
    """Return the columns that rows of a kind fill, in order."""
    return [column.name for column in COLUMNS if kind in column.kinds]


def json_columns() -> str:
    """Return the `columns` argument of DuckDB's read_json: pinned types, nothing inferred."""
    pairs = (f"'{c.name}': '{c.type}'" for c in COLUMNS)
    return "{" + ", ".join(pairs) + "}"


def typed_nulls() -> str:
    """Return a select list of all columns as NULLs of their types."""
    return ", ".join(f"NULL::{c.type} AS {c.name}" for c in COLUMNS)


def casts(kind: Kind) -> str:
    """Return a select list of a kind's columns, cast to their types.

    What cannot be cast, as in a damaged or foreign file, becomes NULL.
    """
    wanted = (c for c in COLUMNS if kind in c.kinds)
    return ", ".join(f"TRY_CAST({c.name} AS {c.type}) AS {c.name}" for c in wanted)


def markdown() -> str:
    """Return the columns as a table for the docs."""
    rows = [f"| {c.name} | {c.type} | {', '.join(c.kinds)} | {c.meaning} |" for c in COLUMNS]
    return "\n".join(["| column | type | rows | meaning |", "|---|---|---|---|", *rows, ""])

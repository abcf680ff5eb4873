"""Rows of the log: keyframes, runs and submitted prompts to JSON lines and back.

A row is a flat mapping with the names of schema.py. What has no pinned shape (the graph, the
storyboard, the value of a knob) is kept as JSON text inside of it, so that no two rows can
disagree about a type.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from comfynb.errors import SceneError
from comfynb.keyframes import EMPTY, Failure, Keyframe, Output, Pictures, Timings
from comfynb.log.marks import Mark
from comfynb.log.schema import ROW_VERSION, Kind
from comfynb.scenes import Scene

Row = Mapping[str, Any]

RESULT_NAMESPACE = uuid.UUID("6d2d4ac6-3f6f-5a0e-9f3a-5c1a51f2b1c7")
"""Result id = uuid5(this, prompt id): readers keep one of those that found the same prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """A cell as its run was about to make it.

    Attributes:
        index: Position in the run, from 0.
        scene: Id of the scene.
        key: Content key.
        prompt: Positive text as it would be sent.
        negative: Negative text as it would be sent.
        seed: 0 to 2**64 - 1.
        knobs: Every knob's value.
        axes: Label of the cell on each axis.
    """

    index: int
    scene: str
    key: str
    prompt: str = ""
    negative: str = ""
    seed: int = 0
    knobs: Mapping[str, Any] = EMPTY
    axes: Mapping[str, str] = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it was about to begin.

    Attributes:
        id: Of the run.
        storyboard: `Storyboard.to_dict()`.
        axes: Of its sweep, by name; any JSON.
        cells: In order.
        workflow: The graph before its knobs were set (API format).
        checkpoint: Chosen for the library workflow, or None.
        server: Label of the server.
        versions: Of comfynb, the server and whatever else matters, by name.
        created_at: When, UTC.
    """

    id: str
    storyboard: Mapping[str, Any]
    cells: tuple[CellRecord, ...]
    workflow: Mapping[str, Any] = field(default=EMPTY, repr=False)
    axes: Mapping[str, Any] = EMPTY
    checkpoint: str | None = None
    server: str = ""
    versions: Mapping[str, str] = EMPTY
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedRecord:
    """A prompt that was about to be sent.

    Attributes:
        prompt_id: Its id on the server, ours.
        run: Id of the run.
        key: Content key of the cell.
        scene: Id of the scene.
        server: Label of the server.
        session: Which open log of which process wrote it.
        created_at: When, UTC.
    """

    prompt_id: str
    run: str
    key: str
    scene: str
    server: str
    session: str
    created_at: datetime


def result_id(prompt_id: str) -> str:
    """Return the id of the keyframe that comes out of a prompt, whoever writes it."""
    return str(uuid.uuid5(RESULT_NAMESPACE, prompt_id))


def keyframe_row(keyframe: Keyframe, *, session: str) -> Row:
    """Return the `result` row of a keyframe."""
    return {
        **_head(keyframe.id, "result", session, keyframe.created_at),
        "run": keyframe.run,
        "key": keyframe.key,
        "scene": keyframe.scene.id,
        "title": keyframe.scene.title,
        "prompt": keyframe.prompt,
        "negative": keyframe.negative,
        "seed": keyframe.seed,
        "knobs": {name: json_text(value) for name, value in keyframe.knobs.items()},
        # Sorted: DuckDB takes maps with the same entries in another order for different places.
        "axes": dict(sorted(keyframe.axes.items())),
        "status": keyframe.status,
        "server_cached": keyframe.server_cached,
        "error": None if keyframe.error is None else _flat(keyframe.error),
        "timings": _flat(keyframe.timings),
        "server": keyframe.server,
        "server_version": keyframe.server_version,
        "outputs": [_flat(output) for output in keyframe.outputs],
        "warnings": list(keyframe.warnings),
        "unknown_words": list(keyframe.unknown_words),
        "measures": dict(keyframe.measures),
        "scene_json": json_text(keyframe.scene.to_dict()),
        "workflow": None if keyframe.workflow is None else json_text(keyframe.workflow),
    }


def run_row(run: RunRecord, *, session: str) -> Row:
    """Return the `run` row of a run."""
    return {
        **_head(run.id, "run", session, run.created_at),
        "run": run.id,
        "server": run.server,
        "storyboard": json_text(run.storyboard),
        "sweep": json_text(run.axes),
        "cells": json_text([_flat(cell) for cell in run.cells]),
        "workflow": json_text(run.workflow),
        "checkpoint": run.checkpoint,
        "versions": json_text(run.versions),
    }


def submitted_row(
    *, prompt_id: str, run: str, key: str, scene: str, server: str, session: str
) -> Row:
    """Return the `submitted` row of a prompt."""
    head = _head(prompt_id, "submitted", session, datetime.now(UTC))
    return {
        **head,
        "run": run,
        "server": server,
        "prompt_id": prompt_id,
        "key": key,
        "scene": scene,
    }


def mark_row(mark: Mark, *, session: str) -> Row:
    """Return the `mark` row of a mark."""
    return {
        **_head(mark.id, "mark", session, mark.created_at),
        "target": mark.keyframe,
        "field": mark.field,
        "value": None if mark.value is None else json_text(mark.value),
    }


def keyframe_of(row: Row, pictures: Pictures | None) -> Keyframe:
    """Read a keyframe back.

    Args:
        row: As views.py asks for it, maps as JSON text; without `workflow` the keyframe has none,
            without marks it has none.
        pictures: Where its bytes are.

    Raises:
        SceneError: The row names no sound scene; it was not written by comfynb.
    """
    error, timings = row["error"], row["timings"]
    return Keyframe(
        id=row["id"],
        run=row["run"] or "",
        key=row["key"] or "",
        scene=_scene_of(row),
        status=row["status"],
        prompt=row["prompt"] or "",
        negative=row["negative"] or "",
        seed=row["seed"] or 0,
        knobs=mapping(row["knobs"]),
        workflow=workflow_of(row),
        axes=mapping(row["axes"]),
        outputs=tuple(map(_output_of, row["outputs"] or ())),
        error=None if error is None else _failure_of(error),
        warnings=tuple(row["warnings"] or ()),
        unknown_words=tuple(row["unknown_words"] or ()),
        timings=Timings() if timings is None else Timings(**timings),
        server=row["server"] or "",
        server_version=row["server_version"] or "",
        server_cached=bool(row["server_cached"]),
        take=row["take"],
        measures=mapping(row["measures"]),
        created_at=_utc(row["created_at"]),
        rating=row.get("rating"),
        tags=tuple(row.get("tags") or ()),
        picked=bool(row.get("picked")),
        note=row.get("note") or "",
        pictures=pictures,
    )


def workflow_of(row: Row) -> Mapping[str, Any] | None:
    """Read a graph back; None where the row has none."""
    return mapping(row.get("workflow")) or None


def run_of(row: Row) -> RunRecord:
    """Read a run back.

    Raises:
        TypeError: Its cells are not those of a run; it was not written by comfynb.
    """
    return RunRecord(
        id=row["id"],
        created_at=_utc(row["created_at"]),
        storyboard=_json(row["storyboard"]) or {},
        axes=_json(row["sweep"]) or {},
        cells=tuple(_cell_of(cell) for cell in _json(row["cells"]) or ()),
        workflow=_json(row["workflow"]) or {},
        checkpoint=row["checkpoint"],
        server=row["server"] or "",
        versions=_json(row["versions"]) or {},
    )


def submitted_of(row: Row) -> SubmittedRecord:
    """Read a submitted prompt back."""
    texts = ("prompt_id", "run", "key", "scene", "server")
    return SubmittedRecord(
        **{name: row[name] or "" for name in texts},
        session=row["log_session"] or "",
        created_at=_utc(row["created_at"]),
    )


def line(row: Row) -> bytes:
    """Return a row as one line of JSON in UTF-8, with its line feed."""
    return json_text(row).encode() + b"\n"


def json_text(value: Any) -> str:
    """Return a value as JSON that every reader takes.

    JSON has no word for NaN and the infinities: they become null. Half a surrogate pair, as a
    text cut in its middle may end with, becomes U+FFFD. What JSON does not know becomes text.
    """
    try:
        text = _dumps(value)
        text.encode()
    except (ValueError, TypeError):
        text = _dumps(_plain(value))
    return text


def _unwrap(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    if hasattr(value, "item"):  # numpy's scalars
        return value.item()
    return str(value)


# Made once: json.dumps would make one for each value.
_dumps = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_unwrap
).encode


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return _plain(_unwrap(value))


def _head(row_id: str, kind: Kind, session: str, created_at: datetime) -> dict[str, Any]:
    naive = created_at.astimezone(UTC).replace(tzinfo=None)
    return {
        "id": row_id,
        "kind": kind,
        "v": ROW_VERSION,
        "log_session": session,
        "created_at": naive.isoformat(timespec="microseconds"),
    }


def _utc(naive: datetime | None) -> datetime:
    return (naive or datetime.fromtimestamp(0, UTC)).replace(tzinfo=UTC)


def mapping(text: Any) -> dict[str, Any]:
    """Read a mapping out of JSON text; empty where it is none (NULL, or a stranger's log)."""
    value = _json(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else {}


def _json(text: str | None) -> Any:
    """Read JSON text; what is none (a stranger's log) stays text."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _output_of(output: Row) -> Output:
    return Output(
        node=output["node"] or "",
        index=output["index"] or 0,
        sha256=output["sha256"] or "",
        mime=output["mime"] or "",
        bytes=output["bytes"] or 0,
        width_px=output["width_px"] or 0,
        height_px=output["height_px"] or 0,
        frames=output["frames"] or 1,  # rows of before have none
    )


def _failure_of(error: Row) -> Failure:
    return Failure(
        kind=error["kind"] or "unknown",
        message=error["message"] or "",
        node=error["node"],
        hint=error["hint"] or "",
    )


def _flat(value: CellRecord | Failure | Output | Timings) -> dict[str, Any]:
    # Not asdict: it copies deeply, which takes time, and a read-only mapping cannot be copied so.
    return {name: getattr(value, name) for name in value.__slots__}


def _cell_of(data: Mapping[str, Any]) -> CellRecord:
    return CellRecord(**{name: data[name] for name in CellRecord.__slots__ if name in data})


def _scene_of(row: Row) -> Scene:
    try:
        return Scene.from_dict(_json(row["scene_json"]) or {})
    except (SceneError, TypeError, AttributeError):
        prompt = row["prompt"] or "?"
        return Scene(id=row["scene"] or "?", prompt=prompt, title=row["title"] or "")

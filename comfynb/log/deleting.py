"""Deleting: a mark that a keyframe, or a run, is deleted; nothing is rewritten.

So a deletion can be appended by any process at any time, wins over what other processes have on
screen, and can be taken back by another mark for as long as the pictures are there: they go with
the next garbage collection. The rows stay, hidden: what a dead session sent and somebody deleted
is not adopted again.
"""

# ruff: noqa: S608 - SQL from our own texts

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from comfynb.keyframes import Keyframe
from comfynb.log.marks import Mark
from comfynb.log.records import Row, mark_row
from comfynb.log.views import DELETED

if TYPE_CHECKING:
    from comfynb.log.reader import Reader

DELETED_ROWS = f"""
    SELECT DISTINCT ON (id) id, kind, run, scene, created_at,
        coalesce([output.sha256 FOR output IN outputs], []) AS pictures
    FROM log_rows WHERE kind IN ('result', 'run') AND id IN ({DELETED})
    ORDER BY created_at, id
"""
"""The keyframes and runs that are deleted, in order of making."""

_LAST = "SELECT max(created_at) AS last FROM log_rows WHERE kind = 'mark' AND field = 'deleted'"


def chosen(
    *, run: str | None, scene: str | None, keyframes: Iterable[Keyframe | str] | None
) -> tuple[str, dict[str, Any]]:
    """Return the condition, and its values, on the keyframes that are meant.

    Raises:
        ValueError: Not exactly one of the three is given.
    """
    if sum(given is not None for given in (run, scene, keyframes)) != 1:
        raise ValueError("say what to delete: run=..., scene=... or keyframes=..., one of them")
    if run is not None:
        return "run = $run", {"run": run}
    if keyframes is None:
        return "scene = $scene", {"scene": scene}
    if isinstance(keyframes, str | Keyframe):
        keyframes = [keyframes]
    ids = [keyframe if isinstance(keyframe, str) else keyframe.id for keyframe in keyframes]
    return "list_contains($ids, id)", {"ids": ids}


def rows(reader: Reader, targets: Iterable[str], *, deleted: bool, session: str) -> Iterable[Row]:
    """Give the marks that delete, or bring back.

    Args:
        reader: Of the log.
        targets: Ids of keyframes and runs.
        deleted: Whether they shall be.
        session: Which open log of which process writes it.

    Raises:
        LogError: The log cannot be read.
    """
    # Later than every mark before it, also where another machine's clock is ahead of ours.
    now = datetime.now(UTC)
    ((last,),) = (row.values() for row in reader.rows(_LAST))
    if last is not None:
        now = max(now, last.replace(tzinfo=UTC) + timedelta(microseconds=1))
    for target in dict.fromkeys(targets):
        row_id = str(uuid.uuid4())
        mark = Mark(id=row_id, keyframe=target, field="deleted", value=deleted, created_at=now)
        yield mark_row(mark, session=session)

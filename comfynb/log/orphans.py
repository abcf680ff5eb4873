"""Prompts that a dead session sent and nobody has finished."""

from __future__ import annotations

from collections.abc import Collection

from comfynb.errors import LogError
from comfynb.log import locks
from comfynb.log.reader import Reader
from comfynb.log.records import SubmittedRecord, result_id, submitted_of

_SUBMITTED = """
    SELECT prompt_id, run, key, scene, server, log_session, created_at
    FROM log_rows
    WHERE kind = 'submitted' AND prompt_id IS NOT NULL AND ($run IS NULL OR run = $run)
        AND ($keys IS NULL OR key IN (SELECT unnest($keys)))
    ORDER BY created_at
"""
_RESULTS = "SELECT id FROM log_rows WHERE kind = 'result' AND id IN (SELECT unnest($ids))"


def find(
    reader: Reader, run: str | None = None, keys: Collection[str] | None = None
) -> list[SubmittedRecord]:
    """Return the submitted prompts of dead sessions that have no result, newest last.

    Args:
        reader: Of the log.
        run: Id of a run; None: of all.
        keys: Content keys of the cells they were sent for; None: all.

    Raises:
        LogError: The log cannot be read.
    """
    # The order of the three steps matters: a session that was dead after its prompts were read
    # had written all its results before they are.
    wanted = {"run": run, "keys": None if keys is None else list(keys)}
    sent = {row["prompt_id"]: submitted_of(row) for row in reader.rows(_SUBMITTED, wanted)}
    if not sent:
        return []
    segments = reader.root / "seg"
    try:
        alive = locks.living(segments)
    except OSError as exc:
        raise LogError(f"cannot read {segments}: {exc}", folder=str(reader.root)) from exc
    if alive is None:
        return []
    left = {
        result_id(record.prompt_id): record
        for record in sent.values()
        if record.session[:8] not in alive
    }
    if left:
        for row in reader.rows(_RESULTS, {"ids": list(left)}):
            left.pop(row["id"], None)
    return list(left.values())

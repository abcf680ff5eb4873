"""Prompts that were sent and that nobody has finished: by dead sessions, and by living ones.

What a dead session sent may be on its server still, and is to be asked for. What a living one sent
is being made, as far as a log knows. It knows nothing of a session that gave up in silence, as one
does whose prompt was cancelled before it was sent: so that is believed for a while only.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from comfynb.errors import LogError
from comfynb.log import locks
from comfynb.log.reader import Reader
from comfynb.log.records import SubmittedRecord, result_id, submitted_of

BELIEVED_SECONDS = 3600.0
"""So long a prompt counts as being made of which nothing came: longer than one takes."""

_SUBMITTED = """
    SELECT prompt_id, run, key, scene, server, log_session, created_at
    FROM log_rows
    WHERE kind = 'submitted' AND prompt_id IS NOT NULL AND ($run IS NULL OR run = $run)
        AND ($keys IS NULL OR key IN (SELECT unnest($keys)))
    ORDER BY created_at
"""
_UNANSWERED = """
    SELECT DISTINCT key, log_session
    FROM log_rows AS sent
    WHERE kind = 'submitted' AND key IN (SELECT unnest($keys)) AND created_at > $since
        AND NOT EXISTS (
            FROM log_rows AS came
            WHERE came.kind = 'result' AND came.key = sent.key
                AND came.created_at >= sent.created_at
        )
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
    alive = _living(reader)
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


def under_way(reader: Reader, keys: Collection[str]) -> frozenset[str]:
    """Return those of some content keys that living sessions have sent, and nothing came since.

    By key and not by prompt: of several attempts at a cell, the first to come to something ends
    all. Where nobody can be told dead, every session counts as living.

    Args:
        reader: Of the log.
        keys: Of the cells.

    Raises:
        LogError: The log cannot be read.
    """
    since = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=BELIEVED_SECONDS)
    rows = reader.rows(_UNANSWERED, {"keys": list(keys), "since": since})
    alive = _living(reader) if rows else None
    return frozenset(
        row["key"] for row in rows if alive is None or (row["log_session"] or "")[:8] in alive
    )


def _living(reader: Reader) -> frozenset[str] | None:
    """Return the sessions that live; see `locks.living`."""
    segments = reader.root / "seg"
    try:
        return locks.living(segments)
    except OSError as exc:
        raise LogError(f"cannot read {segments}: {exc}", folder=str(reader.root)) from exc

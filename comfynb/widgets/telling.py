"""A board in the words of the wire: the head, how a cell stands, all about a cell."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from comfynb.backends.base import Line
from comfynb.boards.board import Board
from comfynb.keyframes import ENDED, MADE
from comfynb.runs.run import Run
from comfynb.runs.states import CellState, Snapshot
from comfynb.widgets.wire import Can, CellAbout, CellNews, Head

RECENT = 20
"""So many pictures say how long the next ones take."""
MOST_SERVERS = 3
"""So many servers are named one by one."""
LONGEST_TEXT = 2000
"""Characters of a knob's value, an error, a warning or a note that are sent."""
MOST_TAGS = 50
"""Tags of one keyframe that are sent."""

STALE = "made before the prompt or the graph was changed; the scene has not been drawn since"
NO_SERVER = "this board shows a log; comfynb.connect(..., log=...) makes pictures"
NO_MARKS = "this log was opened with read_only=True; open it without to rate and pick"


def head(board: Board, *, stale_sheet: bool = False) -> Head:
    """Say how the whole stands.

    Args:
        board: Which.
        stale_sheet: Whether the contact sheet in the saved notebook is out of reach.
    """
    state = board.state
    counts = state.counts
    latest = board.runs[-1] if board.runs else None
    active = [run for run in board.runs if not run.ended]
    can: Can = {"stop": bool(active), "retry": board.has_server, "mark": board.can_mark}
    if not board.has_server:
        can["why"] = NO_SERVER
    if not board.can_mark:
        can["why_mark"] = NO_MARKS
    return {
        "made": state.made,
        "failed": counts["failed"] + counts["lost"],
        "total": len(state.cells),
        "elapsed_s": round(max((run.seconds for run in active or board.runs), default=0.0), 1),
        "left_s": _left(state, active),
        "active": bool(active),
        "running": len(active),
        "paused": state.paused,
        "server": "" if latest is None else servers(latest.lines),
        "connection": "none" if latest is None else latest.line,
        "sheet": "old" if stale_sheet else "fresh",
        "can": can,
    }


def servers(lines: Mapping[str, Line]) -> str:
    """Name the servers of a run, and how those stand that are worse off than the best one."""
    best = "connected" if "connected" in lines.values() else ""
    if len(lines) > MOST_SERVERS:
        worse = Counter(line for line in lines.values() if best and line != best)
        return ", ".join([f"{len(lines)} servers", *(f"{n} {line}" for line, n in worse.items())])
    return ", ".join(
        f"{label} ({'away' if line == 'none' else line})" if best and line != best else label
        for label, line in lines.items()
    )


def _left(state: Snapshot, active: list[Run]) -> float | None:
    """Estimate the seconds that are left, from the pictures that the active runs made."""
    runs = {run.id for run in active}
    made = sorted(
        (s.keyframe.created_at, s.keyframe.seconds)
        for s in state.cells
        if s.status == "done"
        and s.keyframe is not None
        and s.keyframe.run in runs
        and s.keyframe.seconds is not None
        and not s.keyframe.server_cached
    )
    if not made:
        return None
    each = statistics.fmean(seconds for _, seconds in made[-RECENT:])
    at_once = max(1, sum(line == "connected" for run in active[-1:] for line in run.lines.values()))
    return round(each * sum(map(_open_share, state.cells)) / at_once, 1)


def _open_share(state: CellState) -> float:
    """How much of a cell is still to be made, from 0 to 1."""
    if state.status in ENDED:
        return 0.0
    if state.status == "running" and (progress := _progress(state)):
        return max(0.0, 1 - progress[0] / progress[1])
    return 1.0


def _progress(state: CellState) -> tuple[float, float] | None:
    """Return steps done and steps in all, where a server said something sensible."""
    step, steps = state.step, state.steps
    if step is None or steps is None or not 0 <= step <= steps < math.inf or not steps:
        return None
    return step, steps


def news(state: CellState) -> CellNews:
    """Say how a cell stands."""
    told: CellNews = {"i": state.cell.index, "status": state.status}
    if state.status == "running" and (progress := _progress(state)):
        told["step"], told["steps"] = progress
    keyframe = state.keyframe
    if state.stale:
        told["stale"] = True
    if keyframe is not None:
        told["n"] = len(keyframe.outputs)
        if keyframe.seconds is not None:
            told["ms"] = round(keyframe.seconds * 1000, 1)
        if keyframe.take is not None:
            told["take"] = keyframe.take
        if keyframe.rating is not None:
            told["rating"] = keyframe.rating
        if keyframe.picked:
            told["picked"] = True
        if keyframe.unknown_words:
            told["unknown_words"] = [_cut(word) for word in keyframe.unknown_words[:50]]
    return told


def about(state: CellState) -> CellAbout:
    """Say all there is to say about a cell."""
    cell, keyframe = state.cell, state.keyframe
    told: CellAbout = {
        "i": cell.index,
        "id": cell.scene.id,
        "number": cell.index + 1,
        "title": cell.scene.title,
        "prompt": cell.prompt,
        "negative": cell.negative,
        "seed": str(cell.seed),
        "knobs": _texts({**cell.axes, **cell.knobs}),
        "status": state.status,
        "warnings": [],
        "outputs": [],
        "timings": {},
        "server": "",
    }
    if keyframe is None:
        return told
    told["warnings"] = [_cut(text) for text in keyframe.warnings[:20]]
    if state.stale:
        told["warnings"].insert(0, STALE)
    told["timings"] = {
        name: round(ms, 1)
        for name, ms in dataclasses.asdict(keyframe.timings).items()
        if ms is not None
    }
    told["server"], told["version"] = keyframe.server, keyframe.server_version
    told["keyframe"] = keyframe.id
    if keyframe.tags:
        told["tags"] = [_cut(tag) for tag in keyframe.tags[:MOST_TAGS]]
    if keyframe.note:
        told["note"] = _cut(keyframe.note)
    if keyframe.status in MADE:
        told["outputs"] = [
            {
                "kind": output.kind,
                "sha256": output.sha256,
                "mime": output.mime,
                "width_px": output.width_px,
                "height_px": output.height_px,
                "bytes": output.bytes,
            }
            for output in keyframe.outputs
        ]
    if keyframe.error is not None:
        error = keyframe.error
        told["error"] = {
            "kind": error.kind,
            "message": _cut(error.message),
            "node": None if error.node is None else _cut(error.node),
            "hint": _cut(error.hint),
        }
    return told


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {_cut(name): _cut(str(value)) for name, value in values.items()}


def _cut(text: str) -> str:
    """Return what can be sent: not endless, and without halves of characters."""
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 1] + "…"
    return text.encode("utf-8", "replace").decode()

"""One keyframe into the log, beside a bare write of the same bytes with its fsync."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from pathlib import Path

from bench.figures import Row, quantile
from bench.history import fill_log
from comfynb.keyframes import Keyframe, Output
from comfynb.log import Log
from comfynb.scenes import Scene
from comfynb.workflows import Workflow

SIZES = {"200 kB": (200_000, 100), "1 MB": (1_000_000, 30)}
"""Bytes of a picture, and how many are written in a round."""

SHARES = {"p50": 0.5, "p99": 0.99}
LIMIT = 1.5


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Row]:
    """Append in turns: one picture bare, one into a new log, one into a log with many rows."""
    many = 2000 if quick else 10_000
    fill_log(folder / "append-many", many)
    logs = {"new": Log(folder / "append-new"), "many": Log(folder / "append-many")}
    bare = folder / "append-bare"
    bare.mkdir()
    rows = []
    for name, (size, count) in SIZES.items():
        values: dict[str, dict[str, list[float]]] = {
            way: {share: [] for share in SHARES} for way in ("bare", *logs)
        }
        for _ in range(1 + rounds):
            times = _round(logs, bare, size, 5 if quick else count)
            for way, seconds in times.items():
                for share, part in SHARES.items():
                    values[way][share].append(quantile(seconds, part) * 1000)
        for share in SHARES:
            yardstick, new, full = (values[way][share][1:] for way in ("bare", *logs))
            limit = LIMIT if share == "p50" else None
            what = f"log, a picture of {name}, {share}"
            rows += [
                Row(f"{what}, beside a bare fsync", new, yardstick, judged="ratio", limit=limit),
                Row(f"{what}, in a log of {many:,} keyframes, beside a new one", full, new),
            ]
    for log in logs.values():
        log.close()
    return rows


def _round(logs: dict[str, Log], bare: Path, size: int, count: int) -> dict[str, list[float]]:
    """Return the seconds of each picture by the way it was written."""
    times: dict[str, list[float]] = {way: [] for way in ("bare", *logs)}
    for _ in range(count):
        data = os.urandom(size)
        begun = time.perf_counter()
        _write(bare / uuid.uuid4().hex, data)
        times["bare"].append(time.perf_counter() - begun)
        for way, log in logs.items():
            data = os.urandom(size)
            keyframe = _keyframe(data)
            begun = time.perf_counter()
            log.add_result(keyframe, [data])
            times[way].append(time.perf_counter() - begun)
    for path in bare.iterdir():
        path.unlink()
    return times


def _keyframe(data: bytes) -> Keyframe:
    sha256 = hashlib.sha256(data).hexdigest()
    return Keyframe(
        id=str(uuid.uuid4()),
        run="bench",
        key=sha256,
        scene=Scene(id="bench", prompt="noise"),
        status="done",
        prompt="noise",
        negative="",
        seed=0,
        knobs={"steps": 16},
        workflow=Workflow.load("txt2img").graph,
        outputs=(Output("save", 0, sha256, "image/png", len(data), 256, 256),),
        server="bench",
    )


def _write(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())

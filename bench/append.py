"""One keyframe into the log, beside a bare write of the same bytes with its fsync."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from pathlib import Path

from bench.figures import Row, quantile
from comfynb.keyframes import Keyframe, Output
from comfynb.log import Log
from comfynb.scenes import Scene
from comfynb.workflows import Workflow

SIZE = 200_000


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Row]:
    """Append in turns: one picture bare, one into the log."""
    count = 5 if quick else 100
    log = Log(folder / "append-log")
    bare_folder = folder / "append-bare"
    bare_folder.mkdir()
    shares = {"p50": 0.5, "p99": 0.99}
    bare: dict[str, list[float]] = {name: [] for name in shares}
    ours: dict[str, list[float]] = {name: [] for name in shares}
    for _ in range(1 + rounds):
        plain, kept = [], []
        for _ in range(count):
            data = os.urandom(SIZE)
            keyframe = _keyframe(data)
            begun = time.perf_counter()
            _write(bare_folder / keyframe.id, data)
            middle = time.perf_counter()
            log.add_result(keyframe, [data])
            plain.append((middle - begun) * 1000)
            kept.append((time.perf_counter() - middle) * 1000)
        for name, share in shares.items():
            bare[name].append(quantile(plain, share))
            ours[name].append(quantile(kept, share))
    log.close()
    return [
        Row(
            f"log, a picture of 200 kB, {name}, beside a bare fsync", ours[name][1:], bare[name][1:]
        )
        for name in shares
    ]


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

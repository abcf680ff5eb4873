"""Seconds per picture of the engine, beside the same model called without a server."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from bench.figures import Row
from bench.raw import RawLoop
from bench.server import Server
from comfynb.backends.embedded import CHECKPOINT
from comfynb.workflows import Workflow

STEPS = (8, 16, 24)
LIMIT = 1.1
WORDS = ("fox", "owl", "whale", "castle", "robot", "rocket", "boat", "cat", "dog")


async def measure(server: Server, *, rounds: int, quick: bool) -> list[Row]:
    """Draw the same pictures both ways, in turns."""
    flow = Workflow.load("txt2img").with_knobs({"checkpoint": CHECKPOINT, "cfg": 4.0})
    rows = []
    with _direct() as process:
        async with RawLoop(server.url) as loop:
            for steps in STEPS[:1] if quick else STEPS:
                served, direct = [], []
                for seed in range(1 + rounds):
                    prompt = f"a {WORDS[seed % len(WORDS)]} at dawn"
                    knobs = {"positive": prompt, "seed": seed, "steps": steps}
                    begun = time.perf_counter()
                    await loop.draw(dict(flow.with_knobs(knobs).graph))
                    served.append(time.perf_counter() - begun)
                    wanted = {"prompt": prompt, "seed": seed, "steps": steps}
                    process.stdin.write(json.dumps(wanted) + "\n")
                    process.stdin.flush()
                    direct.append(float(process.stdout.readline()))
                title = f"engine, a 256x256 picture of {steps} steps, beside the bare model"
                rows.append(
                    Row(title, served[1:], direct[1:], unit="s", judged="ratio", limit=LIMIT)
                )
        process.stdin.close()
    return rows


def _direct() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.direct"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

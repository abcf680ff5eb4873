"""The engine process that everything is measured against, and the graphs that it is given."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Self

NODES = Path(__file__).with_name("nodes.py")

_colors = itertools.count(1)


class Server:
    """An engine with the node of the benchmarks, as a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "comfynb.engine", "--owned", "--token", ""]
        self.process = subprocess.Popen(
            [*command, "--nodes", str(NODES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.url = json.loads(self.process.stdout.readline())["url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def graph(seconds: float) -> dict:
    """A 64x64 picture of one colour, after that many seconds; 0: at once."""
    nodes = {
        "color": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
        },
        "save": {
            "class_type": "SaveImage",
            "inputs": {"images": ["color", 0], "filename_prefix": "bench"},
        },
    }
    if seconds:
        inputs = {"image": ["color", 0], "seconds": seconds}
        nodes["wait"] = {"class_type": "Wait", "inputs": inputs}
        nodes["save"]["inputs"]["images"] = ["wait", 0]
    return nodes


def new_colors(count: int) -> list[int]:
    """Colours that no picture had before, so that no cache knows it."""
    return [color % 2**24 for color in itertools.islice(_colors, count)]

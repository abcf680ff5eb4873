"""What it takes to begin: the import, and the demo when everything is in its log."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Row

DEMO = "from comfynb.cli import main; raise SystemExit(main(['demo', '--out', {out!r}]))"


def imports(*, rounds: int) -> list[Row]:
    """Fresh processes, in turns."""
    codes = ("pass", "import comfynb", "from comfynb import connect")
    for code in codes:
        process_seconds(code)  # byte code and file cache
    bare, package, connect = zip(
        *([process_seconds(code) * 1000 for code in codes] for _ in range(rounds)), strict=True
    )
    return [
        Row("import comfynb, over bare Python", package, bare, judged="difference", limit=100),
        Row("from comfynb import connect, over bare Python", connect, bare, judged="difference"),
    ]


def demo(folder: Path, *, rounds: int) -> list[Row]:
    """`comfynb demo` with all its pictures made."""
    code = DEMO.format(out=str(folder / "demo"))
    first = process_seconds(code)
    again = [process_seconds(code) for _ in range(rounds)]
    return [
        Row("comfynb demo, first run, nothing made", [first], unit="s"),
        Row("comfynb demo, again, everything cached", again, unit="s", limit=2),
    ]


def process_seconds(code: str) -> float:
    """Run code in a fresh interpreter; return its seconds from start to end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun

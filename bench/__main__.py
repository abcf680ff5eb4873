"""The command: `python -m bench [--quick] [--json FILE] [--rounds N] [SECTION ...]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import tempfile
from pathlib import Path

from bench import append, browser, comfyui, drawing, history, images, starting
from bench.figures import Row, table
from bench.server import Server

SECTIONS = ("images", "comfyui", "engine", "import", "demo", "append", "log", "browser")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean little")
    parser.add_argument("--rounds", type=int, help="default: 9")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there too")
    parser.add_argument(
        "--folder", type=Path, help="where to write what is measured; default: a temporary folder"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    return options


async def measure(options: argparse.Namespace, folder: Path) -> list[Row]:
    wanted = options.sections or SECTIONS
    rounds = options.rounds or (1 if options.quick else 9)
    rows: list[Row] = []
    with Server() as server:
        if "images" in wanted:
            rows += await images.measure(server.url, folder, rounds=rounds, quick=options.quick)
        if "engine" in wanted:
            rows += await drawing.measure(server, rounds=rounds, quick=options.quick)
    if "comfyui" in wanted:
        rows += await comfyui.measure(folder / "comfyui", rounds=rounds, quick=options.quick)
    if "import" in wanted:
        rows += starting.imports(rounds=rounds + 1)
    if "demo" in wanted:
        rows += starting.demo(folder, rounds=min(rounds, 5))
    if "append" in wanted:
        rows += append.measure(folder, rounds=rounds, quick=options.quick)
    if "log" in wanted:
        rows += history.thumbnails(folder, rounds=min(rounds, 5), quick=options.quick)
        rows += history.measure(folder, rounds=min(rounds, 5), quick=options.quick)
    if "browser" in wanted:
        rows += await browser.measure(rounds=min(rounds, 5), quick=options.quick)
    return rows


def machine(folder: Path) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "folder": str(folder),
    }


def main() -> int:
    options = parse()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="comfynb-bench-", dir=options.folder) as name:
        folder = Path(name)
        facts = machine(folder)
        rows = asyncio.run(measure(options, folder))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print("Medians of the rounds, in brackets the smallest and the largest.\n")
    print(table(rows))
    if options.json:
        report = {"machine": facts, "rows": [row.to_dict() for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The same against a real ComfyUI, where `make test-comfyui` has installed one."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import images
from bench.figures import Row

TESTS = Path(__file__).parent.parent / "tests"


async def measure(folder: Path, *, rounds: int, quick: bool) -> list[Row]:
    """Start one and measure it; without one there are no rows, and it is said why."""
    sys.path.append(str(TESTS))  # its server stands among the tests
    from real_server import MISSING, RealComfyUI, is_installed  # noqa: PLC0415

    if not is_installed():
        print(MISSING, file=sys.stderr)
        return []
    server = RealComfyUI()
    try:
        options = {"rounds": rounds, "quick": quick, "server": "ComfyUI 0.3.75"}
        return await images.measure(server.url, folder, **options)
    finally:
        server.stop()

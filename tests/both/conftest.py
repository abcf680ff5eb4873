"""Every test here runs on the engine and on a real ComfyUI: `make test` does the one half.

`server` is shared and left alive, with an empty queue before and after; `own_server` may be
killed, and is there again for the next test. Graphs that both can run are in tests/plain.py.
"""

from __future__ import annotations

import pytest
from both.fault_matrix import PROPERTY, ROWS, table

SERVERS = ["engine", pytest.param("comfyui", marks=pytest.mark.comfyui)]


@pytest.fixture(params=SERVERS)
def server(request):
    """A server with the test nodes; a `support.Server`."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=SERVERS)
def own_server(request):
    """A server that the test may kill and start."""
    return request.getfixturevalue(f"own_{request.param}")


def pytest_terminal_summary(terminalreporter):
    """Print the fault matrix: what became of each of its cells in this session."""
    pictures = {row.fault: f"{row.pictures} of {row.cells}" for row in ROWS}
    results = {}
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            for name, (fault, column) in getattr(report, "user_properties", ()):
                if name == PROPERTY and outcome == "passed":
                    results[fault, column] = f"{pictures[fault]} in {report.duration:.1f} s"
                elif name == PROPERTY and outcome:  # "" is for what set up and took down well
                    results[fault, column] = outcome.upper()
    if results:
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(table(results))

"""The fault matrix: what may break, and that every picture is delivered exactly once all the same.

One list of rows is the source of the tests (test_fault_matrix.py), of the table that pytest prints
at the end, and of the one in the README:

    python tests/both/fault_matrix.py      # prints the latter
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfynb.testing import (
    Blank,
    Cut,
    Delay,
    Down,
    DropAnswer,
    Duplicate,
    Fail,
    HalfOpen,
    Insert,
    LateAnswer,
    Restart,
    Rule,
    Slow,
    Swallow,
    Truncate,
    Usurp,
)

COLUMNS = {"engine": "embedded engine", "comfyui": "ComfyUI 0.3.75"}
PROPERTY = "fault matrix"
"""Under this name a test tells the table which cell it is: row, column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault, and what a run through it must come to.

    Attributes:
        fault: In the words of the table.
        rules: What the proxy is told; given the server.
        cells: How many scenes the run has.
        pictures: How many of them must be delivered, each once.
        posts: How many prompts are sent for them, at least and at most.
        seconds: The bound: longer counts as a hang.
        silence: Seconds after which the client asks about a prompt of which it hears nothing.
        story: Which test tells it: the common one, or one of its own.
        kills: Whether the server dies.
        seconds_each: How long a picture takes, with a progress message every 10 ms.
    """

    fault: str
    rules: Callable[[Any], Sequence[Rule]] = lambda _: ()
    cells: int = 6
    pictures: int = 6
    posts: tuple[int, int] = (6, 6)
    seconds: float = 20.0
    silence: float = 10.0
    story: str = "a run"
    kills: bool = False
    seconds_each: float = 0.03


def _row(fault: str, *rules: Rule, **more: Any) -> Row:
    return Row(fault=fault, rules=lambda _: rules, **more)


EVER = {"times": None}
ROWS = (
    _row("no fault"),
    # The socket.
    _row("socket cut in the first prompt", Cut("progress", prompt=1)),
    _row("socket cut in the middle of the run", Cut("progress", prompt=4)),
    _row("socket cut in the last prompt", Cut("progress", prompt=6)),
    _row("socket cut at `executed`", Cut("executed", prompt=4)),
    _row("socket cut at `execution_success`", Cut("execution_success", prompt=4)),
    _row("socket cut when the prompt leaves the worker", Cut("executing:null", prompt=4)),
    _row("socket cut three times", *(Cut("progress", prompt=n) for n in (2, 4, 6))),
    _row("socket cut at a byte, within a message", Cut("executed", prompt=4, after_bytes=40)),
    _row(
        "socket cut, and its next handshakes broken",
        Cut("progress", prompt=4),
        DropAnswer("WS /ws", nth=2),
        Fail("WS /ws", nth=2, status=502),
    ),
    _row("first handshake broken", DropAnswer("WS /ws")),
    _row("half-open socket", HalfOpen("progress", prompt=4), silence=0.3),
    # Messages.
    _row("`executed` swallowed once", Swallow("executed", prompt=4)),
    _row("every `executed` swallowed", Swallow("executed", **EVER)),
    _row("every `execution_start` swallowed", Swallow("execution_start", **EVER)),
    _row(
        "every `execution_success` and end swallowed",
        Swallow("execution_success", **EVER),
        Swallow("executing:null", **EVER),
    ),
    _row(
        "every `executed` and end swallowed",
        Swallow("executed", **EVER),
        Swallow("executing:null", **EVER),
        silence=0.3,
    ),
    _row("not a word about a prompt", Swallow(None, prompt=4, **EVER), silence=0.3),
    _row("every message twice", Duplicate(**EVER)),
    _row("messages half a second late", Delay("execution_start", seconds=0.5, prompt=4)),
    _row("strangers' prompts between ours", Insert("execution_start", **EVER)),
    _row("strangers' messages in the middle of ours", Insert("progress", **EVER)),
    _row("two clients with the same id", Usurp("progress", prompt=3), silence=0.3),
    # Requests.
    _row("`/history` blank four times", Swallow("executed", **EVER), Blank(times=4)),
    _row("`/history` late", Swallow("executed", times=2), LateAnswer(seconds=0.7)),
    _row("POST accepted, answered 502", Fail("POST /prompt", nth=3)),
    _row("POST accepted, connection cut", DropAnswer("POST /prompt", nth=3)),
    _row(
        "POST lost on its way",
        DropAnswer("POST /prompt", nth=3, accepted=False),
        posts=(7, 7),
    ),
    _row(
        "`/queue` and `/history` fail while they are needed",
        Cut("progress", prompt=4),
        DropAnswer("GET /queue", times=2),
        Fail("GET /history", status=503, times=2),
    ),
    _row("a picture comes slowly", Slow(bytes_per_second=20_000, times=2)),
    _row("a picture is cut at a byte, five times", Truncate(times=5)),
    _row("a picture's request fails, three times", Fail("GET /view", accepted=False, times=3)),
    # The server.
    _row("connections refused for a second", Down("progress", prompt=4, seconds=1.0)),
    Row(
        fault="server restarted in the middle",
        rules=lambda server: [Restart("progress", prompt=4, server=server)],
        posts=(7, 10),  # some may knock while it is away
        seconds=100.0,
        kills=True,
        seconds_each=0.3,
    ),
    _row("kernel killed (-9) and back", story="a killed kernel", seconds=30.0, seconds_each=0.3),
    _row("prompt cached by the server", story="a cached prompt", cells=3, pictures=3, posts=(3, 3)),
    _row("a blocked branch, which is not the end", story="a blocked branch"),
    _row(
        "1 of 20 graphs invalid, seen before it is sent",
        story="an invalid graph",
        cells=20,
        pictures=19,
        posts=(19, 19),
    ),
    _row(
        "1 of 20 graphs invalid, which only the server sees",
        Fail("GET /object_info", status=404, accepted=False, **EVER),
        story="an invalid graph",
        cells=20,
        pictures=19,
        posts=(20, 20),
    ),
)


def table(results: Mapping[tuple[str, str], str] | None = None) -> str:
    """Return the table as Markdown.

    Args:
        results: What goes into the cells, by row and column; None: what the tests demand.
    """
    lines = [["fault", *COLUMNS.values(), *([] if results is not None else ["bound"])]]
    for row in ROWS:
        if results is None:
            demand = f"{row.pictures} of {row.cells}"
            lines.append([row.fault, *[demand] * len(COLUMNS), f"{row.seconds:g} s"])
        else:
            lines.append([row.fault, *(results.get((row.fault, c), "not run") for c in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what became of each cell in this session."""
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


if __name__ == "__main__":
    print(table())

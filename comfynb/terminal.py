"""A run in the terminal: one bar for all, one for each cell that is being drawn.

It is a subscriber like any other. Where output goes to a file or a pipe, there are no bars but
one line a keyframe.
"""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from comfynb.keyframes import ENDED, Keyframe
from comfynb.runs.run import Run
from comfynb.runs.states import CellState

MARKS = {"done": "[green]✓[/]", "cached": "[cyan]≡[/]", "cancelled": "[yellow]-[/]"}
FAILED_MARK = "[red]✗[/]"


async def follow(run: Run, console: Console) -> None:
    """Show a run until its end."""
    with _bars(console) as bars:
        whole = bars.add_task("pictures", total=len(run.state.cells))
        cells: dict[int, TaskID] = {}
        given = 0
        async for changes in run.subscribe():
            for state in changes.cells:
                if state.status in ENDED and state.keyframe is not None:
                    given += 1
                    bars.console.print(line(given, len(run.state.cells), state.keyframe))
                    _drop(bars, cells, state.cell.index)
                elif state.status == "running":
                    _show(bars, cells, state)
                elif state.status == "queued":
                    _drop(bars, cells, state.cell.index)
            bars.update(whole, completed=given)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        Elapsed(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _show(bars: Progress, cells: dict[int, TaskID], state: CellState) -> None:
    index = state.cell.index
    if index not in cells:
        cells[index] = bars.add_task(state.cell.scene.label[:40], total=None)
    if state.steps:
        bars.update(cells[index], completed=state.step or 0, total=state.steps)


def _drop(bars: Progress, cells: dict[int, TaskID], index: int) -> None:
    task = cells.pop(index, None)
    if task is not None:
        bars.remove_task(task)


def line(number: int, count: int, keyframe: Keyframe) -> str:
    """Return what is said of one keyframe, in rich's markup."""
    mark = MARKS.get(keyframe.status, FAILED_MARK)
    text = f"{mark} {number:>{len(str(count))}} of {count}  {escape(keyframe.scene.label)}"
    if keyframe.status == "cached":
        return f"{text}  [dim]from the log[/]"
    if not keyframe.ok:
        return f"{text}\n    [red]{escape(str(keyframe.error or keyframe.status))}[/]"
    if keyframe.seconds is not None:
        text += f"  [dim]{keyframe.seconds:.1f} s[/]"
    if keyframe.unknown_words:
        text += f"  [yellow]unknown words: {escape(', '.join(keyframe.unknown_words))}[/]"
    for warning in keyframe.warnings:
        text += f"\n    [yellow]{escape(warning)}[/]"
    return text

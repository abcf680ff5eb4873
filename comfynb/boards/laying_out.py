"""How a board of a log stands: a run, and what the log has of each of its cells.

What a cell shows, in this order: the picture of its key that was made last; that it was sent, and
is being made; why there is none (a failure, or that a dead session sent it to a server that has to
be asked); nothing yet, as `queued`. In place of the last, and below a picture that is being made,
stands the picture that its place had before its prompt or graph was changed, as out of date.

Being made is what a session has sent that lives, and nothing came of it yet. Nobody says that they
died or gave up. Who died has lost the lock on its segment, and what it sent is `unknown` from then
on. Who lives and gave up in silence is believed for `BELIEVED_SECONDS` (log/orphans.py); then the
cell is `queued` again, or whatever it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from comfynb.boards.continuity import has_same_scenes, is_same, storyboard_of
from comfynb.cells import Cell
from comfynb.errors import LogError
from comfynb.keyframes import EMPTY, MADE, Keyframe
from comfynb.log import Log, RunRecord, SubmittedRecord
from comfynb.log.listing import extent
from comfynb.runs import failures
from comfynb.runs.states import CellState
from comfynb.scenes import Storyboard


@dataclass(frozen=True, slots=True)
class Layout:
    """How a board stands in a log at one moment.

    Attributes:
        storyboard: What it is about.
        cells: In order.
        extent: Of the log before it was read: while that stays the same, so does the layout.
    """

    storyboard: Storyboard
    cells: tuple[CellState, ...]
    extent: Mapping[str, int]

    def goes_on_with(self, before: Layout) -> bool:
        """Whether it may take the place of an earlier one, tile by tile."""
        ours, theirs = ([s.cell.scene.id for s in layout.cells] for layout in (self, before))
        return ours == theirs and is_same(self.storyboard, before.storyboard)


LayOut = Callable[[Storyboard | None], Layout]
"""Reads a log, in a worker; given what is shown, it reads what has become of that."""


def lay_out(log: Log, run: str | None = None, about: Storyboard | None = None) -> Layout:
    """Lay out a run that a log holds; blocks.

    Args:
        log: Where from.
        run: Its id; None: the latest, with all cells of its storyboard where it made only some of
            them again.
        about: Where no run is named: the latest over this storyboard, if there is one.

    Raises:
        LogError: The log cannot be read, or has no such run.
    """
    read = extent(log.folder)  # before the rest: what comes meanwhile makes another
    records = _records(log)
    record = _chosen(log, records, run, about)
    storyboard = storyboard_of(record.storyboard)
    if storyboard is None:
        folder = str(log.folder)
        raise LogError(f"the run {record.id} of the log at {folder} is none of ours", folder=folder)
    cells = _cells(record, storyboard)
    keys = {cell.key for cell in cells}
    orphans, under_way = log.orphans(keys=keys), log.under_way(keys)
    shown = log.keyframes(  # last: what has just come counts more than that it was to come
        # Pictures of its scenes count too: one may have been changed since and not been made.
        where="list_contains($keys, key) or list_contains($scenes, scene)",
        params={"keys": sorted(keys), "scenes": sorted({cell.scene.id for cell in cells})},
    )
    states = _states(cells, shown, orphans, under_way, _others(records, storyboard))
    return Layout(storyboard, tuple(states), read)


def run_record(log: Log, run: str | None = None) -> RunRecord:
    """Return a run that a log holds; arguments and errors as for `lay_out`."""
    return _chosen(log, _records(log), run)


# -- the run


def _records(log: Log) -> list[RunRecord]:
    return sorted(log.runs(), key=lambda record: record.created_at)


def _chosen(
    log: Log, records: Sequence[RunRecord], run: str | None, about: Storyboard | None = None
) -> RunRecord:
    if run is None and records:
        return _whole(records, about)
    for record in records:
        if record.id == run:
            return record
    hint = "its .runs() tells which it has" if run else "make one with comfynb.connect()"
    lacking = f"no run {run!r}" if run else "no run yet"
    folder = str(log.folder)
    raise LogError(f"the log at {folder} has {lacking}; {hint}", folder=folder)


def _whole(records: Sequence[RunRecord], about: Storyboard | None) -> RunRecord:
    """Return the latest run; where it was about some cells, with the others as they were before.

    Args:
        records: In the order in which they began; at least one.
        about: The latest over this storyboard is meant; None: the latest of all.
    """
    latest = records[-1]
    if about is not None:
        latest = next((r for r in reversed(records) if _is_over(r, about)), latest)
    cells = {cell.index: cell for cell in latest.cells}
    storyboard = storyboard_of(latest.storyboard)
    for record in reversed(records):
        if storyboard is None or len(cells) >= len(storyboard):
            break
        if record.created_at < latest.created_at and _is_over(record, storyboard):
            cells = {cell.index: cell for cell in record.cells} | cells
    return replace(latest, cells=tuple(cells[index] for index in sorted(cells)))


def _is_over(record: RunRecord, storyboard: Storyboard) -> bool:
    theirs = storyboard_of(record.storyboard)
    return theirs is not None and has_same_scenes(theirs, storyboard)


def _cells(record: RunRecord, storyboard: Storyboard) -> list[Cell]:
    scenes = {scene.id: scene for scene in storyboard}
    return [
        Cell(
            index=index,
            scene=scenes[cell.scene],
            axes=cell.axes,
            prompt=cell.prompt,
            negative=cell.negative,
            seed=cell.seed,
            knobs=cell.knobs,
            graph=EMPTY,
            key=cell.key,
        )
        for index, cell in enumerate(c for c in record.cells if c.scene in scenes)
    ]


def _others(records: Iterable[RunRecord], storyboard: Storyboard) -> Callable[[str], bool]:
    """Return what tells whether a run, by its id, was about another storyboard."""
    by_id = {record.id: record for record in records}
    known: dict[str, bool] = {}

    def is_another(run: str) -> bool:
        if run not in known:
            theirs = storyboard_of(by_id[run].storyboard) if run in by_id else None
            known[run] = theirs is not None and not is_same(theirs, storyboard)
        return known[run]

    return is_another


# -- its cells

_Place = tuple[str, frozenset[tuple[str, str]]]


def _place(of: Cell | Keyframe) -> _Place:
    """Return what a cell is about, whatever its prompt and graph: its scene, and its axes."""
    return of.scene.id, frozenset(of.axes.items())


def _states(
    cells: Iterable[Cell],
    keyframes: Iterable[Keyframe],
    orphans: Iterable[SubmittedRecord],
    under_way: Collection[str],
    is_another: Callable[[str], bool],
) -> Iterable[CellState]:
    by_key: dict[str, Keyframe] = {}
    by_place: dict[_Place, Keyframe] = {}
    for keyframe in sorted(keyframes, key=lambda k: (k.status in MADE, k.created_at)):
        by_key[keyframe.key] = keyframe  # a picture wins over a later failure
        if keyframe.status in MADE and not is_another(keyframe.run):
            by_place[_place(keyframe)] = keyframe
    sent = {orphan.key: orphan for orphan in orphans}
    for cell in cells:
        current, older = by_key.get(cell.key), by_place.get(_place(cell))
        if current is None and cell.key in sent:
            current = _unknown(cell, sent[cell.key])
        is_sent = cell.key in under_way
        if current is not None and (current.status in MADE or not is_sent):
            yield CellState(cell, current.status, keyframe=current)
        elif is_sent:
            yield CellState(cell, "submitted", keyframe=older, stale=older is not None)
        elif older is not None:
            yield CellState(cell, older.status, keyframe=older, stale=True)
        else:
            yield CellState(cell)


def _unknown(cell: Cell, sent: SubmittedRecord) -> Keyframe:
    return Keyframe(
        id=sent.prompt_id,
        run=sent.run,
        key=cell.key,
        scene=cell.scene,
        status="unknown",
        prompt=cell.prompt,
        negative=cell.negative,
        seed=cell.seed,
        knobs=cell.knobs,
        axes=cell.axes,
        error=failures.unknown(sent.server),
        server=sent.server,
        created_at=sent.created_at,
    )

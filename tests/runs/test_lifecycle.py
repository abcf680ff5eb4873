"""The life of a cell: the table is whole, and the states keep to it."""

from __future__ import annotations

from typing import get_args

import pytest

from comfynb.cells import make_cells
from comfynb.keyframes import ENDED, Keyframe, Status
from comfynb.runs import lifecycle
from comfynb.runs.lifecycle import STEPS
from comfynb.runs.states import States
from comfynb.scenes import Storyboard
from comfynb.workflows import Workflow

STATUSES: tuple[Status, ...] = get_args(Status)
ALLOWED = {(step.before, step.after) for step in STEPS}
(CELL,) = make_cells(
    Storyboard.of(["a fox"]), Workflow.load("txt2img"), kind="test", checkpoint="x"
)


def way_to(status: Status, seen: tuple[Status, ...] = ("queued",)) -> tuple[Status, ...]:
    """The shortest way from `queued` to a status, both of them included."""
    ways = [seen] if seen[-1] == status else []
    for before, after in ALLOWED:
        if before == seen[-1] and after not in seen:
            ways += filter(None, [way_to(status, (*seen, after))])
    return min(ways, key=len, default=())


def go(states: States, status: Status) -> None:
    if status in ENDED:
        ended = Keyframe(id="k", run="r", key=CELL.key, scene=CELL.scene, status=status)
        states.finish(CELL.index, ended)
    else:
        states.change(CELL.index, status=status)


def test_every_status_is_reached_and_the_ended_ones_are_left_by_no_step():
    assert {status for status in STATUSES if not way_to(status)} == set()
    assert {step.before for step in STEPS} == set(STATUSES) - ENDED
    assert len(ALLOWED) == len(STEPS)


@pytest.mark.parametrize("before", sorted(set(STATUSES) - ENDED))
@pytest.mark.parametrize("after", STATUSES)
def test_a_cell_takes_the_steps_of_the_table_and_no_others(before, after):
    states = States([CELL])
    for status in way_to(before)[1:]:
        go(states, status)
    assert states.of(CELL.index).status == before
    if after == before or (before, after) in ALLOWED:
        go(states, after)
        assert states.of(CELL.index).status == after
    else:
        with pytest.raises(ValueError, match=f"cannot become '{after}' from '{before}'"):
            go(states, after)
        assert states.of(CELL.index).status == before


@pytest.mark.parametrize("ended", sorted(ENDED))
def test_what_has_ended_ends_once_and_begins_anew_only_with_another_run(ended):
    states = States([CELL])
    for status in way_to(ended)[1:]:
        go(states, status)
    states.change(CELL.index, status="running", step=3)  # a word that came late
    assert (states.of(CELL.index).status, states.of(CELL.index).step) == (ended, None)
    with pytest.raises(ValueError, match="ended already"):
        go(states, "failed")
    states.refresh(CELL)
    assert states.of(CELL.index).status == "queued"


def test_the_table_is_in_the_docstring():
    for step in STEPS:
        assert step.because in lifecycle.__doc__

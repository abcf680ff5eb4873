"""States: the latest of everything for any number of watchers, and every end for each."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from support import until

from comfynb import loop
from comfynb.cells import make_cells
from comfynb.keyframes import Keyframe
from comfynb.runs.states import States
from comfynb.scenes import Storyboard
from comfynb.workflows import Workflow

CELLS = make_cells(
    Storyboard.of([f"scene {n}" for n in range(5)]),
    Workflow.load("txt2img"),
    kind="test",
    checkpoint="x",
)


@pytest.fixture
def states() -> States:
    """All of them sent: from there a cell may end in every way that has to do with a server."""
    states = States(CELLS)
    for cell in CELLS:
        states.change(cell.index, status="submitted")
    return states


def keyframe(index: int, status: str = "done") -> Keyframe:
    cell = CELLS[index]
    return Keyframe(id=f"k{index}", run="r", key=cell.key, scene=cell.scene, status=status)


def indices(changes) -> list[int]:
    return [state.cell.index for state in changes.cells]


def test_everything_is_queued_at_first():
    snapshot = States(CELLS).snapshot()
    assert [s.status for s in snapshot.cells] == ["queued"] * 5
    assert (snapshot.paused, snapshot.ended, snapshot.made) == (False, False, 0)
    assert snapshot.counts == {"queued": 5}


def test_every_change_has_a_version_of_its_own(states):
    versions = [states.snapshot().version]
    for change in (
        lambda: states.change(0, status="running"),
        lambda: states.finish(0, keyframe(0)),
        lambda: states.set_paused(True),
        lambda: states.refresh(CELLS[0]),
        lambda: states.adopt(states.of(1)),
        states.end,
    ):
        change()
        versions.append(states.snapshot().version)
    assert versions == sorted(set(versions))


def test_since_gives_the_latest_state_of_each_changed_cell_oldest_change_first(states):
    known = states.snapshot().version
    for index in (3, 1, 3, 4, 1):
        states.change(index, status="running", step=float(states.snapshot().version))
    changes = states.since(known)
    assert indices(changes) == [3, 4, 1]
    assert changes.cells == tuple(states.of(index) for index in (3, 4, 1))
    assert changes.version == states.snapshot().version
    assert states.since(changes.version).cells == ()


def test_an_ended_cell_stays_as_it_ended(states):
    states.change(0, status="running", preview=b"rough")
    states.finish(0, keyframe(0))
    states.change(0, status="running", step=3, preview=b"late")
    state = states.of(0)
    assert (state.status, state.keyframe.id, state.preview, state.step) == (
        "done",
        "k0",
        None,
        None,
    )


def test_a_cell_can_begin_anew(states):
    states.finish(0, keyframe(0, "failed"))
    states.refresh(CELLS[0])
    assert (states.of(0).status, states.of(0).keyframe) == ("queued", None)
    states.refresh(CELLS[1], keyframe(1, "cached"))
    assert (states.of(1).status, states.snapshot().made) == ("cached", 1)


def test_keyframes_are_in_the_order_of_the_cells(states):
    for index in (4, 0, 2):
        states.finish(index, keyframe(index))
    assert [k.id for k in states.keyframes()] == ["k0", "k2", "k4"]


# -- watching


async def test_a_new_watcher_begins_with_everything(states):
    states.finish(2, keyframe(2))
    first = await anext(states.subscribe())
    assert sorted(indices(first)) == [0, 1, 2, 3, 4]
    assert first.version == states.snapshot().version


async def test_a_watcher_that_knows_a_version_is_given_what_came_after(states):
    states.change(0, status="running")
    known = states.snapshot().version
    watcher = states.subscribe(known)
    waiting = asyncio.create_task(anext(watcher))
    await asyncio.sleep(0)
    assert not waiting.done()
    states.finish(1, keyframe(1))
    assert indices(await waiting) == [1]


async def test_a_late_watcher_knows_as_much_as_one_from_the_beginning(states):
    def know(known, changes):
        known.update({state.cell.index: state for state in changes.cells})

    early, late = {}, {}
    watcher = states.subscribe()
    know(early, await anext(watcher))
    for index in (0, 1, 0):
        states.change(index, status="running", step=1.0)
        know(early, await anext(watcher))
    states.finish(0, keyframe(0))
    know(early, await anext(watcher))
    know(late, await anext(states.subscribe()))
    assert early == late
    middle = states.snapshot()
    states.finish(3, keyframe(3))
    resumed = {state.cell.index: state for state in middle.cells}
    know(resumed, await anext(states.subscribe(middle.version)))
    know(late, states.since(middle.version))
    assert resumed == late


async def test_a_slow_watcher_sees_the_last_progress_only_and_every_end(states):
    watcher = states.subscribe()
    await anext(watcher)
    for step in range(1000):
        states.change(0, status="running", step=step, preview=b"%d" % step)
    for index in (3, 1, 2):
        states.finish(index, keyframe(index))
    changes = await anext(watcher)
    assert indices(changes) == [0, 3, 1, 2]
    assert changes.cells[0].step == 999
    assert changes.cells[0].preview == b"999"
    assert [s.keyframe.id for s in changes.cells[1:]] == ["k3", "k1", "k2"]


async def test_watching_ends_with_the_last_state(states):
    seen = []

    async def watch():
        async for changes in states.subscribe():
            seen.append(changes)  # noqa: PERF401 - looked at on the way

    task = asyncio.create_task(watch())
    await until(lambda: len(seen) == 1)
    states.finish(0, keyframe(0))
    states.end()
    await task
    assert seen[-1].ended
    assert 0 in {index for changes in seen[1:] for index in indices(changes)}
    again = [changes async for changes in states.subscribe()]
    assert [changes.ended for changes in again] == [True]
    assert [changes async for changes in states.subscribe(again[0].version)] == []


async def test_a_pause_is_told(states):
    watcher = states.subscribe(0)
    await anext(watcher)
    states.set_paused(True)
    changes = await anext(watcher)
    assert (changes.paused, changes.cells) == (True, ())
    states.set_paused(False)
    assert not (await anext(watcher)).paused


async def test_keyframes_come_in_order_of_completion_to_early_and_late_watchers(states):
    async def collect():
        return [k.id async for k in states.finished()]

    early = asyncio.create_task(collect())
    await asyncio.sleep(0)
    for index in (4, 0, 2):
        states.finish(index, keyframe(index))
        await asyncio.sleep(0)
    states.finish(3, keyframe(3, "cancelled"), listed=False)
    states.end()
    assert await early == ["k4", "k0", "k2"] == await collect()


def test_the_end_can_be_waited_for_in_a_thread(states):
    waiting = threading.Thread(target=states.block_until_ended)
    waiting.start()
    states.end()
    waiting.join(5)
    assert not waiting.is_alive()
    states.block_until_ended()


async def test_many_watchers_on_many_loops_miss_no_end():
    """A writer on our loop as in a run, watchers on three loops at different speeds."""
    cells = make_cells(
        Storyboard.of([f"scene {n}" for n in range(200)]),
        Workflow.load("txt2img"),
        kind="test",
        checkpoint="x",
    )
    states = States(cells)

    async def write():
        chance = random.Random(1)
        order = list(cells)
        chance.shuffle(order)
        for cell in order:
            states.change(cell.index, status="submitted")
            for step in range(5):
                states.change(cell.index, status="running", step=step)
                if chance.random() < 0.1:
                    await asyncio.sleep(0)
            made = Keyframe(
                id=str(cell.index), run="r", key=cell.key, scene=cell.scene, status="done"
            )
            states.finish(cell.index, made)
        states.end()

    async def watch(pause: float):
        known, version = {}, 0
        async for changes in states.subscribe():
            assert changes.version > version or not version
            version = changes.version
            known.update({s.cell.index: s for s in changes.cells})
            await asyncio.sleep(pause)
        return known, [k.id async for k in states.finished()]

    results = []
    threads = [
        threading.Thread(target=lambda p=pause: results.append(asyncio.run(watch(p))))
        for pause in (0, 0, 0.001, 0.02)
    ]
    for thread in threads:
        thread.start()
    here = asyncio.create_task(watch(0))
    await loop.across(write())
    results.append(await here)
    await asyncio.gather(*(asyncio.to_thread(thread.join, 20) for thread in threads))
    assert len(results) == 5
    for known, finished in results:
        assert {s.status for s in known.values()} == {"done"}
        assert len(known) == len(finished) == 200
        assert finished == results[0][1]

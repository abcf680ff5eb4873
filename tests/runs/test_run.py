"""Runs: what is made is given at once, what is known comes from the log."""

from __future__ import annotations

import asyncio

import pytest
from support import scenes, studio_on, until

import comfynb
from comfynb.testing import Fail, FaultProxy


@pytest.fixture
def studio(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        yield studio


async def test_keyframes_come_one_by_one_each_already_in_the_log(studio):
    given = []
    async for keyframe in studio.keyframes(scenes(3)):
        given.append(keyframe)
        other = comfynb.Log(studio.log.folder, read_only=True)
        assert {k.id for k in given} <= {k.id for k in other.keyframes(status="done")}
        assert keyframe.path.read_bytes() == keyframe.read()
    assert [k.status for k in given] == ["done"] * 3


async def test_asking_again_makes_nothing(studio, engine):
    first = await studio.run(scenes(3))
    history = engine.get("/history").keys()
    again = await studio.run(scenes(3))
    assert [k.status for k in again] == ["cached"] * 3
    assert [k.id for k in again] == [k.id for k in first]
    assert engine.get("/history").keys() == history


async def test_forced_cells_are_made_again_with_the_same_seed(studio):
    (first,) = await studio.run(scenes(1))
    (again,) = await studio.run(scenes(1), force=True)
    assert again.status == "done"
    assert (again.id != first.id, again.key, again.seed) == (True, first.key, first.seed)


async def test_equal_cells_of_one_run_are_made_once(studio):
    twice = [{"id": "one", "prompt": "a fox"}, {"id": "two", "prompt": "a fox"}]
    keyframes = await studio.run(twice)
    assert sorted(k.status for k in keyframes) == ["cached", "done"]
    assert [k.scene.id for k in keyframes] == ["one", "two"]
    assert keyframes[0].id == keyframes[1].id


async def test_a_paused_run_begins_nothing_until_it_is_resumed(studio):
    run = studio.run(scenes(4, **{"Guard.seconds": 0.2}))
    run.pause()
    await until(lambda: run.state.paused)
    await until(lambda: not any(c.status in ("submitted", "running") for c in run.state.cells))
    assert run.state.made < 4
    assert not run.ended
    run.resume()
    assert [k.status for k in await run] == ["done"] * 4


async def test_watchers_see_progress_previews_and_the_end(studio):
    run = studio.run(scenes(2, **{"Guard.seconds": 0.1, "steps": 4}))
    statuses: dict[int, list[str]] = {0: [], 1: []}
    steps, previews = set(), 0
    async for changes in run.subscribe():
        for state in changes.cells:
            seen = statuses[state.cell.index]
            if not seen or seen[-1] != state.status:
                seen.append(state.status)
            steps.add((state.step, state.steps))
            previews += state.preview is not None
    for seen in statuses.values():
        assert seen[-1] == "done"
        assert [s for s in ("queued", "submitted", "running", "done") if s in seen] == seen
    assert previews
    assert (10, 10) in steps or (4, 4) in steps


async def test_two_watchers_are_given_the_same(studio):
    run = studio.run(scenes(3))

    async def collect():
        return [k.id async for k in run]

    one, two = await asyncio.gather(collect(), collect())
    assert one == two
    assert len(one) == 3


async def test_retry_makes_exactly_what_is_missing(studio):
    bad = {"prompt": "an owl", "knobs": {"Guard.message": "boom"}}
    run = studio.run([*scenes(2), bad])
    assert [k.status for k in await run] == ["done", "done", "failed"]
    again = run.retry()
    assert [state.cell.index for state in again.state.cells] == [2]
    assert [k.status for k in await again] == ["failed"]


async def test_a_cell_that_its_server_lost_is_sent_once_more(engine, flow, tmp_path):
    """The second of two waits on the server when a stranger deletes it from the queue."""
    with studio_on(engine.url, workflow=flow, log=tmp_path / "log", silence=0.1) as studio:
        run = studio.run(scenes(2, **{"Guard.seconds": 0.4}))
        await until(lambda: len(engine.prompts()) == 2 and run.state.counts["running"])
        engine.post("/queue", {"clear": True})
        assert [k.status for k in await run] == ["done"] * 2


async def test_a_scene_that_is_cancelled_at_once_is_not_made(studio):
    run = studio.run(scenes(4, **{"Guard.seconds": 0.1}))
    await run.cancel({"scene-1", "scene-3"})
    keyframes = await run
    assert [k.status for k in keyframes] == ["cancelled", "done", "cancelled", "done"]


async def test_every_cell_of_a_cancelled_run_ends_whenever_the_cancel_comes(studio):
    for turn in range(30):
        run = studio.run(scenes(3), force=True)
        for _ in range(turn):
            await asyncio.sleep(0.002)
        await run.cancel()
        state = run.state
        assert state.ended
        assert all(cell.keyframe is not None for cell in state.cells), state.counts
        given = [keyframe async for keyframe in run]
        assert {k.id for k in given} >= {k.id for k in run.result() if k.ok}


async def test_access_that_is_withdrawn_on_the_way_is_a_failed_keyframe(engine, flow, tmp_path):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail("POST /prompt", nth=2, status=401, accepted=False))
        with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
            keyframes = await studio.run(scenes(3))
    assert sorted(k.status for k in keyframes) == ["done", "done", "failed"]
    (failed,) = [k for k in keyframes if not k.ok]
    assert failed.error.kind == "access_denied"
    assert "401" in failed.error.message


async def test_a_cell_that_its_server_lost_is_not_sent_again_where_that_costs_money(
    engine, flow, tmp_path, monkeypatch
):
    monkeypatch.setattr("comfynb.backends.comfyui.ComfyUIBackend.billed", True)
    with studio_on(engine.url, workflow=flow, log=tmp_path / "log", silence=0.1) as studio:
        run = studio.run(scenes(2, **{"Guard.seconds": 0.4}))
        await until(lambda: len(engine.prompts()) == 2 and run.state.counts["running"])
        engine.post("/queue", {"clear": True})
        assert [k.status for k in await run] == ["done", "lost"]


async def test_a_paused_run_outlives_the_absence_of_its_server(engine, flow, tmp_path):
    with (
        FaultProxy(engine.url) as proxy,
        studio_on(proxy.url, workflow=flow, log=tmp_path / "log", reconnect_for=0.2) as studio,
    ):
        run = studio.run(scenes(4, **{"Guard.seconds": 0.1}))
        await until(lambda: run.state.made >= 1)
        run.pause()
        await until(
            lambda: not {"submitted", "running"} & {cell.status for cell in run.state.cells}
        )
        proxy.down()
        await until(lambda: run.line == "gone")
        proxy.up()
        run.resume()
        assert [k.status for k in await run] == ["done"] * 4

"""The handle: await, iterate, cancel, retry, close; and the buttons."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import comm
import pytest
from ipywidgets.widgets.widget import _instances
from loopback import Page
from support import scenes, until, wait_for

import comfynb
from comfynb.errors import ClosedError, ComfynbError, LogError, ServerUnreachableError
from comfynb.servers import lanes
from comfynb.widgets import scene_grid

SLOW = {"Guard.seconds": 0.4}
ENDLESS = {"Guard.seconds": 60.0}


# Observing


async def test_a_grid_returns_at_once_and_can_be_awaited(studio):
    grid = studio.grid(scenes(3, **{"Guard.seconds": 0.2}))
    assert repr(grid) == f"<SceneGrid 0 of 3 on {studio.server}>"
    keyframes = await grid
    assert [k.scene.id for k in keyframes] == ["scene-1", "scene-2", "scene-3"]
    assert [k.status for k in keyframes] == ["done"] * 3
    assert repr(grid) == f"<SceneGrid 3 of 3 on {studio.server}>"
    assert await grid == keyframes
    assert repr(keyframes[0]) == "<Keyframe scene-1: done>"


async def test_awaiting_a_grid_leaves_the_callers_loop_free(studio):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await studio.grid(scenes(2, **{"Guard.seconds": 0.3}))
    ticking.cancel()
    assert ticks > 30


def test_wait_blocks_until_all_is_made(studio):
    grid = studio.grid(scenes(2))
    assert [k.status for k in grid.wait()] == ["done"] * 2
    assert grid.keyframes == grid.wait()


async def test_iterating_gives_each_keyframe_as_it_comes_and_leaving_detaches(studio):
    grid = studio.grid(scenes(3, **{"Guard.seconds": 0.1}))
    async for keyframe in grid:
        assert keyframe.path.exists()
        break
    assert [k.status for k in await grid] == ["done"] * 3
    again = [k.id async for k in grid]  # in order of completion, the other in that of the scenes
    assert sorted(again) == sorted(k.id for k in grid.keyframes)


async def test_cancelling_await_takes_our_prompts_off_the_server(studio, engine):
    stranger = engine.post_prompt(**{"Guard.seconds": 0.8, "seed": 7})
    grid = studio.grid(scenes(3, **ENDLESS))
    waiting = asyncio.ensure_future(grid._wait_or_cancel())
    await until(lambda: len(engine.prompts()) == 3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert engine.prompts() <= {stranger}
    await until(lambda: stranger in engine.ended())
    assert engine.get("/history")[stranger]["status"]["status_str"] == "success"
    assert {k.status for k in await grid} == {"cancelled"}


async def test_cancelling_an_iteration_detaches(studio):
    grid = studio.grid(scenes(2, **SLOW))

    async def observe():
        async for _ in grid:
            pass

    watching = asyncio.create_task(observe())
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert [k.status for k in await grid] == ["done"] * 2


async def test_cancel_begins_at_once_awaited_or_not(studio, engine):
    grid = studio.grid(scenes(3, **ENDLESS))
    await until(engine.prompts)
    grid.cancel(["scene-3"])
    await until(lambda: [k.scene.id for k in grid.keyframes] == ["scene-3"])
    await grid.cancel()
    assert not engine.prompts()
    with pytest.raises(ValueError, match="no scene 'scene-9'"):
        grid.cancel("scene-9")


async def test_retry_makes_exactly_what_has_no_picture(studio, engine):
    bad = [{"prompt": f"an owl {i}", "knobs": {"Guard.message": "boom"}} for i in range(2)]
    grid = studio.grid([*scenes(2), *bad])
    assert [k.status for k in await grid] == ["done", "done", "failed", "failed"]
    made = len(engine.ended())
    again = await grid.retry()
    assert [k.status for k in again] == ["done", "done", "failed", "failed"]
    assert len(engine.ended()) == made + 2
    await grid.retry(["scene-3"])
    assert len(engine.ended()) == made + 3
    await grid.retry(statuses=["cancelled"])
    assert len(engine.ended()) == made + 3
    with pytest.raises(ValueError, match="no scene"):
        grid.retry("fox")


async def test_what_stopped_the_run_is_raised_and_shown(tmp_path, flow):
    with comfynb.connect("http://127.0.0.1:9", workflow=flow, log=tmp_path / "log") as studio:
        grid = studio.grid(scenes(2))
        page = Page(grid, see=(0, 2))
        with pytest.raises(ServerUnreachableError):
            await grid
        with pytest.raises(ServerUnreachableError):
            [k async for k in grid]
        await until(page.has(failed=2))
        await until(lambda: "error" in page.about.get(0, {}))
        assert "127.0.0.1:9" in page.about[0]["error"]["message"]
        assert page.head["connection"] == "none"


def test_keywords_that_are_not_known_are_refused_with_a_hint(studio):
    with pytest.raises(TypeError, match=r"grid\(\) has no keyword 'steps'.*knobs=\{'steps'"):
        studio.grid(scenes(1), steps=4)
    with pytest.raises(TypeError, match=r"grid\(\) has no keyword 'styel'.*style"):
        studio.grid(scenes(1), styel="ink")
    board = studio.board(scenes(1))
    with pytest.raises(TypeError, match=r"no keyword 'columns'.*title="):
        comfynb.SceneGrid(board, columns=3)
    with pytest.raises(ValueError, match="static_twin"):
        comfynb.SceneGrid(board, static_twin="always")


def test_traits_say_what_never_changes(studio):
    board = {"title": "Harbour", "scenes": scenes(2), "knobs": {"width": 96, "height": 64}}
    grid = studio.grid(board)
    assert (grid.count, grid.ratio, grid.title, grid.protocol) == (2, 1.5, "Harbour", 1)
    grid.wait()
    assert studio.grid(board, title="Night").title == "Night"


def test_a_missing_front_end_is_named_before_anything_is_begun(
    studio, engine, monkeypatch, tmp_path
):
    ended = engine.ended()
    monkeypatch.setattr(scene_grid, "STATIC", tmp_path / "nowhere")
    with pytest.raises(ComfynbError, match="make frontend"):
        studio.grid(scenes(1))
    assert studio.log.runs() == []
    assert engine.ended() == ended


def test_a_closed_studio_shows_no_grid(studio):
    studio.close()
    with pytest.raises(ClosedError):
        studio.grid(scenes(1))
    assert not _instances


# Buttons


async def test_stop_cancels_and_retry_failed_goes_on(studio, engine):
    grid = studio.grid(scenes(3, **SLOW))
    page = Page(grid)
    await until(engine.prompts)
    assert page.do("stop")["ok"]
    assert not engine.prompts()
    await until(lambda: page.cells[2]["status"] == "cancelled")
    assert page.do("retry_failed")["ok"]
    await until(page.has(done=3))
    assert "nothing to retry" in page.do("retry_failed")["error"]
    assert "nothing is being made" in page.do("pause")["error"]


async def test_a_page_that_goes_away_does_not_take_its_stop_with_it(studio, engine, on_loop):
    grid = studio.grid(scenes(3, **ENDLESS))
    page = Page(grid)
    await until(lambda: len(engine.prompts()) == 2)

    def press_and_go():
        page.say(kind="do", req="last", name="stop")
        asyncio.get_running_loop().call_soon(grid._clients.close)

    on_loop(press_and_go)
    await until(lambda: not engine.prompts())
    assert {k.status for k in await grid} == {"cancelled"}


async def test_retry_of_some_cells_leaves_the_others(studio):
    bad = [{"prompt": f"an owl {i}", "knobs": {"Guard.message": "boom"}} for i in range(3)]
    grid = studio.grid([*scenes(1), *bad])
    page = Page(grid, see=(0, 4))
    await grid
    await until(page.has(done=1, failed=3))
    ids = [k.id for k in grid.keyframes]
    assert page.do("retry", [0, 2])["ok"]
    await grid
    assert [a == b for a, b in zip(ids, [k.id for k in grid.keyframes], strict=True)] == [
        True,
        True,
        False,
        True,
    ]


async def test_pause_and_resume(studio):
    grid = studio.grid(scenes(5, **{"Guard.seconds": 0.2}))
    page = Page(grid)
    await until(lambda: page.cells.get(0, {}).get("status") == "running")
    assert page.do("pause")["ok"]
    await until(lambda: page.head["paused"])
    await until(lambda: {c["status"] for c in page.cells.values()} == {"queued", "done"})
    assert page.do("resume")["ok"]
    await until(page.has(done=5))
    assert page.head["paused"] is False


async def test_regenerate_takes_the_next_seed_and_keeps_the_rest(studio):
    grid = studio.grid(scenes(2))
    page = Page(grid, see=(0, 2))
    first = await grid
    assert page.do("regenerate", [1])["ok"]
    second = await grid
    assert [k.seed for k in first] == [1000, 1001]
    assert [k.seed for k in second] == [1000, 1002]
    assert second[0].id == first[0].id
    assert page.do("regenerate")["error"]
    await until(lambda: page.about[1]["seed"] == "1002")
    await until(lambda: page.thumbs[1][0]["sha256"] == second[1].outputs[0].sha256)
    shown = comfynb.open_log(studio.log.folder).grid()
    assert [k.seed for k in shown.keyframes] == [1000, 1002]


async def test_buttons_of_a_closed_studio_say_so(studio):
    bad = [{"prompt": "an owl", "knobs": {"Guard.message": "boom"}}]
    grid = studio.grid(bad)
    await grid
    studio.close()
    assert "closed" in Page(grid).do("retry_failed")["error"]


def test_buttons_work_while_the_cell_blocks(studio, engine):
    grid = studio.grid(scenes(3, **ENDLESS))
    page = Page(grid)
    wait_for(engine.prompts)
    stopping = threading.Timer(0.1, page.do, ["stop"])  # handlers come on other threads
    stopping.start()
    assert {k.status for k in grid.wait()} == {"cancelled"}
    stopping.join()
    assert not engine.prompts()


# Logs


async def test_a_log_is_shown_without_a_server(studio):
    made = await studio.grid({"title": "Harbour", "scenes": scenes(3)})
    studio.close()
    opened = comfynb.open_log(studio.log.folder)
    grid = opened.grid()
    assert repr(grid) == "<SceneGrid 3 of 3 from a log>"
    assert grid.title == "Harbour"
    assert [k.id for k in await grid] == [k.id for k in made]
    assert [k.id async for k in grid] == [k.id for k in made]
    page = Page(grid, see=(0, 3))
    await until(lambda: len(page.thumbs) == 3)
    assert page.head["connection"] == "none"
    assert not any(page.head["can"][name] for name in ("stop", "retry"))
    assert "log" in page.head["can"]["why"]
    assert page.do("retry_failed")["error"] == page.head["can"]["why"]
    assert page.do("regenerate", [0])["error"]
    assert page.do("stop")["ok"]
    with pytest.raises(ClosedError):
        grid.retry()
    with pytest.raises(LogError):
        opened.grid("no-such-run")
    opened.close()


async def test_a_log_shows_all_cells_although_the_last_run_made_some(studio):
    bad = {"prompt": "an owl", "knobs": {"Guard.message": "boom"}}
    grid = studio.grid([*scenes(3), bad])
    await grid
    await grid.retry()
    shown = comfynb.open_log(studio.log.folder).grid()
    assert [k.status for k in shown.keyframes] == ["done", "done", "done", "failed"]


# Running a cell again; closing


async def test_a_cell_run_again_joins_what_is_in_flight(studio, engine, notebook):
    ended = engine.ended()
    notebook.run("cell-1")
    first = studio.grid(scenes(3, **SLOW))
    page = Page(first)
    await until(lambda: len(engine.prompts()) == 2)
    sent = engine.prompts()
    notebook.run("cell-1")
    second = studio.grid(scenes(3, **SLOW))
    assert first.comm is None
    assert len(await second) == 3
    assert sent <= engine.ended()
    assert {k.id for k in second.keyframes} == {k.id for k in first.keyframes}
    assert len(engine.ended() - ended) == 3
    before = len(page.messages)
    assert [k.id for k in await first] == [k.id for k in second.keyframes]  # still a handle
    assert len(page.messages) == before


async def test_stop_after_running_a_cell_again_stops_what_it_began_before(studio, engine, notebook):
    notebook.run("cell-1")
    studio.grid(scenes(3, **ENDLESS))
    await until(lambda: len(engine.prompts()) == 2)
    notebook.run("cell-1")
    second = studio.grid(scenes(3, **ENDLESS))
    assert Page(second).do("stop")["ok"]
    await until(lambda: not engine.prompts())
    assert {k.status for k in await second} == {"cancelled"}


def test_grids_of_other_cells_and_of_the_same_run_stay(studio, notebook):
    notebook.run("cell-1")
    one, two = studio.grid(scenes(1)), studio.grid(scenes(2))
    notebook.run("cell-2")
    three = studio.grid(scenes(3))
    assert all(grid.comm is not None for grid in (one, two, three))
    notebook.run("cell-1")
    four = studio.grid(scenes(1))
    assert [grid.comm is None for grid in (one, two, three, four)] == [True, True, False, False]
    four.wait()


def test_where_the_host_names_no_cell_its_text_stands_for_it(studio, notebook):
    notebook.run(None, code="studio.grid(a)")
    one = studio.grid(scenes(1))
    notebook.run(None, code="studio.grid(b)")
    two = studio.grid(scenes(1))
    notebook.run(None, code="studio.grid(a)")
    studio.grid(scenes(1)).wait()
    assert (one.comm is None, two.comm is None) == (True, False)


def test_fifty_runs_of_a_cell_leave_nothing_behind(engine, flow, notebook, on_loop):
    studio = comfynb.connect(engine.url, workflow=flow, log=False)

    def tasks():
        return len(asyncio.all_tasks())

    def live():
        gc.collect()
        return len(_instances), len(comm.get_comm_manager().comms)

    seen = []
    for _ in range(50):
        notebook.run("cell-1")
        grid = studio.grid(scenes(2))
        Page(grid, see=(0, 2))
        grid.wait()
        seen.append(weakref.ref(grid))
        if len(seen) == 5:
            early = live()
    assert live() == early
    wait_for(lambda: gc.collect() >= 0 and sum(ref() is not None for ref in seen) <= 2)
    grid.close()
    wait_for(lambda: on_loop(tasks) <= 6)  # the backend's own, and this call
    assert len(notebook.display_pub.views) == 50
    studio.close()


def test_close_leaves_nothing_behind(studio, notebook, on_loop):
    grid = studio.grid(scenes(2))
    page = Page(grid, see=(0, 2))
    grid.wait()
    wait_for(page.has(done=2))
    names = {"comfynb-grid", "comfynb-twin"}

    def working():
        return {task.get_name() for task in asyncio.all_tasks()} & names

    assert on_loop(working) == names
    grid.close()
    grid.close()
    assert grid.comm is None
    assert not _instances
    assert not comm.get_comm_manager().comms
    wait_for(lambda: not on_loop(working))
    assert not len(grid._clients)
    told = len(page.messages)
    assert [k.status for k in grid.wait()] == ["done"] * 2
    assert len(page.messages) == told
    grid.show()
    assert notebook.display_pub.outputs[-1] == {"text/plain": repr(grid)}
    forgotten = weakref.ref(grid)
    del grid, page
    wait_for(lambda: gc.collect() >= 0 and forgotten() is None)


async def test_without_a_notebook_a_grid_is_a_handle_that_nobody_keeps(studio, monkeypatch):
    monkeypatch.setattr(comm, "create_comm", comm._create_comm)
    grid = studio.grid(scenes(2))
    assert [k.status for k in await grid] == ["done"] * 2
    assert not _instances
    grid.show()
    grid.snapshot()
    grid.close()
    forgotten = weakref.ref(grid)
    del grid
    wait_for(lambda: gc.collect() >= 0 and forgotten() is None)
    assert lanes._lanes  # the studio is still open

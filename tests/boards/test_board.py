"""Boards: cells and their latest keyframes, over any number of runs, or over a log alone."""

from __future__ import annotations

import asyncio

import pytest
from support import Engine, scenes, until

import comfynb
from comfynb.boards.board import Board
from comfynb.errors import ClosedError, LogError
from comfynb.widgets import telling


@pytest.fixture
def studio(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        yield studio


def statuses(board) -> list[str]:
    return [state.status for state in board.state.cells]


async def test_a_board_shows_what_its_run_makes(studio):
    board = studio.board(scenes(3))
    seen = set()
    async for changes in board.subscribe():
        seen |= {(state.cell.index, state.status) for state in changes.cells}
        if board.state.made == 3:
            break
    assert seen >= {(index, status) for index in range(3) for status in ("queued", "done")}
    await until(lambda: not board.active)
    assert not board.state.ended, "its run has ended, the board goes on"
    board.close()


async def test_retry_starts_a_run_over_the_missing_cells_alone(studio):
    bad = {"id": "bad", "prompt": "an owl", "knobs": {"Guard.message": "boom"}}
    board = studio.board([*scenes(2), bad])
    await until(lambda: statuses(board) == ["done", "done", "failed"])
    made = [state.keyframe.id for state in board.state.cells[:2]]
    again = board.retry()
    assert [cell.scene.id for cell in again.plan.cells] == ["bad"]
    await again
    await until(lambda: statuses(board) == ["done", "done", "failed"])
    assert [state.keyframe.id for state in board.state.cells[:2]] == made
    board.close()


async def test_retry_over_nothing_ends_at_once(studio):
    board = studio.board(scenes(1))
    await board.runs[0]
    assert await board.retry() == []
    board.close()


async def test_cells_can_be_made_again_although_the_log_has_them(studio):
    board = studio.board(scenes(2))
    await until(lambda: board.state.made == 2)
    first = board.state.cells[1].keyframe
    await board.begin({1}, force=True)
    await until(lambda: not board.active and board.state.made == 2)
    assert board.state.cells[1].keyframe.id != first.id
    assert board.state.cells[1].keyframe.key == first.key
    assert board.state.cells[0].status == "done"
    board.close()


async def test_cancel_reaches_the_scenes_that_are_named(studio):
    board = studio.board(scenes(4, **{"Guard.seconds": 0.2}))
    await board.cancel({"scene-3", "scene-4"})
    await until(lambda: not board.active)
    await until(lambda: statuses(board) == ["done", "done", "cancelled", "cancelled"])
    board.close()


async def test_closing_ends_the_board_and_leaves_its_run_going(studio):
    board = studio.board(scenes(2, **{"Guard.seconds": 0.2}))
    (run,) = board.runs
    watcher = asyncio.create_task(anext(board.subscribe(board.state.version + 1000)))
    board.close()
    board.close()
    await until(lambda: board.state.ended)
    with pytest.raises(StopAsyncIteration):
        await watcher
    assert [k.status for k in await run] == ["done", "done"]
    assert not board._following


async def test_a_closed_board_starts_nothing(studio):
    board = studio.board(scenes(1))
    await board.runs[0]
    board.close()
    await until(lambda: board.state.ended)
    with pytest.raises(ClosedError, match="board was closed"):
        board.begin()


async def test_a_board_of_a_closed_studio_says_so(engine, flow, tmp_path):
    studio = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    board = studio.board(scenes(1))
    await board.runs[0]
    await studio.aclose()
    with pytest.raises(ClosedError, match="connect again"):
        board.begin(force=True)
    board.close()


async def test_an_opened_log_shows_its_latest_run_without_a_server(flow, tmp_path):
    engine = Engine()
    bad = {"id": "bad", "prompt": "an owl", "knobs": {"Guard.message": "boom"}}
    async with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        await studio.run(scenes(1))
        run = studio.run([*scenes(2), bad])
        made = await run
    engine.stop()
    opened = comfynb.open_log(tmp_path / "log")
    board = opened.board()
    assert statuses(board) == ["done", "done", "failed"]
    assert [s.cell.scene.id for s in board.state.cells] == ["scene-1", "scene-2", "bad"]
    assert [s.keyframe.id for s in board.state.cells] == [k.id for k in made]
    assert board.state.cells[0].keyframe.read() == made[0].read()
    assert "boom" in str(board.state.cells[2].keyframe.error)
    assert len(opened.board(run.id).state.cells) == 3
    with pytest.raises(ClosedError, match=r"no server.*comfynb\.connect"):
        board.retry()
    assert not board.active
    board.close()
    opened.close()


async def test_cells_that_were_never_made_are_queued_on_a_board_of_the_log(studio, tmp_path):
    run = studio.run(scenes(5, **{"Guard.seconds": 0.3}))
    await until(lambda: run.state.made >= 1)
    board = comfynb.open_log(studio.log.folder).board()
    assert sorted(set(statuses(board))) == ["done", "queued", "submitted"]
    board.close()
    await run.cancel()


def test_a_log_without_runs_or_without_that_run_says_so(studio, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match=r"no run yet.*comfynb\.connect"):
        comfynb.open_log(tmp_path / "empty").board()
    studio.render(scenes(1))
    with pytest.raises(LogError, match=r"no run 'nope'.*\.runs\(\)"):
        comfynb.open_log(studio.log.folder).board("nope")


def test_a_log_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(LogError, match="no log at"):
        comfynb.open_log(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


async def test_a_scene_that_was_changed_and_not_drawn_since_shows_its_old_picture_as_stale(
    engine, flow, tmp_path
):
    same, old = {"id": "same", "prompt": "a fox"}, {"id": "changed", "prompt": "an owl"}
    new = {**old, "prompt": "a whale", "knobs": {"Guard.seconds": 60.0}}
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        first = await studio.run([same, old])
        run = studio.run([same, new, {"id": "new", "prompt": "a cat"}])
        run.pause()
        await until(lambda: len(studio.log.runs()) == 2)
        board = Board.of_log(studio.log)
        unchanged, changed, added = board.state.cells
        assert (unchanged.status, unchanged.stale) == ("done", False)
        assert (changed.status, changed.stale, changed.keyframe.id) == ("done", True, first[1].id)
        assert changed.cell.prompt == "a whale"
        assert (added.status, added.keyframe) == ("queued", None)
        assert board.state.made == 1
        assert telling.news(changed)["stale"]
        assert telling.about(changed)["warnings"] == [telling.STALE]
        assert "stale" not in telling.news(unchanged)
        run.resume()
        await until(lambda: run.state.counts["running"])
        changed = Board.of_log(studio.log).state.cells[1]
        assert (changed.status, changed.stale, changed.keyframe.id) == (
            "submitted",
            True,
            first[1].id,
        ), "it is being made, and shows the old one meanwhile"
        await run.cancel()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"a:1": "reconnecting"}, "a:1"),
        ({"a:1": "connected", "b:2": "connected"}, "a:1, b:2"),
        ({"a:1": "connected", "b:2": "gone", "c:3": "none"}, "a:1, b:2 (gone), c:3 (away)"),
        ({"a:1": "gone", "b:2": "gone"}, "a:1, b:2"),
        ({f"s:{n}": "connected" for n in range(5)}, "5 servers"),
        ({f"s:{n}": "gone" if n else "connected" for n in range(5)}, "5 servers, 4 gone"),
    ],
)
def test_the_head_names_the_servers_and_those_that_are_worse_off(lines, told):
    assert telling.servers(lines) == told

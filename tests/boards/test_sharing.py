"""Boards of two notebooks on one log: each sees what the other makes and says.

A second `Log` over the folder stands for the other notebook: it is another session, with a segment
of its own, and shares nothing else with the first.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import replace

import pytest
from support import scenes, until

import comfynb
from comfynb import loop
from comfynb.boards import sharing
from comfynb.errors import MarkError
from comfynb.log import Log, lookout, orphans
from comfynb.runs import failures, results


@pytest.fixture
def studio(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        yield studio


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Look at logs more often than once a second."""
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.05)


@pytest.fixture
def other(tmp_path):
    other = Log(tmp_path / "log")
    yield other
    other.close()


@contextlib.asynccontextmanager
async def looked_at(board):
    """Look at a board as a page does, until its end."""
    looking = board.subscribe()
    async with contextlib.aclosing(looking):
        await anext(looking)
        yield board
    board.close()


def statuses(board) -> list[str]:
    return [state.status for state in board.state.cells]


def keyframe(board, index=0):
    return board.state.cells[index].keyframe


async def test_an_opened_log_fills_in_while_another_notebook_draws(studio, tmp_path):
    drawn = studio.board(scenes(3))
    (run,) = drawn.runs
    run.pause()
    await until(studio.log.runs)
    async with looked_at(comfynb.open_log(tmp_path / "log").board()) as board:
        assert board.state.made < 3
        run.resume()
        await run
        await until(lambda: statuses(board) == ["done"] * 3)
        assert [k.id for k in await run] == [keyframe(board, i).id for i in range(3)]
        assert keyframe(board).image.size == keyframe(drawn).image.size
    drawn.close()


async def test_a_waiting_cell_takes_what_another_notebook_made(studio, other):
    first = await studio.run(scenes(1))
    board = studio.board(scenes(3, **{"Guard.seconds": 0.01}))
    (run,) = board.runs
    run.pause()
    async with looked_at(board):
        await until(lambda: len(other.runs()) == 2)
        waiting = run.state.cells[2].cell
        made = replace(first[0], id="elsewhere", key=waiting.key, scene=waiting.scene)
        other.add_result(made, [first[0].read()])
        await until(lambda: statuses(board)[2] == "cached")
        assert keyframe(board, 2).id == "elsewhere"
        run.resume()
        assert [k.status for k in await run] == ["done", "done", "cached"]


async def test_marks_of_any_notebook_appear_wherever_a_picture_is_shown(studio, other):
    board = studio.board(scenes(2))
    await until(lambda: board.state.made == 2)
    async with looked_at(board):
        other.rate(keyframe(board), 4)
        other.tag(keyframe(board), "keep")
        await until(lambda: (keyframe(board).rating, keyframe(board).tags) == (4, ("keep",)))
        version = board.state.version
        studio.log.pick(keyframe(board, 1))
        await until(lambda: keyframe(board, 1).picked)
        assert [state.cell.index for state in board.changes(version).cells] == [1]
        other.rate(keyframe(board), None)
        await until(lambda: keyframe(board).rating is None)
        assert statuses(board) == ["done", "done"]


async def test_what_is_said_on_a_board_is_durable_and_reaches_the_other(studio, other):
    board = studio.board(scenes(1))
    await until(lambda: board.state.made == 1)
    theirs = comfynb.Board.of_log(other)
    async with looked_at(theirs):
        assert board.can_mark
        await board.rate(keyframe(board), 3)
        await board.pick(keyframe(board), picked=True)
        assert (keyframe(board).rating, keyframe(board).picked) == (3, True)
        await until(lambda: (keyframe(theirs).rating, keyframe(theirs).picked) == (3, True))
        await theirs.rate(keyframe(theirs), 5)
    assert other.latest()[0].rating == 5
    board.close()


async def test_what_cannot_be_said_is_refused(studio, tmp_path):
    board = studio.board([{"id": "bad", "prompt": "an owl", "knobs": {"Guard.message": "boom"}}])
    await until(lambda: statuses(board) == ["failed"])
    with pytest.raises(MarkError, match="has no picture"):
        await board.rate(keyframe(board), 3)
    with pytest.raises(MarkError, match="has no picture"):
        await board.pick(keyframe(board), picked=True)
    board.close()
    closed = comfynb.open_log(tmp_path / "log", read_only=True).board()
    assert not closed.can_mark
    with pytest.raises(MarkError, match="read only"):
        await closed.rate(keyframe(closed), 3)
    closed.close()


async def test_memory_keeps_marks_for_its_own_boards(engine, flow):
    async with comfynb.connect(engine.url, workflow=flow, log=False) as studio:
        board = studio.board(scenes(1))
        await until(lambda: board.state.made == 1)
        async with looked_at(board):
            await board.rate(keyframe(board), 2)
            assert keyframe(board).rating == 2


async def test_a_board_of_the_latest_run_goes_along_with_later_ones(studio, other):
    drawn = studio.board(scenes(2))
    await until(lambda: drawn.state.made == 2)
    (first,) = drawn.runs
    async with (
        looked_at(comfynb.Board.of_log(other)) as latest,
        looked_at(comfynb.Board.of_log(other, first.id)) as fixed,
    ):
        before = keyframe(latest)
        drawn.begin({0}, next_seed=True)
        await until(lambda: drawn.state.made == 2 and keyframe(drawn).id != before.id)
        await until(lambda: keyframe(latest).id == keyframe(drawn).id)
        assert latest.state.cells[0].cell.seed == before.seed + 1
        other.rate(keyframe(fixed, 1), 1)  # by then it has heard of the run too
        await until(lambda: keyframe(fixed, 1).rating == 1)
        assert keyframe(fixed).id == before.id
    drawn.close()


async def test_a_board_of_a_log_stays_with_its_storyboard(studio, other):
    foxes = studio.board({"title": "Foxes", "scenes": scenes(2)})
    await until(lambda: foxes.state.made == 2)
    async with looked_at(comfynb.Board.of_log(other)) as board:
        before = [keyframe(board, index).id for index in range(2)]
        others = [{**scene, "seed": 9} for scene in scenes(2)]  # with the same ids
        owls = studio.board({"title": "Owls", "scenes": others})
        await until(lambda: owls.state.made == 2)
        other.rate(keyframe(board), 1)  # by then it has heard of the others, too
        await until(lambda: keyframe(board).rating == 1)
        assert [keyframe(board, index).id for index in range(2)] == before
        assert [state.cell.seed for state in board.state.cells] == [1000, 1001]
        owls.close()
    foxes.close()


async def test_a_board_with_a_server_keeps_to_its_own_cells(studio, other):
    mine = studio.board(scenes(1))
    await until(lambda: mine.state.made == 1)
    async with looked_at(mine):
        before = keyframe(mine)
        changed = replace(before, id="other-seed", key="0" * 64, seed=before.seed + 1)
        other.add_result(changed, [before.read()])
        other.rate(before, 1)
        await until(lambda: keyframe(mine).rating == 1)
        assert keyframe(mine).id == before.id


async def test_untitled_storyboards_of_other_prompts_do_not_overwrite_each_other(studio, other):
    foxes = studio.board(["a fox", "a vixen"])
    await until(lambda: foxes.state.made == 2)
    async with looked_at(comfynb.Board.of_log(other)) as board:
        before = [keyframe(board, index).id for index in range(2)]
        owls = studio.run(["an owl", "a barn owl"])
        owls.pause()
        await until(lambda: len(other.runs()) == 2)
        of_owls = comfynb.Board.of_log(other)
        assert [keyframe(of_owls, index) for index in range(2)] == [None, None]
        owls.resume()
        await owls
        assert comfynb.Board.of_log(other).state.made == 2
        other.rate(keyframe(board), 2)  # by then it has heard of the owls, too
        await until(lambda: keyframe(board).rating == 2)
        foxes.begin({1}, next_seed=True)
        await until(lambda: keyframe(board, 1).id not in before)
        assert keyframe(board).id == before[0]
        assert [state.cell.prompt for state in board.state.cells] == ["a fox", "a vixen"]
        assert keyframe(comfynb.Board.of_log(other)).id == before[0], "the rest is of the foxes"
    foxes.close()


async def test_a_board_of_a_log_goes_along_when_prompts_are_edited(studio, other):
    drawn = await studio.run(["a fox", "an owl"])
    async with looked_at(comfynb.Board.of_log(other)) as board:
        for prompts in (["a red fox", "an owl"], ["a red fox", "a white owl"]):
            drawn = await studio.run(prompts)
            await until(
                lambda made=drawn: [keyframe(board, i).id for i in (0, 1)] == [k.id for k in made]
            )
            assert [state.cell.prompt for state in board.state.cells] == prompts


async def test_a_board_of_a_log_is_laid_out_once_while_nothing_is_appended(studio, other):
    await studio.run(scenes(1))
    board = comfynb.Board.of_log(other)
    lay_out, times = board._sharing._lay_out, []
    board._sharing._lay_out = lambda about: times.append(1) or lay_out(about)
    for appended in (0, 1):
        await loop.across(board._sharing._catch_up())
        assert len(times) == appended
        studio.log.rate(keyframe(board), 5)
    await loop.across(board._sharing._catch_up())
    assert len(times) == 2
    assert keyframe(board).rating == 5
    board.close()


async def test_what_another_notebook_has_sent_is_shown_as_being_made(studio, other, monkeypatch):
    monkeypatch.setattr(sharing, "AGAIN_SECONDS", 0.1)
    run = studio.run(scenes(2))
    run.pause()
    await until(other.runs)
    cell = run.plan.cells[0]

    def send():
        other.add_submitted(
            prompt_id=str(uuid.uuid4()), run=run.id, key=cell.key, scene="scene-1", server="gpu"
        )

    async with looked_at(comfynb.open_log(other.folder).board()) as board:
        assert statuses(board) == ["queued", "queued"]
        send()
        await until(lambda: statuses(board) == ["submitted", "queued"])
        fresh = comfynb.open_log(other.folder).board()
        assert statuses(fresh) == ["submitted", "queued"]
        failed = results.Results(run.id, other, "gpu").unmade(cell, "failed", failures.NOT_BEGUN)
        other.add_result(failed)
        await until(lambda: statuses(board)[0] == "failed")
        send()
        await until(lambda: statuses(board)[0] == "submitted")
        monkeypatch.setattr(orphans, "BELIEVED_SECONDS", 0.0)
        await until(lambda: statuses(board)[0] == "failed")
        run.resume()
        await run
        await until(lambda: statuses(board) == ["done", "done"])


async def test_what_a_dead_notebook_had_sent_is_not_being_made(studio, other, monkeypatch):
    monkeypatch.setattr(sharing, "AGAIN_SECONDS", 0.1)
    run = studio.run(scenes(1))
    run.pause()
    await until(other.runs)
    (cell,) = run.plan.cells
    async with looked_at(comfynb.open_log(other.folder).board()) as board:
        other.add_submitted(
            prompt_id="p", run=run.id, key=cell.key, scene="scene-1", server="gpu:8188"
        )
        await until(lambda: statuses(board) == ["submitted"])
        other.close()
        await until(lambda: statuses(board) == ["unknown"])
        assert "gpu:8188 is not connected" in keyframe(board).error.message
    await run.cancel()


async def test_a_deletion_is_shown_on_a_board_with_a_server_and_can_be_taken_back(studio, other):
    board = studio.board(scenes(2))
    await until(lambda: board.state.made == 2)
    before = keyframe(board)
    busy = studio.run(scenes(1, 5))  # as long as it goes on, what was made is remembered
    busy.pause()
    async with looked_at(board):
        other.delete(keyframes=[before], dry_run=False)
        await until(lambda: statuses(board) == ["cancelled", "done"])
        assert (keyframe(board).error.kind, keyframe(board).outputs) == ("deleted", ())
        other.restore(keyframes=[before])
        await until(lambda: statuses(board) == ["cached", "done"])
        assert (keyframe(board).id, keyframe(board).read()) == (before.id, before.read())
    board = studio.board(scenes(2))
    await until(lambda: statuses(board) == ["cached", "cached"])
    other.delete(keyframes=[before], dry_run=False)  # while nobody looks
    async with looked_at(board):
        await until(lambda: statuses(board) == ["cancelled", "cached"])
        await board.retry()
        await until(lambda: statuses(board) == ["done", "cached"])
        assert keyframe(board).id != before.id
        assert keyframe(board).key == before.key
    await busy.cancel()


async def test_a_deletion_empties_the_tile_of_an_opened_log(studio, other):
    drawn = studio.board(scenes(2))
    await until(lambda: drawn.state.made == 2)
    async with looked_at(comfynb.Board.of_log(studio.log)) as board:
        other.delete(keyframes=[keyframe(board)], dry_run=False)
        await until(lambda: keyframe(board) is None)
        other.restore(keyframes=[keyframe(drawn)])
        await until(lambda: keyframe(board) is not None)
        assert statuses(board) == ["done", "done"]
    drawn.close()


async def test_nobody_looks_nothing_is_read_and_who_looks_again_is_up_to_date(studio, other):
    board = studio.board(scenes(1))
    await until(lambda: board.state.made == 1)
    assert studio.log.lookout._looking is None
    looking = board.subscribe()
    await anext(looking)
    await until(lambda: studio.log.lookout._looking is not None)
    await looking.aclose()
    await until(lambda: studio.log.lookout._looking is None)
    other.rate(keyframe(board), 4)
    async with contextlib.aclosing(board.subscribe(look=False)) as blind:
        await anext(blind)
        assert studio.log.lookout._looking is None
        assert keyframe(board).rating is None
    async with looked_at(board):
        await until(lambda: keyframe(board).rating == 4)


async def test_a_log_that_cannot_be_read_stops_no_board(studio, other, caplog):
    board = studio.board(scenes(1))
    await until(lambda: board.state.made == 1)
    async with looked_at(board):
        await until(studio.log.lookout._ready.is_set)
        segments = studio.log.folder / "seg"
        segments.rename(segments.with_name("away"))
        segments.write_text("a file where a folder was")
        await until(lambda: "cannot follow" in caplog.text or studio.log.lookout._looking.done())
        segments.unlink()
        segments.with_name("away").rename(segments)
        other.rate(keyframe(board), 2)
        await until(lambda: keyframe(board).rating == 2)

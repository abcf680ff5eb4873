"""Following: what any process appends, once each, wherever its rows are by the time of the look."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil

import pytest

from comfynb.log import Log, merging, sealing
from comfynb.log.following import Follower, News
from comfynb.log.records import CellRecord, RunRecord


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path / "log")
    yield log
    log.close()


@pytest.fixture
def other(tmp_path):
    """The same log, as another process has it open."""
    other = Log(tmp_path / "log")
    yield other
    other.close()


def scenes(news: News | None) -> list[str]:
    return [] if news is None else [keyframe.scene.id for keyframe in news.keyframes]


def follower(log, cursor=None, **options) -> Follower:
    follower = Follower(log.folder, log, cursor, **options)
    if cursor is None:
        assert follower.look() is None
    return follower


def tidy_up(log, *, merge=False):
    """Seal what has ended, and merge it, as the upkeep of some process does."""
    with sealing.database() as connection:
        sealing.adopt(log.folder / "seg", connection)
        if merge:
            merging.merge(log.folder, connection, force=True)


def test_what_is_there_at_the_first_look_is_no_news(log, make_keyframe):
    log.add_result(make_keyframe("fox"))
    follow = follower(log)
    assert follow.look() is None
    log.add_result(make_keyframe("owl"))
    assert scenes(follow.look()) == ["owl"]
    assert follow.look() is None


def test_all_kinds_of_rows_come_as_what_they_are(log, other, make_keyframe, png):
    follow = follower(log)
    data = png()
    run = RunRecord(
        id="run-1",
        storyboard={"title": "x"},
        cells=(CellRecord(index=0, scene="fox", key="k", knobs={"cfg": 7}),),
    )
    other.add_run(run)
    other.add_submitted(prompt_id="p", run="run-1", key="k", scene="fox", server="gpu")
    kept = other.add_result(make_keyframe("fox", [data], axes={"b": "2", "a": "1"}), [data])
    other.rate(kept, 4)
    news = follow.look()
    assert [r.id for r in news.runs] == ["run-1"]
    assert news.runs[0].cells == run.cells
    assert [(s.prompt_id, s.server) for s in news.submitted] == [("p", "gpu")]
    (keyframe,) = news.keyframes
    assert keyframe.id == kept.id
    assert keyframe.knobs == kept.knobs
    assert keyframe.axes == kept.axes
    assert keyframe.seed == kept.seed
    assert keyframe.read() == data
    assert [(m.keyframe, m.field, m.value) for m in news.marks] == [(kept.id, "rating", 4)]


def test_of_the_own_session_only_marks_are_given_where_asked_for(log, other, make_keyframe):
    follow = follower(log, ours=log._segment.session)
    mine, theirs = make_keyframe("mine"), make_keyframe("theirs")
    log.add_result(mine)
    assert follow.look() is None
    other.add_result(theirs)
    log.pick(mine)
    news = follow.look()
    assert scenes(news) == ["theirs"]
    assert [mark.keyframe for mark in news.marks] == [mine.id]


@pytest.mark.parametrize("merge", [False, True])
def test_sealing_and_merging_between_two_looks_neither_hides_nor_repeats(
    log, tmp_path, make_keyframe, merge
):
    writers = [Log(tmp_path / "log") for _ in range(3)]
    for writer in writers:
        writer.add_result(make_keyframe("before"))
    follow = follower(log)
    for number, writer in enumerate(writers):
        writer.add_result(make_keyframe(f"seen-{number}", seconds=number))
    assert scenes(follow.look()) == ["seen-0", "seen-1", "seen-2"]
    for number, writer in enumerate(writers):
        writer.add_result(make_keyframe(f"unseen-{number}", seconds=number))
        writer.close()
    tidy_up(log, merge=merge)
    assert not list((log.folder / "seg").glob("*.jsonl"))
    assert scenes(follow.look()) == ["unseen-0", "unseen-1", "unseen-2"]
    tidy_up(log, merge=True)
    assert follow.look() is None


def test_a_session_goes_on_in_another_segment(log, make_keyframe):
    follow = follower(log)
    log.add_result(make_keyframe("first"))
    retired = log._segment.roll()
    log.add_result(make_keyframe("second", seconds=1))
    retired.close()
    tidy_up(log)
    assert scenes(follow.look()) == ["first", "second"]


def test_a_cursor_goes_on_after_a_restart(log, tmp_path, make_keyframe):
    log.add_result(make_keyframe("before"))
    follow = follower(log)
    log.add_result(make_keyframe("seen", seconds=1))
    kept = json.dumps(follow.look().cursor)
    log.add_result(make_keyframe("later", seconds=2))
    log.close()
    tidy_up(log, merge=True)
    again = Log(tmp_path / "log")
    again.add_result(make_keyframe("latest", seconds=3))
    assert scenes(follower(again, json.loads(kept)).look()) == ["later", "latest"]
    assert scenes(follower(again, {}).look()) == ["before", "seen", "later", "latest"]
    again.close()


def test_half_a_line_waits_for_its_other_half(log, other, make_keyframe):
    follow = follower(log)
    other.add_result(make_keyframe("whole"))
    assert scenes(follow.look()) == ["whole"]
    other.add_result(make_keyframe("torn"))
    (segment,) = (log.folder / "seg").glob("*.jsonl")
    lines = segment.read_bytes()
    segment.write_bytes(lines[:-20])
    assert follow.look() is None
    segment.write_bytes(lines)
    assert scenes(follow.look()) == ["torn"]


def test_damaged_and_strange_rows_are_passed_over(log, other, make_keyframe):
    follow = follower(log)
    strange = log.folder / "seg" / "1700000000000-0badc0de.jsonl"
    log.add_result(make_keyframe("fox"))
    strange.write_bytes(
        b'{"id":"1","kind":"result","seed":"seven","scene_json":[]}\n'
        b"nonsense\n"
        b'{"id":"2","kind":"run","cells":"[1]","seq":"many"}\n'
        b'{"id":"3","kind":"what"}\n'
    )
    (log.folder / "seg" / "1700000000001-0badc0de.parquet").write_bytes(
        b"PAR1" + b"x" * 20 + b"PAR1"
    )
    news = follow.look()
    assert "fox" in scenes(news)
    log.add_result(make_keyframe("owl"))
    assert scenes(follow.look()) == ["owl"]


def test_a_copied_log_is_news(log, tmp_path, make_keyframe):
    follow = follower(log)
    elsewhere = Log(tmp_path / "elsewhere")
    elsewhere.add_result(make_keyframe("guest"))
    elsewhere.close()
    log.add_result(make_keyframe("host"))
    assert scenes(follow.look()) == ["host"]
    for path in (tmp_path / "elsewhere" / "seg").iterdir():
        shutil.copy(path, log.folder / "seg")
    assert scenes(follow.look()) == ["guest"]


def test_a_folder_that_comes_later_is_followed(log, make_keyframe):
    follow = follower(log)
    assert follow.look() is None
    log.add_result(make_keyframe("fox"))
    assert scenes(follow.look()) == ["fox"]


def test_a_calm_folder_is_not_read_again(log, make_keyframe, monkeypatch):
    log.add_result(make_keyframe("fox"))
    long_ago = (log.folder / "seg").stat().st_mtime_ns - 10_000_000_000
    os.utime(log.folder / "seg", ns=(long_ago, long_ago))
    follow = follower(log)
    follow.look()

    def listed(_):
        raise AssertionError("there was nothing to list")

    with monkeypatch.context() as patch:
        patch.setattr("comfynb.log.following.list_segments", listed)
        assert follow.look() is None
    log.add_result(make_keyframe("owl"))
    assert scenes(follow.look()) == ["owl"]


async def test_follow_yields_what_another_session_appends(log, other, make_keyframe):
    log.add_result(make_keyframe("before"))
    async with contextlib.aclosing(log.follow({})) as follow:
        first = await anext(follow)
        assert scenes(first) == ["before"]
        waiting = asyncio.ensure_future(anext(follow))
        other.add_result(make_keyframe("after"))
        second = await waiting
    assert scenes(second) == ["after"]
    assert second.cursor.keys() > first.cursor.keys()


async def test_following_wakes_for_an_interrupt(log, make_keyframe):
    waiting = asyncio.ensure_future(anext(log.follow()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

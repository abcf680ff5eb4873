"""Sealing what a session wrote and adopting what a dead one left."""

import errno
import json
import logging
import os
import threading

import duckdb
import pytest
from support import wait_for

from comfynb.log import Log, locks, sealing, upkeep
from comfynb.log.schema import COLUMNS


@pytest.fixture
def few(monkeypatch):
    """Seal after ten rows."""
    monkeypatch.setattr(upkeep, "SEAL_ROWS", 10)
    monkeypatch.setattr(upkeep, "WORTH_ROWS", 2)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(upkeep, "FIRST_DELAY", 0)


def fill(log, make_keyframe, count, first=0):
    for i in range(first, first + count):
        log.add_result(make_keyframe(f"scene-{i}", seconds=i))


def scenes(log):
    return [keyframe.scene.id for keyframe in log.keyframes()]


def names(log, ending):
    return sorted(p.name for p in (log.folder / "seg").iterdir() if p.name.endswith(ending))


def test_a_long_segment_is_sealed_while_its_session_goes_on(few, log, make_keyframe):
    for done in (1, 2):
        fill(log, make_keyframe, 10, first=10 * done)
        wait_for(lambda done=done: len(names(log, ".parquet")) == done)
    fill(log, make_keyframe, 5)
    before = log.keyframes(), log.df()
    log.close()
    assert len(names(log, ".parquet")) == 3
    assert names(log, ".jsonl") == []
    assert log.keyframes() == before[0]
    assert log.df().equals(before[1])


def test_a_closed_session_leaves_a_short_segment_to_the_next(log, make_keyframe):
    fill(log, make_keyframe, 3)
    log.close()
    assert len(names(log, ".jsonl")) == 1
    with_next = Log(log.folder)
    fill(with_next, make_keyframe, 1, first=3)
    wait_for(lambda: names(log, ".parquet"))
    with_next.close()
    assert len(names(log, ".parquet")) == 1
    assert scenes(log) == [f"scene-{i}" for i in range(4)]


def test_what_a_killed_process_left_is_adopted_and_what_a_living_one_writes_is_not(
    tmp_path, start_writer
):
    killed, living = (start_writer(tmp_path / "log", name) for name in ("a", "b"))
    for writer in (killed, living):
        assert writer.stdout.readline() == "run\n"
        writer.stdout.readline()
    killed.kill()
    acked = {line.split()[0] for line in killed.communicate()[0].splitlines()}
    log = Log(tmp_path / "log")
    log.compact()
    assert len(names(log, ".parquet")) == 1
    assert len(names(log, ".jsonl")) == 1
    assert acked <= {keyframe.id for keyframe in log.keyframes(run="a")}
    living.kill()
    living.communicate()
    log.compact()
    assert len(names(log, ".parquet")) == 2
    assert names(log, ".jsonl") == []


def test_a_claim_whose_adopter_was_killed_is_adopted_again(log, make_keyframe):
    fill(log, make_keyframe, 2)
    log.close()
    (segment,) = (log.folder / "seg").iterdir()
    segment.rename(segment.with_suffix(".claimed.jsonl"))
    log.compact()
    assert names(log, ".jsonl") == []
    assert scenes(log) == ["scene-0", "scene-1"]


@pytest.mark.parametrize("failure", [None, errno.ENOLCK, errno.EINVAL])
def test_without_locks_nothing_is_adopted_and_nothing_is_merged(
    log, make_keyframe, monkeypatch, failure
):
    class NoLocks:
        LOCK_EX = LOCK_SH = LOCK_NB = 1

        def flock(self, *_):
            raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(locks, "fcntl", NoLocks() if failure else None)
    for i in range(3):
        with_next = Log(log.folder)
        fill(with_next, make_keyframe, 2, first=2 * i)
        with_next.close()
        with_next.compact()
    assert len(names(log, ".jsonl")) == 3
    assert scenes(log) == [f"scene-{i}" for i in range(6)]


def test_a_session_seals_its_own_segment_although_there_are_no_locks(
    few, log, make_keyframe, monkeypatch
):
    monkeypatch.setattr(locks, "fcntl", None)
    fill(log, make_keyframe, 12)
    log.close()
    assert names(log, ".jsonl") == []
    assert len(scenes(log)) == 12


def test_columns_of_the_future_survive_sealing(log, make_keyframe):
    fill(log, make_keyframe, 2)
    log.close()
    (segment,) = (log.folder / "seg").iterdir()
    first, second = map(json.loads, segment.read_bytes().splitlines())
    first |= {"mood": {"happy": 1, "text": 'a "fox" 🦊'}, "weight": 0.5}
    segment.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    before = log.df()
    log.compact()
    rows = log.sql("select id, extra from log_rows order by created_at").to_dict("records")
    assert json.loads(rows[0]["extra"]) == {"mood": first["mood"], "weight": 0.5}
    assert not isinstance(rows[1]["extra"], str)
    assert log.df().equals(before)


def test_a_torn_last_line_is_left_out_and_named(log, make_keyframe, caplog):
    fill(log, make_keyframe, 3)
    log.close()
    (segment,) = (log.folder / "seg").iterdir()
    segment.write_bytes(segment.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING):
        log.compact()
    assert "torn last line" in caplog.text
    assert segment.stem in caplog.text
    assert scenes(log) == ["scene-0", "scene-1"]
    assert len(names(log, ".parquet")) == 1


@pytest.mark.filterwarnings("ignore:.*damaged line")
def test_a_segment_with_a_damaged_line_stays_as_it_is(log, make_keyframe):
    fill(log, make_keyframe, 3)
    log.close()
    (segment,) = (log.folder / "seg").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + b"garbage\n" + lines[2])
    log.compact()
    assert names(log, ".parquet") == []
    assert scenes(log) == ["scene-0", "scene-2"]
    assert log.skipped_lines == {names(log, ".jsonl")[0]: 1}


@pytest.mark.filterwarnings("ignore:.*newer comfynb")
def test_rows_of_a_newer_comfynb_are_not_rewritten(log, make_keyframe):
    fill(log, make_keyframe, 2)
    log.close()
    (segment,) = (log.folder / "seg").iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"v":1', b'"v":2'))
    log.compact()
    assert names(log, ".parquet") == []


def test_an_empty_segment_is_removed(log, make_keyframe):
    fill(log, make_keyframe, 1)
    log.close()
    (log.folder / "seg" / "1795349433039-00000000.jsonl").touch()
    log.compact()
    assert names(log, ".jsonl") == []
    assert scenes(log) == ["scene-0"]


def test_a_sealer_killed_at_any_step_loses_nothing(log, make_keyframe, killed_at):
    fill(log, make_keyframe, 5)
    log.close()
    seal = killed_at("seal", log.folder)
    for step in range(1, 60, 2):
        done = seal(step)
        assert scenes(Log(log.folder)) == [f"scene-{i}" for i in range(5)]
        if done:
            break
        if names(log, ".jsonl"):  # from the lines again
            for sealed in names(log, ".parquet"):
                (log.folder / "seg" / sealed).unlink()
    assert done
    log.compact()
    assert names(log, ".jsonl") == []
    assert scenes(log) == [f"scene-{i}" for i in range(5)]


def test_appending_goes_on_while_segments_are_rolled(few, log, make_keyframe):
    threads = [
        threading.Thread(target=fill, args=(log, make_keyframe, 40, 100 * n)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(set(scenes(log))) == len(scenes(log)) == 160


def test_sealed_columns_have_the_types_of_the_schema(log, make_keyframe, png):
    data = png()
    log.add_result(make_keyframe("fox", [data], seed=2**64 - 1), [data])
    log.close()
    log.compact()
    (sealed,) = (log.folder / "seg").glob("*.parquet")
    found = duckdb.execute(f"describe from '{sealed}'").fetchall()
    wanted = duckdb.execute(
        "describe select " + ", ".join(f"NULL::{c.type} as {c.name}" for c in COLUMNS)
    ).fetchall()
    assert [row[:2] for row in found] == [row[:2] for row in wanted]


def test_a_full_disk_while_sealing_keeps_the_lines(log, make_keyframe, monkeypatch):
    fill(log, make_keyframe, 3)
    log.close()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from comfynb.errors import LogWriteError

    with monkeypatch.context() as patched:
        patched.setattr(sealing.shutil, "copyfileobj", full)
        with pytest.raises(LogWriteError, match=r"No space left.*Free some space"):
            log.compact()
    assert scenes(log) == ["scene-0", "scene-1", "scene-2"]
    assert names(log, ".parquet") == []
    assert not [name for name in names(log, "") if name.startswith(".tmp-")]
    log.compact()
    assert scenes(log) == ["scene-0", "scene-1", "scene-2"]
    assert names(log, ".jsonl") == []

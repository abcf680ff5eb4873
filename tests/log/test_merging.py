"""Merging small sealed segments, and merges that were broken off."""

import errno
import json
import os

import pytest

from comfynb.errors import LogWriteError
from comfynb.log import Log, locks, merging, sealing


@pytest.fixture
def parts(tmp_path, make_keyframe, monkeypatch):
    """A log of five sealed segments with two rows each."""
    monkeypatch.setattr(merging, "FILES", 4)
    for part in range(5):
        log = Log(tmp_path / "log")
        for i in (2 * part, 2 * part + 1):
            log.add_result(make_keyframe(f"scene-{i}", seconds=i))
        log.close()
        with sealing.database() as connection:
            sealing.adopt(log.folder / "seg", connection)
    return Log(tmp_path / "log")


SCENES = [f"scene-{i}" for i in range(10)]


def scenes(log):
    return [keyframe.scene.id for keyframe in log.keyframes()]


def names(log, ending=".parquet"):
    return sorted(path.name for path in (log.folder / "seg").glob(f"*{ending}"))


def test_many_small_segments_become_one(parts):
    before = parts.df()
    stems = [name.removesuffix(".parquet") for name in names(parts)]
    parts.compact()
    (merged,) = names(parts)
    assert merged.startswith("m")
    (listed,) = (parts.folder / "seg").glob("*.replaces")
    assert json.loads(listed.read_text()) == stems
    assert parts.df().equals(before)
    parts.compact()
    assert names(parts) == [merged]


def test_few_are_left_alone_unless_asked_for(parts, monkeypatch):
    monkeypatch.setattr(merging, "FILES", 32)
    parts.compact()
    assert len(names(parts)) == 5
    parts.compact(force=True)
    assert len(names(parts)) == 1
    assert scenes(parts) == SCENES


def test_large_segments_are_left_alone(parts, monkeypatch):
    monkeypatch.setattr(merging, "SMALL_ROWS", 2)
    parts.compact()
    assert len(names(parts)) == 5


def test_no_merge_becomes_too_large(parts, monkeypatch):
    monkeypatch.setattr(merging, "LARGEST_ROWS", 5)
    parts.compact()
    assert len(names(parts)) == 3
    assert scenes(parts) == SCENES


@pytest.mark.filterwarnings("ignore:.*without the damaged file")
def test_a_file_that_is_damaged_inside_is_left_out_and_stays(parts, monkeypatch):
    monkeypatch.setattr(merging, "FILES", 3)
    damaged = parts.folder / "seg" / names(parts)[2]
    data = bytearray(damaged.read_bytes())
    data[4:404] = os.urandom(400)
    damaged.write_bytes(data)
    parts.compact()
    assert len(names(parts)) == 2
    assert damaged.read_bytes() == data
    assert scenes(Log(parts.folder)) == [f"scene-{i}" for i in range(10) if i not in (4, 5)]


def test_a_row_that_two_segments_have_is_merged_once_and_done_wins(parts, make_keyframe, png):
    data = png()
    made = make_keyframe("owl", [data], seconds=20)
    for keyframe, images in ((made, [data]), (make_keyframe("owl", id=made.id, seconds=21), [])):
        log = Log(parts.folder)
        log.add_result(keyframe, images)
        log.close()
    parts.compact()
    assert len(names(parts)) == 1
    assert parts.sql("select count(*) as n from log_rows")["n"].tolist() == [11]
    assert [k.status for k in parts.keyframes(scene="owl")] == ["done"]


def test_columns_that_this_version_does_not_know_survive(parts):
    import duckdb

    first = parts.folder / "seg" / names(parts)[0]
    other = first.with_name(".tmp-other")
    duckdb.execute(
        f"COPY (SELECT *, 5 AS mood, {{'a': 1}} AS later FROM '{first}') TO '{other}' "
        "(FORMAT parquet)"
    )
    other.rename(first)
    parts.compact()
    (merged,) = (parts.folder / "seg").glob("m*.parquet")
    found = duckdb.execute(
        f"SELECT mood, later, count(*) FROM '{merged}' GROUP BY ALL ORDER BY mood"
    ).fetchall()
    assert found == [(5, {"a": 1}, 2), (None, None, 8)]
    assert scenes(parts) == SCENES


def test_while_another_process_merges_nobody_else_does(parts):
    lock = parts.folder / "seg" / ".compact.lock"
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
    assert locks.take(descriptor)
    parts.compact()
    assert len(names(parts)) == 5
    os.close(descriptor)
    parts.compact()
    assert len(names(parts)) == 1


def test_without_locks_only_who_is_told_to_merges(parts, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    parts.compact()
    assert len(names(parts)) == 5
    parts.compact(force=True)
    assert len(names(parts)) == 1
    assert scenes(parts) == SCENES


def test_a_merge_that_was_killed_at_any_step_is_finished_by_the_next(parts, killed_at):
    merge = killed_at("merge", parts.folder)
    for step in range(1, 80, 2):
        done = merge(step)
        fresh = Log(parts.folder)
        assert scenes(fresh) == SCENES
        assert fresh.sql("select count(*) as n from log_rows")["n"].tolist() == [10]
        if done:
            break
    assert done
    parts.compact()
    assert len(names(parts)) == 1


def test_a_list_of_a_stranger_hides_rows_but_never_deletes_them(parts, tmp_path):
    stems = [name.removesuffix(".parquet") for name in names(parts)]
    merge = parts.folder / "seg" / "m1795349457242-e35bae18.parquet"
    merge.write_bytes((parts.folder / "seg" / f"{stems[0]}.parquet").read_bytes())
    merge.with_suffix(".replaces").write_text(json.dumps(stems))
    parts.compact()
    assert f"{stems[0]}.parquet" not in names(parts)  # its rows are in the merge
    assert [f"{stem}.parquet" for stem in stems[1:]] == names(parts)[:4]
    merge.with_suffix(".replaces").unlink()
    assert scenes(parts) == SCENES


def test_a_full_disk_while_merging_keeps_everything(parts, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted((parts.folder / "seg").iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(sealing.shutil, "copyfileobj", full)
        with pytest.raises(LogWriteError, match=r"No space left.*Free some space"):
            parts.compact()
    left = {path for path in (parts.folder / "seg").iterdir() if path.name != ".compact.lock"}
    assert left == set(before)
    parts.compact()
    assert len(names(parts)) == 1
    assert scenes(parts) == SCENES


def test_logs_of_two_machines_are_merged_by_plain_copy(parts, tmp_path, make_keyframe, png):
    import shutil

    data = png()
    other = Log(tmp_path / "other")
    other.add_result(make_keyframe("owl", [data], seconds=50), [data])
    other.close()
    parts.compact()
    for folder in ("seg", "blobs"):
        shutil.copytree(other.folder / folder, parts.folder / folder, dirs_exist_ok=True)
    assert scenes(parts) == [*SCENES, "owl"]
    assert parts.keyframes()[-1].read() == data
    # and once more with what the first had before its merge
    parts.compact(force=True)
    assert scenes(parts) == [*SCENES, "owl"]

"""Segments: claimed, sealed and merged ones, and disks that refuse."""

import contextlib
import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading

import duckdb
import pytest

from comfynb.errors import LogWriteError
from comfynb.log import Log, RunRecord, merging
from comfynb.log import segments as segments_module
from comfynb.log.schema import json_columns


@contextlib.contextmanager
def file_size_limit(size):
    """Let no file of this process grow beyond `size` bytes: a full disk for one process.

    Python ignores SIGXFSZ, so that a write past the limit is short or fails with EFBIG.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def seal(sources, target, extra=""):
    names = "[" + ", ".join(f"'{path}'" for path in sources) + "]"
    duckdb.execute(
        f"COPY (SELECT *{extra} FROM read_json({names}, format='newline_delimited', "
        f"columns={json_columns()})) TO '{target}' (FORMAT parquet)"
    )


def fill(log, make_keyframe, *scenes):
    for second, scene in enumerate(scenes):
        log.add_result(make_keyframe(scene, seconds=second))
    return [path for path in (log.folder / "seg").iterdir() if path.suffix == ".jsonl"]


def scenes(log):
    return [keyframe.scene.id for keyframe in log.keyframes()]


def test_a_full_disk_at_the_row_is_an_error_and_loses_nothing(log, make_keyframe, png):
    data = png(8, 8)
    (segment,) = fill(log, make_keyframe, "fox")
    before = segment.read_bytes()
    with (
        file_size_limit(len(before) + 300),
        pytest.raises(LogWriteError, match=r"the row of owl to the log at .*Free some space"),
    ):
        log.add_result(make_keyframe("owl", [data], seconds=1), [data])
    assert segment.read_bytes() == before
    assert scenes(log) == ["fox"]
    log.add_result(make_keyframe("owl", [data], seconds=1), [data])
    assert scenes(log) == ["fox", "owl"]
    assert log.skipped_lines == {}


def test_a_full_disk_at_the_picture_is_an_error_and_leaves_no_rest(log, make_keyframe, png):
    data = png(200, 200)
    fill(log, make_keyframe, "fox")
    with (
        file_size_limit(10_000),
        pytest.raises(LogWriteError, match="the picture of owl") as caught,
    ):
        log.add_result(make_keyframe("owl", [data], seconds=1), [data])
    assert caught.value.folder == str(log.folder)
    assert [path for path in (log.folder / "blobs").rglob("*") if path.is_file()] == []
    assert scenes(log) == ["fox"]
    log.add_result(make_keyframe("owl", [data], seconds=1), [data])
    assert len(log.find([k.key for k in log.keyframes()])) == 1


def compact_on_a_full_disk(folder, filler):
    """Seal and merge where nothing can be written, and again when there is space."""

    def ids():
        return [keyframe.id for keyframe in Log(folder).keyframes()]

    def compact_is_refused():
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(LogWriteError, match=r"No space left.*Free some space"):
            Log(folder).compact(force=True)
        assert ids() == before
        filler.unlink()

    before = ids()
    compact_is_refused()  # to seal
    log = Log(folder)
    log.add_run(RunRecord(id="another", storyboard={}, cells=()))
    log.close()
    log.compact()
    compact_is_refused()  # to merge
    log.compact(force=True)
    assert [path.name[0] for path in (folder / "seg").glob("*.parquet")] == ["m"]
    assert ids() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_full_for_all_is_an_error_and_loses_nothing(tmp_path, make_keyframe, png):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        log, kept = Log(disk / "log"), []

        def fill_the_disk():
            for i in range(100):
                data = png(100, 100)
                made = make_keyframe(f"scene-{i}", [data], seconds=i)
                kept.append(log.add_result(made, [data]))

        with pytest.raises(LogWriteError, match=r"No space left.*Free some space"):
            fill_the_disk()
        assert 10 < len(kept) < 100
        assert [k.id for k in Log(log.folder).keyframes()] == [k.id for k in kept]
        assert all(k.read() for k in kept)
        kept[0].path.unlink()
        data = png(50, 50)
        log.add_result(make_keyframe("after", [data]), [data])
        assert len(Log(log.folder).find([k.key for k in log.keyframes()])) == len(kept)
        log.close()
        compact_on_a_full_disk(log.folder, disk / "filler")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("failure", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links_pictures_are_kept_all_the_same(
    log, make_keyframe, png, monkeypatch, failure
):
    def no_links(*_, **__):
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(os, "link", no_links)
    data = png()
    kept = log.add_result(make_keyframe("fox", [data]), [data])
    assert kept.read() == data
    assert [p.name for p in (log.folder / "blobs").rglob("*") if p.is_file()] == [kept.path.name]


@pytest.mark.parametrize("is_it", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "name"])
def test_a_picture_that_cannot_be_made_durable_is_an_error_and_is_not_found(
    log, make_keyframe, png, monkeypatch, is_it
):
    fill(log, make_keyframe, "fox")
    data, sync = png(), os.fsync

    def fail(descriptor):
        if is_it(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(LogWriteError, match="the picture of owl"):
            log.add_result(make_keyframe("owl", [data]), [data])
    assert not [path for path in (log.folder / "blobs").rglob("*") if path.is_file()]
    assert log.add_result(make_keyframe("owl", [data]), [data]).read() == data


def test_a_damaged_file_in_the_place_of_a_picture_is_replaced(log, make_keyframe, png):
    data = png()
    kept = log.add_result(make_keyframe("fox", [data]), [data])
    kept.path.write_bytes(bytes(len(data)))  # as long as it should be, after a power cut
    assert log.add_result(make_keyframe("fox", [data]), [data]).read() == data


def test_a_failed_sync_abandons_the_file_and_writes_the_row_again(
    log, make_keyframe, segments, monkeypatch
):
    # No disk fails on demand: the one place where the system is replaced.
    fill(log, make_keyframe, "fox")
    failures = [OSError(errno.EIO, "Input/output error")]

    def sync(descriptor):
        if failures:
            raise failures.pop()
        os.fsync(descriptor)

    monkeypatch.setattr(segments_module, "sync_data", sync)
    log.add_result(make_keyframe("owl", seconds=1))
    assert len(segments()) == 2
    assert scenes(log) == ["fox", "owl"]
    failures += [OSError(errno.EIO, "Input/output error")] * 3
    with pytest.raises(LogWriteError, match="Input/output error"):
        log.add_result(make_keyframe("elk", seconds=2))
    log.add_result(make_keyframe("elk", seconds=3))
    assert scenes(log) == ["fox", "owl", "elk"]


def test_a_row_in_a_segment_that_was_taken_away_is_written_again(log, make_keyframe, segments):
    (segment,) = fill(log, make_keyframe, "fox")
    segment.rename(segment.with_suffix(".claimed.jsonl"))
    log.add_result(make_keyframe("owl", seconds=1))
    assert len(segments()) == 2
    assert b'"owl"' in segment.with_suffix(".claimed.jsonl").read_bytes()
    assert scenes(log) == ["fox", "owl"]


def test_a_forked_child_begins_a_segment_of_its_own(tmp_path):
    code = """
import os, sys
from comfynb.log import Log, RunRecord
log = Log(sys.argv[1])
run = lambda name: RunRecord(id=name, storyboard={}, cells=())
log.add_run(run("before"))
assert len(log.runs()) == 1 and len(log.df()) == 0
pid = os.fork()
log.add_run(run("child" if pid == 0 else "parent"))
assert len(log.runs()) >= 2 and len(log.df()) == 0
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], check=True)
    log = Log(tmp_path / "log")
    assert sorted(run.id for run in log.runs()) == ["before", "child", "parent"]
    assert len(list((log.folder / "seg").iterdir())) == 2


def test_a_living_writer_holds_a_lock_on_its_segment(log, make_keyframe):
    fcntl = pytest.importorskip("fcntl")
    (segment,) = fill(log, make_keyframe, "fox")
    with segment.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    log.close()
    with segment.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_sealed_segment_hides_its_lines(log, make_keyframe, png):
    data = png()
    log.add_result(make_keyframe("fox", [data], seed=2**64 - 1), [data])
    (segment,) = (log.folder / "seg").iterdir()
    before = log.keyframes(), log.df()
    seal([segment], segment.with_suffix(".parquet"))
    segment.write_bytes(segment.read_bytes().replace(b"fox", b"cat"))
    assert log.keyframes() == before[0]
    segment.unlink()
    assert log.df().equals(before[1])
    assert log.find([before[0][0].key])[before[0][0].key].read() == data


def test_rows_of_sealed_and_of_growing_segments_are_one_log(log, make_keyframe):
    (segment,) = fill(log, make_keyframe, "fox")
    seal([segment], segment.with_suffix(".parquet"), ", 5 AS mood, {'a': 1} AS later")
    segment.unlink()
    log.add_result(make_keyframe("fox", seconds=9))
    assert [(k.scene.id, k.take) for k in log.keyframes()] == [("fox", 1), ("fox", 2)]


def test_a_merge_hides_what_went_into_it(log, make_keyframe):
    (first,) = fill(log, make_keyframe, "fox", "owl")
    seal([first], first.with_suffix(".parquet"))
    second = first.with_name("1795349433039-00000000.jsonl")
    second.write_bytes(first.read_bytes().replace(b"fox", b"cat").replace(b'"id":"', b'"id":"x'))
    merge = first.with_name("m1795349457242-e35bae18.parquet")
    seal([first], merge)
    stems = [first.stem, second.stem]
    merge.with_suffix(".replaces").write_text(json.dumps(stems))
    assert scenes(log) == ["fox", "owl"]
    merge.with_suffix(".replaces").unlink()  # a bad copy: rows twice, seen once
    assert scenes(log) == ["fox", "cat", "owl", "owl"]


def test_a_sealed_segment_that_is_not_whole_is_named_and_its_lines_are_read(log, make_keyframe):
    (segment,) = fill(log, make_keyframe, "fox")
    sealed = segment.with_suffix(".parquet")
    seal([segment], sealed)
    for damaged in (b"", b"PAR1", sealed.read_bytes()[:-20]):
        sealed.write_bytes(damaged)
        fresh = Log(log.folder)
        with pytest.warns(UserWarning, match=f"damaged file seg/{sealed.name}"):
            assert scenes(fresh) == ["fox"]


def test_rows_never_vanish_while_segments_are_sealed_and_merged(
    tmp_path, make_keyframe, monkeypatch
):
    monkeypatch.setattr(merging, "FILES", 3)
    folder, acknowledged, stop = tmp_path / "log", [], threading.Event()

    def append_and_seal():
        for i in range(12):
            log = Log(folder)
            for made in (make_keyframe(f"scene-{i}-{j}") for j in range(3)):
                acknowledged.append(log.add_result(made).id)  # noqa: PERF401 - one by one
            log.close()
            log.compact()
        stop.set()

    writer = threading.Thread(target=append_and_seal)
    writer.start()
    reader, readings = Log(folder), 0
    while not stop.is_set() or readings == 0:
        before = list(acknowledged)
        seen = [keyframe.id for keyframe in reader.keyframes()]
        assert set(before) <= set(seen)
        assert len(seen) == len(set(seen))
        readings += 1
    writer.join()
    assert {keyframe.id for keyframe in reader.keyframes()} == set(acknowledged)
    assert not list((folder / "seg").glob("*.jsonl"))


def test_files_that_are_none_of_ours_are_not_looked_at(log, make_keyframe):
    (segment,) = fill(log, make_keyframe, "fox")
    for name in (".tmp-1-aa", "notes.txt", "x.jsonl", ".compact.lock", "m1.parquet"):
        segment.with_name(name).write_bytes(segment.read_bytes())
    assert scenes(log) == ["fox"]


def test_rows_are_numbered_within_their_session_through_all_its_segments(tmp_path):
    folder = tmp_path / "seg"
    folder.mkdir()
    writer = segments_module.SegmentWriter(folder)
    for number in range(2):
        writer.append(b'{"id":"%d"}\n' % number, sync=False)
    retired = writer.roll()
    writer.append(b'{"id":"2"}\n', sync=True)
    first = retired.path.read_bytes()
    (other,) = set(folder.iterdir()) - {retired.path}
    assert first == b'{"id":"0","seq":1}\n{"id":"1","seq":2}\n'
    assert other.read_bytes() == b'{"id":"2","seq":3}\n'
    retired.close()

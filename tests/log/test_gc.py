"""Garbage collection: what no row names goes, and nothing else, and not at once."""

import json
import os
import threading
import time

import pytest
from support import wait_for

from comfynb.errors import ClosedError, LogError, LogWriteError
from comfynb.inputs import InputFile
from comfynb.log import Log, RunRecord, collecting

DAY = 86_400


def age(path, seconds=2 * DAY):
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture
def orphan(log, png):
    """A picture of two days ago that no row names."""
    file = InputFile.of_bytes(png())
    log.add_input(file)
    return age(log.path(file.sha256))


def test_a_dry_run_says_what_would_go_and_removes_nothing(log, orphan):
    would = log.gc()
    assert would.dry_run
    assert would.pictures == (orphan,)
    assert would.bytes == orphan.stat().st_size
    assert "would remove 1 pictures" in repr(would)
    assert orphan.exists()


def test_what_no_row_names_goes_with_its_thumbnail(log, orphan):
    thumbnail = log.thumbnail(orphan.stem)
    removed = log.gc(dry_run=False)
    assert (removed.pictures, removed.thumbnails) == ((orphan,), (thumbnail,))
    assert not orphan.exists()
    assert not thumbnail.exists()
    assert repr(log.gc()) == "nothing to remove"


def test_what_a_row_names_stays_however_old_it_is(log, png, make_keyframe):
    image, other = png(), png()
    done = log.add_result(make_keyframe("fox", [image]), [image])
    failed = log.add_result(make_keyframe("owl", [other], status="failed"), [other])
    for keyframe in (done, failed):
        age(keyframe.path)
    assert len(log.gc(dry_run=False)) == 0
    assert log.verify().ok


def test_what_a_run_starts_from_stays(log, png):
    file = InputFile.of_bytes(png())
    log.add_input(file)
    age(log.path(file.sha256))
    storyboard = {"scenes": [{"prompt": "a fox", "knobs": {"image": file}}]}
    log.add_run(RunRecord(id="run-1", storyboard=storyboard, cells=()))
    assert len(log.gc(dry_run=False)) == 0


def test_the_young_stay(log, png):
    file = InputFile.of_bytes(png())
    log.add_input(file)
    assert len(log.gc(dry_run=False)) == 0
    age(log.path(file.sha256), 2 * 3600)
    assert len(log.gc()) == 0
    assert len(log.gc(older_than=3600)) == 1


@pytest.mark.parametrize("seconds", [0, 3599, -1, float("nan")])
def test_less_than_an_hour_is_refused(log, seconds):
    with pytest.raises(ValueError, match="older_than"):
        log.gc(older_than=seconds)


def test_bytes_that_are_kept_again_are_young_again(log, png):
    file = InputFile.of_bytes(png())
    log.add_input(file)
    path = age(log.path(file.sha256))
    log.add_input(file)
    assert len(log.gc(dry_run=False)) == 0
    assert path.exists()


def test_a_picture_that_becomes_young_in_the_last_moment_stays(log, orphan, monkeypatch):
    rename = os.rename

    def touched(source, target):
        os.utime(source)
        rename(source, target)

    monkeypatch.setattr(collecting.os, "rename", touched)
    assert log.gc(dry_run=False).pictures == ()
    assert orphan.exists()


def test_what_another_collector_removes_meanwhile_is_gone_and_no_error(log, orphan, monkeypatch):
    rename = os.rename

    def renamed(source, target):
        rename(source, target)
        assert Log(log.folder).gc(dry_run=False).temporary == (target,)

    monkeypatch.setattr(collecting.os, "rename", renamed)
    assert log.gc(dry_run=False).pictures == ()
    assert not orphan.exists()


def test_no_acknowledged_row_loses_its_picture_to_a_collector(log, png, make_keyframe):
    """Old pictures that no row names are kept again, and named, while they are collected."""
    images = [png(16, 16) for _ in range(30)]
    stop = threading.Event()
    collected = []

    def collect():
        other = Log(log.folder)
        while not stop.is_set():
            collected.extend(other.gc(dry_run=False).pictures)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for i, image in enumerate(images):
            file = InputFile.of_bytes(image)
            log.add_input(file)
            age(log.path(file.sha256))
            if i % 5 == 0:
                wait_for(lambda: log.path(file.sha256) is None)  # noqa: B023 - waits here
            log.add_result(make_keyframe(f"scene-{i}", [image]), [image])
    finally:
        stop.set()
        thread.join()
    assert len(collected) >= 6
    assert log.verify().ok


def test_unfinished_files_go_when_they_are_old(log, orphan):
    stale = [orphan.parent / ".tmp-1-a", log.folder / "seg" / ".tmp-2-b"]
    for path in stale:
        path.write_bytes(b"half")
        age(path)
    fresh = log.folder / "seg" / ".tmp-3-c"
    fresh.write_bytes(b"half")
    assert set(log.gc(dry_run=False).temporary) == set(stale)
    assert fresh.exists()
    assert not any(path.exists() for path in stale)


def test_files_of_others_are_left_alone(log, orphan, tmp_path):
    notes = orphan.parent / "notes.txt"
    notes.write_text("mine")
    age(notes)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    link = orphan.parent / f"{orphan.parent.name}{'0' * 62}.png"
    link.symlink_to(elsewhere)
    assert log.gc(dry_run=False).pictures == (orphan,)
    assert notes.exists()
    assert link.is_symlink()
    assert elsewhere.exists()


def test_a_damaged_line_keeps_what_it_names(log, orphan, make_keyframe):
    log.add_result(make_keyframe("fox"))
    (segment,) = (log.folder / "seg").glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"id": "torn", "outputs": [{"sha256": "%s"' % orphan.stem.encode())
    assert len(log.gc(dry_run=False)) == 0


def test_with_a_damaged_segment_nothing_goes(log, orphan):
    (log.folder / "seg" / "1795349433039-a30489cb.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LogError, match=r"1795349433039-a30489cb\.parquet cannot be read"):
        log.gc(dry_run=False)
    assert orphan.exists()


def test_with_rows_of_a_newer_comfynb_nothing_goes(log, orphan):
    newer = {"id": "x", "kind": "result", "v": 9, "masks": [orphan.stem]}
    (log.folder / "seg" / "1795349433039-a30489cb.jsonl").write_text(json.dumps(newer) + "\n")
    with pytest.raises(LogError, match="newer comfynb"):
        log.gc(dry_run=False)
    assert orphan.exists()


def test_a_log_that_is_not_to_be_written_is_not_collected(log, orphan):
    reader = Log(log.folder, read_only=True)
    assert len(reader.gc()) == 1
    with pytest.raises(LogWriteError, match="read_only"):
        reader.gc(dry_run=False)
    log.close()
    with pytest.raises(ClosedError):
        log.gc(dry_run=False)
    assert orphan.exists()

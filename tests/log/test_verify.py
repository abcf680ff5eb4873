"""Verifying: what is wrong in a log is found, named, and left as it is."""

import os
import time

import pytest

from comfynb.inputs import InputFile
from comfynb.log import Log, RunRecord, sealing


@pytest.fixture
def three(log, png, make_keyframe):
    """A log of three pictures, one of them in a sealed segment; gives it and their files."""
    files = []
    for i in range(3):
        image = png()
        kept = log.add_result(make_keyframe(f"scene-{i}", [image], seconds=i), [image])
        files.append(kept.path)
        if i == 0:
            log.close()
            with sealing.database() as connection:
                sealing.adopt(log.folder / "seg", connection)
            log = Log(log.folder)
    yield log, files
    log.close()


def snapshot(folder):
    return {p: (p.lstat().st_size, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def found(log):
    return {finding.path: finding.problem for finding in log.verify().findings}


def test_a_sound_log_is_ok_and_counted(three):
    log, files = three
    verification = log.verify()
    assert verification.ok
    assert (verification.rows, verification.segments, verification.pictures) == (3, 2, 3)
    assert verification.bytes == sum(path.stat().st_size for path in files)
    assert "3 rows in 2 segments, 3 pictures" in repr(verification)
    assert "all sound" in repr(verification)


def test_a_log_that_is_not_there_is_an_empty_one(tmp_path):
    verification = Log(tmp_path / "none").verify()
    assert verification.ok
    assert verification.rows == 0


def test_nothing_is_changed(three):
    log, files = three
    files[0].write_bytes(b"damaged")
    files[1].unlink()
    before = snapshot(log.folder)
    assert not log.verify().ok
    assert snapshot(log.folder) == before


def test_changed_and_missing_pictures_are_named(three):
    log, files = three
    data = bytearray(files[0].read_bytes())
    data[100] ^= 1
    files[0].write_bytes(data)
    files[1].unlink()
    relative = [path.relative_to(log.folder).as_posix() for path in files]
    assert found(log) == {
        relative[0]: "its content is not what its name says",
        relative[1]: "is not there; a keyframe of 'scene-1' shows it",
    }
    assert relative[0] in repr(log.verify())


def test_a_link_in_the_place_of_a_picture_is_missing_and_a_stray(three, tmp_path):
    log, files = three
    elsewhere = tmp_path / "elsewhere.png"
    files[0].rename(elsewhere)
    files[0].symlink_to(elsewhere)
    problems = [finding.problem for finding in log.verify().findings]
    assert problems == [
        "is nothing that a log has in this place",
        "is not there; a keyframe of 'scene-0' shows it",
    ]


def test_damaged_lines_and_segments_are_named(three):
    log, _ = three
    (lines,) = (log.folder / "seg").glob("*.jsonl")
    with lines.open("ab") as file:
        file.write(b'{"id": "torn')
    (sealed,) = (log.folder / "seg").glob("*.parquet")
    data = bytearray(sealed.read_bytes())
    data[4:200] = bytes(196)
    sealed.write_bytes(data)
    cut = sealed.with_name("1795349433039-a30489cb.parquet")
    cut.write_bytes(b"PAR1 and no more")
    assert found(log) == {
        f"seg/{lines.name}": "1 of its lines cannot be read",
        f"seg/{sealed.name}": "cannot be read to its end",
        f"seg/{cut.name}": "is not whole, or a link",
    }


def test_strays_are_named_and_fresh_temporary_files_are_not(three):
    log, files = three
    (log.folder / "blobs" / "notes.txt").write_text("mine")
    (log.folder / "seg" / "notes.txt").write_text("mine")
    (files[0].parent / ".tmp-1-fresh").write_text("of somebody who is writing it")
    stale = files[0].parent / ".tmp-2-stale"
    stale.write_text("of somebody who was killed")
    os.utime(stale, (time.time() - 7200,) * 2)
    assert found(log) == {
        "blobs/notes.txt": "is nothing that a log has in this place",
        "seg/notes.txt": "is nothing that a log has in this place",
        stale.relative_to(log.folder).as_posix(): "is what a killed process left behind: "
        "unfinished for more than an hour",
    }


def test_what_gc_is_said_to_remove_it_removes(three):
    log, files = three
    stale = [files[0].parent / ".tmp-2-stale", log.folder / "seg" / ".tmp-3-stale"]
    for path in stale:
        path.write_text("of somebody who was killed")
        os.utime(path, (time.time() - 3700,) * 2)
    assert {f.advice for f in log.verify().findings} == {"log.gc(dry_run=False) removes it"}
    assert set(log.gc(dry_run=False).temporary) == set(stale)
    assert log.verify().ok


def test_a_picture_that_no_row_names_is_counted_and_no_fault(log, png):
    log.add_input(InputFile.of_bytes(png()))
    verification = log.verify()
    assert verification.ok
    assert verification.unnamed == 1
    assert "log.gc(dry_run=False) removes those older than a day" in repr(verification)


def test_a_file_that_a_run_starts_from_is_missed(log, png):
    file = InputFile.of_bytes(png())
    log.add_input(file)
    storyboard = {"scenes": [{"prompt": "a fox", "image": file}]}
    log.add_run(RunRecord(id="run-1", storyboard=storyboard, cells=()))
    verification = log.verify()
    assert verification.ok
    assert verification.unnamed == 0
    log.path(file.sha256).unlink()
    assert list(found(log).values()) == ["is not there; a run starts from it"]

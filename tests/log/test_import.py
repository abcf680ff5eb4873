"""Imports: two logs become one, and a stranger's can neither change nor hide what is here."""

import json
import stat
import zipfile

import pytest

from comfynb.errors import ClosedError, LogError, LogVersionError, LogWriteError
from comfynb.log import Log, sealing


def scenes(log):
    return [keyframe.scene.id for keyframe in log.keyframes()]


def seal(log):
    log.close()
    with sealing.database() as connection:
        sealing.adopt(log.folder / "seg", connection)


@pytest.fixture
def add(png, make_keyframe):
    """Append a picture: `add(log, scene, seconds)`."""

    def append(log, scene, seconds=0):
        image = png()
        return log.add_result(make_keyframe(scene, [image], seconds=seconds), [image])

    return append


@pytest.fixture
def other(tmp_path, add):
    """Another log: two pictures sealed, one in the lines of a dead session."""
    first = Log(tmp_path / "other")
    add(first, "a", 1)
    add(first, "b", 2)
    seal(first)
    second = Log(tmp_path / "other")
    add(second, "c", 3)
    second.close()
    return second


def test_two_logs_become_one(log, add, other):
    add(log, "z", 9)
    done = log.import_(other.folder)
    assert (done.pictures, done.segments, done.known, done.refused) == (3, 2, 0, ())
    assert scenes(log) == ["a", "b", "c", "z"]
    assert log.verify().ok
    assert scenes(other) == ["a", "b", "c"]


def test_once_more_brings_only_what_is_new(log, add, other):
    log.import_(other.folder)
    again = log.import_(other.folder)
    assert (again.pictures, again.segments, again.known) == (0, 0, 5)
    third = Log(other.folder)
    add(third, "d", 4)
    seal(third)
    assert log.import_(other.folder).pictures == 1
    assert scenes(log) == ["a", "b", "c", "d"]


def test_what_a_living_session_appends_is_taken_up_to_its_last_line(log, add, other):
    living = Log(other.folder)
    add(living, "d", 4)
    assert log.import_(other.folder).segments == 3
    name = living._segment._segment.path.name
    assert not (log.folder / "seg" / name).exists()
    add(living, "e", 5)
    assert log.import_(other.folder).segments == 1
    assert scenes(log) == ["a", "b", "c", "d", "e"]
    living.close()


def test_a_zip_of_a_log_is_one_too(log, add, other, tmp_path):
    done = log.import_(other.export(tmp_path / "x.zip"))
    assert (done.pictures, done.segments) == (3, 1)
    assert scenes(log) == ["a", "b", "c"]
    assert log.verify().ok


def test_a_zip_of_the_folder_as_it_lies_is_one_too(log, other, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in other.folder.rglob("*"):
            archive.write(path, f"my log/{path.relative_to(other.folder)}")
    log.import_(tmp_path / "x.zip")
    assert scenes(log) == ["a", "b", "c"]


def test_a_picture_that_is_not_what_its_name_says_stays_out(log, other):
    victim = other.keyframes()[0].path
    victim.write_bytes(b"something else")
    done = log.import_(other.folder)
    assert done.refused == (victim.relative_to(other.folder).as_posix(),)
    assert not (log.folder / done.refused[0]).exists()
    assert done.pictures == 2


def test_damaged_segments_stay_out(log, other):
    cut = "1795349433039-a30489cb.parquet"
    (other.folder / "seg" / cut).write_bytes(b"PAR1 and no more")
    assert log.import_(other.folder).refused == (f"seg/{cut}",)
    assert scenes(log) == ["a", "b", "c"]


def test_links_are_not_followed(log, other, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    keyframe = other.keyframes()[0]
    path = keyframe.path
    path.rename(outside / "picture.png")
    path.symlink_to(outside / "picture.png")
    done = log.import_(other.folder)
    assert done.pictures == 2
    assert not log.path(keyframe.outputs[0].sha256)


def test_nothing_of_it_hides_what_is_here(log, add, other):
    """A segment with the stem of ours, and a merge that claims to replace ours."""
    add(log, "mine", 9)
    (ours,) = (log.folder / "seg").glob("*.jsonl")
    (sealed,) = (other.folder / "seg").glob("*.parquet")
    sealed.rename(sealed.with_name(f"{ours.stem}.parquet"))
    log.import_(other.folder)
    assert scenes(log) == ["a", "b", "c", "mine"]
    merge = sealed.with_name("m1795349457242-e35bae18.parquet")
    sealed.with_name(f"{ours.stem}.parquet").rename(merge)
    merge.with_suffix(".replaces").write_text(json.dumps([ours.stem]))
    log.import_(other.folder)
    assert scenes(log) == ["a", "b", "c", "mine"]
    assert not list((log.folder / "seg").glob("*.replaces"))


def test_a_zip_can_write_nowhere_else(log, other, tmp_path):
    path = other.export(tmp_path / "x.zip")
    link = zipfile.ZipInfo(f"blobs/aa/{'a' * 64}.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../evil", "/evil", "blobs/../../evil", "seg/../../../evil.jsonl", "seg/x"):
            archive.writestr(name, "evil")
        archive.writestr(f"blobs/bb/{'b' * 64}.png", bytes(2**20))
        archive.writestr(link, "/etc/passwd")
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(log.folder)}
    done = log.import_(path)
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(log.folder)} == before
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name or p.is_symlink()]
    assert done.refused == (f"blobs/bb/{'b' * 64}.png",)
    assert scenes(log) == ["a", "b", "c"]


def test_too_large_files_stay_out(log, other, tmp_path, monkeypatch):
    monkeypatch.setattr("comfynb.log.importing.LARGEST", 5000)
    done = log.import_(other.export(tmp_path / "x.zip"))
    assert done.pictures == 0
    assert len([name for name in done.refused if name.startswith("blobs/")]) == 3


def test_what_is_no_log_is_refused(log, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("a/b", "c")
    for name in ("folder", "text", "some.zip", "missing"):
        with pytest.raises(LogError, match=f"{name} is no log"):
            log.import_(tmp_path / name)


def test_a_newer_log_is_refused(log, other, tmp_path):
    (other.folder / "comfynb-log.json").write_text('{"format": "comfynb-log", "version": 2}')
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(other.folder / "comfynb-log.json", "comfynb-log.json")
    for newer in (other.folder, tmp_path / "x.zip"):
        with pytest.raises(LogVersionError, match="newer comfynb"):
            log.import_(newer)


def test_itself_and_what_is_not_to_be_written_are_refused(log, add, other):
    add(log, "z")
    with pytest.raises(LogError, match="is this one"):
        log.import_(log.folder)
    with pytest.raises(LogWriteError, match="read_only"):
        Log(log.folder, read_only=True).import_(other.folder)
    log.close()
    with pytest.raises(ClosedError):
        log.import_(other.folder)


def test_a_deletion_comes_along(log, other):
    log.import_(other.folder)
    again = Log(other.folder)
    again.delete(scene="a", dry_run=False)
    again.close()
    log.import_(other.folder)
    assert scenes(log) == ["b", "c"]

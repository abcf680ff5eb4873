"""A power cut right after an append returned: what was acknowledged is there.

Where root may mount, a writer appends to a small disk of its own whose journal commits only when
it is told to (commit=600), and the disk is copied the moment the writer has said what it made:
the copy is the disk after a power cut. Everywhere, the calls of the writer are watched for the
order that such a disk needs.
"""

import hashlib
import os
import subprocess
import warnings
from pathlib import Path

import pytest

from comfynb.log import Log, blobs, segments


def mount(image, place):
    place.mkdir(exist_ok=True)
    command = ["mount", "-o", "loop,commit=600", image, place]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of its own: (image, where it is mounted)."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(100 * 2**20)
    made = os.geteuid() == 0 and subprocess.run(["mkfs.ext4", "-q", image], check=False)
    if not made or made.returncode or not mount(image, place):
        warnings.warn("no disk can be mounted: the power cut is NOT tested", stacklevel=1)
        pytest.skip("only root may mount a disk: the power cut is NOT tested")
    yield image, place
    subprocess.run(["umount", place], check=True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*damaged line")
@pytest.mark.filterwarnings("default:no disk can be mounted")
@pytest.mark.parametrize("trial", range(3))
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    disk, tmp_path, start_writer, make_keyframe, trial
):
    image, place = disk
    log = Log(place / "log")
    log.add_result(make_keyframe("before"))
    log.close()
    subprocess.run(["sync", "-f", place], check=True)
    writer = start_writer(place / "log", "cut")
    lines = [writer.stdout.readline() for _ in range(26 + trial)]
    copy, after = tmp_path / "cut.img", tmp_path / "after"
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    writer.kill()
    writer.wait()
    assert mount(copy, after)
    try:
        cut = Log(after / "log")
        made = {keyframe.id: keyframe for keyframe in cut.keyframes(run="cut")}
        acked = dict(line.split() for line in lines[1:])
        assert len(acked) == 25 + trial
        assert acked.keys() <= made.keys()
        for keyframe_id, sha256 in acked.items():
            assert hashlib.sha256(made[keyframe_id].read()).hexdigest() == sha256
        assert [run.id for run in cut.runs()] == ["cut"]
        cut.add_result(make_keyframe("afterwards"))
        cut.compact(force=True)
        assert {keyframe.id for keyframe in cut.keyframes()} >= acked.keys()
        cut.close()
    finally:
        subprocess.run(["umount", after], check=True)


class Disk:
    """Watches what was changed since it was made durable: files and folders, by inode."""

    def __init__(self, monkeypatch):
        self.dirty = set()
        write, fsync, link, rename, mkdir = os.write, os.fsync, os.link, Path.rename, os.mkdir

        def watched_write(descriptor, data):
            self.dirty.add(os.fstat(descriptor).st_ino)
            return write(descriptor, data)

        def watched_sync(descriptor):
            fsync(descriptor)
            self.dirty.discard(os.fstat(descriptor).st_ino)

        def watched_link(source, name, *, dst_dir_fd=None):
            link(source, name, dst_dir_fd=dst_dir_fd)
            folder = Path(name).parent.stat() if dst_dir_fd is None else os.fstat(dst_dir_fd)
            self.dirty.add(folder.st_ino)

        def watched_mkdir(path, *args):
            mkdir(path, *args)
            self.dirty.add(Path(path).parent.stat().st_ino)

        def watched_rename(source, target):
            assert source.stat().st_ino not in self.dirty, "renamed before it was durable"
            rename(source, target)
            self.dirty.add(Path(target).parent.stat().st_ino)

        monkeypatch.setattr(os, "write", watched_write)
        monkeypatch.setattr(os, "fsync", watched_sync)
        monkeypatch.setattr(os, "fdatasync", watched_sync)
        monkeypatch.setattr(os, "link", watched_link)
        monkeypatch.setattr(os, "mkdir", watched_mkdir)
        monkeypatch.setattr(Path, "rename", watched_rename)
        monkeypatch.setattr(Path, "replace", watched_rename)


@pytest.mark.parametrize("nameless", [True, False])
def test_pictures_are_durable_before_their_row_is_written(
    tmp_path, make_keyframe, png, monkeypatch, nameless
):
    if not nameless:
        monkeypatch.setattr(blobs, "_NAMELESS", 0)
    disk, seen = Disk(monkeypatch), []
    append = segments.SegmentWriter.append

    def watched(writer, line, *, sync):
        seen.append(set(disk.dirty))
        append(writer, line, sync=sync)

    monkeypatch.setattr(segments.SegmentWriter, "append", watched)
    log = Log(tmp_path / "log")
    for i in range(3):
        data = png()
        log.add_result(make_keyframe(f"scene-{i}", [data]), [data])
        assert disk.dirty == set()
    log.close()
    assert len(seen) == 3
    assert not set.union(*seen)

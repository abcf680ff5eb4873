"""Torn, damaged and strange files: at most the damaged row is lost, and it is said."""

import json
import os

import pytest

from comfynb.errors import LogError, LogVersionError
from comfynb.log import Log, RunRecord


@pytest.fixture
def three(log, make_keyframe):
    """A log with three rows in one segment; returns (log, segment)."""
    for i in range(3):
        log.add_result(make_keyframe(f"scene-{i}", seconds=i))
    (segment,) = (log.folder / "seg").iterdir()
    return log, segment


def scenes(log):
    return [keyframe.scene.id for keyframe in log.keyframes()]


def test_a_torn_last_line_loses_that_row_only(three):
    log, segment = three
    segment.write_bytes(segment.read_bytes()[:-50])
    fresh = Log(log.folder)
    with pytest.warns(UserWarning, match=rf"1 damaged line.* of seg/{segment.name}"):
        assert scenes(fresh) == ["scene-0", "scene-1"]
    assert fresh.skipped_lines == {segment.name: 1}


def test_garbage_in_the_middle_loses_the_rows_it_hit_only(three):
    log, segment = three
    data = bytearray(segment.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = os.urandom(200).replace(b"\n", b"?")
    segment.write_bytes(data)
    fresh = Log(log.folder)
    with pytest.warns(UserWarning, match="1 damaged line"):
        assert scenes(fresh) == ["scene-0", "scene-2"]
    assert fresh.skipped_lines == {segment.name: 1}


@pytest.mark.parametrize("where", ["data", "footer"])
def test_a_sealed_segment_that_is_damaged_inside_is_named_and_the_others_are_read(three, where):
    log, _ = three
    log.close()
    log.compact()
    (sealed,) = (log.folder / "seg").glob("*.parquet")
    other = Log(log.folder)
    other.add_run(RunRecord(id="run-2", storyboard={}, cells=()))
    other.close()
    data = bytearray(sealed.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    begin = 4 if where == "data" else len(data) - 8 - footer
    data[begin : begin + 400] = os.urandom(400)
    sealed.write_bytes(data)
    fresh = Log(log.folder)
    with pytest.warns(UserWarning, match=f"without the damaged file seg/{sealed.name}"):
        assert fresh.keyframes() == []
    assert [run.id for run in fresh.runs()] == ["run-2"]
    assert len(fresh.df()) == 0


def test_a_huge_file_of_garbage_is_named_and_the_others_are_read(three):
    log, segment = three
    garbage = segment.with_name("1795349433039-00000000.jsonl")
    with garbage.open("wb") as file:
        file.truncate(150 * 2**20)
    with pytest.warns(UserWarning, match=f"seg/{garbage.name}"):
        assert scenes(Log(log.folder)) == ["scene-0", "scene-1", "scene-2"]


def test_zeros_at_the_end_lose_nothing(three):
    log, segment = three
    with segment.open("ab") as file:
        file.write(b"\0" * 4096)
    with pytest.warns(UserWarning, match="1 damaged line"):
        assert scenes(Log(log.folder)) == ["scene-0", "scene-1", "scene-2"]


def test_every_line_of_garbage_is_counted(three):
    log, segment = three
    garbage = [b"", b"  ", b"[1, 2]", b"null", b"\xff\xfe", b'{"id": 1', b'{"kind": "result"}']
    with segment.open("ab") as file:
        file.write(b"\n".join(garbage) + b"\n")
    fresh = Log(log.folder)
    with pytest.warns(UserWarning, match="5 damaged line"):
        assert len(fresh.df()) == 3


def test_damage_is_reported_once_until_there_is_more(three, recwarn):
    log, segment = three
    for _ in range(2):
        with segment.open("ab") as file:
            file.write(b"garbage\n")
        scenes(log)
        scenes(log)
    assert [str(w.message).count("damaged") for w in recwarn] == [1, 1]
    assert log.skipped_lines == {segment.name: 2}


def test_rows_of_the_wrong_types_do_not_stop_reading(three):
    log, segment = three
    row = {
        "id": "x",
        "kind": "result",
        "scene": "odd",
        "seed": "none",
        "created_at": "yesterday",
        "knobs": [1],
        "outputs": [{"sha256": "../../secret"}],
        "error": "text",
        "status": "done",
    }
    with segment.open("ab") as file:
        file.write(json.dumps(row).encode() + b"\n")
    assert "odd" in scenes(log)
    assert len(log.df()) == 4
    assert log.find(["k"]) == {}


def test_columns_and_kinds_of_the_future_are_passed_over(three):
    log, segment = three
    row = json.loads(segment.read_bytes().splitlines()[0])
    future = {**row, "id": "future", "mood": {"happy": 1}, "scene": "later"}
    stranger = {"id": "s", "kind": "rumour", "v": 1, "target": row["id"]}
    with segment.open("ab") as file:
        file.writelines(json.dumps(r).encode() + b"\n" for r in (future, stranger))
    assert "future" in {keyframe.id for keyframe in log.keyframes()}
    assert len(log.df()) == 4
    assert log.skipped_lines == {}


def test_rows_of_a_newer_version_are_left_out_and_it_is_said_once(three, recwarn):
    log, segment = three
    row = json.loads(segment.read_bytes().splitlines()[0])
    with segment.open("ab") as file:
        file.write(json.dumps({**row, "id": "future", "v": 2}).encode() + b"\n")
    assert len(log.df()) == len(log.keyframes()) == 3
    (warned,) = recwarn
    assert "rows of a newer comfynb (version 2" in str(warned.message)
    assert "pip install -U" in str(warned.message)


def test_a_newer_format_is_refused(log, make_keyframe):
    log.add_result(make_keyframe())
    marker = log.folder / "comfynb-log.json"
    marker.write_text(json.dumps({"format": "comfynb-log", "version": 2}))
    with pytest.raises(LogVersionError, match=r"format 2.*newer comfynb.*pip install -U"):
        Log(log.folder)


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"format": "other", "version": 1}'])
def test_a_folder_with_a_strange_marker_is_refused(tmp_path, text):
    (tmp_path / "comfynb-log.json").write_text(text)
    with pytest.raises(LogError, match="not the marker of a log"):
        Log(tmp_path)


def test_a_marker_that_was_just_begun_is_no_obstacle(tmp_path, make_keyframe):
    (tmp_path / "comfynb-log.json").touch()
    log = Log(tmp_path)
    log.add_result(make_keyframe())
    assert len(Log(tmp_path).keyframes()) == 1


def test_links_are_not_followed(log, make_keyframe, png, tmp_path):
    data = png()
    kept = log.add_result(make_keyframe("fox", [data]), [data])
    secret = tmp_path / "secret"
    secret.write_bytes(data)
    kept.path.unlink()
    blob = log.folder / "blobs" / kept.outputs[0].sha256[:2] / f"{kept.outputs[0].sha256}.png"
    blob.symlink_to(secret)
    assert kept.path is None
    assert log.find([kept.key]) == {}
    with pytest.raises(LogError, match="no picture"):
        kept.read()

    (segment,) = (log.folder / "seg").iterdir()
    elsewhere = tmp_path / "elsewhere.jsonl"
    segment.rename(elsewhere)
    segment.symlink_to(elsewhere)
    with pytest.warns(UserWarning, match=f"damaged file seg/{segment.name}"):
        assert Log(log.folder).keyframes() == []


def test_a_linked_folder_of_pictures_is_neither_read_nor_written(log, make_keyframe, png, tmp_path):
    from comfynb.errors import LogWriteError

    outside = tmp_path / "outside"
    outside.mkdir()
    log.folder.mkdir()
    (log.folder / "blobs").symlink_to(outside)
    data = png()
    with pytest.raises(LogWriteError, match="link"):
        log.add_result(make_keyframe("fox", [data]), [data])
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../../secret", "A" * 64, "a" * 63, "a" * 64 + "\n", "", "é" * 64, ".." + "a" * 62]
)
def test_names_that_are_no_sha256_become_no_path(log, make_keyframe, png, name):
    data = png()
    log.add_result(make_keyframe("fox", [data]), [data])
    assert log.path(name) is None
    for ask in (log.read, log.thumbnail):
        with pytest.raises(LogError, match="no picture"):
            ask(name)

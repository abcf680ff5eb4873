"""The folder: how it comes to be, and what else may be in it."""

import contextlib
import doctest
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import comfynb.log.log
from comfynb.errors import LogError, LogWriteError
from comfynb.log import Log, RunRecord
from comfynb.log.schema import COLUMNS, markdown


@contextlib.contextmanager
def as_nobody():
    """Give up root's right to write everywhere, where we have it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_first_append_makes_the_folder(tmp_path):
    log = Log(tmp_path / "a" / "b")
    log.add_run(RunRecord(id="r", storyboard={}, cells=()))
    assert sorted(path.name for path in log.folder.iterdir()) == [
        ".gitignore",
        "blobs",
        "comfynb-log.json",
        "seg",
    ]
    marker = json.loads((log.folder / "comfynb-log.json").read_text())
    assert (marker["format"], marker["version"]) == ("comfynb-log", 1)
    assert (log.folder / ".gitignore").read_text() == "*\n"


def test_a_folder_with_other_things_in_it_is_not_hidden_from_git(tmp_path):
    (tmp_path / "main.py").touch()
    Log(tmp_path).add_run(RunRecord(id="r", storyboard={}, cells=()))
    assert not (tmp_path / ".gitignore").exists()
    assert len(Log(tmp_path).runs()) == 1


def test_a_second_log_object_leaves_the_marker_as_it_is(tmp_path):
    for run in "ab":
        Log(tmp_path / "log").add_run(RunRecord(id=run, storyboard={}, cells=()))
        text = (tmp_path / "log" / "comfynb-log.json").read_text()
    assert (tmp_path / "log" / "comfynb-log.json").read_text() == text
    assert len(list((tmp_path / "log" / "seg").iterdir())) == 2


def test_a_removed_folder_is_made_again(log, make_keyframe, png):
    data = png()
    log.add_result(make_keyframe("fox", [data]), [data])
    shutil.rmtree(log.folder)
    kept = log.add_result(make_keyframe("fox", [data]), [data])
    assert kept.read() == data
    assert len(Log(log.folder).keyframes()) == 1


def test_the_working_directory_may_change(tmp_path, monkeypatch, make_keyframe):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    log = Log("log")
    monkeypatch.chdir("elsewhere")
    log.add_result(make_keyframe())
    assert (tmp_path / "log" / "comfynb-log.json").is_file()


def test_names_that_mean_something_to_sql_or_to_globs_are_only_names(tmp_path, make_keyframe):
    log = Log(tmp_path / "it's [a] {log}* \"?")
    log.add_result(make_keyframe())
    assert len(log.df()) == 1


def test_a_log_opened_to_be_read_is_not_written(log, make_keyframe, png):
    data = png()
    kept = log.add_result(make_keyframe("fox", [data]), [data])
    before = sorted(log.folder.rglob("*"))
    reading = Log(log.folder, read_only=True)
    with pytest.raises(LogWriteError, match="read_only=True"):
        reading.add_result(make_keyframe())
    (found,) = reading.find([kept.key]).values()
    assert found.read() == data
    thumbnail = reading.thumbnail(kept.outputs[0].sha256)
    assert reading.thumbnail(kept.outputs[0].sha256) == thumbnail
    assert thumbnail.is_file()
    reading.close()
    assert not thumbnail.exists()
    assert sorted(log.folder.rglob("*")) == before


def test_a_folder_that_cannot_be_written_can_be_read(make_keyframe, png):
    data = png()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        log = Log(folder / "log")
        kept = log.add_result(make_keyframe("fox", [data]), [data])
        log.thumbnail(kept.outputs[0].sha256).unlink()  # what it needs is imported by now
        log.df()
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with as_nobody():
                fresh = Log(folder / "log")
                assert len(fresh.df()) == 1
                assert fresh.keyframes()[0].read() == data
                assert fresh.thumbnail(kept.outputs[0].sha256).stat().st_size > 0
                with pytest.raises(LogWriteError, match="Make the folder writable"):
                    fresh.add_result(make_keyframe())
                with pytest.raises(LogWriteError, match=f"{folder}/other.*Make the folder"):
                    Log(folder / "other").add_result(make_keyframe())
                fresh.close()
        finally:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)


def test_a_segment_that_may_not_be_read_is_an_error(make_keyframe):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        log = Log(folder / "log")
        log.add_result(make_keyframe())
        log.df()
        (segment,) = (log.folder / "seg").iterdir()
        segment.chmod(0)
        with as_nobody():
            for ask in (log.keyframes, log.df):
                with pytest.raises(LogError, match=f"cannot read the log at {log.folder}"):
                    ask()


def test_a_file_in_the_place_of_the_folder_is_an_error_that_names_it(tmp_path, make_keyframe):
    (tmp_path / "log").write_text("a file")
    log = Log(tmp_path / "log")
    assert log.keyframes() == []
    with pytest.raises(LogWriteError, match=f"the row of fox to the log at {log.folder}"):
        log.add_result(make_keyframe())


def test_every_column_is_in_the_docs_as_it_is_in_the_schema():
    text = (Path(__file__).parents[2] / "comfynb" / "log" / "FORMAT.md").read_text()
    documented = text.split("<!-- columns -->\n")[1].split("<!-- /columns -->")[0]
    assert documented == markdown(), "put comfynb.log.schema.markdown() between the marks"
    for column in COLUMNS:
        assert column.meaning.endswith(".")


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(comfynb.log.log)
    assert result.attempted > 0
    assert result.failed == 0

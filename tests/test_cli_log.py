"""`comfynb log`: what it says, what it writes, how it exits."""

import hashlib
import io
import json
import os
import subprocess
import sys
import time

import pytest
from PIL import Image

from comfynb.cli import main
from comfynb.inputs import InputFile
from comfynb.keyframes import Failure, Keyframe, Output
from comfynb.log import Log, RunRecord
from comfynb.scenes import Scene


def png(shade):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A log with a fox, an owl that failed, and a scene with an evil name."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    made = Log(tmp_path / "my-log")
    for i, scene in enumerate(("fox", "evil\x1b[31m[bold]", "owl")):
        data = [] if scene == "owl" else [png(i)]
        outputs = [
            Output("9", 0, hashlib.sha256(image).hexdigest(), "image/png", len(image), 16, 16)
            for image in data
        ]
        keyframe = Keyframe(
            id=f"{i}{i}{i}{i}-id",
            run="run-1",
            key=f"key-{i}",
            scene=Scene(id=f"scene-{i}", title=scene, prompt=f"a {scene}"),
            status="done" if data else "failed",
            seed=2**64 - 1,
            outputs=tuple(outputs),
            error=None if data else Failure("node_error", "it broke"),
        )
        made.add_result(keyframe, data)
    made.close()
    return made


def said(capsys, *arguments, status=0):
    assert main(["log", *arguments]) == status
    return capsys.readouterr().out


def test_ls_lists_and_never_obeys_what_stands_in_a_log(log, capsys):
    out = said(capsys, "ls", "my-log")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["✓", "✓", "✗"]
    assert "evil [31m[bold]" in out
    assert "\x1b" not in out
    assert str(2**64 - 1) in out
    assert "the last 1 of 3 keyframes" in said(capsys, "ls", "my-log", "--limit", "1")
    rows = json.loads(said(capsys, "ls", "my-log", "--status", "failed", "--json"))
    assert [row["error"] for row in rows] == ["node_error: it broke"]


def test_show_sums_up_and_shows_one(log, capsys):
    facts = json.loads(said(capsys, "show", "my-log", "--json"))
    assert (facts["keyframes"], facts["done"], facts["scenes"], facts["runs"]) == (3, 2, 3, 1)
    assert facts["blobs_bytes"] == sum(p.stat().st_size for p in log.folder.rglob("*.png"))
    assert "keyframes" in said(capsys, "show", "my-log")
    one = json.loads(said(capsys, "show", "my-log", "0000", "--json"))
    assert one["seed"] == 2**64 - 1
    assert (log.folder / one["files"][0]).exists()


def test_verify_exits_1_where_something_is_wrong(log, capsys):
    assert "all sound" in said(capsys, "verify", "my-log")
    victim = next(log.folder.rglob("*.png"))
    victim.write_bytes(b"damaged")
    out = said(capsys, "verify", "my-log", status=1)
    assert victim.relative_to(log.folder).as_posix() in out.replace("\n", "")
    found = json.loads(said(capsys, "verify", "my-log", "--json", status=1))
    assert found["ok"] is False
    assert len(found["findings"]) == 1


def test_gc_removes_only_with_yes(log, capsys):
    again = Log(log.folder)
    file = InputFile.of_bytes(png(99))
    again.add_input(file)
    again.close()
    path = log.path(file.sha256)
    os.utime(path, (time.time() - 200_000,) * 2)
    out = said(capsys, "gc", "my-log")
    assert path.name in out
    assert "--yes" in out
    assert path.exists()
    assert "removed 1 pictures" in said(capsys, "gc", "my-log", "--yes")
    assert not path.exists()


@pytest.mark.parametrize(
    ("which", "ids"),
    [
        (["--scene", "scene-0"], ["0000-id"]),
        (["--run", "run-1"], ["0000-id", "1111-id", "2222-id"]),
        (["--where", "status = 'failed'"], ["2222-id"]),
        (["--keyframes", "0000", "2222-id"], ["0000-id", "2222-id"]),
    ],
)
def test_delete_hides_only_with_yes_and_restore_brings_back_only_with_yes(log, capsys, which, ids):
    everything = [keyframe.id for keyframe in log.keyframes()]
    said_before = said(capsys, "delete", "my-log", *which)
    assert f"would delete {len(ids)} keyframes; --yes does" in said_before
    assert [line.split()[-1] for line in said_before.splitlines()[1:-1]] == ids
    assert [keyframe.id for keyframe in log.keyframes()] == everything
    assert f"deleted {len(ids)} keyframes" in said(capsys, "delete", "my-log", *which, "--yes")
    assert [k.id for k in log.keyframes()] == [i for i in everything if i not in ids]

    said_before = said(capsys, "restore", "my-log")
    assert f"would restore {len(ids)} keyframes; --yes does" in said_before
    assert [line.split()[-1] for line in said_before.splitlines()[1:-1]] == ids
    assert [k.id for k in log.keyframes()] == [i for i in everything if i not in ids]
    assert f"restored {len(ids)} keyframes" in said(capsys, "restore", "my-log", "--yes")
    assert [keyframe.id for keyframe in log.keyframes()] == everything
    assert "nothing to restore" in said(capsys, "restore", "my-log", "--yes")


def test_a_run_goes_and_comes_back_with_what_it_made(log, capsys):
    again = Log(log.folder)
    again.add_run(RunRecord(id="run-1", storyboard={"scenes": []}, cells=()))
    again.add_run(RunRecord(id="run-2", storyboard={"scenes": []}, cells=()))
    again.close()
    told = said(capsys, "delete", "my-log", "--run", "run-1", "--yes")
    assert "deleted 3 keyframes and 1 runs" in told
    assert "deleted 1 runs" in said(capsys, "delete", "my-log", "--run", "run-2", "--yes")
    assert log.runs() == []
    assert "nothing to delete" in said(capsys, "delete", "my-log", "--run", "run-1")
    told = said(capsys, "restore", "my-log", "--run", "run-1", "--yes")
    assert "restored 3 keyframes and 1 runs" in told
    assert [run.id for run in log.runs()] == ["run-1"]
    assert len(log.keyframes()) == 3


def test_restore_brings_back_only_what_is_meant_and_says_which_pictures_are_gone(log, capsys):
    picture = log.keyframes()[0].path
    os.utime(picture, (time.time() - 200_000,) * 2)
    said(capsys, "delete", "my-log", "--where", "true", "--yes")
    said(capsys, "gc", "my-log", "--yes")
    lines = said(capsys, "restore", "my-log").splitlines()
    assert ["removed by gc" in line for line in lines[1:-1]] == [True, False, False]
    for which in (["--scene", "scene-1"], ["--keyframes", "2222"]):
        assert "restored 1 keyframes" in said(capsys, "restore", "my-log", *which, "--yes")
    assert [keyframe.id for keyframe in log.keyframes()] == ["1111-id", "2222-id"]


def test_export_and_import_pass_a_log_on(log, capsys):
    assert "x.zip" in said(capsys, "export", "my-log", "x.zip", "--strip-metadata")
    assert "copied 2 pictures and 1 segments" in said(capsys, "import", "new-log", "x.zip")
    assert len(Log("new-log").keyframes()) == 3


def test_compact_seals_what_dead_sessions_left(log, capsys):
    assert "1 segments before, 1 now" in said(capsys, "compact", "my-log")
    assert [path.suffix for path in (log.folder / "seg").glob("[0-9]*")] == [".parquet"]


def test_sql_answers(log, capsys):
    query = "select scene, seed from keyframes where status = 'done' order by scene"
    assert "2 rows" in said(capsys, "sql", "my-log", query)
    rows = json.loads(said(capsys, "sql", "my-log", query, "--json"))
    assert rows[0] == {"scene": "scene-0", "seed": 2**64 - 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ls", "missing"], "there is no log at missing"),
        (["show", "my-log", "nothing"], "no keyframe"),
        (["sql", "my-log", "drop view keyframes"], "one SELECT"),
        (["export", "my-log", "x.csv"], ".parquet, .duckdb or .zip"),
        (["delete", "my-log", "--keyframes", "nothing"], "no keyframe"),
        (["delete", "my-log", "--where", "no condition"], "Parser Error"),
        (["gc", "my-log", "--older-than", "0"], "3600 seconds"),
        (["import", "my-log", "missing"], "is no log"),
    ],
)
def test_what_cannot_be_carried_out_exits_2_in_one_sentence(log, capsys, arguments, words):
    assert main(["log", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert "Traceback" not in told.err
    assert not os.path.exists("missing")  # noqa: PTH110 - relative to where the command ran


def test_it_is_a_command(log):
    command = [sys.executable, "-m", "comfynb", "log", "verify", str(log.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all sound" in done.stdout

"""Logs that leave prompts or workflows out: no row tells them, and their folder says so."""

import dataclasses
import json
import shutil
import zipfile
from datetime import timedelta

import pytest
from log.private import WORDS, pixels, seal, told

from comfynb.errors import LogError, LogWriteError, WorkflowError
from comfynb.keyframes import Failure
from comfynb.log import Log, leaving
from comfynb.log.quotations import unquoted
from comfynb.scenes import LEFT_OUT, Scene
from comfynb.workflows import Workflow

# -- what is written


def test_the_words_are_found_where_they_are_kept(log, secret, record):
    log.add_run(record)
    log.add_result(secret[0], [secret[1]])
    assert {found.split(": ")[1] for found in told(log.folder)} == set(WORDS)
    seal(log)
    assert {found.split(": ")[1] for found in told(log.folder)} == set(WORDS)


def test_no_byte_of_rows_and_pictures_tells_a_prompt(private, secret, record):
    private.add_run(record)
    private.add_result(secret[0], [secret[1]])
    assert told(private.folder) == set()
    seal(private)
    assert list((private.folder / "seg").glob("*.parquet"))
    assert told(private.folder) == set()


def test_ids_numbers_choices_and_timings_stay(private, secret, record):
    keyframe, data = secret
    private.add_run(record)
    private.add_result(keyframe, [data])
    (kept,) = private.keyframes()
    same = ("id", "run", "key", "seed", "timings", "server", "created_at", "status")
    assert all(getattr(kept, name) == getattr(keyframe, name) for name in same)
    assert kept.knobs == {
        "cfg": 2.5,
        "sampler": "euler",
        "steps": 8,
        "lora_2": "zibb.safetensors",
    }
    assert kept.scene == Scene(
        id="moon", title="moon", prompt=LEFT_OUT, seed=3, knobs={"cfg": 2.5, "sampler": "euler"}
    )
    assert (kept.prompt, kept.negative, kept.unknown_words) == ("", "", ())
    assert kept.error == Failure("node_error", "no such word: '…' in '…...'", "3")
    assert kept.warnings == ("cut: …...", "12 steps are few")
    assert pixels(kept.read()) == pixels(data)
    (run,) = private.runs()
    assert run.storyboard["title"] == "Night"
    assert [scene["title"] for scene in run.storyboard["scenes"]] == ["moon", "Two"]
    assert run.cells[0].axes == kept.axes
    assert kept.axes["cfg"] == "2.5"
    assert len(set(run.axes["text"])) == 2, "different labels stay different"
    (row,) = private.df().to_dict("records")
    assert (row["steps"], row["prompt"]) == (8, "")
    assert private.verify().ok


def test_workflows_alone_leave_the_prompts(tmp_path, secret, record):
    log = Log(tmp_path / "log", leave_out=("workflows",))
    keyframe, data = secret
    log.add_run(record)
    log.add_result(keyframe, [data])
    (kept,), (run,) = log.keyframes(), log.runs()
    assert (kept.prompt, kept.scene, kept.warnings) == (
        keyframe.prompt,
        keyframe.scene,
        keyframe.warnings,
    )
    assert log.workflow(kept.id) is None
    assert run.workflow == {}
    assert run.storyboard == record.storyboard
    assert b"velvetine" not in kept.read()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("value not in list: 'a red fox in the s... snow at night'", "value not in list: '…...…'"),
        (r"text: 'line\nsnow fields' is odd", "text: '…' is odd"),
        (r"text: 'caf\u00e9 and fox' is odd", "text: '…' is odd"),
        ("the Fox-word is unknown", "the …-word is unknown"),
        ("ein langer grüner Bär", "ein …"),
        ("CUDA out of memory", "CUDA out of memory"),
        ("雪の中の赤い狐は未知", "雪の中の赤い狐は未知"),
        ("unknown: 夜の雪の中の赤い狐", "unknown: …"),
    ],
)
def test_quotations_are_found_whole_cut_and_escaped(text, left):
    known = ["a red fox in the snowy snow at night", "line\nsnow fields", "café and fox", ""]
    assert unquoted(text, [*known, "langer grüner Bär", "夜の雪の中の赤い狐"]) == left


def test_every_knob_that_names_a_choice_is_a_role_of_workflows():
    from comfynb.workflows.roles import KNOBS

    texts = {"sampler", "scheduler", "aspect_ratio", "checkpoint", "image", "vae"}
    assert texts <= set(KNOBS)
    assert all(leaving._NAMING.fullmatch(name) for name in texts)
    assert not any(leaving._NAMING.fullmatch(name) for name in ("positive", "negative"))


# -- the folder says it


def test_the_folder_says_it_to_every_process(private, secret):
    keyframe, data = secret
    private.add_result(dataclasses.replace(keyframe, id="1"), [data])
    marker = json.loads((private.folder / "comfynb-log.json").read_text())
    assert marker["leaves_out"] == ["prompts", "workflows"]
    other = Log(private.folder)
    assert other.leaves_out == ("prompts", "workflows")
    other.add_result(keyframe, [data])
    other.close()
    assert told(private.folder) == set()
    assert len(private.keyframes()) == 2


def test_a_log_that_was_open_before_the_folder_was_made_hears_of_it(tmp_path, secret):
    keyframe, data = secret
    before = Log(tmp_path / "log")
    assert before.leaves_out == ()
    Log(tmp_path / "log", leave_out="prompts").add_result(
        dataclasses.replace(keyframe, id="1"), [data]
    )
    before.add_result(keyframe, [data])
    assert told(tmp_path / "log") == set()


def test_a_log_whose_folder_was_made_anew_hears_of_it(tmp_path, secret):
    keyframe, data = secret
    before = Log(tmp_path / "log")
    before.add_result(dataclasses.replace(keyframe, id="1"), [data])
    shutil.rmtree(tmp_path / "log")
    private = Log(tmp_path / "log", leave_out="prompts")
    private.add_result(dataclasses.replace(keyframe, id="2"), [data])
    before.add_result(keyframe, [data])
    assert told(tmp_path / "log") == set()
    assert {kept.id for kept in private.keyframes()} == {"2", keyframe.id}


def test_what_a_folder_said_is_said_again_where_it_is_made_anew(private, secret):
    keyframe, data = secret
    private.add_result(dataclasses.replace(keyframe, id="1"), [data])
    other = Log(private.folder)
    other.add_result(dataclasses.replace(keyframe, id="2"), [data])
    shutil.rmtree(private.folder)
    other.add_result(keyframe, [data])
    assert Log(private.folder).leaves_out == ("prompts", "workflows")
    assert told(private.folder) == set()


def test_a_process_may_leave_out_more_than_its_folder_says(log, secret):
    keyframe, data = secret
    log.add_result(
        dataclasses.replace(keyframe, id="1", scene=Scene(id="a", prompt="an owl")), [data]
    )
    later = keyframe.created_at + timedelta(seconds=1)
    more = Log(log.folder, leave_out=["prompts"])
    assert more.leaves_out == ("prompts", "workflows")
    more.add_result(dataclasses.replace(keyframe, created_at=later), [data])
    assert log.leaves_out == ()
    assert [kept.scene.prompt for kept in log.keyframes()] == ["an owl", LEFT_OUT]


@pytest.mark.parametrize("wrong", ["prompt", ["prompts", "seeds"], [7]])
def test_unknown_words_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"can leave out 'prompts' and 'workflows', not"):
        Log(tmp_path / "log", leave_out=wrong)


@pytest.mark.parametrize(
    "listed", [["prompts", "faces"], "prompts, all", 5, {"a": 1}, [["prompts"]], True]
)
def test_a_marker_that_is_not_understood_is_read_and_never_written_to(log, secret, listed):
    keyframe, data = secret
    log.add_result(keyframe, [data])
    marker = log.folder / "comfynb-log.json"
    marker.write_text(json.dumps({"format": "comfynb-log", "version": 1, "leaves_out": listed}))
    other = Log(log.folder)
    assert other.keyframes()[0].read() == data
    for opened in (log, other):
        with pytest.raises(LogWriteError, match=r"leaves out .* appends nothing\. Upgrade"):
            opened.add_result(dataclasses.replace(keyframe, id="2"), [data])
        with pytest.raises(LogWriteError, match="appends nothing"):
            opened.note(keyframe, "a word")
    assert len(other.keyframes()) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": "comfynb-log", "version": 1e999}'])
def test_no_marker_breaks_the_reader(tmp_path, text):
    (tmp_path / "comfynb-log.json").write_text(text)
    with pytest.raises(LogError, match="not the marker of a log"):
        Log(tmp_path)


def test_where_there_are_no_hard_links_the_marker_is_written_too(tmp_path, secret, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("os.link", refuse)
    log = Log(tmp_path / "log", leave_out="workflows")
    log.rate("6d2d4ac6-3f6f-4a0e-9f3a-5c1a51f2b1c7", 4)
    assert Log(log.folder).leaves_out == ("workflows",)
    assert not list(log.folder.glob(".tmp-*"))


# -- care


def test_an_export_leaves_out_what_its_log_does(private, secret, record, tmp_path):
    private.add_run(record)
    private.add_result(secret[0], [secret[1]])
    path = private.export(tmp_path / "x.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    assert Log(tmp_path / "out").leaves_out == ("prompts", "workflows")
    assert told(tmp_path / "out") == set()
    private.export(tmp_path / "tables" / "x.parquet")
    assert told(tmp_path / "tables") == set()
    third = Log(tmp_path / "third", leave_out="prompts")
    third.import_(path)
    assert [kept.id for kept in third.keyframes()] == [secret[0].id]


def test_what_keeps_prompts_is_not_imported_into_what_does_not(log, private, secret, tmp_path):
    keyframe, data = secret
    log.add_result(keyframe, [data])
    for other in (log.folder, log.export(tmp_path / "x.zip")):
        with pytest.raises(LogError, match="leaves out prompts and workflows, and that to be imp"):
            private.import_(other)
    assert told(private.folder) == set()
    private.add_result(dataclasses.replace(keyframe, id="1"), [data])
    log.import_(private.folder)
    assert len(log.keyframes()) == 2


def test_what_was_left_out_cannot_be_asked_for(private, secret, record):
    private.add_run(record)
    private.add_result(secret[0], [secret[1]])
    (kept,) = private.keyframes()
    with pytest.raises(LogError, match="leaves out prompts, so it has no storyboard"):
        private.storyboard("run-1")
    with pytest.raises(WorkflowError, match=r"not kept\. Its log leaves out prompts and workflows"):
        Workflow.load(kept)

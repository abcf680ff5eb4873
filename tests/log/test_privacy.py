"""Logs that leave prompts or workflows out: no byte of theirs tells them, and all else works."""

import dataclasses
import hashlib
import io
import json
import shutil
import zipfile
from datetime import timedelta

import duckdb
import pytest
from PIL import Image, PngImagePlugin
from support import CHECKPOINT, scenes, script, until, wait_for

import comfynb
from comfynb.errors import LogError, LogWriteError, SceneError, WorkflowError
from comfynb.export import write_page
from comfynb.inputs import InputFile
from comfynb.keyframes import Failure, Output
from comfynb.log import CellRecord, Log, RunRecord, leaving, sealing
from comfynb.log.quotations import unquoted
from comfynb.scenes import LEFT_OUT, Scene
from comfynb.widgets.telling import about
from comfynb.workflows import Workflow

WORDS = ("glimmerquark", "velvetine", "quillmoon", "murkfrost", "woolstitch", "mothnote", "zibbel")
"""Words of prompts, negatives, styles, notes and text knobs that stand nowhere else."""


def told(folder, words=WORDS) -> set[str]:
    """Return what a folder tells of some words: every byte, columns of Parquet, texts in PNGs."""
    found = set()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        texts = [path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            with duckdb.connect() as connection:
                rows = connection.execute(f"SELECT to_json(r)::VARCHAR FROM '{path}' AS r")
                texts += [row for (row,) in rows.fetchall()]
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                texts += map(str, image.info.values())
        found |= {f"{path.name}: {word}" for word in words for t in texts if word in t.casefold()}
    return found


def written(mime="image/png", text="velvetine glimmerquark"):
    """Return a picture with a text in its metadata, as ComfyUI would save it."""
    image, file = Image.effect_noise((40, 30), 80).convert("RGB"), io.BytesIO()
    if mime == "image/png":
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", json.dumps({"3": {"inputs": {"text": text}}}), zip=True)
        info.add_text("workflow", text)
        info.add(b"prVt", text.encode())
        image.save(file, "PNG", pnginfo=info)
    elif mime == "image/gif":
        image.convert("P").save(file, "GIF", comment=text.encode())
    else:
        exif = Image.Exif()
        exif[0x010F] = f"workflow:{text}"
        image.save(file, mime.partition("/")[2].upper(), exif=exif)
    return file.getvalue()


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, image.tobytes()


def output(data, mime="image/png", index=0):
    return Output("9", index, hashlib.sha256(data).hexdigest(), mime, len(data), 40, 30)


def seal(log):
    log.close()
    with sealing.database() as connection:
        sealing.adopt(log.folder / "seg", connection)


@pytest.fixture
def secret(make_keyframe):
    """A keyframe that tells of every word in every place, with its picture."""
    data = written()
    scene = Scene(
        id="moon",
        prompt="a velvetine glimmerquark under the quillmoon",
        negative="murkfrost",
        notes="mothnote",
        seed=3,
        knobs={"cfg": 2.5, "Second.text": "zibbel, woolstitch", "sampler": "euler"},
    )
    keyframe = make_keyframe(
        scene=scene,
        status="done",
        prompt=f"{scene.prompt}, woolstitch",
        negative="murkfrost",
        knobs={**scene.knobs, "steps": 8, "lora_2": "zibb.safetensors"},
        axes={"text": "velvetine glimmerquark", "cfg": "2.5"},
        workflow={"3": {"class_type": "Text", "inputs": {"text": "a zibbel in woolstitch"}}},
        outputs=(output(data),),
        error=Failure("node_error", "no such word: 'Velvetine' in 'a velvetine glimmer...'", "3"),
        warnings=("cut: a zibbel in wools...", "12 steps are few"),
        unknown_words=("glimmerquark",),
    )
    return keyframe, data


@pytest.fixture
def record(secret):
    keyframe, _ = secret
    board = {
        "title": "Night",
        "style": "woolstitch",
        "negative": "murkfrost",
        "seed": 3,
        "knobs": {"Second.text": "zibbel", "steps": 8},
        "scenes": [keyframe.scene.to_dict(), {"id": "two", "prompt": "zibbel", "title": "Two"}],
    }
    cell = CellRecord(
        index=0,
        scene="moon",
        key=keyframe.key,
        prompt=keyframe.prompt,
        negative="murkfrost",
        seed=3,
        knobs=keyframe.knobs,
        axes=keyframe.axes,
    )
    return RunRecord(
        id="run-1",
        storyboard=board,
        cells=(cell,),
        workflow=keyframe.workflow,
        axes={"text": ["velvetine glimmerquark", "quillmoon rising"], "cfg": [2.5]},
    )


@pytest.fixture
def private(tmp_path):
    log = Log(tmp_path / "private", leave_out="prompts")
    yield log
    log.close()


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


def test_who_adds_a_keyframe_goes_on_with_what_was_kept_and_what_was_asked(private, secret):
    keyframe, data = secret
    kept = private.add_result(keyframe, [data])
    assert kept.outputs[0].sha256 == hashlib.sha256(kept.read()).hexdigest()
    assert kept.outputs[0].bytes == len(kept.read()) < len(data)
    assert (kept.prompt, kept.workflow) == (keyframe.prompt, keyframe.workflow)
    assert private.keyframes()[0].outputs == kept.outputs


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


@pytest.mark.parametrize("mime", ["image/png", "image/webp", "image/jpeg"])
def test_pictures_keep_their_pixels(private, make_keyframe, mime):
    data = written(mime)
    kept = private.add_result(make_keyframe(status="done", outputs=(output(data, mime),)), [data])
    assert pixels(kept.read()) == pixels(data)
    assert b"velvetine" not in kept.read()
    assert kept.warnings == ()


@pytest.mark.parametrize("tail", [b"velvetine", b"\xff\xfe\x00\x0bvelvetine"])
def test_what_stands_behind_a_jpeg_goes_too(private, make_keyframe, tail):
    data = written("image/jpeg") + tail
    kept = private.add_result(
        make_keyframe(status="done", outputs=(output(data, "image/jpeg"),)), [data]
    )
    assert pixels(kept.read()) == pixels(data)
    assert b"velvetine" not in kept.read()


def test_what_cannot_be_cleaned_is_kept_and_told(private, make_keyframe):
    gif, text, cut = written("image/gif"), b"a velvetine", written()[:-20]
    outputs = (
        output(gif, "image/gif"),
        output(text, "text/plain", 1),
        output(cut, "image/png", 2),
    )
    made = make_keyframe(status="done", outputs=outputs)
    for kept in (private.add_result(made, [gif, text, cut]), *private.keyframes()):
        assert [kept.read(index) for index in range(3)] == [gif, text, cut]
        assert [warning.partition(": the ")[2] for warning in kept.warnings] == [
            "image/gif file is kept as the server sent it and may hold the prompt and workflow",
            "text is kept as the server sent it and may repeat the prompt",
            "image/png file is kept as the server sent it and may hold the prompt and workflow",
        ]


def test_inputs_stay_as_they_are_and_are_named(private, record):
    file = InputFile.of_bytes(written())
    private.add_input(file)
    board = {"scenes": [{"id": "a", "prompt": "zibbel", "knobs": {"image": dict(file)}}]}
    private.add_run(dataclasses.replace(record, storyboard=board))
    assert private.read(file.sha256) == file.data
    (run,) = private.runs()
    assert run.storyboard["scenes"][0]["knobs"] == {"image": dict(file)}
    assert private.verify().unnamed == 0


def test_a_log_that_leaves_nothing_out_keeps_what_the_server_sent(log, secret):
    keyframe, data = secret
    kept = log.add_result(keyframe, [data])
    assert (kept.read(), kept.outputs, log.leaves_out) == (data, keyframe.outputs, ())
    assert "leaves_out" not in json.loads((log.folder / "comfynb-log.json").read_text())


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


# -- end to end

PROMPTS = [
    {"id": "one", "prompt": "a velvetine glimmerquark", "notes": "mothnote"},
    {
        "id": "two",
        "title": "The second",
        "prompt": "zibbel by night",
        "negative": "murkfrost",
        "knobs": {"steps": 2, "Guard.message": ""},
    },
    {
        "id": "bad",
        "prompt": "a quillmoon over hills",
        "knobs": {"Guard.message": "cannot draw 'a quillmoon over hills, wools...': Quillmoon?"},
    },
]


@pytest.fixture
def connect(engine, flow, tmp_path):
    def connect(**options):
        log = Log(tmp_path / "log", **options)
        return comfynb.connect(engine.url, workflow=flow, log=log)

    return connect


async def test_a_studio_leaves_no_word_of_its_prompts_anywhere(engine, connect, tmp_path):
    folder = tmp_path / "log"
    with connect(leave_out=("prompts", "workflows")) as studio:
        made = await studio.run(PROMPTS, style="woolstitch", seed=5)
        assert [k.status for k in made] == ["done", "done", "failed"]
        assert made[0].prompt == "a velvetine glimmerquark, woolstitch"
        assert "glimmerquark" in made[0].unknown_words
        assert "quillmoon" in made[2].error.message
        small = folder / "thumbs"
        await until(lambda: len(list(small.rglob("*.webp"))) == 2)
        assert told(folder) == set()
        seal(studio.log)
    assert list((folder / "seg").glob("*.parquet"))
    assert told(folder) == set()

    # What was made is found, with what the cell itself asks for; what failed is made again.
    known = engine.ended()
    with connect() as studio:
        assert studio.log.leaves_out == ("prompts", "workflows")
        with pytest.raises(LogError, match=r"cannot be resumed: .* Call grid\(scenes\)"):
            studio.resume()
        grid = studio.grid(PROMPTS, style="woolstitch", seed=5)
        again = await grid
        assert [(k.id, k.status) for k in again[:2]] == [(k.id, "cached") for k in made[:2]]
        assert [k.prompt for k in again] == [k.prompt for k in made]
        assert again[1].knobs == made[1].knobs
        assert again[0].read() == made[0].read()
        assert len(engine.ended() - known) == 1
        grid.retry()
        await grid
        assert len(studio.log.takes("bad")) == 3
        grid.close()
        latest = studio.log.sql("select scene, title, prompt, steps from latest order by scene")
        assert list(latest["title"]) == ["bad", "one", "The second"]
        assert set(latest["prompt"]) == {""}
    assert told(folder) == set()


async def test_an_opened_log_shows_its_tiles_by_their_ids(connect, tmp_path):
    with connect(leave_out="prompts") as studio:
        await studio.run(PROMPTS[:2])
    opened = comfynb.open_log(tmp_path / "log")
    grid = opened.grid()
    cells = opened.board().state.cells
    assert [state.status for state in cells] == ["done", "done"]
    assert [state.cell.scene.label for state in cells] == ["one", "The second"]
    assert {state.cell.prompt for state in cells} == {""}
    assert [about(state)["title"] for state in cells] == ["one", "The second"]
    keyframes = [state.keyframe for state in cells]
    page = write_page(keyframes, tmp_path / "page.html")
    assert '<h2 dir="auto">one</h2>' in page.read_text()
    assert told(tmp_path) == set()
    grid.close()
    with pytest.raises(SceneError, match="prompt was left out"), connect() as studio:
        studio.plan([keyframe.scene for keyframe in keyframes])
    opened.close()


KILLED = """
import sys
import comfynb
from support import scenes
url, flow, log = sys.argv[1:]
log = comfynb.Log(log, leave_out="prompts")
studio = comfynb.connect(url, workflow=flow, log=log)
run = studio.run(scenes(2, **{"Guard.seconds": 0.4}))
run.wait()
"""


async def test_what_a_dead_session_sent_is_fetched(engine, connect, flow, tmp_path):
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(flow.graph, default=dict))
    known = engine.ended()
    child = script(KILLED, engine.url, file, tmp_path / "log")
    wait_for(lambda: len(engine.prompts()) == 2)
    child.kill()
    child.communicate()
    with connect() as studio:
        assert len(studio.log.orphans()) == 2
        made = await studio.run(scenes(2, **{"Guard.seconds": 0.4}))
        assert [k.status for k in made] == ["done", "done"]
        assert all(CHECKPOINT.encode() not in k.read() for k in made)
        assert len(engine.ended() - known) == 2
        assert told(tmp_path / "log", ["a fox", "a owl"]) == set()


async def test_two_logs_of_a_folder_in_one_process_each_leave_out_their_own(engine, flow, tmp_path):
    with (
        comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as one,
        comfynb.connect(engine.url, workflow=flow, log=Log(tmp_path / "log")) as same,
        comfynb.connect(
            engine.url, workflow=flow, log=Log(tmp_path / "log", leave_out="prompts")
        ) as two,
    ):
        assert one.log is same.log
        assert two.log.leaves_out == ("prompts", "workflows")
        await two.run(PROMPTS[:1])
        two.log.close()
        assert told(tmp_path / "log") == set()


def test_every_knob_that_names_a_choice_is_a_role_of_workflows():
    from comfynb.workflows.roles import KNOBS

    texts = {"sampler", "scheduler", "aspect_ratio", "checkpoint", "image", "vae"}
    assert texts <= set(KNOBS)
    assert all(leaving._NAMING.fullmatch(name) for name in texts)
    assert not any(leaving._NAMING.fullmatch(name) for name in ("positive", "negative"))

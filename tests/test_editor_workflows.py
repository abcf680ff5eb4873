"""What ComfyUI's editor saved, drawn by a server: converted when it is needed, offline too."""

import json
from contextlib import closing

import httpx
import pytest
from fake_servers import closed_port
from support import CHECKPOINT, scenes
from workflows.drawings import sd15

import comfynb
from comfynb.errors import ServerUnreachableError, WorkflowError
from comfynb.log import Log

QUICK = {"steps": 1, "width": 64, "height": 64, "batch_size": 1}


@pytest.fixture
def ui_file(tmp_path):
    """The editor's first graph, for the engine; its LoraLoader is bypassed."""
    drawing = sd15(mode=4)
    for node in drawing.nodes:
        if node["type"] == "CheckpointLoaderSimple":
            node["widgets_values"] = [CHECKPOINT]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(drawing.saved()))
    return path


@pytest.fixture(scope="module")
def object_info(shared_engine):
    return httpx.get(f"{shared_engine.url}/object_info", trust_env=False).json()


@pytest.fixture
def nowhere():
    return f"http://127.0.0.1:{closed_port()}"


async def test_a_workflow_of_the_editor_is_drawn(engine, ui_file, tmp_path):
    async with comfynb.connect(engine.url, workflow=ui_file, log=tmp_path / "log") as studio:
        keyframes = await studio.run(scenes(2), knobs=QUICK)
        assert [keyframe.status for keyframe in keyframes] == ["done", "done"]
        assert (studio.workflow.name, studio.workflow.form) == ("mine", "UI")


async def test_a_keyframe_from_the_log_is_a_workflow_again(engine, ui_file, tmp_path):
    async with comfynb.connect(engine.url, workflow=ui_file, log=tmp_path / "log") as studio:
        (made,) = await studio.run(scenes(1), knobs=QUICK)
    with closing(comfynb.open_log(tmp_path / "log").log) as log:
        (read,) = log.keyframes()
        assert read.workflow is None  # lists come without
        again = comfynb.connect(engine.url, workflow=read, log=log)
        async with again as studio:
            assert studio.workflow.form == "keyframe"
            (same,) = await studio.run(scenes(1))
    assert (same.status, same.key) == ("cached", made.key)


def test_connect_sends_nothing_for_it(nowhere, ui_file):
    with comfynb.connect(nowhere, workflow=ui_file, log=False) as studio:
        assert "workflow mine" in repr(studio)
        with pytest.raises(ServerUnreachableError):
            studio.workflow  # noqa: B018 - reading it asks the server


def test_what_the_log_kept_converts_it_without_a_server(nowhere, ui_file, tmp_path, object_info):
    with closing(Log(tmp_path / "log")) as log:
        log.keep_object_info(nowhere.removeprefix("http://"), object_info)
    with comfynb.connect(nowhere, workflow=ui_file, log=tmp_path / "log") as studio:
        assert studio.workflow.knobs["steps"].value == 20
        (cell,) = studio.plan(["a fox"]).cells
        assert cell.graph["6"]["inputs"]["text"] == "a fox"
        assert len(cell.key) == 64


def test_a_class_that_was_installed_since_is_asked_for(engine, ui_file, tmp_path, object_info):
    old = {name: info for name, info in object_info.items() if name != "KSampler"}
    with closing(Log(tmp_path / "log")) as log:
        log.keep_object_info(engine.url.removeprefix("http://"), old)
    with comfynb.connect(engine.url, workflow=ui_file, log=tmp_path / "log") as studio:
        assert studio.workflow.graph["3"]["class_type"] == "KSampler"


def test_a_class_that_the_server_lacks_is_named(engine, tmp_path):
    saved = sd15().saved()  # with a LoraLoader
    with (
        comfynb.connect(engine.url, workflow=saved, log=tmp_path / "log") as studio,
        pytest.raises(WorkflowError, match="node 10 is of the class 'LoraLoader'"),
    ):
        studio.render(["a fox"])


def test_the_embedded_engine_needs_not_be_started_for_it(ui_file, tmp_path):
    with comfynb.connect("embedded", workflow=ui_file, log=tmp_path / "log") as studio:
        assert studio.workflow.knobs["checkpoint"].value == CHECKPOINT


def test_a_chosen_checkpoint_replaces_its_own(engine, ui_file, tmp_path):
    log = tmp_path / "log"
    with comfynb.connect(engine.url, workflow=ui_file, checkpoint="x.ckpt", log=log) as studio:
        assert studio.workflow.knobs["checkpoint"].value == "x.ckpt"


def test_connect_says_a_form_that_is_not_plain(nowhere, ui_file, capsys):
    comfynb.connect(nowhere, workflow=ui_file, log=False).close()
    assert "workflow mine: UI" in capsys.readouterr().err
    comfynb.connect(nowhere, workflow="txt2img", log=False).close()
    assert capsys.readouterr().err == ""

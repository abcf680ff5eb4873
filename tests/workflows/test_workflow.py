"""Loading workflows, and setting knobs without changing anything."""

import json
from copy import deepcopy

import pytest

from comfynb.errors import WorkflowError
from comfynb.workflows import LIBRARY, Workflow, leaf_nodes

from . import graphs


def test_the_library_has_the_models_own_defaults():
    workflow = Workflow.load("txt2img")
    assert workflow.name == "txt2img"
    assert {name: knob.value for name, knob in workflow.knobs.items()} == {
        "positive": "",
        "negative": "",
        "seed": 0,
        "steps": 16,
        "cfg": 4,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "denoise": 1,
        "width": 256,
        "height": 256,
        "batch_size": 1,
        "checkpoint": "",
    }


def test_the_library_can_start_from_an_image():
    knobs = Workflow.load("img2img").knobs
    assert knobs["image"].value == ""
    assert knobs["denoise"].value < 1
    assert {"positive", "negative", "seed", "width", "height", "checkpoint"} < set(knobs)


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_ends_in_one_saved_image(name):
    graph = Workflow.load(name).graph
    assert [graph[leaf]["class_type"] for leaf in leaf_nodes(graph)] == ["SaveImage"]


def test_a_checkpoint_is_needed_until_one_is_chosen():
    workflow = Workflow.load("txt2img")
    assert workflow.needs_checkpoint
    assert not workflow.with_knobs({"checkpoint": "x"}).needs_checkpoint
    assert not Workflow.load(graphs.sd15()).needs_checkpoint
    assert not Workflow.load(graphs.no_sampler()).needs_checkpoint


def test_a_file_is_named_without_its_suffix(tmp_path):
    path = tmp_path / "flux.dev.json"
    path.write_text("\ufeff" + json.dumps(graphs.sd15()))
    for source in (path, str(path)):
        workflow = Workflow.load(source)
        assert (workflow.name, workflow.graph) == ("flux.dev", graphs.sd15())


def test_a_dict_is_copied():
    graph = graphs.sd15()
    workflow = Workflow.load(graph)
    graph["3"]["inputs"]["steps"] = 99
    assert workflow.graph == graphs.sd15()


def test_a_file_without_suffix_is_found_and_the_librarys_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "txt2img"):
        (tmp_path / name).write_text(json.dumps(graphs.sd15()))
    assert Workflow.load("mine").graph == graphs.sd15()
    assert Workflow.load("txt2img").needs_checkpoint


def test_setting_knobs_changes_nothing_but_the_result():
    workflow = Workflow.load(graphs.sd15())
    before = deepcopy(workflow.graph)
    made = workflow.with_knobs({"steps": 8, "cfg": 3, "positive": "a fox", "5.width": 320})
    assert workflow.graph == before
    assert workflow.knobs["steps"].value == 20
    assert [made.knobs[name].value for name in ("steps", "cfg", "positive", "width")] == [
        8,
        3,
        "a fox",
        320,
    ]
    assert made.graph["7"] is workflow.graph["7"]


def test_no_knobs_give_an_equal_workflow():
    workflow = Workflow.load("txt2img")
    assert workflow.with_knobs({}) == workflow == Workflow.load("txt2img")
    assert workflow.with_knobs({"steps": 3}) != workflow
    assert hash(workflow) == hash(Workflow.load("txt2img"))


def test_the_repr_is_short():
    assert repr(Workflow.load(graphs.sd15())) == "Workflow(name='workflow', form='API')"


BAD_FILES = {
    "html": ("<html>", "the file is not JSON .*no PNG, WebP or JPEG"),
    "binary": (b"\x89PNG\r\n", "the file is not JSON"),
    "deep": ("[" * 200_000, "the file is not JSON"),
    "digits": ("[" + "9" * 6000 + "]", "the file is not JSON"),
    "list": ("[1]", r"must be a mapping of nodes, not \[1\] \(list\)"),
    "NaN": (
        '{"1": {"class_type": "X", "inputs": {"cfg": NaN}}}',
        r"node '1' \(X\).*nan cannot be sent",
    ),
    "empty": ("{}", "the workflow has no nodes"),
    "editor": (
        '{"nodes": [{"id": 1, "type": "X"}], "links": [], "version": 0.4}',
        r"ComfyUI's own editor.*comfynb\.connect.*Export \(API\)",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(WorkflowError, match=message) as caught:
        Workflow.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named_with_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkflowError, match=rf"^nope.json: .*No such file.*{tmp_path.name}"):
        Workflow.load("nope.json")


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(WorkflowError, match="bigger than 10 MB"):
        Workflow.load(path)


def test_a_name_that_is_neither_is_told_the_library():
    with pytest.raises(
        WorkflowError, match=r"no workflow 'txt2image'.*has 'txt2img' and 'img2img'"
    ):
        Workflow.load("txt2image")


@pytest.mark.parametrize("source", [None, 3, ["txt2img"]])
def test_what_is_no_workflow_is_refused(source):
    with pytest.raises(WorkflowError, match="cannot be loaded from"):
        Workflow.load(source)

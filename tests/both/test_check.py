"""What a server would refuse is named before the first POST, and it is what the server refuses."""

from __future__ import annotations

import uuid

import httpx
import plain
import pytest

import comfynb
from comfynb.errors import KnobValueError, WorkflowCheckError
from comfynb.testing import FaultProxy
from comfynb.workflows import NodeTypes, Workflow, check_graphs


def sampled():
    """A graph with a checkpoint that neither server has."""
    return Workflow.load("txt2img").with_knobs({"checkpoint": "gone.safetensors"}).graph


def from_image(name):
    return {
        "image": plain.node("LoadImage", image=name),
        "save": plain.node("SaveImage", images=["image", 0], filename_prefix="x"),
    }


def empty(**changes):
    size = {"width": 64, "height": 64, "batch_size": 1, "color": 0} | changes
    return {
        "image": plain.node("EmptyImage", **size),
        "save": plain.node("SaveImage", images=["image", 0], filename_prefix="x"),
    }


def scaled(**changes):
    how = {"upscale_method": "area", "width": 32, "height": 32, "crop": "disabled"} | changes
    graph = empty()
    graph["scale"] = plain.node("ImageScale", image=["image", 0], **how)
    graph["save"]["inputs"]["images"] = ["scale", 0]
    return graph


def without(graph, node_id):
    return {key: node for key, node in graph.items() if key != node_id}


REFUSED = {
    "node type": ({**empty(), "x": plain.node("EmptyImge")}, "did you mean 'EmptyImage'"),
    "checkpoint": (sampled(), "no checkpoint 'gone.saf"),
    "choice": (scaled(upscale_method="bicubik"), "did you mean 'bicubic'"),
    "too small": (empty(width=0), "it takes 1 to"),
    "too large": (empty(width=999_999), "it takes 1 to"),
    "type": (empty(width="wide"), "it takes a whole number, not the text 'wide'"),
    "missing input": (
        empty() | {"save": plain.node("SaveImage", images=["image", 0])},
        "required and missing",
    ),
    "image": (from_image("gone.png"), "no image 'gone.png'"),
    "output": (without(empty(), "save"), "no output node"),
}

TAKEN = {
    "a sound graph": scaled(),
    "a number as text": empty(width="64"),
    "a fraction": empty(width=64.9),
    "a bad node that nothing needs": {**empty(), "x": empty(width=0)["image"]},
    "a bad branch": {
        **empty(),
        "bad": empty(width=0)["image"],
        "skipped": plain.node("SaveImage", images=["bad", 0], filename_prefix="x"),
    },
}


@pytest.fixture
def proxy(server):
    with FaultProxy(server.url) as proxy:
        yield proxy


def checked(server, graph):
    node_types = NodeTypes.of(server.get("/object_info"))
    return check_graphs([("scene", graph)], node_types, server="gpu")


def posted(server, graph):
    body = {"prompt": graph, "prompt_id": str(uuid.uuid4())}
    return httpx.post(f"{server.url}/prompt", json=body, trust_env=False).status_code


@pytest.mark.parametrize(("graph", "message"), REFUSED.values(), ids=REFUSED)
async def test_it_is_named_and_nothing_is_sent(proxy, server, tmp_path, graph, message):
    flow = Workflow.load(graph)
    with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
        with pytest.raises(WorkflowCheckError) as raised:
            await studio.run([{"prompt": "a"}, {"prompt": "b"}])
        assert message in str(raised.value)
        assert studio.check(["a"]).errors
    assert proxy.requests["POST /prompt"] == 0
    assert posted(server, graph) == 400


@pytest.mark.parametrize("graph", TAKEN.values(), ids=TAKEN)
def test_what_the_server_takes_is_not_refused(server, graph):
    assert checked(server, graph).ok
    assert posted(server, graph) == 200


async def test_a_scene_that_is_out_of_range_fails_alone(proxy, tmp_path):
    flow = Workflow.load(empty())
    scenes = [{"prompt": "a", "knobs": {"image.width": side}} for side in (32, 0, 48)]
    with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
        keyframes = await studio.run(scenes)
        assert [k.status for k in keyframes] == ["done", "failed", "done"]
        assert keyframes[1].error.kind == "invalid"
        assert keyframes[1].error.node == "image (EmptyImage.width)"
        assert [k.id for k in studio.log.keyframes(status="failed")] == [keyframes[1].id]
    assert proxy.requests["POST /prompt"] == 2


async def test_what_is_set_for_all_scenes_is_refused_at_once(proxy, tmp_path):
    flow = Workflow.load(empty())
    with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
        assert studio.check(["a"]).ok  # from here on the ranges are known
        for value in (0, 33.9, "wide"):
            with pytest.raises(KnobValueError, match=r"node image, EmptyImage.width\) takes"):
                studio.run(["a"], knobs={"image.width": value})
    assert proxy.requests["POST /prompt"] == 0


async def test_the_server_is_asked_for_its_node_types_once(proxy, tmp_path):
    with comfynb.connect(proxy.url, workflow=plain.flow(), log=tmp_path / "log") as studio:
        await studio.run(plain.scenes(2))
        await studio.run(plain.scenes(2))
        assert "whole number" in repr(studio.workflow.knobs)
        assert studio.check(plain.scenes(1)).ok
    assert proxy.requests["GET /object_info"] == 1
    assert proxy.requests["POST /prompt"] == 4


async def test_a_list_that_grew_since_refuses_nothing(proxy, server, tmp_path):
    old = server.get("/object_info")
    old["EmptyImage"]["input"]["required"]["width"][1]["max"] = 32
    with comfynb.connect(
        proxy.url, workflow=Workflow.load(empty()), log=tmp_path / "log"
    ) as studio:
        studio.log.keep_object_info(studio.server, old)
        assert studio.workflow.knob("image.width").maximum == 32
        (made,) = await studio.run(["a"], knobs={"image.width": 48})
        assert (made.status, made.outputs[0].width_px) == ("done", 48)
    assert proxy.requests["GET /object_info"] == 1


def test_a_table_of_knobs_asks_a_server_that_is_there(server, tmp_path):
    with comfynb.connect(server.url, workflow=sampled(), log=tmp_path / "log") as studio:
        assert "whole number, 1 to 10000" in repr(studio.workflow.knobs)
        assert studio.workflow.knobs["steps"].maximum == 10000

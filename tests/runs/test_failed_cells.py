"""A cell that fails is a value like any other, with ComfyUI's own reason; the rest goes on."""

from __future__ import annotations

import pytest
from support import guarded_graph, scenes

import comfynb
from comfynb.errors import KeyframeFailedError
from comfynb.testing import Fail, FaultProxy
from comfynb.workflows import Workflow


@pytest.fixture
def studio(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        yield studio


def broken(scene_id, **knobs):
    return {"id": scene_id, "prompt": "a castle", "seed": 7, "knobs": knobs}


async def test_a_node_that_raises_and_a_graph_that_is_refused_fail_alone(studio, engine):
    before = engine.ended()
    keyframes = await studio.run(
        [
            *scenes(2),
            broken("raises", **{"Guard.message": "out of clay"}),
            broken("refused", width=-1),
            broken("unknown", sampler="no_such_sampler"),
            {"prompt": "a rocket"},
        ]
    )
    assert [k.status for k in keyframes] == ["done"] * 2 + ["failed"] * 3 + ["done"]

    raised, refused, unknown = keyframes[2:5]
    assert raised.error.kind == "node_error"
    assert "out of clay" in raised.error.message
    assert raised.error.node == "guard (Guard)"
    assert refused.error.kind == unknown.error.kind == "invalid"
    assert "it takes 64 to 512, not -1" in refused.error.message
    assert refused.error.node.endswith("(EmptyLatentImage.width)")
    assert "no_such_sampler" in unknown.error.message
    assert unknown.error.node.endswith("(KSampler.sampler_name)")
    assert all(k.error.hint for k in (raised, refused, unknown))
    # Three pictures and the one that raised; of the refused ones nothing was run.
    assert len(engine.ended() - before) == 4

    failed = {k.id: k.error for k in studio.log.keyframes(status="failed")}
    assert failed == {k.id: k.error for k in (raised, refused, unknown)}
    with pytest.raises(KeyframeFailedError, match="out of clay"):
        comfynb.raise_for_failed(keyframes)


async def test_a_branch_that_the_server_skips_is_a_warning_on_the_picture(engine, tmp_path):
    graph = guarded_graph()
    size = {"width": -1, "height": 64, "batch_size": 1, "color": 0}
    graph["empty"] = {"class_type": "EmptyImage", "inputs": size}
    graph["skipped"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["empty", 0], "filename_prefix": "skipped"},
    }
    flow = Workflow.load(graph)
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        (keyframe,) = await studio.run(scenes(1))
    assert keyframe.status == "done"
    assert len(keyframe.outputs) == 1
    assert any("smaller than min" in warning for warning in keyframe.warnings)


async def test_a_server_in_trouble_fails_the_cell_with_its_own_words(engine, flow, tmp_path):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail(nth=2, status=500, accepted=False, body="the disk of the server is full"))
        with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
            keyframes = await studio.run(scenes(3))
            assert sorted(k.status for k in keyframes) == ["done", "done", "failed"]
            (failed,) = (k for k in keyframes if not k.ok)
            assert failed.error.kind == "server_error"
            assert "the disk of the server is full" in failed.error.message
            assert failed.error.hint
            assert [k.status for k in await studio.run(scenes(3))].count("done") == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_door_that_closes_in_the_middle_fails_cells_and_says_what_opens_it(
    engine, flow, tmp_path, status
):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail(nth=2, times=None, status=status, accepted=False))
        with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
            keyframes = await studio.run(scenes(3))
            assert [k.status for k in keyframes].count("done") == 1
            for failed in (k for k in keyframes if not k.ok):
                assert failed.error.kind == "access_denied"
                assert "token" in failed.error.message

"""What a user does every day, on both servers: each picture comes once, at once, and is kept."""

from __future__ import annotations

import asyncio
import contextlib

import plain
import pytest

import comfynb
from comfynb.log import Log
from comfynb.testing import FaultProxy
from comfynb.workflows import Workflow


@pytest.fixture
def studio(server, tmp_path):
    with comfynb.connect(server.url, workflow=plain.flow(), log=tmp_path / "log") as studio:
        yield studio


async def test_each_picture_is_yielded_once_and_is_in_the_log_before_that(studio, server):
    before, given = server.ended(), []
    async with contextlib.aclosing(studio.keyframes(plain.scenes(6))) as keyframes:
        async for keyframe in keyframes:
            kept = Log(studio.log.folder, read_only=True).keyframes()
            assert keyframe.id in {k.id for k in kept}
            given.append(keyframe)
    assert [k.status for k in given] == ["done"] * 6, [str(k.error) for k in given]
    assert len({k.id for k in given}) == len({k.key for k in given}) == 6
    assert len(server.ended() - before) == 6


async def test_the_bytes_kept_are_those_that_the_server_has(studio, server):
    before = server.ended()
    kept = {k.read() for k in await studio.run(plain.scenes(3))}
    assert kept == {
        server.get_bytes("/view", **picture)
        for prompt_id in server.ended() - before
        for picture in server.get(f"/history/{prompt_id}")[prompt_id]["outputs"]["save"]["images"]
    }
    assert len(kept) == 3


async def test_a_picture_costs_two_requests(server, tmp_path):
    with (
        FaultProxy(server.url) as proxy,
        comfynb.connect(proxy.url, workflow=plain.flow(), log=tmp_path / "log") as studio,
    ):
        await studio.run(plain.scenes(1))  # looks at the server, and opens the socket
        before = proxy.requests.copy()
        assert [k.status for k in await studio.run(plain.scenes(10))] == ["done"] * 10
        assert proxy.requests - before == {"POST /prompt": 10, "GET /view": 10}


async def test_runs_at_the_same_time_share_the_server_and_each_gets_its_own(studio, server):
    before = server.ended()
    lots = [plain.scenes(4) for _ in range(3)]
    results = await asyncio.gather(*(awaited(studio.run(lot)) for lot in lots))
    for lot, keyframes in zip(lots, results, strict=True):
        assert [k.scene.seed for k in keyframes] == [scene["seed"] for scene in lot]
        assert [k.status for k in keyframes] == ["done"] * 4
    assert len(server.ended() - before) == 12


async def awaited(run):
    return await run


async def test_a_prompt_that_the_server_has_cached_gives_its_picture_again(server, tmp_path):
    """The log is another one, so it is sent; the server runs no node, and names the old file."""
    scene, flow = plain.scenes(1), plain.flow()
    given = []
    for folder in ("a", "b"):
        with comfynb.connect(server.url, workflow=flow, log=tmp_path / folder) as studio:
            given += await studio.run(scene)
    first, second = given
    assert (first.status, second.status) == ("done", "done")
    assert (first.server_cached, second.server_cached) == (False, True)
    assert first.read() == second.read()
    assert first.id != second.id


async def test_a_prompt_that_is_partly_cached_runs_what_differs(studio, server):
    (scene,) = plain.scenes(1)
    (first,) = await studio.run([scene])
    (second,) = await studio.run([{**scene, "knobs": {"Guard.seconds": 0.01}}])
    assert not second.server_cached
    assert first.status == second.status == "done"
    assert first.image.tobytes() == second.image.tobytes()


async def test_a_failing_node_fails_its_cell_and_is_named(studio):
    fine, bad, also_fine = plain.scenes(3)
    bad["knobs"] = {"Guard.message": "no more film"}
    keyframes = await studio.run([fine, bad, also_fine])
    assert [k.status for k in keyframes] == ["done", "failed", "done"]
    error = keyframes[1].error
    assert (error.kind, error.message, error.node) == (
        "node_error",
        "no more film",
        "guard (Guard)",
    )
    assert error.hint


async def test_a_node_that_is_blocked_does_not_end_its_prompt(server, tmp_path):
    flow = Workflow.load(plain.blocked())
    with comfynb.connect(server.url, workflow=flow, log=tmp_path / "log") as studio:
        (keyframe,) = await studio.run(plain.scenes(1))
    assert keyframe.read().startswith(b"\x89PNG")
    assert keyframe.status == "done", keyframe.error
    assert any("not this one" in warning for warning in keyframe.warnings), keyframe.warnings


async def test_every_picture_of_several_output_nodes_is_kept(server, tmp_path):
    flow = Workflow.load(plain.several())
    with comfynb.connect(server.url, workflow=flow, log=tmp_path / "log") as studio:
        (keyframe,) = await studio.run(plain.scenes(1))
    assert keyframe.status == "done", keyframe.error
    assert [(o.node, o.index) for o in keyframe.outputs] == [("save", 0), ("save", 1), ("show", 0)]


async def test_a_picture_that_comes_over_the_socket_is_no_other_one(server, tmp_path):
    flow = Workflow.load(plain.by_socket())
    with comfynb.connect(server.url, workflow=flow, log=tmp_path / "log") as studio:
        keyframes = await studio.run(plain.scenes(3))
    assert [k.status for k in keyframes] == ["done"] * 3, [str(k.error) for k in keyframes]
    assert len({k.read() for k in keyframes}) == 3


async def test_a_graph_that_the_server_refuses_costs_only_its_own_cell(studio, server):
    before = server.ended()
    given = plain.scenes(20)
    given[7]["knobs"] = {"Guard.message": "refuse me"}
    keyframes = await studio.run(given)
    assert [k.status for k in keyframes].count("done") == 19
    refused = keyframes[7]
    assert (refused.status, refused.error.kind) == ("failed", "rejected")
    assert "refuse me" in refused.error.message
    assert refused.error.node == "guard (Guard)"
    assert len(server.ended() - before) == 19

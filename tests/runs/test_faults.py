"""Faults that want more than a row of the matrix (tests/both/fault_matrix.py) to tell."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json

import pytest
from support import scenes, studio_on, until

import comfynb
from comfynb.log import Log
from comfynb.testing import Cut, DropAnswer, Fail, FaultProxy, HalfOpen, RequestRule

NEW = itertools.count(1000, 9)
"""An engine keeps the results of its last prompt: a scene that it knows would make no progress."""


async def nine(studio):
    """Render nine scenes as a user does; check that each came once, and is kept once."""
    given = []
    async with contextlib.aclosing(studio.keyframes(scenes(9, first=next(NEW)))) as keyframes:
        async for keyframe in keyframes:
            given.append(keyframe)  # noqa: PERF401 - one by one is what is tested
    assert [k.status for k in given] == ["done"] * 9, [str(k.error) for k in given]
    assert len({k.id for k in given}) == len({k.key for k in given}) == 9
    kept = Log(studio.log.folder, read_only=True).keyframes()
    assert sorted(k.id for k in kept) == sorted(k.id for k in given)
    assert all(k.read().startswith(b"\x89PNG") for k in given)
    return given


@dataclasses.dataclass(frozen=True, slots=True)
class Overtaken(RequestRule):
    """Cut the connection of a request that reaches the server only after that."""

    route: str = "POST /prompt"

    async def handle(self, forward):
        asyncio.get_running_loop().create_task(self._later(forward))
        return dataclasses.replace(await DropAnswer(accepted=False).handle(forward))

    async def _later(self, forward):
        await asyncio.sleep(0.5)
        await forward()


async def test_a_post_that_arrives_after_its_connection_broke_is_not_sent_again(
    engine, fault_proxy, flow, tmp_path
):
    before = engine.ended()
    fault_proxy.add(Overtaken(nth=3))
    with comfynb.connect(fault_proxy.url, workflow=flow, log=tmp_path / "log") as studio:
        await nine(studio)
    assert fault_proxy.requests["POST /prompt"] == 9
    assert len(engine.ended() - before) == 9


async def test_a_long_prompt_of_which_nothing_is_heard_is_asked_about_ever_less(
    fault_proxy, flow, tmp_path
):
    long = [{"prompt": "a slow fox", "knobs": {"Guard.seconds": 1.8}}]
    fault_proxy.add(Cut("progress", progress=0.02))
    with comfynb.connect(fault_proxy.url, workflow=flow, log=tmp_path / "log") as studio:
        assert [k.status for k in await studio.run(long)] == ["done"]
    # 0.05 s, then doubling up to one second.
    assert fault_proxy.requests["GET /queue"] <= 8


async def test_a_picture_whose_file_is_gone_is_made_once_more(own_engine, flow, tmp_path):
    """The server reported it, and restarted before it was read: its file was temporary."""
    with FaultProxy(own_engine.url) as proxy:
        gone = proxy.add(Fail("GET /view", nth=3, status=404, accepted=False, body="gone"))
        with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
            await nine(studio)
        assert gone.applied == 1
        assert proxy.requests["POST /prompt"] == 10


@pytest.mark.long
async def test_a_half_open_socket_is_found_out_and_replaced(fault_proxy, flow, tmp_path):
    fault_proxy.add(HalfOpen("progress", prompt=2))
    studio = studio_on(fault_proxy.url, workflow=flow, log=tmp_path / "log", silence=0.3)
    keyframes = studio.run(scenes(2)).keyframes()
    assert [k.status async for k in keyframes] == ["done"] * 2
    await until(lambda: fault_proxy.requests["WS /ws"] == 2)  # no pong came within 5 s
    asked = fault_proxy.requests["GET /queue"]
    assert [k.status for k in await studio.run(scenes(4), force=True)] == ["done"] * 4
    assert fault_proxy.requests["GET /queue"] == asked  # the new one is heard
    await studio.aclose()


async def test_a_run_that_begins_while_the_server_is_away_waits_for_it(fault_proxy, flow, tmp_path):
    with comfynb.connect(fault_proxy.url, workflow=flow, log=tmp_path / "log") as studio:
        await studio.run(scenes(1))
        fault_proxy.kill()  # what was kept open is broken, and the server is there
        assert [k.status for k in await studio.run(scenes(2))] == ["cached", "done"]
        fault_proxy.down()
        await until(lambda: not fault_proxy.open_sockets)
        run = studio.run(scenes(3))
        await asyncio.sleep(0.5)  # the outage
        fault_proxy.up()
        assert [k.status for k in await run] == ["cached", "cached", "done"]


async def test_a_queue_that_somebody_clears_costs_one_more_attempt(engine, flow, tmp_path):
    slow = flow.with_knobs({"Guard.seconds": 0.5})
    studio = studio_on(engine.url, workflow=slow, log=tmp_path / "log", silence=0.2)
    run = studio.run(scenes(3))
    await until(lambda: len(engine.prompts()) == 2)
    engine.post("/queue", {"clear": True})
    assert [k.status for k in await run] == ["done"] * 3
    assert len(studio.log.keyframes()) == 3
    await studio.aclose()


@dataclasses.dataclass(frozen=True, slots=True)
class NothingRuns(RequestRule):
    """Show a queue in which everything waits: what a dead worker leaves behind."""

    route: str = "GET /queue"

    async def handle(self, forward):
        reply = await forward()
        body = json.loads(reply.body)
        body["queue_pending"] += body["queue_running"]
        body["queue_running"] = []
        headers = [("Content-Type", "application/json")]
        return dataclasses.replace(reply, headers=headers, body=json.dumps(body).encode())


async def test_a_dead_worker_fails_what_is_left_and_says_what_helps(
    engine, fault_proxy, flow, tmp_path
):
    before_ours = engine.post_prompt(**{"Guard.seconds": 20})  # ours wait behind it
    fault_proxy.add(NothingRuns(times=None))
    studio = studio_on(
        fault_proxy.url, workflow=flow, log=tmp_path / "log", silence=0.2, dead_after=0.6
    )
    keyframes = await studio.run(scenes(9))
    assert before_ours in engine.prompts(), "nobody waited for its 20 s"
    assert {k.status for k in keyframes} == {"failed"}
    assert {k.error.kind for k in keyframes} == {"worker_dead"}
    assert "restart ComfyUI" in keyframes[0].error.hint
    await until(lambda: len(engine.prompts()) == 1)  # ours would only come as a surprise
    await studio.aclose()

"""kill -9 of the kernel: what it had sent is fetched by the next one, and nothing is made twice."""

from __future__ import annotations

import dataclasses
import json
import uuid

import pytest
from support import scenes, script, studio_on, until, wait_for

import comfynb
from comfynb.log.records import result_id
from comfynb.testing import FaultProxy

COUNT = 4
SECONDS = 0.4
CONNECT = f"""
import sys
import comfynb
from support import scenes
url, flow, log = sys.argv[1:]
studio = comfynb.connect(url, workflow=flow, log=log)
scenes = scenes({COUNT}, **{{"Guard.seconds": {SECONDS}}})
"""
VICTIM = """
import asyncio, os, signal
async def main():
    async for keyframe in studio.run(scenes):
        print(keyframe.id, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
asyncio.run(main())
"""
ADOPTER = """
print(len(studio.log.orphans()), flush=True)
sys.stdin.readline()
studio.run(scenes).wait()
"""
SCENES = scenes(COUNT, **{"Guard.seconds": SECONDS})


@pytest.fixture
def kill(flow, tmp_path):
    """Have a child begin with `SCENES` and kill it when one is safe, one runs and one waits."""
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(flow.graph, default=dict))

    def kill(engine, *, unfetched: int = 0, url: str = "") -> None:
        """Kill it; so many of its prompts come to their end while it is stopped."""
        child = script(CONNECT + VICTIM, url or engine.url, file, tmp_path / "log")
        child.stdout.readline()
        wait_for(lambda: len(engine.prompts()) <= 2 - unfetched)
        child.kill()
        child.communicate()

    return kill


@pytest.fixture
def connect(flow, tmp_path):
    def connect(url):
        return comfynb.connect(url, workflow=flow, log=tmp_path / "log")

    return connect


def sent(studio) -> list[str]:
    """Ids of every prompt that any session sent, in order."""
    return list(studio.log.sql("select prompt_id from submitted order by created_at")["prompt_id"])


@pytest.mark.parametrize("unfetched", [0, pytest.param(2, marks=pytest.mark.long)])
async def test_what_a_killed_kernel_had_sent_is_fetched_and_not_sent_again(
    engine, connect, kill, unfetched
):
    before = engine.ended()
    kill(engine, unfetched=unfetched)
    stranger = engine.post_prompt(**{"Guard.seconds": 0.2})
    with connect(engine.url) as studio:
        dead, left = sent(studio), studio.log.orphans()
        assert left
        assert {record.prompt_id for record in left} < set(dead)
        assert all(k.ok for k in await studio.run(SCENES))
        rows = studio.log.keyframes()
        assert [k.status for k in rows] == ["done"] * COUNT
        assert {k.id for k in rows} == set(map(result_id, sent(studio)))
        assert all(k.read().startswith(b"\x89PNG") for k in rows)
        ours = sent(studio)
        assert (len(ours), ours[: len(dead)]) == (COUNT, dead)
    await until(lambda: stranger in engine.ended())
    assert engine.ended() - before == {*ours, stranger}
    assert engine.get(f"/history/{stranger}")[stranger]["status"]["status_str"] == "success"


async def test_resuming_makes_what_is_missing_and_a_second_time_nothing(engine, connect, kill):
    kill(engine, unfetched=1)
    with connect(engine.url) as studio:
        run = studio.resume()
        first = await run
        assert all(k.ok for k in first)
        assert len(sent(studio)) == COUNT
        made = engine.ended()
        for again in (studio.resume(), studio.resume(run.id), studio.grid(resume=True)):
            assert [(k.id, k.status) for k in await again] == [(k.id, "cached") for k in first]
        assert engine.ended() == made
        assert len(sent(studio)) == COUNT


async def test_what_a_restarted_server_forgot_is_lost_or_sent_once_more_as_one_likes(
    own_engine, connect, kill
):
    kill(own_engine)
    own_engine.kill()
    own_engine.start()
    label = own_engine.url.partition("//")[2]
    with connect(own_engine.url) as studio:
        left, before = len(studio.log.orphans()), len(sent(studio))
        for _ in range(2):  # nothing was decided about them: asked again, the answer is the same
            keyframes = await studio.resume(resubmit_lost=False)
            lost = [k for k in keyframes if k.status == "lost"]
            assert len(lost) == left
            assert all(k.ok for k in keyframes if k not in lost)
            assert {k.error.kind for k in lost} == {"lost"}
            assert all(k.server == label in k.error.message for k in lost)
        assert len(sent(studio)) == COUNT  # those that had never been sent
        assert all(k.ok for k in await studio.resume())
        assert len(sent(studio)) == COUNT + left
        assert own_engine.ended() == set(sent(studio)[before:])


async def test_what_somebody_stopped_meanwhile_is_made_when_it_is_wanted_again(
    engine, connect, kill
):
    kill(engine)
    (running,) = engine.get("/queue")["queue_running"]
    engine.post("/interrupt", {"prompt_id": running[1]})
    with connect(engine.url) as studio:
        assert all(k.ok for k in await studio.run(SCENES))
        assert len(sent(studio)) == COUNT + 1
        assert studio.log.orphans() == []


async def test_what_is_on_a_server_that_is_not_connected_is_unknown_until_it_is(
    own_engine, engine, connect, kill
):
    kill(own_engine)
    there = own_engine.url.partition("//")[2]
    with connect(engine.url) as studio:
        dead, left = sent(studio), {record.prompt_id for record in studio.log.orphans()}
        before = engine.ended()
        keyframes = await studio.run(SCENES)
        unknown = [k for k in keyframes if k.status == "unknown"]
        assert len(unknown) == len(left)
        for keyframe in unknown:
            assert keyframe.server == there
            assert f"connect to {there}" in keyframe.error.hint
        assert engine.ended() - before == set(sent(studio)) - set(dead)
        with connect(own_engine.url) as other:
            assert (await other.run(scenes(1)))[0].ok  # connects
            made = await studio.run(SCENES)  # asks every server that is connected
        assert all(k.ok for k in made)
        assert {result_id(prompt_id) for prompt_id in dead} <= {k.id for k in made}
        assert {k.server for k in made if k.id in map(result_id, left)} == {there}
        assert len(own_engine.ended()) == len(dead) + 1


@pytest.mark.long
async def test_two_kernels_that_adopt_the_same_prompts_keep_each_picture_once(
    engine, connect, kill, tmp_path
):
    kill(engine)
    others = [
        script(CONNECT + ADOPTER, engine.url, tmp_path / "flow.json", tmp_path / "log")
        for _ in range(2)
    ]
    seen = {other.stdout.readline() for other in others}  # both look before either begins
    for other in others:
        other.stdin.write("go\n")
        other.stdin.flush()
    for other in others:
        other.communicate(timeout=30)
    with connect(engine.url) as studio:
        (left,) = map(int, seen)
        assert left
        adopted = [k for k in studio.log.keyframes() if k.id in set(map(result_id, sent(studio)))]
        assert len(adopted) == len({k.id for k in adopted})
        assert {k.scene.id for k in adopted} == {f"scene-{n + 1}" for n in range(COUNT)}
        assert studio.log.orphans() == []


async def test_what_was_drawn_while_its_server_was_out_of_reach_is_fetched_by_a_retry(
    engine, flow, tmp_path
):
    before = engine.ended()
    with (
        FaultProxy(engine.url) as proxy,
        studio_on(proxy.url, workflow=flow, log=tmp_path / "log", reconnect_for=0.2) as studio,
    ):
        run = studio.run(scenes(2, **{"Guard.seconds": 0.4}))
        await until(lambda: len(engine.prompts()) == 2)
        proxy.down()
        assert [k.error.kind for k in await run] == ["server_gone"] * 2
        await until(lambda: not engine.prompts())
        made = engine.ended()
        proxy.up()
        assert [k.status for k in await run.retry()] == ["done"] * 2
        assert engine.ended() == made
        assert len(made - before) == 2


class Older(FaultProxy):
    """A server that chooses prompt ids by itself, as before 0.3.45."""

    async def _forward(self, request, body):
        if request.path == "/prompt":
            body = json.dumps({**json.loads(body), "prompt_id": str(uuid.uuid4())}).encode()
        reply = await super()._forward(request, body)
        if request.path == "/system_stats":
            stats = json.loads(reply.body)
            stats["system"]["comfyui_version"] = "0.3.44"
            return dataclasses.replace(reply, body=json.dumps(stats).encode())
        return reply


@pytest.mark.long
async def test_a_server_that_chooses_ids_by_itself_is_asked_by_the_mark_of_a_prompt(
    engine, connect, kill
):
    before = engine.ended()
    with Older(engine.url) as old:
        kill(engine, url=old.url)
        with connect(old.url) as studio:
            assert all(k.ok for k in await studio.run(SCENES))
            assert len(sent(studio)) == len(engine.ended() - before) == COUNT
            assert not set(sent(studio)) & engine.ended()

"""Leaving a run takes exactly our prompts off the server, and leaves nothing behind here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import signal
import threading

import psutil
import pytest
from support import (
    Stranger,
    scenes,
    script,
    sockets_to,
    studio_on,
    tasks_on_our_loop,
    until,
    wait_for,
)

import comfynb
from comfynb import loop
from comfynb.testing import FaultProxy, LateAnswer, Reply, RequestRule


@pytest.fixture
def stranger(engine):
    stranger = Stranger(engine)
    yield stranger
    stranger.close()


@pytest.fixture
def studio(engine, slow_flow, tmp_path):
    with comfynb.connect(engine.url, workflow=slow_flow, log=tmp_path / "log") as studio:
        yield studio
    assert sockets_to(engine.port) == 0
    assert tasks_on_our_loop() == []


@pytest.fixture(autouse=True)
def _no_children_or_threads_left():
    before = set(threading.enumerate())
    children = set(psutil.Process().children(recursive=True))
    yield
    # Engines are fixtures of longer life: what counts is what the test itself began. A stranger's
    # socket takes a moment to end its threads.
    wait_for(
        lambda: all(
            thread.name.startswith(("comfynb-", "asyncio_"))
            for thread in set(threading.enumerate()) - before
        )
    )
    assert set(psutil.Process().children(recursive=True)) <= children


async def test_cancelled_at_any_moment_of_its_beginning_a_run_ends_quietly(studio, engine, caplog):
    async def begin_and_cancel(moment: int) -> comfynb.Run:
        run = studio.run(scenes(2, 100 * moment))
        for _ in range(moment):
            await asyncio.sleep(0.001 if moment % 2 else 0)
        await run.cancel()
        return run

    for moment in range(40):
        run = await loop.across(begin_and_cancel(moment))
        assert run.ended
        assert {k.status for k in run.result()} <= {"cancelled", "done"}
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert not engine.prompts()


# Each way out is given the studio and an event; it sets the event when a run is under way on the
# server, and leaves the run when the test says so.


async def by_aclose(studio, ready, go):
    keyframes = studio.keyframes(scenes(9))
    await anext(keyframes)
    ready.set()
    await go.wait()
    await keyframes.aclose()


async def by_break(studio, ready, go):
    async with contextlib.aclosing(studio.keyframes(scenes(9))) as keyframes:
        async for _ in keyframes:
            ready.set()
            await go.wait()
            break


async def by_task_cancellation(studio, ready, go):
    async def iterate():
        async with contextlib.aclosing(studio.keyframes(scenes(9))) as keyframes:
            async for _ in keyframes:
                ready.set()

    task = asyncio.create_task(iterate())
    await go.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_run_cancel(studio, ready, go):
    run = studio.run(scenes(9))
    await anext(run.keyframes())
    ready.set()
    await go.wait()
    await run.cancel()
    assert run.ended
    statuses = [state.status for state in run.state.cells]
    assert set(statuses) == {"done", "cancelled"}
    assert {k.error.kind for k in run.result() if not k.ok} == {"cancelled"}


async def by_cancelled_await(studio, ready, go):
    run = studio.run(scenes(9))

    async def observe():
        return await run

    task = asyncio.create_task(observe())
    await anext(run.keyframes())
    ready.set()
    await go.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.ended


WAYS = [by_aclose, by_break, by_task_cancellation, by_run_cancel, by_cancelled_await]


@pytest.mark.parametrize("leave", WAYS)
async def test_leaving_a_run_takes_only_our_prompts_off_the_server(studio, engine, stranger, leave):
    await studio.run([{"prompt": "a warm-up", "knobs": {"Guard.seconds": 0}}])
    tasks, sockets = tasks_on_our_loop(), sockets_to(engine.port)
    ready, go = asyncio.Event(), asyncio.Event()
    before = engine.prompts() | engine.ended()
    leaving = asyncio.create_task(leave(studio, ready, go))
    await ready.wait()
    await until(lambda: len(engine.prompts() - before) == 2)
    theirs = engine.post_prompt(client_id=stranger.client_id, seed=1)
    go.set()
    await asyncio.wait_for(leaving, 5)

    assert engine.prompts() <= {theirs}
    await until(lambda: stranger.times("execution_success", theirs))
    assert tasks_on_our_loop() == tasks
    # Those that were used meanwhile stay in the pool for the next run, but no more than two.
    assert sockets_to(engine.port) <= sockets + 2
    ended = engine.ended()
    assert [k.status for k in await studio.run(scenes(1))] == ["cached"]
    assert engine.ended() == ended


async def test_a_strangers_running_prompt_goes_on_while_ours_behind_it_are_taken_off(
    studio, engine, stranger
):
    running = engine.post_prompt(client_id=stranger.client_id, **{"Guard.seconds": 1.0})
    await until(lambda: stranger.times("execution_start", running))
    run = studio.run(scenes(9))
    await until(lambda: len(engine.prompts()) == 3)
    waiting = engine.post_prompt(client_id=stranger.client_id, seed=2)
    await run.cancel()
    assert engine.prompts() == {running, waiting}
    for prompt in (running, waiting):
        await until(lambda prompt=prompt: stranger.times("execution_success", prompt))
    assert {state.status for state in run.state.cells} == {"cancelled"}


async def test_some_scenes_can_be_given_up_while_the_others_go_on(studio, engine):
    run = studio.run(scenes(6))
    await anext(run.keyframes())
    await run.cancel({"scene-2", "scene-5"})  # one is on the server, one waits here
    statuses = {k.scene.id: k.status for k in await run}
    assert statuses.pop("scene-2") == statuses.pop("scene-5") == "cancelled"
    assert set(statuses.values()) == {"done"}


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05])
async def test_a_cancel_at_any_moment_leaves_no_prompt_behind(studio, engine, moment):
    await studio.run([{"prompt": "a warm-up", "knobs": {"Guard.seconds": 0}}])
    run = studio.run(scenes(3))
    await asyncio.sleep(moment)
    await run.cancel()
    assert run.ended
    assert len(run.result()) == 3
    assert not engine.prompts()


async def test_a_cancel_that_overtakes_its_post_still_reaches_the_prompt(
    engine, slow_flow, tmp_path
):
    """The server takes its time to answer the POST; a delete sent meanwhile finds nothing."""
    with FaultProxy(engine.url) as proxy:
        slow = proxy.add(HeldRequest("POST /prompt", times=None))
        with comfynb.connect(proxy.url, workflow=slow_flow, log=tmp_path / "log") as studio:
            run = studio.run(scenes(3))
            await asyncio.to_thread(slow.wait)
            await run.cancel()
            await asyncio.sleep(0.5)  # what was held has arrived by now
            assert not engine.prompts()


class HeldRequest(LateAnswer):
    """Hold the request itself, before the server sees it."""

    async def handle(self, forward):
        await asyncio.sleep(0.3)
        return await forward()


async def test_a_run_is_cancelled_while_its_server_cannot_be_reached(engine, slow_flow, tmp_path):
    with FaultProxy(engine.url) as proxy:
        studio = studio_on(proxy.url, workflow=slow_flow, log=tmp_path / "log", reconnect_for=30)
        run = studio.run(scenes(4, **{"Guard.seconds": 20}))
        await until(lambda: len(engine.prompts()) == 2)
        proxy.down()
        await asyncio.wait_for(run.cancel(), 5)
        assert run.ended
        proxy.up()
        await until(lambda: not engine.prompts())  # taken off as soon as the server is back
        await studio.aclose()
    assert tasks_on_our_loop() == []


@dataclasses.dataclass(frozen=True, slots=True)
class Older(RequestRule):
    """Call the server a version that does not look at the id of an interrupt."""

    route: str = "GET /system_stats"

    async def handle(self, forward):
        body = json.loads((await forward()).body)
        body["system"]["comfyui_version"] = "0.3.56"
        return Reply(200, [("Content-Type", "application/json")], json.dumps(body).encode())


async def test_on_a_server_that_interrupts_anybody_what_runs_comes_to_its_end(
    engine, slow_flow, tmp_path, caplog
):
    before = engine.ended()
    with FaultProxy(engine.url) as proxy:
        proxy.add(Older(times=None))
        with comfynb.connect(proxy.url, workflow=slow_flow, log=tmp_path / "log") as studio:
            first = scenes(1, **{"Guard.seconds": 2.5})  # more than a cancel waits for it
            run = studio.run([*first, *scenes(3, first=1)])
            await until(lambda: len(engine.prompts()) == 2 and run.state.counts["running"])
            await asyncio.wait_for(run.cancel(), 4)
            words = [k.error.message for k in run.result()]
            assert "too old to interrupt one prompt alone" in words[0]
            assert "ComfyUI 0.3.56 cannot interrupt one prompt by its id" in caplog.text
            await until(lambda: not engine.prompts())
            assert len(engine.ended() - before) == 1
            # It was drawn, wanted or not: who changes his mind is given that one.
            assert [k.status for k in await run.retry()] == ["done"] * 4
            assert len(engine.ended() - before) == 4
        assert proxy.requests["POST /interrupt"] == 0


INTERRUPTED = """
import asyncio, contextlib, sys, threading
import comfynb
from support import scenes, sockets_to, tasks_on_our_loop
url, flow, log, how = sys.argv[1:]
studio = comfynb.connect(url, workflow=flow, log=log)

async def iterate():
    async with contextlib.aclosing(studio.keyframes(scenes(9))) as keyframes:
        async for keyframe in keyframes:
            print(keyframe.status, flush=True)

def render():
    threading.Thread(target=tell, daemon=True).start()
    studio.render(scenes(9))

def tell():
    sys.stdin.readline()
    print("done", flush=True)

async def cell():
    render()

try:
    if how == "iterate":
        asyncio.run(iterate())
    elif how == "render":
        render()
    else:  # as a notebook does: in a loop that leaves SIGINT to Python
        asyncio.new_event_loop().run_until_complete(cell())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()  # the parent looks at the server meanwhile
studio.close()
port = int(url.rpartition(":")[2])
print(len(tasks_on_our_loop()), sockets_to(port), flush=True)
"""


@pytest.mark.parametrize("how", ["iterate", "render", "render in a cell"])
async def test_an_interrupt_takes_our_prompts_off_the_server(
    engine, stranger, slow_flow, tmp_path, how
):
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(slow_flow.graph, default=dict))
    process = script(INTERRUPTED, engine.url, file, tmp_path / "log", how)
    if how != "iterate":
        await until(lambda: len(engine.prompts()) == 2)
        process.stdin.write("\n")
        process.stdin.flush()
    assert await asyncio.to_thread(process.stdout.readline) == "done\n"
    await until(lambda: len(engine.prompts()) == 2)
    theirs = engine.post_prompt(client_id=stranger.client_id, seed=3)
    process.send_signal(signal.SIGINT)
    while (said := await asyncio.to_thread(process.stdout.readline)) == "done\n":
        pass  # made before the interrupt came through
    assert said == "interrupted\n"
    assert engine.prompts() <= {theirs}
    said, _ = await asyncio.to_thread(process.communicate, "\n", timeout=10)
    assert said == "0 0\n"
    assert process.returncode == 0
    wait_for(lambda: stranger.times("execution_success", theirs))


FORGETFUL = """
import sys, time
import comfynb
from support import scenes
url, flow, log = sys.argv[1:]
run = comfynb.connect(url, workflow=flow, log=log).run(scenes(9))
while not run.state.made:
    time.sleep(0.01)
"""


async def test_a_script_that_just_ends_takes_its_prompts_along_and_keeps_what_it_made(
    engine, slow_flow, tmp_path
):
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(slow_flow.graph, default=dict))
    process = script(FORGETFUL, engine.url, file, tmp_path / "log", errors=True)
    said, errors = await asyncio.to_thread(process.communicate, timeout=20)
    assert (process.returncode, said, errors) == (0, "", "")
    assert not engine.prompts()
    assert comfynb.Log(tmp_path / "log", read_only=True).keyframes(status="done")

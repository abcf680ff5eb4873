"""Studios: drawing in one call, bad luck told in words, nothing secret anywhere."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import weakref

import pytest
from fake_servers import HTML, STATS, FakeServer, closed_port
from support import Engine, guarded_graph, scenes, script, until, wait_for

import comfynb
from comfynb.errors import (
    AccessDeniedError,
    CheckpointError,
    ClosedError,
    LogError,
    NotComfyUIError,
    SceneError,
    ServerUnreachableError,
    WorkflowCheckError,
)
from comfynb.workflows import Workflow

QUICK = {"steps": 1, "width": 64, "height": 64}


@pytest.fixture
def studio(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        yield studio


@pytest.fixture(scope="module")
def unreachable() -> str:
    return f"http://127.0.0.1:{closed_port()}"


# -- what is shared by all scenes


async def test_shared_values_reach_every_scene_and_the_scenes_own_win(studio):
    one, two = await studio.run(
        [{"prompt": "a fox"}, {"prompt": "an owl", "seed": 7, "knobs": {"cfg": 2.0}}],
        style="watercolor",
        negative="snow",
        seed=5,
        knobs={"cfg": 3.0},
    )
    assert (one.prompt, two.prompt) == ("a fox, watercolor", "an owl, watercolor")
    assert one.negative == two.negative == "snow"
    assert (one.seed, two.seed) == (5, 7)
    assert (one.knobs["cfg"], two.knobs["cfg"]) == (3.0, 2.0)


def test_a_random_seed_is_drawn_once_for_a_plan(studio):
    first, second = (studio.plan(["a fox", "an owl"], seed="random") for _ in range(2))
    assert len({cell.seed for cell in first.cells}) == 1
    assert first.cells[0].seed != second.cells[0].seed


def test_what_is_no_storyboard_is_refused_before_anything_is_sent(studio, engine):
    known = engine.ended()
    for wrong in ([], [""], [{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}], 7):
        with pytest.raises(SceneError):
            studio.render(wrong)
    assert engine.ended() == known


# -- checkpoints


def with_checkpoints(names) -> dict:
    return {"/system_stats": STATS, "/models/checkpoints": names}


def test_a_server_without_a_checkpoint_says_where_to_put_one():
    with (
        FakeServer(with_checkpoints([])) as server,
        comfynb.connect(server.url, log=False) as s,
        pytest.raises(CheckpointError, match="models/checkpoints folder") as raised,
    ):
        s.render(["a fox"])
    assert raised.value.available == ()


def test_several_checkpoints_are_listed():
    names = ["b.safetensors", "a.safetensors"]
    with (
        FakeServer(with_checkpoints(names)) as server,
        comfynb.connect(server.url, log=False) as studio,
        pytest.raises(CheckpointError) as raised,
    ):
        studio.render(["a fox"])
    assert str(raised.value).endswith("\n  a.safetensors\n  b.safetensors")
    assert "connect(checkpoint=...)" in str(raised.value)


async def test_the_only_checkpoint_is_taken_and_one_may_be_chosen(engine, tmp_path):
    async with comfynb.connect(engine.url, log=tmp_path / "log") as studio:
        (taken,) = await studio.run(scenes(1), knobs=QUICK)
    chosen = comfynb.connect(engine.url, log=tmp_path / "log", checkpoint="tiny-scenes.onnx")
    async with chosen as studio:
        (same,) = await studio.run(scenes(1), knobs=QUICK)
    assert taken.knobs["checkpoint"] == "tiny-scenes.onnx"
    assert (same.status, same.key) == ("cached", taken.key)
    other = comfynb.connect(engine.url, log=tmp_path / "log", checkpoint="other.safetensors")
    async with other as studio:
        with pytest.raises(WorkflowCheckError, match=r"no checkpoint 'other.saf") as raised:
            await studio.run(scenes(1), knobs=QUICK)
    assert raised.value.problems[0].node_type == "CheckpointLoaderSimple"


# -- servers that are not there, or something else


def test_without_its_server_a_studio_shows_its_log_and_makes_nothing(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        (made,) = studio.render(scenes(1))
    place = f"http://127.0.0.1:{closed_port()}"
    with comfynb.connect(place, workflow=flow, log=tmp_path / "log") as studio:
        assert [k.id for k in studio.log.keyframes()] == [made.id]
        with pytest.raises(ServerUnreachableError) as raised:
            studio.render(["an owl"])
    assert place.removeprefix("http://") in str(raised.value)
    assert "nobody answers" in str(raised.value)


async def test_what_the_log_has_comes_from_a_server_that_is_away(own_engine, flow, tmp_path):
    async with comfynb.connect(own_engine.url, workflow=flow, log=tmp_path / "log") as studio:
        await studio.run(scenes(2))
    own_engine.kill()
    async with comfynb.connect(own_engine.url, workflow=flow, log=tmp_path / "log") as studio:
        assert [k.status for k in await studio.run(scenes(2))] == ["cached"] * 2
        given = []
        with pytest.raises(ServerUnreachableError):  # noqa: PT012
            async for keyframe in studio.keyframes(scenes(3)):
                given.append(keyframe.status)  # noqa: PERF401 - until it raises
        assert given == ["cached"] * 2


@pytest.mark.parametrize("workflow", ["txt2img", "complete"])
def test_a_port_that_answers_html_is_named_whatever_the_workflow(workflow):
    flow = "txt2img"
    if workflow == "complete":
        flow = Workflow.load("txt2img").with_knobs({"checkpoint": "x"})
    with (
        FakeServer(default=HTML) as server,
        comfynb.connect(server.url, workflow=flow, log=False) as studio,
        pytest.raises(NotComfyUIError, match="is this the address of a ComfyUI"),
    ):
        studio.render(["a fox"])


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_token_says_so(status):
    with (
        FakeServer(default=(status, b"")) as server,
        comfynb.connect(server.url, log=False, token="wrong") as studio,
        pytest.raises(AccessDeniedError, match=r"token=\.\.\.") as raised,
    ):
        studio.render(["a fox"])
    assert raised.value.status == status


async def test_an_error_reaches_every_way_of_waiting(unreachable):
    async with comfynb.connect(unreachable, log=False) as studio:
        run = studio.run(["a fox"])
        with pytest.raises(ServerUnreachableError):
            await run
        for ask in (run.result, run.wait):
            with pytest.raises(ServerUnreachableError):
                ask()
        with pytest.raises(ServerUnreachableError):
            [k async for k in run]
        assert [state.status for state in run.state.cells] == ["failed"]
        with pytest.raises(ServerUnreachableError):
            await run.retry()


# -- the log


def test_without_a_log_asking_for_it_says_why(unreachable):
    with (
        comfynb.connect(unreachable, log=False) as studio,
        pytest.raises(LogError, match="log=False"),
    ):
        _ = studio.log


async def test_without_a_log_results_are_kept_in_memory_for_the_studio(engine, flow):
    async with comfynb.connect(engine.url, workflow=flow, log=False) as studio:
        (made,) = await studio.run(scenes(1))
        assert made.path is None
        assert made.read().startswith(b"\x89PNG")
        assert [k.status for k in await studio.run(scenes(1))] == ["cached"]


FULL_DISK = """
import asyncio, json, resource, signal, sys
import comfynb
from comfynb.workflows import Workflow
from support import scenes

url, folder, graph = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit is an error then

async def main():
    studio = comfynb.connect(url, workflow=Workflow.load(graph), log=folder)
    run = studio.run(scenes(6))
    given = []
    async for keyframe in run:
        given.append(keyframe)
        if len(given) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    safe = [k.id for k in comfynb.Log(folder, read_only=True).keyframes(status="done")]
    failed = [k for k in run.result() if not k.ok]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again = await run.retry()
    log = comfynb.Log(folder, read_only=True)
    print(json.dumps({
        "given": [k.status for k in given],
        "safe": sorted(k.id for k in given if k.ok) == sorted(safe),
        "kinds": sorted({k.error.kind for k in failed}),
        "message": str(failed[0].error),
        "failed": len(failed),
        "again": [k.status for k in again],
        "done": len(log.keyframes(status="done")),
        "cached": [k.status for k in await studio.run(scenes(6))],
    }))
    await studio.aclose()

asyncio.run(main())
"""


async def test_a_full_disk_fails_the_rest_keeps_what_was_made_and_can_be_retried(engine, tmp_path):
    pytest.importorskip("resource")
    graph = json.dumps(guarded_graph(seconds=0.1))
    process = script(FULL_DISK, engine.url, tmp_path / "log", graph)
    out, _ = await asyncio.to_thread(process.communicate, timeout=50)
    assert process.returncode == 0
    told = json.loads(out)
    assert told["given"][:3] == ["done"] * 3
    assert told["safe"]
    assert told["kinds"] == ["log_write"]
    assert str(tmp_path / "log") in told["message"]
    assert "Free some space" in told["message"]
    assert "retry" in told["message"]
    assert told["failed"] >= 1
    assert told["again"] == ["done"] * told["failed"]
    assert told["done"] == 6
    assert told["cached"] == ["cached"] * 6


# -- closing


async def test_a_closed_studio_starts_nothing_and_says_so(engine, flow, tmp_path):
    studio = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    (made,) = await studio.run(scenes(1))
    run = studio.run(scenes(1))
    await run
    await studio.aclose()
    await studio.aclose()
    studio.close()
    assert "closed" in repr(studio)
    for begin in (lambda: studio.run(scenes(1)), lambda: studio.board(scenes(1)), run.retry):
        with pytest.raises(ClosedError, match="connect again"):
            begin()
    with pytest.raises(ClosedError):
        await anext(studio.keyframes(scenes(1)))
    assert made.read()
    assert len(studio.log.keyframes()) == 1, "what was made can still be looked at"


def test_a_studio_that_is_forgotten_lets_go_of_its_server(engine, flow):
    studio = comfynb.connect(engine.url, workflow=flow, log=False)
    studio.render(scenes(1))
    connection = studio._lanes[0].backend._connection
    gone = weakref.ref(studio)
    del studio
    gc.collect()
    assert gone() is None
    wait_for(lambda: connection.state == "closed")


async def test_a_run_goes_on_when_its_studio_is_closed(engine, slow_flow):
    studio = comfynb.connect(engine.url, workflow=slow_flow, log=False)
    run = studio.run(scenes(2))
    await until(lambda: any(c.status == "running" for c in run.state.cells))
    await studio.aclose()
    assert [k.status for k in await run] == ["done"] * 2


# -- render


def test_render_blocks_and_returns_in_the_order_of_the_storyboard(studio):
    keyframes = studio.render(scenes(4))
    assert [k.scene.id for k in keyframes] == ["scene-1", "scene-2", "scene-3", "scene-4"]
    assert {k.status for k in keyframes} == {"done"}


RENDER_IN_A_LOOP = """
import asyncio, json, sys
import comfynb
from comfynb.workflows import Workflow
from support import scenes

url, graph, how = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
flow = Workflow.load(graph)

async def tick(ticks):
    while True:
        await asyncio.sleep(0.01)
        ticks.append(1)

async def collect(studio, prompts):
    return [k.status async for k in studio.keyframes(prompts)]

async def main():
    studio = comfynb.connect(url, workflow=flow, log=False)
    told = {"before": await collect(studio, scenes(1))}
    running = studio.run(scenes(3, **{"Guard.seconds": 0.3}))  # from before the patch to after it
    ticks = []
    ticking = asyncio.create_task(tick(ticks))
    await asyncio.sleep(0)
    told["rendered"] = [k.status for k in studio.render(scenes(2, **{"Guard.seconds": 0.2}))]
    told["ticks"] = len(ticks)
    ticking.cancel()
    told["running"] = [k.status for k in await running]
    told["generator"] = await collect(studio, ["a whale", "a boat"])
    told["again"] = [k.status for k in studio.render(["a robot"])]
    told["awaited"] = [k.status for k in await studio.run(["a castle"])]
    async with asyncio.timeout(20):
        async with comfynb.connect(url, workflow=flow, log=False) as other:
            told["other"] = [k.status for k in other.render(["a rocket"])]
    await studio.aclose()
    return told

if how == "run":
    told = asyncio.run(main())
else:  # as a notebook's kernel: one loop that runs for ever, each cell a task of it
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    cell = loop.create_task(main())
    cell.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    told = cell.result()
print(json.dumps(told))
"""


@pytest.mark.parametrize("how", ["run", "forever"])
async def test_render_inside_a_running_loop_leaves_it_running(engine, how):
    """And what stands before, during and after the patch of asyncio is right all the same."""
    process = script(RENDER_IN_A_LOOP, engine.url, json.dumps(guarded_graph()), how)
    out, _ = await asyncio.to_thread(process.communicate, timeout=50)
    assert process.returncode == 0
    told = json.loads(out)
    assert told.pop("ticks") > 5
    assert told == {
        "before": ["done"],
        "rendered": ["done"] * 2,
        "running": ["done"] * 3,
        "generator": ["done"] * 2,
        "again": ["done"],
        "awaited": ["done"],
        "other": ["done"],
    }


CANCELLED_RENDER = """
import asyncio, json, sys
import comfynb
from comfynb.workflows import Workflow
from support import scenes

url, graph = sys.argv[1], json.loads(sys.argv[2])

async def main():
    with comfynb.connect(url, workflow=Workflow.load(graph), log=False) as studio:
        try:
            async with asyncio.timeout(0.5):
                statuses = {k.status for k in studio.render(scenes(9))}
                print(sorted(statuses - {"done"}), flush=True)
                await asyncio.sleep(0)
        except TimeoutError:
            print("timed out", flush=True)
    await asyncio.sleep(0.01)
    print("goes on")

asyncio.run(main())
"""


async def test_cancelling_the_task_that_renders_inside_a_loop_cancels_the_run(engine):
    """asyncio.timeout around it, or the first Ctrl-C in asyncio.run: both cancel the task."""
    process = script(CANCELLED_RENDER, engine.url, json.dumps(guarded_graph(seconds=0.5)))
    out, _ = await asyncio.to_thread(process.communicate, timeout=50)
    assert out.split("\n") == ["['cancelled']", "timed out", "goes on", ""]
    await until(lambda: not engine.prompts())


# -- secrets

TOKEN = "sekret-7f3a"


async def test_a_token_is_nowhere_but_on_the_wire(flow, tmp_path, caplog, capsys):
    """Not in reprs, errors, logs on disk, loggers at their most talkative, or what is printed."""
    caplog.set_level(logging.DEBUG)
    engine = Engine(token=TOKEN)
    texts = []
    try:
        bad = {"prompt": "an owl", "knobs": {"Guard.message": "boom"}}
        options = {"workflow": flow, "log": tmp_path / "log"}
        async with comfynb.connect(engine.url, token=TOKEN, **options) as studio:
            run = studio.run([*scenes(2), bad])
            keyframes = await run
            assert [k.status for k in keyframes] == ["done", "done", "failed"]
            board = comfynb.open_log(tmp_path / "log").board()
            texts += [studio, run, keyframes, run.plan, run.state, board.state, studio.log]
            texts += [vars(run), studio._lanes[0].backend, studio.log.df().to_csv()]
            lane = studio._lanes[0]
            texts += [lane.label, repr(lane)]
        async with comfynb.connect(engine.url, token=TOKEN + "x", **options) as studio:
            with pytest.raises(AccessDeniedError) as refused:
                await studio.run(scenes(3))
            texts += [refused.value, refused.value.args, vars(refused.value)]
    finally:
        engine.stop()
    async with comfynb.connect(engine.url, token=TOKEN, **options) as studio:
        with pytest.raises(ServerUnreachableError) as away:
            await studio.run(["a whale"])
        texts.append(away.value)
    captured = capsys.readouterr()
    for text in (*map(repr, texts), *map(str, texts), caplog.text, captured.out, captured.err):
        assert TOKEN not in text
    files = [path for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        assert TOKEN.encode() not in path.read_bytes(), path


async def test_a_password_in_the_url_is_nowhere_either(caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    with FakeServer(default=(401, b"")) as server:
        url = server.url.replace("http://", f"http://ann:{TOKEN}@")
        async with comfynb.connect(url, log=tmp_path / "log") as studio:
            with pytest.raises(AccessDeniedError) as raised:
                await studio.run(["a fox"])
        assert server.requests[0][2]["authorization"].startswith("Basic ")
    for text in (caplog.text, str(raised.value), repr(studio)):
        assert TOKEN not in text
        assert "ann" not in text


FORKED = """
import os, sys
import comfynb
from support import scenes

url, flow, log = sys.argv[1:]
studio = comfynb.connect(url, workflow=flow, log=log)
run = studio.run(scenes(3))
run.wait()
# Idle: forking a process whose threads are at work is nobody's to promise (they may hold the
# allocator's locks).
child = os.fork()
if child == 0:
    try:
        studio.run(scenes(1))
    except comfynb.ComfynbError as exc:
        print("child:", "connect again" in str(exc), flush=True)
    with comfynb.connect(url, workflow=flow, log=log) as own:
        print("child:", all(keyframe.ok for keyframe in own.render(scenes(3))), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", [keyframe.status for keyframe in run.wait()])
studio.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_forked_child_draws_for_itself_and_disturbs_nothing(engine, slow_flow, tmp_path):
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(slow_flow.graph, default=dict))
    process = script(FORKED, engine.url, file, tmp_path / "log")
    try:
        out, _ = await asyncio.to_thread(process.communicate, timeout=30)
    finally:
        process.kill()
    said = ["child: True", "child: True", "parent: ['done', 'done', 'done']", ""]
    assert out.split("\n") == said

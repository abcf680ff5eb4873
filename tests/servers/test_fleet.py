"""Several servers share a run: each as fast as it can, and one that dies loses nothing.

What becomes of cells that two servers have is in tests/both/test_two_servers.py.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter

import numpy as np
import pytest
from fake_servers import closed_port
from support import Engine, guarded_graph, scenes, until

import comfynb
from comfynb.cli import main
from comfynb.errors import BackendError, ServerUnreachableError, WorkflowCheckError
from comfynb.servers import lanes
from comfynb.testing import FaultProxy, LateAnswer
from comfynb.workflows import Workflow


@pytest.fixture(scope="module")
def other_engine():
    """A second server, which the tests leave alive."""
    engine = Engine()
    yield engine
    engine.stop()


@pytest.fixture
def connect(flow, tmp_path):
    def connect(*urls, workflow=flow, **options):
        return comfynb.connect(list(urls), workflow=workflow, log=tmp_path / "log", **options)

    return connect


def label(server) -> str:
    return server.url.partition("//")[2]


async def test_cells_are_spread_and_every_row_names_its_server(engine, other_engine, connect):
    before = engine.ended(), other_engine.ended()
    with connect(engine.url, other_engine.url) as studio:
        assert studio.server == f"{label(engine)}, {label(other_engine)}"
        run = studio.run(scenes(10, **{"Guard.seconds": 0.1}))
        assert [k.status for k in await run] == ["done"] * 10
        assert run.lines == {label(engine): "connected", label(other_engine): "connected"}
        rows = studio.log.keyframes()
        made = Counter(k.server for k in rows)
        assert set(made) == {label(engine), label(other_engine)}
        assert len(made) == 2
        assert all(k.server_version for k in rows)
        assert made[label(engine)] == len(engine.ended() - before[0])
        assert made[label(other_engine)] == len(other_engine.ended() - before[1])
        (record,) = studio.log.runs()
        assert record.server == studio.server


async def test_a_server_that_has_more_to_do_is_given_fewer(engine, other_engine, connect):
    stranger = engine.post_prompt(**{"Guard.seconds": 60})
    with connect(engine.url, other_engine.url) as studio:
        run = studio.run(scenes(12))
        await until(lambda: run.state.made == 10)
        engine.post("/interrupt", {"prompt_id": stranger})
        made = Counter(k.server for k in await run)
    assert made == {label(engine): 2, label(other_engine): 10}


async def test_a_server_that_dies_gives_its_cells_to_the_others(own_engine, engine, connect):
    with connect(own_engine.url, engine.url, reconnect_for=0.3) as studio:
        run = studio.run(scenes(8, **{"Guard.seconds": 0.3}))
        await until(lambda: run.state.made >= 2)
        own_engine.kill()
        keyframes = await run
        assert [k.status for k in keyframes] == ["done"] * 8
        assert Counter(k.server for k in keyframes)[label(engine)] >= 5
        assert len({k.id for k in studio.log.keyframes()}) == 8


def let_go(*servers) -> bool:
    """Whether nobody in this process needs some servers any more."""
    return not {lane.label for lane in lanes._lanes.values()} & set(map(label, servers))


PATIENT = {"reconnect_for": 3600.0}
"""A server whose line is down never counts as gone."""


@pytest.fixture
def soon(monkeypatch):
    """Take over at once what a server has whose line is down."""
    monkeypatch.setattr("comfynb.runs.racing.MOVE_SECONDS", 0.1)


async def test_what_a_server_has_whose_line_is_down_is_made_by_another(
    own_engine, engine, connect, soon
):
    with connect(own_engine.url, engine.url, **PATIENT) as studio:
        run = studio.run(scenes(8, **{"Guard.seconds": 0.3}))
        await until(lambda: len(own_engine.prompts()) == 2)
        own_engine.kill()
        async with asyncio.timeout(60):
            keyframes = await run
        assert [k.status for k in keyframes] == ["done"] * 8
        assert len({k.id for k in studio.log.keyframes()}) == 8
    own_engine.start()  # it has forgotten what it had, and nobody waits for that any more
    await until(lambda: let_go(own_engine))


async def test_what_was_not_sent_moves_at_once(own_engine, engine, connect, monkeypatch, tmp_path):
    monkeypatch.setattr("comfynb.runs.racing.MOVE_SECONDS", math.inf)
    graph = guarded_graph()
    graph["load"] = {"class_type": "LoadImage", "inputs": {"image": "none.png"}}
    graph["also"] = {"class_type": "SaveImage", "inputs": {"images": ["load", 0]}}
    graph["also"]["inputs"]["filename_prefix"] = "x"
    with FaultProxy(own_engine.url) as proxy:
        proxy.add(LateAnswer("POST /upload", seconds=3600, times=None))
        with connect(proxy.url, engine.url, workflow=Workflow.load(graph), **PATIENT) as studio:
            pixels = np.zeros((8, 8, 3), np.uint8)
            run = studio.run([{**scene, "image": pixels} for scene in scenes(4)])
            await until(lambda: proxy.requests["POST /upload"] >= 1)
            proxy.down()
            async with asyncio.timeout(60):
                keyframes = await run
        assert {(k.status, k.server) for k in keyframes} == {("done", label(engine))}
        assert proxy.requests["POST /prompt"] == 0


async def test_when_all_servers_die_the_rest_fails(own_engine, connect):
    with (
        FaultProxy(own_engine.url) as proxy,
        connect(own_engine.url, proxy.url, reconnect_for=0.3) as studio,
    ):
        run = studio.run(scenes(8, **{"Guard.seconds": 0.3}))
        await until(lambda: run.state.made >= 1)
        own_engine.kill()
        kinds = Counter(k.error.kind for k in await run if k.error)
        assert set(kinds) == {"server_gone"}
        assert sum(kinds.values()) + run.state.made == 8


async def test_a_server_that_is_away_at_first_joins_when_it_is_there(
    engine, other_engine, connect, monkeypatch, caplog
):
    monkeypatch.setattr("comfynb.servers.fleet.AGAIN_SECONDS", 0.1)
    with FaultProxy(other_engine.url) as proxy:
        proxy.down()
        with connect(engine.url, proxy.url) as studio:
            run = studio.run(scenes(12, **{"Guard.seconds": 0.2}))
            await until(lambda: run.state.made >= 1)
            assert f"{label(proxy)} is given no pictures to make for now" in caplog.text
            proxy.up()
            made = Counter(k.server for k in await run)
    assert made[label(proxy)] >= 1
    assert sum(made.values()) == 12


async def test_only_when_no_server_is_there_a_run_cannot_begin(connect):
    one, two = (f"http://127.0.0.1:{closed_port()}" for _ in range(2))
    with connect(one, two) as studio:
        run = studio.run(scenes(1))
        with pytest.raises(ServerUnreachableError):
            await run


async def test_a_cancel_reaches_every_server(engine, other_engine, connect):
    stranger = other_engine.post_prompt(**{"Guard.seconds": 0.5})
    with connect(engine.url, other_engine.url) as studio:
        run = studio.run(scenes(12, **{"Guard.seconds": 0.5}))
        await until(lambda: len(engine.prompts()) == 2 and len(other_engine.prompts()) == 3)
        await run.cancel()
        assert engine.prompts() == set()
        assert other_engine.prompts() <= {stranger}
        assert run.state.counts["cancelled"] + run.state.made == 12
    await until(lambda: stranger in other_engine.ended())


async def test_a_server_without_the_checkpoint_is_given_nothing(
    engine, other_engine, connect, monkeypatch, caplog
):
    from comfynb.backends.comfyui import ComfyUIBackend

    asked = ComfyUIBackend.object_info

    async def object_info(self):
        answer = await asked(self)
        if self.label == label(other_engine):
            required = answer["CheckpointLoaderSimple"]["input"]["required"]
            required["ckpt_name"][0] = ["another.safetensors"]
        return answer

    monkeypatch.setattr(ComfyUIBackend, "object_info", object_info)
    with connect(other_engine.url, engine.url) as studio:
        keyframes = await studio.run(scenes(4))
        assert {k.server for k in keyframes} == {label(engine)}
        assert f"{label(other_engine)} is given no pictures" in caplog.text
    with connect(other_engine.url) as studio, pytest.raises(WorkflowCheckError):
        await studio.run(scenes(4, first=50))


def test_a_server_that_is_named_twice_counts_once_and_an_engine_stands_alone(engine, connect):
    with connect(engine.url, engine.url + "/") as studio:
        assert studio.server == label(engine)
    with pytest.raises(BackendError, match="draws other pictures"):
        connect(engine.url, "embedded")
    with pytest.raises(ValueError, match="empty list"):
        connect()


def test_the_terminal_takes_several_servers(engine, other_engine, flow, tmp_path):
    (tmp_path / "mine.txt").write_text("a fox\na whale\na cat\nan owl\n")
    (tmp_path / "flow.json").write_text(json.dumps(flow.graph, default=dict))
    servers = ["--server", engine.url, "--server", other_engine.url]
    where = ["--workflow", str(tmp_path / "flow.json"), "--log", str(tmp_path / "log")]
    assert main(["render", str(tmp_path / "mine.txt"), *servers, *where]) == 0
    (run,) = comfynb.open_log(tmp_path / "log").log.runs()
    assert run.server == f"{label(engine)}, {label(other_engine)}"

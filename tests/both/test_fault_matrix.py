"""Whatever breaks, on either server: every finished picture is delivered exactly once.

Each cell of the matrix is a test of its own, with a bound after which it counts as a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import signal
from pathlib import Path
from typing import Any

import plain
import pytest
from both.fault_matrix import COLUMNS, PROPERTY, ROWS, Row, table
from support import script, studio_on

from comfynb.log import Log
from comfynb.testing import Fault, FaultProxy
from comfynb.workflows import Workflow

README = Path(__file__).parents[2] / "README.md"


@dataclasses.dataclass
class Stage:
    """One cell of the matrix: a server, a proxy before it that knows the row's rules, a log."""

    row: Row
    server: Any
    proxy: FaultProxy
    faults: list[Fault]
    log: Path

    def studio(self, graph: plain.Graph, log: Path | None = None):
        return studio_on(
            self.proxy.url,
            workflow=Workflow.load(graph),
            log=log or self.log,
            silence=self.row.silence,
        )


@pytest.fixture
def comfyui_engine(request, row, column, record_property):
    """What `fault_proxy` stands before: the server of the column."""
    record_property(PROPERTY, [row.fault, column])
    return request.getfixturevalue(f"own_{column}" if row.kills else column)


@pytest.fixture
def stage(row, comfyui_engine, fault_proxy, tmp_path):
    faults = [fault_proxy.add(rule) for rule in row.rules(comfyui_engine)]
    return Stage(row, comfyui_engine, fault_proxy, faults, tmp_path / "log")


def cells(story: str):
    """The tests of the rows with that story: each row in both columns."""
    rows = [pytest.param(row, id=row.fault) for row in ROWS if row.story == story]
    columns = [
        pytest.param(name, marks=[pytest.mark.comfyui] if name == "comfyui" else [])
        for name in COLUMNS
    ]
    return lambda test: pytest.mark.parametrize("row", rows)(
        pytest.mark.parametrize("column", columns)(test)
    )


async def deliver(stage: Stage, graph: plain.Graph, scenes: list[dict]) -> list:
    """Render as a user does, and check that each picture came once and is kept once."""
    row, before = stage.row, stage.server.ended()
    studio, given = stage.studio(graph), []
    async with asyncio.timeout(row.seconds):
        async with contextlib.aclosing(studio.keyframes(scenes)) as keyframes:
            async for keyframe in keyframes:
                given.append(keyframe)  # noqa: PERF401 - one by one is what is tested
        await studio.aclose()
    made = [k for k in given if k.status == "done"]
    assert len(made) == row.pictures, [str(k.error) for k in given]
    assert len({k.id for k in given}) == len({k.key for k in given}) == len(given) == row.cells
    assert all(k.read().startswith(b"\x89PNG") for k in made)
    kept = Log(stage.log, read_only=True).keyframes()
    assert sorted(k.id for k in kept) == sorted(k.id for k in given)
    assert all(fault.applied for fault in stage.faults), stage.faults
    at_least, at_most = row.posts
    assert at_least <= stage.proxy.requests["POST /prompt"] <= at_most
    if not row.kills:
        assert len(stage.server.ended() - before) == row.pictures
    return given


@cells("a run")
async def test_every_picture_is_delivered_once_and_made_once(stage):
    row = stage.row
    await deliver(stage, plain.picture(seconds=row.seconds_each), plain.scenes(row.cells))


KERNEL = """
import asyncio, contextlib, json, os, signal, sys
import comfynb

url, log, graph, scenes = sys.argv[1:]

async def main():
    studio = comfynb.connect(url, workflow=json.loads(graph), log=log)
    given = []
    async with contextlib.aclosing(studio.keyframes(json.loads(scenes))) as keyframes:
        async for keyframe in keyframes:
            given.append(keyframe.id)
            if len(given) == 2:
                print(json.dumps(given), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@cells("a killed kernel")
async def test_what_a_killed_kernel_had_sent_is_fetched_by_the_next(stage):
    """One prompt runs and one waits when it dies: neither is made again."""
    row, before = stage.row, stage.server.ended()
    graph, scenes = plain.picture(seconds=row.seconds_each), plain.scenes(row.cells)
    async with asyncio.timeout(row.seconds):
        kernel = script(KERNEL, stage.proxy.url, stage.log, json.dumps(graph), json.dumps(scenes))
        said, _ = await asyncio.to_thread(kernel.communicate)
        assert kernel.returncode == -signal.SIGKILL
        studio = stage.studio(graph)
        given = await studio.run(scenes)
        await studio.aclose()
    assert [k.status for k in given] == ["cached"] * 2 + ["done"] * 4
    assert [k.id for k in given[:2]] == json.loads(said)
    kept = Log(stage.log, read_only=True).keyframes()
    assert sorted(k.id for k in kept) == sorted(k.id for k in given)
    assert len({k.key for k in given}) == row.pictures
    assert all(k.read().startswith(b"\x89PNG") for k in given)
    assert stage.proxy.requests["POST /prompt"] == row.posts[0]
    assert len(stage.server.ended() - before) == row.pictures


@cells("a blocked branch")
async def test_a_blocked_branch_costs_no_other_picture(stage):
    for keyframe in await deliver(stage, plain.blocked(), plain.scenes(stage.row.cells)):
        assert any("not this one" in warning for warning in keyframe.warnings)


@cells("an invalid graph")
async def test_an_invalid_graph_fails_alone_and_says_why(stage):
    graph, scenes = plain.picture(), plain.scenes(stage.row.cells)
    scaled = {"upscale_method": "nearest-exact", "width": 32, "height": 32, "crop": "disabled"}
    graph["scale"] = plain.node("ImageScale", image=["guard", 0], **scaled)
    graph["save"]["inputs"]["images"] = ["scale", 0]
    scenes[7]["knobs"] = {"ImageScale.width": 100_000}
    given = await deliver(stage, graph, scenes)
    (failed,) = [k for k in given if k.status == "failed"]
    assert failed.scene.seed == scenes[7]["seed"]
    assert "width" in str(failed.error)


@cells("a cached prompt")
async def test_a_prompt_that_the_server_has_cached_gives_its_picture_to_everyone(stage, tmp_path):
    """Each log is another one, so it is sent each time; the server runs it once."""
    scene, given = plain.scenes(1), []
    async with asyncio.timeout(stage.row.seconds):
        for turn in range(stage.row.cells):
            studio = stage.studio(plain.picture(), tmp_path / f"log-{turn}")
            given += await studio.run(scene)
            await studio.aclose()
    assert [k.status for k in given] == ["done"] * stage.row.pictures
    assert [k.server_cached for k in given] == [False, True, True]
    assert len({k.id for k in given}) == stage.row.pictures
    assert len({k.read() for k in given}) == 1
    assert stage.proxy.requests["POST /prompt"] == stage.row.posts[0]


def test_the_readme_shows_the_matrix_as_it_is_tested():
    """`python tests/both/fault_matrix.py` prints what belongs between the two marks."""
    between = re.search(
        r"<!-- fault-matrix:begin -->\n(.*?)\n<!-- fault-matrix:end -->",
        README.read_text("utf-8"),
        re.DOTALL,
    )
    assert between is not None, "the README has no fault matrix"
    assert between[1].strip() == table()

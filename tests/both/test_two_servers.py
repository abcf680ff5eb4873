"""Two servers share a run and the line to one is cut: each picture comes once, nothing stays.

On a real ComfyUI as on the engine; which cell goes where, and what each server must have to be
given one, is tested on the engine alone (tests/servers/test_fleet.py).
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager, contextmanager

import plain
import pytest
from both.conftest import SERVERS
from support import Engine, script, sockets_to, tasks_on_our_loop, until, wait_for

import comfynb
from comfynb.log.records import result_id
from comfynb.testing import FaultProxy

PATIENT = 3600.0
"""Seconds: a server whose line is down never counts as gone."""


@pytest.fixture(scope="module")
def other_engine():
    engine = Engine()
    yield engine
    engine.stop()


@pytest.fixture(params=SERVERS)
def servers(request):
    """Two servers of a kind, both empty before and after."""
    second = {"engine": "other_engine", "comfyui": "own_comfyui"}[request.param]
    pair = request.getfixturevalue(request.param), request.getfixturevalue(second)
    yield pair
    assert [server.prompts() for server in pair] == [set(), set()]


@pytest.fixture
def connect(tmp_path, monkeypatch):
    """Connect to some addresses; what is connected leaves nothing in this process."""
    monkeypatch.setattr("comfynb.runs.racing.MOVE_SECONDS", 0.1)
    monkeypatch.setattr("comfynb.servers.fleet.LATE_SECONDS", 0)
    monkeypatch.setattr("comfynb.servers.fleet.AGAIN_SECONDS", 0.1)

    @contextmanager
    def connect(*urls):
        with comfynb.connect(
            urls, workflow=plain.flow(), log=tmp_path / "log", reconnect_for=PATIENT
        ) as studio:
            yield studio
        ports = [int(url.rpartition(":")[2]) for url in urls]
        wait_for(lambda: not tasks_on_our_loop())
        assert sockets_to(*ports) == 0

    return connect


def label(server) -> str:
    return server.url.partition("//")[2]


def ended(servers) -> set[str]:
    """Ids of the prompts that have ended on some servers."""
    return set().union(*(server.ended() for server in servers))


async def test_what_a_cut_server_has_is_made_by_the_other_and_comes_later_as_a_further_take(
    servers, connect
):
    cut, other = servers
    before = ended(servers)
    with FaultProxy(cut.url) as line, connect(line.url, other.url) as studio:
        run = studio.run(plain.scenes(8, **{"Guard.seconds": 0.2}))
        await until(lambda: run.state.made and len(cut.prompts()) == 2)
        line.down()
        given = [k async for k in run]
        assert [k.status for k in given] == ["done"] * 8, [str(k.error) for k in given]
        assert len({k.key for k in given}) == 8
        await until(lambda: not cut.prompts())
        drawn = ended(servers) - before
        assert len(drawn) > 8
        line.up()
        await until(lambda: len(studio.log.keyframes()) == len(drawn))
        rows = studio.log.keyframes()
    assert {k.id for k in rows} == set(map(result_id, drawn))
    first = {k.key: k for k in given}
    late = [k for k in rows if k.id not in {k.id for k in given}]
    assert {k.server for k in late} == {label(line)}
    assert {first[k.key].server for k in late} == {label(other)}
    assert all(k.status == "done" and k.read() == first[k.key].read() for k in late)


@asynccontextmanager
async def both_have(count, first, second, connect, *, seconds):
    """Begin a run on one server, cut its line, and wait until another was sent its cells too."""
    with FaultProxy(first.url) as line, FaultProxy(second.url) as other:
        other.down()
        with connect(line.url, other.url) as studio:
            run = studio.run(plain.scenes(count, **{"Guard.seconds": seconds}))
            await until(lambda: len(line.prompts) == count)
            other.up()
            await until(lambda: run.lines[label(other)] == "connected")
            line.down()
            await until(lambda: len(other.prompts) == count)
            yield studio, run, line, other


async def test_the_first_picture_wins_and_the_other_server_is_rid_of_it(servers, connect):
    cut, other = servers
    strangers = [server.post_graph(plain.picture(seconds=60)) for server in servers]
    async with both_have(1, *servers, connect, seconds=0.1) as (studio, run, line, _):
        cut.post("/interrupt", {"prompt_id": strangers[0]})
        await until(lambda: not cut.prompts())
        line.up()
        (keyframe,) = await run
        assert (keyframe.status, keyframe.server) == ("done", label(line))
        await until(lambda: other.prompts() == {strangers[1]})
        assert [k.id for k in studio.log.keyframes()] == [keyframe.id]
    other.quiet()


async def test_what_still_waits_when_the_line_is_back_is_taken_off(servers, connect):
    cut, _ = servers
    stranger = cut.post_graph(plain.picture(seconds=60))
    async with both_have(2, *servers, connect, seconds=0.1) as (studio, run, line, other):
        assert {(k.status, k.server) for k in await run} == {("done", label(other))}
        assert len(cut.prompts()) == 3
        studio.close()  # which need not be there for that
        line.up()
        await until(lambda: cut.prompts() == {stranger})
        kept = comfynb.open_log(studio.log.folder).log.keyframes()
        assert Counter(k.status for k in kept) == {"done": 2}
    cut.quiet()


async def test_a_cancel_ends_what_two_servers_draw(servers, connect):
    async with both_have(1, *servers, connect, seconds=60) as (studio, run, line, _):
        line.up()
        await until(lambda: run.lines[label(line)] == "connected")
        await run.cancel()
        assert [server.prompts() for server in servers] == [set(), set()]
        assert [state.status for state in run.state.cells] == ["cancelled"]
    assert {k.status for k in studio.log.keyframes()} <= {"cancelled"}


KERNEL = """
import json, sys
import comfynb
from comfynb.runs import racing

racing.MOVE_SECONDS = 0.1
log, *given = sys.argv[1:]
urls, graph, scenes = map(json.loads, given)
comfynb.connect(urls, workflow=graph, log=log).run(scenes).wait()
"""


async def test_what_a_killed_kernel_had_sent_to_both_is_fetched_where_it_is_ready(
    servers, connect, tmp_path
):
    """Two cells have a prompt on either server, since the line to the one was cut."""
    cut, other = servers
    before, scenes = ended(servers), plain.scenes(4, **{"Guard.seconds": 0.1})
    strangers = [cut.post_graph(plain.picture(seconds=60))]
    with FaultProxy(cut.url) as line, FaultProxy(other.url) as through:
        urls = [line.url, through.url]
        given = (json.dumps(each) for each in (urls, plain.picture(), scenes))
        kernel = script(KERNEL, tmp_path / "log", *given)
        await until(lambda: len(line.prompts) == len(through.prompts) == 2)
        await until(lambda: len(other.ended() - before) == 2)
        strangers.append(other.post_graph(plain.picture(seconds=60)))
        line.down()
        await until(lambda: len(through.prompts) == 4)
        kernel.kill()
        kernel.communicate()
        cut.post("/interrupt", {"prompt_id": strangers[0]})
        await until(lambda: not cut.prompts())
        line.up()
        with connect(*urls) as studio:
            assert all(k.ok for k in await studio.run(scenes))
            kept = studio.log.keyframes()
        await until(lambda: other.prompts() == {strangers[1]})
    assert Counter(k.status for k in kept) == {"done": 4}
    drawn = ended(servers) - before - set(strangers)
    assert {k.id for k in kept} == set(map(result_id, drawn))
    other.quiet()

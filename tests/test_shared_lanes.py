"""Runs of one process share a server: fairly, without making anything twice."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
from support import until

import comfynb
from comfynb.testing import FaultProxy

_seeds = itertools.count(50_000)


@pytest.fixture
def board():
    """Makes storyboards of 0.1 s a scene, the middle one of which is the same in all of them."""
    first = next(_seeds) * 1000  # the engine remembers what it made last: nothing twice

    def make(name, count=9, *, shared=0.3):
        rows = [
            {"id": f"{name}-{i}", "prompt": f"a {name} boat", "seed": first + i}
            for i in range(count)
        ]
        for row in rows:
            row["knobs"] = {"Guard.seconds": 0.1}
        common = {"prompt": "a castle", "seed": first, "knobs": {"Guard.seconds": shared}}
        rows[count // 2] = {"id": f"{name}-shared", **common}
        return rows

    return make


@pytest.fixture(params=["one studio", "two studios"])
def pair(request, engine, flow, tmp_path):
    """Where two runs begin: the same studio, or two of the same server and log."""

    def connect():
        return comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")

    with connect() as one:
        if request.param == "one studio":
            yield one, one
        else:
            with connect() as two:
                yield one, two


class Watch(threading.Thread):
    """Asks the server again and again how many prompts it has."""

    def __init__(self, engine):
        super().__init__()
        self.most, self._engine, self._end = 0, engine, threading.Event()
        self.start()

    def run(self):
        while not self._end.wait(0.005):
            self.most = max(self.most, len(self._engine.prompts()))

    def end(self):
        self._end.set()
        self.join()
        return self.most


async def test_two_runs_take_turns_and_make_a_shared_cell_once(pair, engine, board):
    before = engine.ended()
    watch = Watch(engine)
    order = []

    async def collect(studio, name):
        async for keyframe in studio.keyframes(board(name)):
            order.append((name, keyframe))  # noqa: PERF401 - in the order of both

    await asyncio.gather(collect(pair[0], "red"), collect(pair[1], "blue"))
    assert watch.end() == 2
    names = [name for name, _ in order]
    assert names.count("red") == names.count("blue") == 9
    # Neither waits for the other: at every moment they are about equally far.
    for n in range(1, len(names)):
        assert abs(names[:n].count("red") - names[:n].count("blue")) <= 3
    assert len(engine.ended() - before) == 17
    assert [k.status for _, k in order].count("done") == 17
    shared = [k for _, k in order if k.scene.id.endswith("shared")]
    assert sorted(k.status for k in shared) == ["cached", "done"]
    assert shared[0].id == shared[1].id


async def test_cancelling_a_run_leaves_the_cell_it_shares_to_the_other(pair, board):
    one = pair[0].run(board("red", 1, shared=1))
    await until(lambda: one.state.cells[0].status == "running")
    first, castle, last = board("blue", 3, shared=1)
    two = pair[1].run([castle, first, last])
    await until(lambda: two._joins)
    await one.cancel()
    assert [c.status for c in one.state.cells] == ["cancelled"]
    assert [k.status for k in await two] == ["done"] * 3


async def test_a_run_that_waits_only_for_a_shared_cell_makes_it_when_its_maker_is_cancelled(
    pair, board
):
    one = pair[0].run(board("red", 1, shared=1))
    await until(lambda: one.state.cells[0].status == "running")
    two = pair[1].run(board("blue", 1, shared=1))
    await until(lambda: two._joins)
    await one.cancel()
    assert [k.status for k in await two] == ["done"]


async def test_cancelling_the_one_that_waits_does_not_hurt_the_maker(pair, engine, board):
    before = engine.ended()
    one = pair[0].run(board("red", 1, shared=1))
    await until(lambda: one.state.cells[0].status == "running")
    two = pair[1].run(board("blue", 1, shared=1))
    await until(lambda: two._joins)
    await asyncio.wait_for(two.cancel(), 0.5)
    assert [c.status for c in two.state.cells] == ["cancelled"]
    assert [k.status for k in await one] == ["done"]
    assert len(engine.ended() - before) == 1


async def test_studios_of_one_server_use_one_socket_whatever_their_logs(
    engine, flow, tmp_path, board
):
    with FaultProxy(engine.url) as proxy:
        with (
            comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "one") as one,
            comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "two") as two,
        ):
            await asyncio.gather(one.run(board("red", 3)), two.run(board("blue", 3)))
            assert proxy.open_sockets == 1
        assert proxy.requests["WS /ws"] == 1
        assert proxy.requests["POST /prompt"] == 6  # a picture in another log is of no use here

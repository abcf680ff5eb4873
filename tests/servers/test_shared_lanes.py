"""Runs of one process share a server: fairly, without making anything twice."""

from __future__ import annotations

import asyncio
import itertools
import json
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

    one, two = pair[0].run(board("red")), pair[1].run(board("blue"))
    keyframes = [*await one, *await two]
    assert watch.end() == 2
    assert [k.status for k in keyframes].count("done") == 17
    shared = [k for k in keyframes if k.scene.id.endswith("shared")]
    assert sorted(k.status for k in shared) == ["cached", "done"]
    assert shared[0].id == shared[1].id
    sent = colors_sent(engine, before)
    assert sorted(sent) == ["blue"] * 8 + ["castle"] + ["red"] * 8
    # From when both are there until one has sent all: neither goes ahead of the other.
    turns = [color for color in sent if color != "castle"]
    begun = max(turns.index("red"), turns.index("blue"))
    done = min(last(turns, "red"), last(turns, "blue"))
    for n in range(begun, done + 1):
        ahead = turns[begun : n + 1].count("red") - turns[begun : n + 1].count("blue")
        assert abs(ahead) <= 2, turns


def colors_sent(engine, before):
    """What the prompts sent since then show, in the order in which the server took them."""
    new = [entry["prompt"] for key, entry in engine.get("/history").items() if key not in before]
    texts = [json.dumps(graph) for _, _, graph, *_ in sorted(new, key=lambda prompt: prompt[0])]
    return [next(c for c in ("castle", "red", "blue") if f"a {c}" in text) for text in texts]


def last(of, value):
    return len(of) - 1 - of[::-1].index(value)


async def test_cancelling_a_run_leaves_the_cell_it_shares_to_the_other(pair, board):
    one = pair[0].run(board("red", 1, shared=2))
    await until(lambda: one.state.cells[0].status == "running")
    first, castle, last = board("blue", 3, shared=2)
    two = pair[1].run([castle, first, last])
    await until(lambda: two._joins)
    await one.cancel()
    assert [c.status for c in one.state.cells] == ["cancelled"]
    assert [k.status for k in await two] == ["done"] * 3


async def test_a_run_that_waits_only_for_a_shared_cell_makes_it_when_its_maker_is_cancelled(
    pair, board
):
    one = pair[0].run(board("red", 1, shared=2))
    await until(lambda: one.state.cells[0].status == "running")
    two = pair[1].run(board("blue", 1, shared=2))
    await until(lambda: two._joins)
    await one.cancel()
    assert [k.status for k in await two] == ["done"]


async def test_cancelling_the_one_that_waits_does_not_hurt_the_maker(pair, engine, board):
    before = engine.ended()
    one = pair[0].run(board("red", 1, shared=2))
    await until(lambda: one.state.cells[0].status == "running")
    two = pair[1].run(board("blue", 1, shared=2))
    await until(lambda: two._joins)
    await two.cancel()
    assert one.state.cells[0].status == "running", "nobody waited for it"
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

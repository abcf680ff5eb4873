"""Cancel takes our prompts off the server and nobody else's: 60 of 60, on both servers."""

from __future__ import annotations

import asyncio
import collections
import random

import plain
import pytest
from support import Stranger, sockets_to, tasks_on_our_loop, until

import comfynb

ROUNDS = 60


@pytest.fixture
def studio(server, tmp_path):
    with comfynb.connect(server.url, workflow=plain.flow(), log=tmp_path / "log") as studio:
        yield studio
    assert sockets_to(server.port) == 0
    assert tasks_on_our_loop() == []


@pytest.fixture
def stranger(server):
    stranger = Stranger(server)
    yield stranger
    stranger.close()


async def theirs_first(studio, server, stranger, pause):
    """Theirs runs, ours wait, theirs waits behind them."""
    theirs = [server.post_graph(plain.picture(seconds=0.15), client_id=stranger.client_id)]
    run = studio.run(plain.scenes(3, **{"Guard.seconds": 30}))
    await until(lambda: len(server.prompts() - set(theirs)) == 2)
    theirs.append(server.post_graph(plain.picture(1), client_id=stranger.client_id))
    await asyncio.sleep(pause)
    return run, theirs


async def ours_first(studio, server, stranger, pause):
    """Ours runs and waits, theirs wait between and behind them."""
    run = studio.run(plain.scenes(3, **{"Guard.seconds": 30}))
    theirs = [server.post_graph(plain.picture(), client_id=stranger.client_id)]
    await until(lambda: len(server.prompts() - set(theirs)) == 2)
    theirs.append(server.post_graph(plain.picture(1), client_id=stranger.client_id))
    await asyncio.sleep(pause)
    return run, theirs


async def theirs_ends_just_now(studio, server, stranger, pause):
    """Ours takes the place of theirs about when it is cancelled: the moment of a wrong victim."""
    theirs = [server.post_graph(plain.picture(seconds=pause), client_id=stranger.client_id)]
    run = studio.run(plain.scenes(1, **{"Guard.seconds": 30}))
    theirs.append(server.post_graph(plain.picture(seconds=0.05), client_id=stranger.client_id))
    await until(lambda: run.state.cells[0].status != "queued")
    await asyncio.sleep(max(0.0, pause - 0.02))
    return run, theirs


async def test_cancel_ends_our_prompts_and_no_strangers_in_60_of_60(studio, server, stranger):
    await studio.run(plain.scenes(1))  # opens the line
    dice, how_theirs_ended = random.Random(1), collections.Counter()
    for number in range(ROUNDS):
        begin = (theirs_first, ours_first, theirs_ends_just_now)[number % 3]
        run, theirs = await begin(studio, server, stranger, dice.uniform(0, 0.1))
        await asyncio.wait_for(run.cancel(), 10)
        assert server.prompts() <= set(theirs), f"round {number}, {begin.__name__}"
        assert {cell.status for cell in run.state.cells} == {"cancelled"}, number
        await until(lambda theirs=theirs: server.ended() >= set(theirs))
        entries = [server.get(f"/history/{prompt}")[prompt] for prompt in theirs]
        how_theirs_ended.update(entry["status"]["status_str"] for entry in entries)
    assert how_theirs_ended == {"success": 2 * ROUNDS}


async def test_what_runs_is_interrupted_by_its_id_and_its_successor_is_not(
    studio, server, stranger
):
    run = studio.run(plain.scenes(1, **{"Guard.seconds": 30}))
    await until(lambda: run.state.counts["running"])
    (ours,) = server.prompts()
    theirs = server.post_graph(plain.picture(), client_id=stranger.client_id)
    await run.cancel()
    ended = server.get(f"/history/{ours}")[ours]["status"]
    assert [kind for kind, _ in ended["messages"]][-1] == "execution_interrupted"
    await until(lambda: stranger.times("execution_success", theirs))


async def test_a_prompt_that_a_stranger_interrupts_is_cancelled_and_the_others_go_on(
    studio, server
):
    run = studio.run(plain.scenes(3, **{"Guard.seconds": 0.3}))
    await until(lambda: run.state.cells[1].status == "running")
    running = server.get("/queue")["queue_running"][0][1]
    server.post("/interrupt", {"prompt_id": running})
    assert [k.status for k in await run] == ["done", "cancelled", "done"]

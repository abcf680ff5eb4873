"""Sockets: who gets what, and nobody waits for anybody."""

import asyncio
import json

import aiohttp
import pytest

from comfynb.engine import sockets as engine_sockets


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def pictures(side, count, seed=0):
    return {
        "1": node("ProbeNoise", size=side, batch=count, seed=seed),
        "2": node("SaveImageWebsocket", images=["1", 0]),
    }


async def test_messages_of_a_prompt_go_to_its_client_only(user, graphs):
    mine, other = await user.connect("mine"), await user.connect("other")
    await user.run(graphs.image(), mine, client_id="mine")
    await user.run(graphs.image(2), other, client_id="other")
    mine_ids = {event["data"]["prompt_id"] for event in mine.events()}
    other_ids = {event["data"]["prompt_id"] for event in other.events()}
    assert len(mine_ids) == len(other_ids) == 1
    assert mine_ids != other_ids


async def test_a_prompt_without_client_shows_progress_to_all(user, graphs):
    one, two = await user.connect("one"), await user.connect("two")
    await user.run(graphs.slow(seconds=0.01, steps=2))
    for socket in (one, two):
        await socket.wait("progress", value=2)
        assert {event["type"] for event in socket.events()} == {"progress", "progress_state"}


async def test_a_prompt_without_client_sends_each_socket_the_preview_it_negotiated(user):
    old = await user.connect("old")
    new = await user.connect("new", flags={"supports_preview_metadata": True})
    await user.run(pictures(8, 1))
    await old.wait("progress")
    await new.wait("progress")
    assert [frame[3] for frame in old.frames()] == [1]
    assert [frame[3] for frame in new.frames()] == [4]


async def test_frames_larger_than_any_default_limit_arrive(user):
    socket = await user.connect("me")
    await user.run(pictures(1500, 1), socket, client_id="me")
    assert len(socket.frames()[0]) > 4 * 2**20


async def test_a_reader_that_stopped_delays_nobody(server, user, graphs, stuck_socket):
    await asyncio.to_thread(stuck_socket, server.url, "stuck")
    quick = await user.connect("quick")
    await user.run(pictures(1024, 6), client_id="stuck")
    await asyncio.wait_for(user.run(graphs.image(), quick, client_id="quick"), 5)


async def test_a_slow_socket_loses_previews_first_and_results_never(monkeypatch):
    client = slow_client()
    monkeypatch.setattr(engine_sockets, "LOSSY_BACKLOG", 10)
    client.put(engine_sockets.Frame("x" * 20))
    client.put(engine_sockets.Frame("preview", lossy=True))
    client.put(engine_sockets.Frame("result"))
    assert list(client._waiting) == ["x" * 20, "result"]


async def test_a_hopeless_socket_is_cut_off_and_its_memory_freed(monkeypatch):
    monkeypatch.setattr(engine_sockets, "MAX_BACKLOG", 100)
    client = slow_client()
    for _ in range(6):
        client.put(engine_sockets.Frame(b"x" * 20))
    assert client.hung_up == [True]
    assert not client._waiting


def slow_client():
    hung_up = []
    client = engine_sockets.Client(None, hang_up=lambda: hung_up.append(True))
    client.hung_up = hung_up
    return client


async def test_a_newer_socket_survives_the_end_of_an_older_one_of_its_id(user, graphs):
    """ComfyUI issue #16010, which the engine does not have."""
    old = await user.connect("same")
    new = await user.connect("same")
    await old.close()
    await asyncio.wait_for(user.run(graphs.image(), new, client_id="same"), 5)


async def test_the_older_socket_of_an_id_gets_nothing_more(user, graphs):
    old = await user.connect("same")
    new = await user.connect("same")
    await user.run(graphs.image(), new, client_id="same")
    assert old.events() == []


async def test_a_socket_without_an_id_is_given_one(user):
    socket = await user.connect()
    (status,) = socket.events("status")
    assert len(status["sid"]) == 32


async def test_who_joins_late_learns_which_node_runs(server, user, graphs):
    prompt_id = await user.submit(graphs.slow(), client_id="late")
    await user.until(lambda: server.node == "2")
    late = await user.connect("late")
    assert await late.wait("executing") == {"node": "2"}
    await user.post("/interrupt", {"prompt_id": prompt_id})
    await late.wait("executing", node=None)


async def test_flags_end_with_their_connection(user):
    first = await user.connect("me", flags={"supports_preview_metadata": True})
    await first.close()
    again = await user.connect("me")
    await user.run(pictures(8, 1), again, client_id="me")
    assert again.frames()[0][3] == 1


@pytest.mark.parametrize("value", [1, "true", None, False])
async def test_only_true_asks_for_metadata(user, value):
    socket = await user.connect("me", flags={"supports_preview_metadata": value})
    await user.run(pictures(8, 1), socket, client_id="me")
    assert socket.frames()[0][3] == 1


async def test_pings_are_answered(user):
    connection = await user.http.ws_connect("/ws", autoping=False)
    await connection.receive()
    await connection.ping(b"hello")
    answer = await connection.receive(timeout=5)
    assert (answer.type, answer.data) == (aiohttp.WSMsgType.PONG, b"hello")
    await connection.close()


async def test_history_is_there_when_the_prompt_has_left(user, graphs):
    socket = await user.connect("me")
    for color in range(50):
        prompt_id = await user.submit(graphs.image(color, side=8), client_id="me")
        await socket.wait("executing", node=None, prompt_id=prompt_id)
        assert prompt_id in (await user.get(f"/history/{prompt_id}"))[1]


async def test_statuses_count_running_and_waiting(user, graphs):
    socket = await user.connect("me")
    first = await user.submit(graphs.slow(), client_id="me")
    await socket.wait("progress")
    second = await user.submit(graphs.image(), client_id="me")
    await user.post("/interrupt", {"prompt_id": first})
    await socket.wait("executing", node=None, prompt_id=second)
    counts = [data["status"]["exec_info"]["queue_remaining"] for data in socket.events("status")]
    assert counts == [0, 1, 1, 2, 1, 1, 0]


async def test_nan_comes_through_as_a_bare_token(user):
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("ProbeSleep", image=["1", 0], seconds=float("nan"), steps=1, tag=""),
        "3": node("PreviewImage", images=["2", 0]),
    }
    entry = await user.run(graph)
    assert "NaN" in json.dumps(entry["prompt"][2])

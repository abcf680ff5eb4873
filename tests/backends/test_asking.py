"""Asking a server about a prompt: the same answer whichever way the server knows it by."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fake_servers import FakeServer

from comfynb.backends.comfyui import Address, ComfyUIBackend
from comfynb.backends.comfyui.asking import Asking, Found
from comfynb.backends.comfyui.http import Http
from comfynb.backends.comfyui.releases import MARK, Release
from comfynb.errors import ServerError, ServerGoneError
from comfynb.testing import Fail, FaultProxy

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {}}}
NO_QUEUE = {"queue_running": [], "queue_pending": []}


@pytest.fixture
async def ask():
    """Asks a server with certain answers for the prompt "ours"."""
    clients = []

    async def ask(answers, *, release="0.3.75", times=1):
        with FakeServer(answers) as server:
            http = Http(Address.parse(server.url))
            clients.append(http)
            asking = Asking(http)
            asking.release = Release.of(release)
            found = [await asking.find("ours") for _ in range(times)]
            return found[-1], [path for _, path, _ in server.requests]

    yield ask
    for client in clients:
        await client.aclose()


@pytest.mark.parametrize(
    "answers",
    [
        {"/queue": {**NO_QUEUE, "queue_running": [[1, "ours", GRAPH, {}, ["1"]]]}},
        {"/queue": {**NO_QUEUE, "queue_pending": [[1, "other"], [2, "ours", GRAPH, {}, []]]}},
        {"/queue": NO_QUEUE, "/history/ours": {"ours": {"prompt": [1, "ours", GRAPH, {}, []]}}},
        {"/api/jobs/ours": {"id": "ours", "status": "pending", "workflow": {"prompt": GRAPH}}},
    ],
    ids=["running", "pending", "ended", "job"],
)
async def test_a_prompt_is_found_with_its_graph_wherever_it_stands(ask, answers):
    found, _ = await ask(answers)
    assert found.id == "ours"
    assert dict(found.graph["1"]) == GRAPH["1"]


@pytest.mark.parametrize("junk", [None, 7, [], {"1": "node"}, {"1": {"class_type": 3}}])
async def test_a_graph_that_makes_no_sense_is_left_out(ask, junk):
    found, _ = await ask({"/queue": {**NO_QUEUE, "queue_running": [[1, "ours", junk, {}, []]]}})
    assert found == Found("ours", {})


async def test_a_server_without_jobs_is_tried_once_and_one_with_them_is_asked_nothing_else(ask):
    unknown = {"/queue": NO_QUEUE, "/history/ours": {}}
    found, requests = await ask(unknown, times=3)
    assert found is None
    assert requests == ["/api/jobs/ours", "/api/jobs?limit=1", *["/queue", "/history/ours"] * 3]
    found, requests = await ask({"/api/jobs": {"jobs": []}}, times=3)
    assert found is None
    assert requests == ["/api/jobs/ours", "/api/jobs?limit=1", *["/api/jobs/ours"] * 2]


async def test_a_server_in_trouble_denies_nothing(ask):
    with pytest.raises(ServerError):
        await ask({"/api/jobs/ours": (500, b"trouble")})
    with pytest.raises(ServerError):
        await ask({"/queue": (500, b"trouble")})


async def test_a_dead_sessions_prompt_is_asked_for_as_long_as_a_server_may_be_away(engine):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail("GET /jobs", status=503, times=None, accepted=False))
        backend = ComfyUIBackend(Address.parse(proxy.url), reconnect_for=0.3)
        await backend.open()
        with pytest.raises(ServerGoneError, match=r"cannot be asked for 0\.3 s"):
            await backend.adopt("ours", GRAPH, print, sent_at=datetime.now(UTC))
        await backend.aclose()


@pytest.mark.parametrize("where", ["running", "ended"])
async def test_where_the_server_chooses_ids_a_prompt_is_found_by_its_mark(ask, where):
    item = [1, "theirs", GRAPH, {MARK: "ours"}, ["1"]]
    strangers = [[0, "x", GRAPH, {}, []], [0, "y"], "junk"]
    running = [*strangers, item] if where == "running" else strangers
    ended = {"theirs": {"prompt": item}} if where == "ended" else {"z": {"prompt": None}, "q": 3}
    answers = {"/queue": {"queue_running": running, "queue_pending": []}, "/history": ended}
    found, _ = await ask(answers, release="0.3.44")
    assert found.id == "theirs"


def test_a_release_says_what_it_can_do():
    assert Release.of("0.3.44") == Release("0.3.44", takes_ids=False, interrupts_by_id=False)
    assert Release.of("0.3.45") == Release("0.3.45", takes_ids=True, interrupts_by_id=False)
    assert "0.3.56 cannot interrupt" in Release.of("0.3.56").warning
    for new in ("0.3.57", "v0.3.75-3-gabc", "1.0", "0.38.1", "", "unknown"):
        assert Release.of(new).warning == ""

"""FaultProxy in front of the embedded engine: a whole prompt passes, and breaks, for real."""

import contextlib
import json
import uuid

import httpx
import pytest
import websockets
from support import Engine, guarded_graph
from websockets.asyncio.client import connect as ws_connect

from comfynb.testing import Cut, FaultProxy, Swallow
from comfynb.workflows import Workflow

TOKEN = "of-the-test"


@pytest.fixture(scope="module")
def guarded_engine():
    engine = Engine(TOKEN)
    yield engine
    engine.stop()


@pytest.fixture
def proxy(guarded_engine):
    with FaultProxy(guarded_engine.url, token=TOKEN) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def clients(proxy, **headers):
    client_id = uuid.uuid4().hex
    url = f"{proxy.url.replace('http', 'ws')}/ws?clientId={client_id}"
    async with (
        httpx.AsyncClient(base_url=proxy.url, headers=headers, trust_env=False) as http,
        ws_connect(url, max_size=None, proxy=None, additional_headers=headers) as ws,
    ):
        yield http, ws, client_id


async def submit(http, client_id, seed):
    workflow = Workflow.load(guarded_graph(steps=4))
    knobs = {"positive": "a fox", "seed": seed, "checkpoint": "tiny-scenes.onnx"}
    graph = workflow.with_knobs(knobs).graph
    prompt_id = str(uuid.uuid4())
    body = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id}
    answer = await http.post("/prompt", content=json.dumps(body, default=dict))
    assert answer.status_code == 200, answer.text
    return prompt_id


async def follow(ws, prompt_id):
    """Read until the prompt has left the worker; return the files it reported."""
    files = []
    async for frame in ws:
        if isinstance(frame, bytes):
            continue
        message = json.loads(frame)
        data = message["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if message["type"] == "executed":
            files += data["output"]["images"]
        if message["type"] == "executing" and data["node"] is None:
            return files
    raise AssertionError("the socket closed before the prompt ended")


async def test_a_picture_takes_two_requests_and_no_polls(proxy):
    async with clients(proxy) as (http, ws, client_id):
        prompt_id = await submit(http, client_id, seed=1)
        (file,) = await follow(ws, prompt_id)
        picture = await http.get("/view", params=file)
    assert picture.content.startswith(b"\x89PNG")
    assert proxy.requests == {"WS /ws": 1, "POST /prompt": 1, "GET /view": 1}
    kinds = [entry.kind for entry in proxy.forwarded if entry.prompt_id == prompt_id]
    assert kinds[:2] == ["execution_start", "execution_cached"]
    assert kinds[-2:] == ["execution_success", "executing:null"]
    assert kinds.count("progress") == 4 + 1  # steps of the sampler and of the guard


async def test_token_of_the_client_decides_where_it_sends_one(proxy):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with clients(proxy, Authorization="Bearer wrong"):
            pass
    assert refused.value.response.status_code == 401


async def test_progress_tells_where_to_cut(proxy):
    proxy.add(Cut(progress=0.5))
    async with clients(proxy) as (http, ws, client_id):
        prompt_id = await submit(http, client_id, seed=2)
        with pytest.raises(websockets.ConnectionClosedError):
            await follow(ws, prompt_id)
    assert proxy.kinds.count("progress") == 1


async def test_swallowed_executed_is_the_only_message_missing(proxy):
    lost = proxy.add(Swallow("executed"))
    async with clients(proxy) as (http, ws, client_id):
        prompt_id = await submit(http, client_id, seed=3)
        assert await follow(ws, prompt_id) == []
        history = (await http.get(f"/history/{prompt_id}")).json()
    assert lost.applied == 1
    (outputs,) = history[prompt_id]["outputs"].values()
    assert len(outputs["images"]) == 1

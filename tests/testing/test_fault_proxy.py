"""FaultProxy against a small real server: what passes, what breaks, what is left behind."""

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter

import aiohttp
import httpx
import psutil
import pytest
import websockets
from aiohttp import web
from websockets.asyncio.client import connect as ws_connect

from comfynb.testing import (
    Blank,
    Cut,
    Delay,
    Down,
    DropAnswer,
    Duplicate,
    Fail,
    FaultProxy,
    HalfOpen,
    Insert,
    LateAnswer,
    Restart,
    Slow,
    Swallow,
    Truncate,
    Usurp,
    strangers_prompt,
)

PICTURE = bytes(range(256)) * 40
STEPS = 4


class Upstream:
    """Speaks as much of ComfyUI's protocol as the proxy looks at, on a thread of its own."""

    def __init__(self):
        self.requests = Counter()
        self.headers = {}
        self.history = {}
        self.queries = []
        self.received = []
        self.sockets = []
        self.client_ids = []
        self.closes = []
        self.pings = 0
        self.port = 0

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.call(self.open())
        return self

    def __exit__(self, *_):
        self.call(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def open(self):
        app = web.Application()
        app.add_routes(
            [
                web.get("/ws", self.ws),
                web.post("/prompt", self.prompt),
                web.post("/api/prompt", self.prompt),
                web.get("/history/{id}", self.get_history),
                web.get("/view", self.view),
            ]
        )
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def note(self, request):
        self.requests[f"{request.method} {request.path}"] += 1
        self.headers = dict(request.headers)
        self.queries.append(request.raw_path)

    async def ws(self, request):
        self.note(request)
        if request.query.get("clientId") == "refuse":
            return web.Response(status=401)
        response = web.WebSocketResponse(autoping=False)
        await response.prepare(request)
        self.sockets.append(response)
        self.client_ids.append(request.query.get("clientId"))
        async for message in response:
            if message.type is aiohttp.WSMsgType.PING:
                self.pings += 1
                await response.pong(message.data)
            else:
                self.received.append(message.data)
        self.closes.append(response.close_code)
        return response

    async def prompt(self, request):
        self.note(request)
        prompt_id = (await request.json())["prompt_id"]
        self.history[prompt_id] = {"outputs": {}}
        for frame in frames(prompt_id):
            for response in self.sockets:
                with contextlib.suppress(ConnectionError):
                    await (
                        response.send_str(frame)
                        if isinstance(frame, str)
                        else response.send_bytes(frame)
                    )
        return web.json_response({"prompt_id": prompt_id, "number": 0, "node_errors": {}})

    async def get_history(self, request):
        self.note(request)
        prompt_id = request.match_info["id"]
        found = {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
        return web.json_response(found)

    async def view(self, request):
        self.note(request)
        return web.Response(body=PICTURE, content_type="image/png")


def frames(prompt_id):
    """One prompt's messages as ComfyUI sends them."""

    def text(kind, **data):
        return json.dumps({"type": kind, "data": {"prompt_id": prompt_id, **data}})

    metadata = json.dumps({"prompt_id": prompt_id, "node_id": "3"}).encode()
    preview = struct.pack(">II", 4, len(metadata)) + metadata + b"jpeg"
    steps = [text("progress", node="3", value=n + 1, max=STEPS) for n in range(STEPS)]
    return [
        text("execution_start"),
        text("executing", node="3"),
        *steps,
        preview,
        text("executed", node="9", output={"images": []}),
        text("execution_success"),
        text("executing", node=None),
    ]


KINDS = [
    "execution_start",
    "executing",
    *["progress"] * STEPS,
    "binary:4",
    "executed",
    "execution_success",
    "executing:null",
]


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def proxy(upstream):
    with FaultProxy(upstream.url) as proxy:
        yield proxy


@pytest.fixture
async def http(proxy):
    async with httpx.AsyncClient(base_url=proxy.url, trust_env=False) as client:
        yield client


@contextlib.asynccontextmanager
async def listening(proxy, query="clientId=me"):
    url = f"{proxy.url.replace('http', 'ws')}/ws?{query}"
    async with ws_connect(url, ping_interval=None, max_size=None, proxy=None) as ws:
        yield ws


async def submit(http, prompt_id="p1"):
    return await http.post("/prompt", json={"prompt_id": prompt_id, "prompt": {}})


async def receive(ws, count):
    """The kinds of the next messages, as far as they can be told without the proxy."""
    return [kind_of(await asyncio.wait_for(ws.recv(), 5)) for _ in range(count)]


def kind_of(frame):
    if isinstance(frame, bytes):
        return f"binary:{struct.unpack_from('>I', frame)[0]}"
    body = json.loads(frame)
    ended = body["type"] == "executing" and body["data"]["node"] is None
    return "executing:null" if ended else body["type"]


async def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        await asyncio.sleep(0.005)


async def test_without_rules_everything_passes_and_is_counted(proxy, upstream, http):
    async with listening(proxy) as ws:
        answer = await submit(http)
        assert answer.json()["prompt_id"] == "p1"
        assert await receive(ws, len(KINDS)) == KINDS
        await ws.send("from the client")
        await until(lambda: upstream.received == ["from the client"])
    picture = await http.get("/view", params={"filename": "a b.png"})
    await http.get("/history/p1")
    assert picture.content == PICTURE
    assert picture.headers["content-type"] == "image/png"
    assert proxy.requests == {
        "WS /ws": 1, "POST /prompt": 1, "GET /view": 1, "GET /history": 1
    }  # fmt: skip
    assert proxy.kinds == KINDS
    assert {message.prompt_id for message in proxy.forwarded} == {"p1"}
    assert proxy.prompts == ["p1"]


async def test_headers_query_and_api_prefix_pass_as_they_are(proxy, upstream, http):
    await http.get("/view?filename=h%C3%A9%2Fx.png", headers={"Authorization": "Bearer theirs"})
    assert upstream.queries == ["/view?filename=h%C3%A9%2Fx.png"]
    assert upstream.headers["Authorization"] == "Bearer theirs"
    assert upstream.headers["Host"] == f"127.0.0.1:{upstream.port}"
    await http.post("/api/prompt", json={"prompt_id": "x"}, headers={"Origin": proxy.url})
    assert upstream.headers["Origin"] == upstream.url
    assert proxy.requests["POST /prompt"] == 1
    async with listening(proxy, "clientId=me%20too"):
        assert upstream.queries[-1] == "/ws?clientId=me%20too"


async def test_own_token_is_used_where_the_client_sends_none(upstream):
    with FaultProxy(upstream.url, token="secret") as proxy:
        async with httpx.AsyncClient(base_url=proxy.url, trust_env=False) as http:
            await http.get("/view")
            assert upstream.headers["Authorization"] == "Bearer secret"
            await http.get("/view", headers={"Authorization": "Bearer theirs"})
            assert upstream.headers["Authorization"] == "Bearer theirs"


async def test_refused_handshake_keeps_its_status(proxy):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with listening(proxy, "clientId=refuse"):
            pass
    assert refused.value.response.status_code == 401


async def test_pings_are_answered_by_the_server_and_not_by_the_proxy(proxy, upstream):
    async with listening(proxy) as ws:
        await asyncio.wait_for(await ws.ping(), 5)
    assert upstream.pings == 1


async def test_close_codes_pass_in_both_directions(proxy, upstream):
    async with listening(proxy) as ws:
        await ws.close(code=4001)
        await until(lambda: upstream.closes)
    async with listening(proxy) as ws:
        await until(lambda: len(upstream.sockets) == 2)
        upstream.call(upstream.sockets[1].close(code=4002))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await ws.recv()
    assert closed.value.rcvd.code == 4002
    await until(lambda: proxy.open_sockets == 0)


@pytest.mark.parametrize("times", [1, None])
async def test_swallow_loses_messages_of_one_kind(proxy, http, times):
    fault = proxy.add(Swallow("executed", times=times))
    async with listening(proxy) as ws:
        await submit(http, "p1")
        await submit(http, "p2")
        without = [kind for kind in KINDS if kind != "executed"]
        second = without if times is None else KINDS
        assert await receive(ws, len(without) + len(second)) == without + second
    assert (fault.applied, fault.seen) == (2 if times is None else 1, 2)
    assert proxy.kinds == without + second


@pytest.mark.parametrize("which", [2, "p2"])
async def test_swallow_loses_the_end_of_one_prompt_only(proxy, http, which):
    proxy.add(Swallow("executing:null", prompt=which, times=None))
    async with listening(proxy) as ws:
        for prompt_id in ("p1", "p2", "p3"):
            await submit(http, prompt_id)
        kinds = await receive(ws, 3 * len(KINDS) - 1)
    ends = [entry.prompt_id for entry in proxy.forwarded if entry.kind == "executing:null"]
    assert kinds.count("executing:null") == 2
    assert ends == ["p1", "p3"]


async def test_duplicate_sends_a_message_again(proxy, http):
    proxy.add(Duplicate("executed", copies=3))
    async with listening(proxy) as ws:
        await submit(http)
        kinds = await receive(ws, len(KINDS) + 2)
    assert kinds.count("executed") == 3
    assert kinds[-1] == "executing:null"


async def test_delay_holds_a_message_and_those_behind_it(proxy, http):
    proxy.add(Delay("executed", seconds=0.2))
    async with listening(proxy) as ws:
        before = time.monotonic()
        await submit(http)
        assert await receive(ws, len(KINDS)) == KINDS
    assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize(
    ("rule", "before"),
    [
        (Cut(nth=4), 3),
        (Cut("executed"), KINDS.index("executed")),
        (Cut(progress=0.5), 3),
        (Cut("binary:4", prompt=1), KINDS.index("binary:4")),
    ],
    ids=["n-th", "kind", "progress", "binary"],
)
async def test_cut_ends_the_socket_without_a_close_frame_at_that_message(proxy, http, rule, before):
    fault = proxy.add(rule)
    async with listening(proxy) as ws:
        await submit(http)
        assert await receive(ws, before) == KINDS[:before]
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await asyncio.wait_for(ws.recv(), 5)
    assert closed.value.rcvd is None
    assert fault.applied == 1
    async with listening(proxy) as ws:  # and a new one works
        await submit(http, "p2")
        assert await receive(ws, len(KINDS)) == KINDS


@pytest.mark.parametrize("kind", ["executed", "binary:4"])
@pytest.mark.parametrize("after", [1, 9])
async def test_cut_at_a_byte_ends_the_socket_within_a_message(proxy, http, kind, after):
    received = []
    proxy.add(Cut(kind, after_bytes=after))
    address = proxy.url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(HANDSHAKE.format(port=address[1]).encode())
    await reader.readuntil(b"\r\n\r\n")
    await submit(http)
    async with asyncio.timeout(5):
        received = await reader.read()
    writer.close()
    whole = [frame.encode() if isinstance(frame, str) else frame for frame in frames("p1")]
    before = whole[: KINDS.index(kind)]
    # Their heads have 2 bytes up to 125 bytes of payload, else 4.
    sent = sum(len(payload) + (2 if len(payload) < 126 else 4) for payload in before)
    assert len(received) == sent + after
    assert received[sent] == (0x81 if kind == "executed" else 0x82)


HANDSHAKE = (
    "GET /ws?clientId=raw HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


async def test_insert_tells_of_a_strangers_whole_prompt_before_the_message(proxy, http):
    fault = proxy.add(Insert("execution_start", times=2))
    async with listening(proxy) as ws:
        await submit(http, "p1")
        await submit(http, "p2")
        strange = len(strangers_prompt())
        kinds = await receive(ws, 2 * (strange + len(KINDS)))
    assert kinds.count("executing:null") == 4
    assert kinds[strange : strange + len(KINDS)] == KINDS
    assert fault.applied == 2
    assert proxy.prompts == ["p1", "p2"]


async def test_insert_sends_what_it_is_given(proxy, http):
    proxy.add(Insert("executed", frames=[json.dumps({"type": "executing", "data": {"node": "x"}})]))
    async with listening(proxy) as ws:
        await submit(http)
        kinds = await receive(ws, len(KINDS) + 1)
    at = KINDS.index("executed")
    assert kinds == [*KINDS[:at], "executing", *KINDS[at:]]


async def test_usurp_connects_a_second_client_under_the_same_id(proxy, upstream, http):
    proxy.add(Usurp("execution_start"))
    async with listening(proxy, "clientId=mine") as ws:
        await submit(http)
        assert await receive(ws, 1) == KINDS[:1]
        await until(lambda: upstream.client_ids == ["mine", "mine"])
    await until(lambda: len(upstream.closes) == 2)  # it leaves with the first


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [
        (DropAnswer("WS /ws"), websockets.InvalidMessage),
        (Fail("WS /ws", status=503), websockets.InvalidStatus),
    ],
    ids=["dropped", "refused"],
)
async def test_a_handshake_can_be_broken(proxy, upstream, rule, refusal):
    proxy.add(rule)
    with pytest.raises(refusal):
        async with listening(proxy):
            pass
    async with listening(proxy):
        await until(lambda: len(upstream.sockets) == 1)
    assert proxy.requests["WS /ws"] == 2


async def test_restart_restarts_the_server_and_cuts_the_socket(proxy, upstream, http):
    restarted = threading.Event()

    class Server:
        def restart(self):
            restarted.set()

    proxy.add(Restart("executed", server=Server()))
    async with listening(proxy) as ws:
        await submit(http)
        await receive(ws, KINDS.index("executed"))
        with pytest.raises(websockets.ConnectionClosedError):
            await asyncio.wait_for(ws.recv(), 5)
    await until(restarted.is_set)


async def test_down_for_a_while_comes_back_by_itself(proxy, http):
    proxy.add(Down("executed", seconds=0.2))
    async with listening(proxy) as ws:
        with pytest.raises(httpx.RemoteProtocolError):  # its answer comes after its messages
            await submit(http)
        with pytest.raises(websockets.ConnectionClosedError):
            await receive(ws, len(KINDS))
    assert refused(proxy)
    await until(lambda: not refused(proxy))
    proxy.down(3600)
    assert refused(proxy)
    proxy.up()  # sooner
    proxy.up()  # and again, which changes nothing
    assert not refused(proxy)


def refused(proxy):
    with contextlib.suppress(ConnectionRefusedError), socket.socket() as knocking:
        knocking.connect(("127.0.0.1", int(proxy.url.rpartition(":")[2])))
        return False
    return True


async def test_half_open_is_silent_for_both_sides_and_answers_no_ping(proxy, upstream, http):
    fault = proxy.add(HalfOpen("executed"))
    async with listening(proxy) as ws:
        await submit(http)
        before = KINDS.index("executed")
        assert await receive(ws, before) == KINDS[:before]
        await until(lambda: fault.applied)
        pong = await ws.ping()
        await ws.send("nobody hears this")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pong, 0.2)
        ws.transport.abort()
    # The server still believes in the old socket; a new one is fine.
    async with listening(proxy) as ws:
        await submit(http, "p2")
        assert await receive(ws, len(KINDS)) == KINDS
    assert upstream.received == []
    assert upstream.closes == [] or len(upstream.sockets) == 2
    assert not upstream.sockets[0].closed


async def test_half_open_from_outside_mutes_the_sockets_that_are_open_now(proxy, http):
    async with listening(proxy) as old:
        proxy.half_open()
        async with listening(proxy) as new:
            await submit(http)
            assert await receive(new, len(KINDS)) == KINDS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(old.recv(), 0.1)
        proxy.kill()
        with pytest.raises(websockets.ConnectionClosedError):
            await asyncio.wait_for(old.recv(), 5)


async def test_a_silent_socket_that_its_client_has_closed_can_still_be_cut(proxy, http):
    async with listening(proxy) as ws:
        proxy.half_open()
        closing = asyncio.create_task(ws.close())
        await http.get("/view")  # by now the proxy has seen it leave
        await asyncio.wait_for(asyncio.to_thread(proxy.kill), 5)
        await asyncio.wait_for(asyncio.to_thread(proxy.kill), 5)  # its loop still turns
        await closing


async def test_history_is_blank_for_n_requests(proxy, upstream, http):
    await submit(http)
    proxy.add(Blank(times=2))
    answers = [(await http.get("/history/p1")).json() for _ in range(3)]
    assert answers == [{}, {}, {"p1": {"outputs": {}}}]
    assert upstream.requests["GET /history/p1"] == 1
    assert proxy.requests["GET /history"] == 3


async def test_history_comes_late(proxy, http):
    await submit(http)
    proxy.add(LateAnswer(seconds=0.2))
    before = time.monotonic()
    assert (await http.get("/history/p1")).json() == {"p1": {"outputs": {}}}
    assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize("accepted", [True, False])
async def test_fail_answers_5xx_whether_or_not_the_server_took_it(proxy, upstream, http, accepted):
    proxy.add(Fail(status=503, accepted=accepted, times=2))
    statuses = [(await submit(http, f"p{n}")).status_code for n in range(3)]
    assert statuses == [503, 503, 200]
    assert list(upstream.history) == (["p0", "p1", "p2"] if accepted else ["p2"])


async def test_drop_answer_cuts_after_the_server_took_the_prompt(proxy, upstream, http):
    proxy.add(DropAnswer())
    with pytest.raises(httpx.RemoteProtocolError):
        await submit(http)
    assert list(upstream.history) == ["p1"]
    assert (await submit(http, "p2")).status_code == 200


async def test_nth_leaves_the_first_requests_alone(proxy, http):
    proxy.add(Fail("GET /view", nth=2))
    assert [(await http.get("/view")).status_code for _ in range(3)] == [200, 502, 200]


async def test_slow_paces_the_bytes_and_changes_none(proxy, http):
    proxy.add(Slow(bytes_per_second=len(PICTURE) / 0.3))
    before = time.monotonic()
    assert (await http.get("/view")).content == PICTURE
    assert time.monotonic() - before >= 0.25


async def test_truncate_cuts_in_the_middle_of_the_bytes(proxy, http):
    proxy.add(Truncate(after_bytes=1000))
    got = bytearray()

    async def read():
        async with http.stream("GET", "/view") as answer:
            async for piece in answer.aiter_raw():
                got.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    assert bytes(got) == PICTURE[:1000]


async def test_down_cuts_and_refuses_until_up_on_the_same_port(proxy, http):
    url = proxy.url
    async with listening(proxy) as ws:
        proxy.down()
        with pytest.raises(websockets.ConnectionClosedError):
            await asyncio.wait_for(ws.recv(), 5)
    with pytest.raises(httpx.ConnectError):
        await http.get("/view")
    proxy.up()
    assert proxy.url == url
    assert (await http.get("/view")).content == PICTURE


async def test_server_can_die_at_a_message(proxy, http):
    proxy.add(Down("executed", prompt=2))
    async with listening(proxy) as ws:
        await submit(http, "p1")
        with contextlib.suppress(httpx.TransportError):
            await submit(http, "p2")
        assert (await receive(ws, len(KINDS)))[-1] == "executing:null"
        with pytest.raises(websockets.ConnectionClosedError):
            await receive(ws, len(KINDS))
    with pytest.raises(httpx.ConnectError):
        await http.get("/view")


async def test_kill_cuts_requests_under_way(proxy, http):
    fault = proxy.add(LateAnswer("GET /view", seconds=3600))
    request = asyncio.create_task(http.get("/view"))
    await until(lambda: fault.applied == 1)
    proxy.kill()
    with pytest.raises(httpx.RemoteProtocolError):
        await request
    assert (await http.get("/view")).status_code == 200


async def test_death_of_the_server_reaches_the_client(proxy, upstream, http):
    async with listening(proxy) as ws:
        await until(lambda: upstream.sockets)
        upstream.loop.call_soon_threadsafe(upstream.sockets[0]._req.transport.abort)
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await asyncio.wait_for(ws.recv(), 5)
    assert closed.value.rcvd is None
    with socket.create_server(("127.0.0.1", 0)) as unused:
        proxy.upstream = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/view")
    proxy.upstream = upstream.url
    assert (await http.get("/view")).status_code == 200


async def test_rules_act_in_the_order_they_were_added_and_can_be_taken_off(proxy, http):
    first = proxy.add(Fail("GET /view", status=500, times=None))
    second = proxy.add(Fail("GET /view", status=503, times=None))
    assert (await http.get("/view")).status_code == 500
    proxy.remove(first)
    assert (await http.get("/view")).status_code == 503
    proxy.clear()
    assert (await http.get("/view")).status_code == 200
    assert (first.applied, second.applied) == (1, 1)


def test_a_fault_that_never_acts_says_how_many_matched(proxy):
    fault = proxy.add(Cut("executed"))
    with pytest.raises(TimeoutError, match=r"Cut\(kind='executed'.*0 matched"):
        fault.wait(0.01)


async def test_faults_happen_while_the_callers_loop_is_blocked(proxy, upstream):
    fault = proxy.add(Cut("executed"))
    async with listening(proxy):
        await until(lambda: upstream.sockets)
        poster = threading.Thread(
            target=httpx.post,
            args=(f"{proxy.url}/prompt",),
            kwargs={"json": {"prompt_id": "p1"}, "trust_env": False},
        )
        poster.start()
        fault.wait(5)  # this thread's loop does not turn meanwhile
        poster.join()
        assert fault.applied == 1


async def test_close_leaves_no_thread_and_no_socket(upstream):
    process = psutil.Process()
    threads, sockets = threading.active_count(), len(process.net_connections())
    with FaultProxy(upstream.url) as proxy:
        proxy.add(LateAnswer("GET /view", seconds=3600))
        proxy.add(HalfOpen("executed"))
        async with (
            httpx.AsyncClient(base_url=proxy.url, trust_env=False) as http,
            listening(proxy),
        ):
            await submit(http)
            waiting = asyncio.create_task(http.get("/view"))
            await until(lambda: proxy.requests["GET /view"] == 1)
            proxy.close()
            with pytest.raises(httpx.RemoteProtocolError):
                await waiting
    proxy.close()
    assert threading.active_count() == threads
    await until(lambda: len(process.net_connections()) == sockets)


def test_start_twice_is_refused_and_closed_proxy_says_so(upstream):
    with FaultProxy(upstream.url) as proxy, pytest.raises(RuntimeError, match="running already"):
        proxy.start()
    with pytest.raises(RuntimeError, match="not running"):
        proxy.kill()


def test_missing_aiohttp_is_named_with_what_to_install():
    code = "import sys; sys.modules['aiohttp'] = None; import comfynb.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'comfynb[engine]'" in done.stderr

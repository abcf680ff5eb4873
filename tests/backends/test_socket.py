"""One connection: how it opens, what it refuses, how it comes back, when it is gone."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import asynccontextmanager

import pytest
from fake_servers import HTML, STATS, FakeServer, RawServer, closed_port
from support import Engine, until
from websockets.asyncio.server import serve

from comfynb.backends.comfyui import Address
from comfynb.backends.comfyui import http as http_module
from comfynb.backends.comfyui import socket as socket_module
from comfynb.backends.comfyui.http import Http
from comfynb.backends.comfyui.messages import ExecutionStart, ImageFrame
from comfynb.backends.comfyui.socket import Connection
from comfynb.errors import (
    AccessDeniedError,
    NotComfyUIError,
    RedirectedError,
    ServerError,
    ServerGoneError,
    ServerUnreachableError,
)
from comfynb.testing import DropAnswer, Fail, FaultProxy


class Heard:
    """A connection and what it says."""

    def __init__(self, url: str, *, reconnect_for: float = 5.0, **address) -> None:
        self.messages, self.reconnected, self.gone = [], 0, []
        self.alive = True
        where = Address.parse(url, **address)
        self.http = Http(where)
        self.connection = Connection(
            where,
            self.http,
            reconnect_for=reconnect_for,
            alive=lambda: self.alive,
            on_message=self.messages.append,
            on_reconnected=self._again,
            on_gone=self.gone.append,
        )

    def _again(self) -> None:
        self.reconnected += 1


@asynccontextmanager
async def connected(url: str, **options):
    heard = Heard(url, **options)
    try:
        await heard.connection.open()
        yield heard
    finally:
        await heard.connection.aclose()
        await heard.http.aclose()


async def refused(url: str, **options) -> Exception:
    with pytest.raises(Exception) as raised:
        async with connected(url, **options):
            pass
    assert raised.value.server in url
    return raised.value


@asynccontextmanager
async def scripted(talk):
    """A server whose /system_stats is right and whose socket does what a test says."""

    async def stats_or_socket(connection, request):
        if request.path.startswith("/system_stats"):
            return connection.respond(200, json.dumps(STATS))
        return None

    async with serve(talk, "127.0.0.1", 0, process_request=stats_or_socket) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def first_status(sid: str = "s") -> str:
    return json.dumps({"type": "status", "data": {"status": {}, "sid": sid}})


# -- opening


async def test_it_is_ready_after_the_first_status_with_flags_sent_and_a_fresh_id():
    flags, paths = [], []

    async def talk(socket):
        paths.append(socket.request.path)
        flags.append(json.loads(await socket.recv()))
        await socket.send(first_status())
        await socket.wait_closed()

    async with scripted(talk) as url:
        for _ in range(2):
            async with connected(url + "/?key=k") as heard:
                assert heard.connection.state == "ready"
                assert f"clientId={heard.connection.client_id}" in paths[-1]
                assert "key=k" in paths[-1]
    assert flags == [{"type": "feature_flags", "data": {"supports_preview_metadata": True}}] * 2
    assert paths[0] != paths[1]


async def test_opening_twice_keeps_the_connection(engine):
    async with connected(engine.url) as heard:
        first = heard.connection.client_id
        info = await heard.connection.open()
        assert heard.connection.client_id == first
        assert info.version


async def test_two_that_open_at_once_share_it(engine):
    heard = Heard(engine.url)
    await asyncio.gather(*(heard.connection.open() for _ in range(5)))
    assert heard.connection.epoch == 1
    await heard.connection.aclose()
    await heard.http.aclose()


async def test_the_token_opens_the_socket_too():
    engine = Engine(token="sekret-token")
    try:
        async with connected(engine.url, token="sekret-token") as heard:
            assert heard.connection.state == "ready"
        error = await refused(engine.url, token="wrong-token")
        assert isinstance(error, AccessDeniedError)
        assert "wrong-token" not in str(error)
    finally:
        engine.stop()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_socket_that_is_refused_although_http_is_open_names_the_token(status):
    with FakeServer({"/system_stats": STATS, "/ws": (status, b"")}) as server:
        error = await refused(server.url)
    assert isinstance(error, AccessDeniedError)
    assert error.status == status
    assert "the WebSocket" in str(error)
    assert "token=..." in str(error)


@pytest.mark.parametrize("status", [200, 404])
async def test_a_proxy_that_does_not_pass_websockets_is_named(status):
    with FakeServer({"/system_stats": STATS, "/ws": (status, HTML)}) as server:
        error = await refused(server.url)
    assert isinstance(error, NotComfyUIError)
    assert f"with {status}" in str(error)
    assert "proxy" in str(error)


async def test_a_redirected_socket_is_not_followed():
    with FakeServer() as other:
        there = {"Location": other.url.replace("http", "ws") + "/ws"}
        answers = {"/system_stats": STATS, "/ws": (302, b"", there)}
        with FakeServer(answers) as server:
            error = await refused(server.url, headers={"X-Key": "sekret"})
    assert isinstance(error, RedirectedError)
    assert "302" in str(error)
    assert f"connect('{other.url}')" in str(error)
    assert other.requests == []


async def test_a_port_that_answers_html_is_no_comfyui():
    with FakeServer(default=HTML) as server:
        assert isinstance(await refused(server.url), NotComfyUIError)


async def test_a_closed_port_is_unreachable():
    assert isinstance(await refused(f"http://127.0.0.1:{closed_port()}"), ServerUnreachableError)


async def test_a_handshake_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(socket_module, "HANDSHAKE_SECONDS", 0.3)

    async def mute(socket):
        await socket.wait_closed()

    async with scripted(mute) as url:
        error = await refused(url)
    assert isinstance(error, ServerUnreachableError)
    assert "handshake within 0.3 s" in str(error)


async def test_a_first_handshake_that_is_cut_is_tried_once_more(engine):
    with FaultProxy(engine.url) as proxy:
        proxy.add(DropAnswer("WS /ws"))
        async with connected(proxy.url) as heard:
            assert heard.connection.state == "ready"
        assert proxy.requests["WS /ws"] == 2
        proxy.add(DropAnswer("WS /ws", times=None))
        assert "broke off the WebSocket handshake" in str(await refused(proxy.url))
        assert proxy.requests["WS /ws"] == 4


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_first_handshake_whose_server_is_not_there_yet_is_tried_once_more(engine, status):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail("WS /ws", status=status, accepted=False))
        async with connected(proxy.url) as heard:
            assert heard.connection.state == "ready"
        assert proxy.requests["WS /ws"] == 2
        proxy.add(Fail("WS /ws", status=status, times=None, accepted=False))
        error = await refused(proxy.url)
        assert isinstance(error, ServerError)
        assert error.status == status
        assert "may be starting" in str(error)
        assert proxy.requests["WS /ws"] == 4


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_first_handshake_that_is_refused_is_not_tried_again(engine, status):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail("WS /ws", status=status, times=None, accepted=False))
        assert f"with {status}" in str(await refused(proxy.url))
        assert proxy.requests["WS /ws"] == 1


async def test_garbage_instead_of_a_handshake_is_an_error_of_ours(monkeypatch):
    monkeypatch.setattr(socket_module, "HANDSHAKE_SECONDS", 0.3)

    def talk(connection):
        request = connection.recv(4096)
        if b"/ws" in request:
            connection.sendall(b"\0\1\2\3\r\n\r\n")
            return
        body = json.dumps(STATS).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        connection.close()

    with RawServer(talk) as server:
        error = await refused(server.url)
    assert isinstance(error, NotComfyUIError | ServerUnreachableError)


async def test_after_a_refusal_it_can_be_opened_again(own_engine):
    own_engine.kill()
    heard = Heard(own_engine.url)
    with pytest.raises(ServerUnreachableError):
        await heard.connection.open()
    assert heard.connection.state == "closed"
    own_engine.start()
    await heard.connection.open()
    assert heard.connection.state == "ready"
    await heard.connection.aclose()
    await heard.http.aclose()


# -- reading


async def test_malformed_and_huge_frames_leave_it_reading():
    async def talk(socket):
        await socket.send("not json")  # before the first status already
        await socket.send(first_status())
        await socket.send("[" * 100_000)
        await socket.send(b"\0\0")
        await socket.send(json.dumps({"type": "executing", "data": [1]}))
        await socket.send(json.dumps({"type": "unheard.of", "data": {}}))
        await socket.send(struct.pack(">II", 1, 2) + b"x" * 20_000_000)
        await socket.send(json.dumps({"type": "execution_start", "data": {"prompt_id": "p"}}))
        await socket.wait_closed()

    async with scripted(talk) as url, connected(url) as heard:
        await until(lambda: len(heard.messages) == 2)
        picture, start = heard.messages
        assert isinstance(picture, ImageFrame)
        assert len(picture.data) == 20_000_000
        assert start == ExecutionStart("p")
        assert heard.reconnected == 0


async def test_a_listener_that_fails_does_not_deafen_the_connection(caplog):
    async def talk(socket):
        await socket.send(first_status())
        for prompt in "ab":
            await socket.send(
                json.dumps({"type": "execution_start", "data": {"prompt_id": prompt}})
            )
        await socket.wait_closed()

    async with scripted(talk) as url:
        heard = Heard(url)
        taken = []

        def take(message):
            taken.append(message)
            if len(taken) == 1:
                raise LookupError("a bug of ours")

        heard.connection._on_message = take
        await heard.connection.open()
        await until(lambda: len(taken) == 2)
        await heard.connection.aclose()
        await heard.http.aclose()
    assert "a bug of ours" in caplog.text


# -- losing and finding again


async def test_a_cut_connection_comes_back_under_a_fresh_id(engine):
    with FaultProxy(engine.url) as proxy:
        async with connected(proxy.url) as heard:
            first, epoch = heard.connection.client_id, heard.connection.epoch
            proxy.kill()
            await until(lambda: heard.reconnected == 1)
            assert heard.connection.state == "ready"
            assert heard.connection.client_id != first
            assert heard.connection.epoch == epoch + 1


async def test_it_waits_for_a_server_that_restarts(own_engine):
    async with connected(own_engine.url) as heard:
        own_engine.kill()
        await until(lambda: heard.connection.state == "reconnecting")
        waiting = asyncio.create_task(heard.connection.ready())
        own_engine.start()
        await waiting
        assert heard.connection.state == "ready"
        assert heard.gone == []


async def test_a_server_that_stays_away_is_gone_after_the_given_time(own_engine):
    async with connected(own_engine.url, reconnect_for=0.5) as heard:
        begun = asyncio.get_running_loop().time()
        own_engine.kill()
        await until(lambda: heard.gone)
        assert asyncio.get_running_loop().time() - begun > 0.4
        (error,) = heard.gone
        assert "within 0.5 s" in str(error)
        assert "nobody answers" in str(error)
        with pytest.raises(ServerGoneError):
            await heard.connection.ready()
        own_engine.start()
        await heard.connection.open()
        await heard.connection.ready()
        assert heard.connection.state == "ready"


async def test_the_reason_why_it_does_not_come_back_is_told():
    refuse = False

    async def talk(socket):
        await socket.send(first_status())
        await socket.recv()
        await socket.close()

    async def gate(connection, request):
        if request.path.startswith("/system_stats"):
            return connection.respond(200, json.dumps(STATS))
        return connection.respond(401, "") if refuse else None

    async with serve(talk, "127.0.0.1", 0, process_request=gate) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        heard = Heard(url, reconnect_for=0.3)
        await heard.connection.open()
        refuse = True
        await until(lambda: heard.gone)
        assert "refused the WebSocket with 401" in str(heard.gone[0])
        await heard.connection.aclose()
        await heard.http.aclose()


async def test_an_engine_whose_process_has_ended_is_gone_at_once(own_engine):
    async with connected(own_engine.url, reconnect_for=60.0, name="embedded engine") as heard:
        heard.alive = False
        own_engine.kill()
        await until(lambda: heard.gone)  # long before the 60 s
        assert str(heard.gone[0]) == "embedded engine has ended"


async def test_closing_while_reconnecting_ends_it_and_those_who_wait(own_engine):
    heard = Heard(own_engine.url)
    await heard.connection.open()
    own_engine.kill()
    await until(lambda: heard.connection.state == "reconnecting")
    waiting = asyncio.create_task(heard.connection.ready())
    await asyncio.sleep(0)
    await heard.connection.aclose()
    with pytest.raises(ServerGoneError, match="was closed"):
        await waiting
    await heard.connection.aclose()
    await heard.http.aclose()
    assert heard.gone == []


# -- secrets


async def test_no_logger_hears_of_the_token(caplog, monkeypatch):
    """Of ours and of the libraries below, at their most talkative."""
    monkeypatch.setattr(http_module, "LoopbackTransport", lambda: None)  # httpx's own talks more
    caplog.set_level("DEBUG")
    engine = Engine(token="sekret-token")
    try:
        async with connected(engine.url, token="sekret-token") as heard:
            await heard.http.get_json("/queue")
    finally:
        engine.stop()
    assert "httpx" in caplog.text, "the libraries do talk"
    assert "sekret-token" not in caplog.text

"""Our own HTTP transport for loopback addresses does what httpx's does, and keeps connections."""

from __future__ import annotations

import asyncio
import gzip
import threading

import httpx
import pytest
from fake_servers import FakeServer, RawServer, closed_port, silent
from support import until

from comfynb.backends.comfyui import transport as module
from comfynb.backends.comfyui.transport import LoopbackTransport


@pytest.fixture
async def client():
    async with httpx.AsyncClient(
        transport=LoopbackTransport(), timeout=httpx.Timeout(10.0, connect=2.0)
    ) as client:
        yield client


class Talk:
    """What a server says: an answer for each request of a connection; counts the connections."""

    def __init__(self, *answers: bytes, close: bool = False) -> None:
        self.answers, self.close = answers, close
        self.connections = 0
        self.heard: list[bytes] = []

    def __call__(self, connection):
        self.connections += 1
        for answer in self.answers:
            self.heard.append(connection.recv(65536))
            connection.sendall(answer)
        if self.close:
            connection.close()
        else:
            silent(connection)


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nabcdefg"
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n" + ok(b"abcdefg")
PACKED = gzip.compress(b"abcdefg", mtime=0)
ZIPPED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (
    len(PACKED),
    PACKED,
)


@pytest.mark.parametrize("answer", [ok(b"abcdefg"), CHUNKED, UNTIL_CLOSED, INTERIM, ZIPPED])
async def test_a_body_is_read_however_it_is_sent(client, answer):
    with RawServer(Talk(answer, close=True)) as server:
        response = await client.get(server.url + "/x")
    assert (response.status_code, response.content) == (200, b"abcdefg")


async def test_method_path_headers_and_body_arrive(client):
    with FakeServer({"/x": b""}) as server:
        await client.post(server.url + "/x?a=b%20c", content=b"1" * 300_000, headers={"A": "b"})
    ((method, path, headers),) = server.requests
    assert (method, path, headers["a"]) == ("POST", "/x?a=b%20c", "b")
    assert headers["content-length"] == "300000"
    assert headers["host"] == server.url.removeprefix("http://")


async def test_megabytes_arrive_whole(client):
    data = bytes(range(256)) * 50_000
    with FakeServer({"/x": data}) as server:
        assert (await client.get(server.url + "/x")).content == data


async def test_a_connection_is_used_again(client):
    talk = Talk(ok(b"1"), CHUNKED, ok(b"3"))
    with RawServer(talk) as server:
        bodies = [(await client.get(server.url)).content for _ in range(3)]
    assert (bodies, talk.connections) == ([b"1", b"abcdefg", b"3"], 1)


async def test_requests_at_the_same_time_have_connections_of_their_own(client):
    both = threading.Barrier(2)

    def talk(connection):
        connection.recv(65536)
        both.wait(10)  # neither is answered before both are asked
        connection.sendall(ok(b"."))
        silent(connection)

    with RawServer(talk) as server:
        await asyncio.gather(client.get(server.url), client.get(server.url))


@pytest.mark.parametrize("last_word", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_a_kept_connection_that_the_server_gave_up_is_not_used(client, last_word):
    talk = Talk(ok(b".") + last_word, close=True)
    with RawServer(talk) as server:
        for _ in range(3):
            assert (await client.get(server.url)).content == b"."
            (line,) = client._transport._lines or (None,)
            await until(lambda line=line: line is None or not line.stands)
    assert talk.connections == 3


async def test_a_connection_is_not_kept_for_long(client, monkeypatch):
    monkeypatch.setattr(module, "KEEP_SECONDS", 0.05)
    with RawServer(Talk(ok(b"."))) as server:
        await client.get(server.url)
        assert len(client._transport._lines) == 1
        await until(lambda: not client._transport._lines)


async def test_an_answer_that_is_not_read_to_its_end_costs_its_connection(client):
    with RawServer(Talk(ok(b"a" * 5_000_000))) as server:
        async with client.stream("GET", server.url) as response:
            assert response.status_code == 200
        assert not client._transport._lines


async def test_a_cancelled_request_costs_its_connection(client):
    with RawServer(silent) as server:
        asking = asyncio.create_task(client.get(server.url))
        await until(lambda: client._transport._lines)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not client._transport._lines


async def test_closing_ends_requests_under_way():
    client = httpx.AsyncClient(transport=LoopbackTransport(), timeout=10)
    with RawServer(silent) as server:
        asking = asyncio.create_task(client.get(server.url))
        await until(lambda: client._transport._lines)
        await client.aclose()
        with pytest.raises(httpx.ReadError):
            await asking


TOO_LONG = b"HTTP/1.1 200 OK\r\n" + b"A: " + b"a" * 200_000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", httpx.RemoteProtocolError),
        (b"220 mail.example.org ESMTP\r\n", httpx.RemoteProtocolError),
        (TOO_LONG, httpx.RemoteProtocolError),
    ],
)
async def test_an_answer_that_is_none_is_an_error_of_httpx(client, answer, error):
    with RawServer(Talk(answer, close=True)) as server, pytest.raises(error):
        await client.get(server.url)
    assert not client._transport._lines


async def test_each_failure_on_the_way_is_an_error_of_httpx(client):
    with pytest.raises(httpx.ConnectError):
        await client.get(f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(httpx.ConnectError):
        await client.get("http://nowhere.invalid")
    with RawServer(silent) as server:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(server.url, timeout=0.05)
        with pytest.raises(httpx.LocalProtocolError):
            await client.get(server.url, headers={"A": "b\nc"})
    assert not client._transport._lines

"""HTTP/1.1 to this machine: httpx without the layers that a loopback address does not need.

httpx's own transport (httpcore on anyio) takes 1.3 ms of processor time a request, in six turns of
the loop and dozens of releases of Python's lock; this one 0.6 ms. With two requests a picture
that was half of all that comfynb does for an instant picture, in a process that it shares with a
notebook. There is no proxy, certificate or HTTP/2 on the way to a loopback address, so what
remains is small: h11, which httpx uses too, reads and writes; a protocol of asyncio's carries.

A connection that was used is kept for the next request for a few seconds. As with httpx's own, a
server may close a kept one just when it is used: the request then fails with a
`RemoteProtocolError` or a `NetworkError`, and the caller decides whether to send it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import httpx

KEEP_SECONDS = 5.0
"""How long a connection is kept without use; httpx's default."""
LARGEST_HEAD = 100 * 1024
"""Bytes of an answer's status line and headers that are read before it counts as broken."""


class LoopbackTransport(httpx.AsyncBaseTransport):
    """Sends the requests of an `httpx.AsyncClient` to plain HTTP servers on this machine."""

    def __init__(self) -> None:
        self._lines: set[_Line] = set()
        self._kept: list[_Line] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return once the head of its answer is here.

        Raises:
            httpx.TransportError: As the transports of httpx do.
        """
        timeouts = request.extensions.get("timeout", {})
        line = self._take() or await self._open(request.url, timeouts.get("connect"))
        try:
            await line.send(request)
            head = await line.head(timeouts.get("read"))
        except BaseException:
            self._drop(line)
            raise
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, line, timeouts.get("read")),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    async def aclose(self) -> None:
        """Cut every connection; requests under way fail."""
        for line in list(self._lines):
            self._drop(line)

    def release(self, line: _Line) -> None:
        """Take back a connection whose answer was read, or will not be."""
        if line in self._lines and line.next_cycle():
            line.expiry = asyncio.get_running_loop().call_later(KEEP_SECONDS, self._drop, line)
            self._kept.append(line)
        else:
            self._drop(line)

    def _take(self) -> _Line | None:
        while self._kept:
            line = self._kept.pop()
            if line.expiry is not None:
                line.expiry.cancel()
            if line.stands:
                return line
            self._drop(line)
        return None

    async def _open(self, url: httpx.URL, patience: float | None) -> _Line:
        loop = asyncio.get_running_loop()
        with _as_httpx(httpx.ConnectTimeout, httpx.ConnectError):
            async with asyncio.timeout(patience):
                _, line = await loop.create_connection(_Line, url.host, url.port or 80)
        self._lines.add(line)
        return line

    def _drop(self, line: _Line) -> None:
        self._lines.discard(line)
        if line in self._kept:
            self._kept.remove(line)
        line.cut()


class _Line(asyncio.Protocol):
    """One connection: a request and its answer at a time."""

    def __init__(self) -> None:
        self.expiry: asyncio.TimerHandle | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        self._transport: asyncio.Transport
        self._lost: Exception | None = None
        self._news: asyncio.Future[None] | None = None

    @property
    def stands(self) -> bool:
        """Whether the server has neither closed it nor said anything unasked."""
        return not self._transport.is_closing() and self._http.trailing_data == (b"", False)

    def cut(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        self._transport.abort()

    def next_cycle(self) -> bool:
        """Get ready for another request; False where that cannot be."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return self.stands
        return False

    async def send(self, request: httpx.Request) -> None:
        body = await request.aread()
        with _as_httpx(httpx.WriteTimeout, httpx.WriteError):
            events = [
                h11.Request(
                    method=request.method, target=request.url.raw_path, headers=request.headers.raw
                ),
                *([h11.Data(data=body)] if body else []),
                h11.EndOfMessage(),
            ]
            data = b"".join(self._http.send(event) or b"" for event in events)
        # In one piece: a head alone would wake the server for nothing. Nobody waits until it has
        # gone: all of it is in memory anyway, and a server that takes nothing answers nothing.
        self._transport.write(data)

    async def head(self, patience: float | None) -> h11.Response:
        while not isinstance(event := await self._event(patience), h11.Response):
            pass  # 100 Continue and its like
        return event

    async def data(self, patience: float | None) -> bytes | None:
        """Return the next piece of the body; None at its end."""
        event = await self._event(patience)
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _event(self, patience: float | None) -> Any:
        """Return what h11 reads next, waiting for bytes at most `patience` seconds at a time."""
        with _as_httpx(httpx.ReadTimeout, httpx.ReadError):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if self._lost is not None:
                    raise self._lost
                self._news = asyncio.get_running_loop().create_future()
                async with asyncio.timeout(patience):
                    await self._news
            return event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._wake()

    def eof_received(self) -> None:
        self._http.receive_data(b"")  # the end of a body without length, or a broken one
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionResetError("the connection was closed")
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class _Body(httpx.AsyncByteStream):
    """The body of an answer, read from its connection as it is asked for."""

    def __init__(self, transport: LoopbackTransport, line: _Line, patience: float | None) -> None:
        self._transport, self._line, self._patience = transport, line, patience

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (data := await self._line.data(self._patience)) is not None:
            yield data

    async def aclose(self) -> None:
        self._transport.release(self._line)


@contextmanager
def _as_httpx(
    timeout: type[httpx.TimeoutException], network: type[httpx.NetworkError]
) -> Iterator[None]:
    """Raise what httpx's transports raise."""
    try:
        yield
    except TimeoutError as exc:  # before OSError, of which it is one
        raise timeout(str(exc)) from exc
    except OSError as exc:
        raise network(str(exc)) from exc
    except h11.RemoteProtocolError as exc:
        raise httpx.RemoteProtocolError(str(exc)) from exc
    except h11.LocalProtocolError as exc:
        raise httpx.LocalProtocolError(str(exc)) from exc

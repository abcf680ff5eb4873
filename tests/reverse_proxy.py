"""A reverse proxy as people put before a ComfyUI: TLS, a base path, and a door that is watched."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import aiohttp
import trustme
from aiohttp import web
from support import wait_for

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "host"}

Gate = Callable[[web.Request], "web.Response | None"]
"""Lets a request pass (None), or answers it."""


@dataclass
class Seen:
    """A request that came, whether it passed or not."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    websocket: bool = field(default=False)


class ReverseProxy:
    """Passes HTTP and WebSocket on to a server, from below a base path.

    Args:
        target: Address of the server behind it.
        base: Path below which it stands, such as "/studio/one".
        authority: Signs its certificate; None: plain HTTP.
        name: What the certificate is for.
        gate: Watches the door; may be changed at any time.

    Attributes:
        seen: Every request so far.
        date: Said at the opening of a socket instead of the time; None: the time.
    """

    def __init__(
        self,
        target: str,
        *,
        base: str = "",
        authority: trustme.CA | None = None,
        name: str = "localhost",
        gate: Gate = lambda _: None,
    ) -> None:
        self.gate = gate
        self.seen: list[Seen] = []
        self.date: str | None = None
        self._target, self._base, self._name = target, base, name
        self._tls: ssl.SSLContext | None = None
        if authority is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name).configure_cert(self._tls)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self._name}:{self.port}{self._base}"

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            self.port = runner.addresses[0][1]
            await self._stop.wait()
        await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.method, request.path, dict(request.query), headers, upgrade)
        self.seen.append(seen)
        refused = self.gate(request)
        if refused is not None:
            return refused
        if not request.path.startswith(self._base + "/"):
            return web.Response(status=404, text="nothing below this path")
        behind = self._target + request.path_qs.removeprefix(self._base)
        return await (self._pass_socket if upgrade else self._pass)(request, behind)

    async def _pass(self, request: web.Request, behind: str) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        body = await request.read() if request.can_read_body else None
        async with self._session.request(
            request.method, behind, headers=headers, data=body, allow_redirects=False
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_chunked(65536):
                await response.write(piece)
            await response.write_eof()
            return response

    async def _pass_socket(self, request: web.Request, behind: str) -> web.StreamResponse:
        here = web.WebSocketResponse(max_msg_size=0)
        if self.date is not None:
            here.headers["Date"] = self.date
        async with self._session.ws_connect(behind, max_msg_size=0) as there:
            await here.prepare(request)
            ways = (
                asyncio.create_task(_pump(here, there)),
                asyncio.create_task(_pump(there, here)),
            )
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        await here.close()
        return here


async def _pump(source, sink) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)


def wants(*, header: tuple[str, str] | None = None, query=None, cookie=None) -> Gate:
    """A gate that asks every request, the socket's too, for one thing."""

    def gate(request: web.Request) -> web.Response | None:
        if header is not None and request.headers.get(header[0]) != header[1]:
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        if query is not None and request.query.get(query[0]) != query[1]:
            return web.Response(status=403)
        if cookie is not None and request.cookies.get(cookie[0]) != cookie[1]:
            return web.Response(status=401)
        return None

    return gate

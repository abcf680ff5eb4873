"""A real HTTP and WebSocket proxy in front of any ComfyUI that breaks what it is told to.

It listens on loopback and lives on a thread and a loop of its own, so that neither a blocked
test nor a blocked client changes when its faults happen. Without rules it is transparent:
headers (Authorization too), queries, close codes, pings and refusals pass as they are.

    with FaultProxy("http://127.0.0.1:8188") as proxy:
        lost = proxy.add(Swallow("executed", prompt=2))
        studio = comfynb.connect(proxy.url)
        ...
        assert lost.applied == 1
        assert proxy.requests["POST /prompt"] == 9
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

try:
    import aiohttp
    from aiohttp import web
except ImportError as exc:
    raise ImportError(
        "comfynb.testing needs aiohttp, which is not installed: pip install 'comfynb[engine]'"
    ) from exc
from multidict import CIMultiDict
from yarl import URL

from comfynb.testing.link import Link
from comfynb.testing.rules import (
    Fault,
    Forward,
    Frame,
    Message,
    MessageRule,
    Reply,
    RequestRule,
    Rule,
)

# Headers about one connection and not about the message (RFC 9110, section 7.6.1), and those
# that each side of a proxy sets for itself.
_HOP_BY_HOP = frozenset(
    {
        "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_OF_HANDSHAKE = "sec-websocket-"
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_PACE_S = 0.02
"""Time between two pieces of a slow body."""

T = TypeVar("T")


class Forwarded(NamedTuple):
    """A message that reached the client.

    Attributes:
        kind: As `Message.kind`.
        prompt_id: The prompt it names, or None.
    """

    kind: str
    prompt_id: str | None


class FaultProxy:
    """Stand between clients and a ComfyUI, and break what the rules say.

    Every method may be called from any thread and has taken effect when it returns.

    Args:
        upstream: The server's address, such as "http://127.0.0.1:8188".
        token: Bearer token for the server, used where the client sends no Authorization.

    Attributes:
        upstream: Where requests go; set it to move to another server.
        requests: Number of requests by method and route: "POST /prompt", "GET /history",
            "WS /ws" (the first part of the path, without /api).
        prompts: Ids of the prompts posted, in order, each once.
        forwarded: The websocket messages that reached a client, in order.
    """

    def __init__(self, upstream: str, token: str | None = None) -> None:
        self.upstream = upstream
        self.requests: Counter[str] = Counter()
        self.prompts: list[str] = []
        self.forwarded: list[Forwarded] = []
        self._token = token
        self._faults: tuple[Fault, ...] = ()
        self._links: set[Link] = set()
        self._port = 0
        self._is_down = True
        self._return: asyncio.Task[None] | None = None
        self._arriving: set[asyncio.Task[Any]] = set()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address for clients, the same over `down` and `up`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def open_sockets(self) -> int:
        """Number of websockets that go through the proxy right now."""
        return len(self._links)

    @property
    def kinds(self) -> list[str]:
        """Kinds of the websocket messages that reached a client, in order."""
        return [message.kind for message in self.forwarded]

    def add(self, rule: Rule) -> Fault:
        """Put a rule to work; where several are due, the one that was added first acts."""
        fault = Fault(rule)
        self._faults = (*self._faults, fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take one rule off; none that is not there."""
        self._faults = tuple(other for other in self._faults if other is not fault)

    def clear(self) -> None:
        """Take all rules off."""
        self._faults = ()

    def kill(self) -> None:
        """Cut every open connection, sockets and requests; new ones are welcome."""
        self._call(self._kill)

    def down(self, seconds: float | None = None) -> None:
        """Cut every open connection and refuse new ones, as a crashed server does.

        Args:
            seconds: For how long; None: until `up`.
        """
        self._call(partial(self._down, seconds))

    def up(self) -> None:
        """Listen again, on the same port."""
        self._call(self._up)

    def half_open(self) -> None:
        """Go silent on the websockets that are open now, without closing them."""

        async def mute() -> None:
            for link in list(self._links):
                link.mute()

        self._call(mute)

    # The thread. ---------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen; the same as entering the context.

        Raises:
            RuntimeError: If it is running already.
            OSError: If it cannot listen.
        """
        if self._thread is not None:
            raise RuntimeError("this FaultProxy is running already")
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="comfynb-fault-proxy", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def close(self) -> None:
        """Cut everything and end the thread. Safe to call twice."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._thread is None:
            raise RuntimeError("this FaultProxy is not running")
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result()

    def _run(self, ready: Future[None]) -> None:
        # Windows' own kind of loop cannot tell that a listener is readable.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._main(ready))

    async def _main(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._server = web.Server(self._answer)
        try:
            await self._up()
        except OSError as exc:
            ready.set_exception(exc)
            return
        # One connection for each request: what a pool would do to a dying server is no fault
        # that a rule asked for.
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
            skip_auto_headers=_AUTO_HEADERS,
        ) as self._session:
            ready.set_result(None)
            await self._stop.wait()
            await self._down()
            # The runner would cancel them too late: after the session has been closed.
            mine = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not mine]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._server.shutdown(0)

    async def _up(self) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None
        if not self._is_down:
            return
        # Not by the loop's create_server: when it closes, it drops what it has just accepted
        # without closing it (an assertion in CPython 3.11 to 3.13, its issue 109564).
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept)
        self._is_down = False

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # it left meanwhile
            connection, _ = self._listener.accept()
            serving = self._loop.connect_accepted_socket(self._server, connection)
            task = self._loop.create_task(serving)
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _down(self, seconds: float | None = None) -> None:
        if self._is_down:
            return
        self._is_down = True
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        await self._kill()
        if seconds is not None:
            self._return = asyncio.create_task(self._up_after(seconds))

    async def _up_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._return = None  # it is this task, which `_up` would cancel
        await self._up()

    async def _kill(self) -> None:
        for link in list(self._links):
            link.cut()
        for connection in list(self._server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    # Requests. -----------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            route = "WS " + _route(request)
            self.requests[route] += 1
            reply = await self._ruled(route, _welcome)
            return await (self._relay(request) if reply.status == 101 else _send(request, reply))
        route = f"{request.method} {_route(request)}"
        self.requests[route] += 1
        body = await request.read()
        if route == "POST /prompt":
            self._note_prompt(body)
        return await _send(request, await self._ruled(route, partial(self._forward, request, body)))

    async def _ruled(self, route: str, forward: Forward) -> Reply:
        """Answer a request as the first rule that is due says; without one, as the server does."""
        due = [
            (fault, fault.rule)
            for fault in self._faults
            if isinstance(fault.rule, RequestRule) and fault.rule.route == route and fault.due()
        ]
        try:
            if due:
                fault, rule = due[0]
                fault.act()
                return await rule.handle(forward)
            return await forward()
        except aiohttp.ClientError:  # the server is gone: so is the client's connection
            return Reply(0, drop=True)

    async def _forward(self, request: web.BaseRequest, body: bytes) -> Reply:
        async with self._session.request(
            request.method,
            self._target(request),
            headers=self._headers(request),
            data=body or None,
            allow_redirects=False,
        ) as answer:
            headers = tuple(
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _HOP_BY_HOP
            )
            return Reply(answer.status, headers, await answer.read())

    def _note_prompt(self, body: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            prompt_id = json.loads(body)["prompt_id"]
            if isinstance(prompt_id, str) and prompt_id not in self.prompts:
                self.prompts.append(prompt_id)

    def _target(self, request: web.BaseRequest) -> URL:
        return URL(self.upstream.rstrip("/") + request.raw_path, encoded=True)

    def _headers(self, request: web.BaseRequest) -> list[tuple[str, str]]:
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _HOP_BY_HOP and not name.lower().startswith(_OF_HANDSHAKE)
        ]
        # A page that was loaded through the proxy has our origin; the server compares it with
        # its own.
        headers = [
            (name, self.upstream.rstrip("/") if (name, value) == ("Origin", self.url) else value)
            for name, value in headers
        ]
        if self._token is not None and "Authorization" not in request.headers:
            headers.append(("Authorization", f"Bearer {self._token}"))
        return headers

    # Websockets. ---------------------------------------------------------------------------

    async def _relay(self, request: web.BaseRequest) -> web.StreamResponse:
        connect = partial(
            self._session.ws_connect,
            self._target(request),
            headers=self._headers(request),
            max_msg_size=0,
        )
        transport = request.transport
        try:
            upstream = await connect(autoping=False)
        except aiohttp.WSServerHandshakeError as exc:
            return web.Response(status=exc.status)
        except aiohttp.ClientError:
            upstream = None
        if upstream is None or transport is None:
            _abort(request)
            return web.Response()
        try:
            client = web.WebSocketResponse(
                timeout=1.0, autoping=False, autoclose=False, max_msg_size=0, compress=False
            )
            await client.prepare(request)
            link = Link(client, upstream, transport=transport, again=connect, down=self._down)
            self._links.add(link)
            try:
                await link.run(partial(self._through, link))
            finally:
                self._links.discard(link)
        finally:
            await upstream.close()
        return client

    async def _through(self, link: Link, frame: Frame) -> Sequence[Frame]:
        """Return what goes on to the client instead of a message of the server."""
        message = Message.parse(frame, self.prompts)
        due = [
            (fault, fault.rule)
            for fault in self._faults
            if isinstance(fault.rule, MessageRule) and fault.rule.matches(message) and fault.due()
        ]
        frames: Sequence[Frame] = (frame,)
        if due:
            fault, rule = due[0]
            fault.act()
            frames = await rule.apply(message, link)
        self.forwarded += [Forwarded(message.kind, message.prompt_id)] * len(frames)
        return frames


async def _welcome() -> Reply:
    """Let a handshake go on: the proxy itself makes it then."""
    return Reply(101)


def _route(request: web.BaseRequest) -> str:
    """Return the first part of the path; ComfyUI serves each route under /api/ as well."""
    parts = request.path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 1:
        parts = parts[1:]
    return "/" + parts[0]


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _send(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """Answer as the reply says, or cut the connection where it says so."""
    if reply.drop:
        _abort(request)
        return web.Response()  # goes nowhere; aiohttp wants one
    if reply.bytes_per_second is None and reply.cut_after is None:
        return web.Response(
            status=reply.status, headers=CIMultiDict(reply.headers), body=reply.body
        )
    response = web.StreamResponse(status=reply.status, headers=CIMultiDict(reply.headers))
    response.content_length = len(reply.body)
    await response.prepare(request)
    end = len(reply.body) if reply.cut_after is None else min(reply.cut_after, len(reply.body))
    pace = reply.bytes_per_second
    piece = max(1, round(pace * _PACE_S)) if pace is not None else max(1, end)
    for start in range(0, end, piece):
        await response.write(reply.body[start : min(start + piece, end)])
        if pace is not None:
            await asyncio.sleep(piece / pace)
    if reply.cut_after is not None:
        _abort(request)
    return response

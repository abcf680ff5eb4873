"""One websocket on its way through a `FaultProxy`: two pumps between two sockets."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
from aiohttp import WSMsgType, web

from comfynb.testing.rules import Frame

Through = Callable[[Frame], Awaitable[Sequence[Frame]]]
"""Says what goes on to the client instead of a message of the server."""

Side = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Link:
    """A client's websocket and the server's, joined.

    Text, binary, ping, pong and close all pass, so each side sees the other's liveness and not
    the proxy's.

    Args:
        client: The side that the proxy serves.
        upstream: The side that the proxy opened.
        transport: Of the client's connection.
        again: Opens one more socket like `upstream`.
        down: Takes the proxy down.
    """

    def __init__(
        self,
        client: web.WebSocketResponse,
        upstream: aiohttp.ClientWebSocketResponse,
        *,
        transport: asyncio.Transport,
        again: Callable[[], Awaitable[aiohttp.ClientWebSocketResponse]],
        down: Callable[[float | None], Awaitable[None]],
    ) -> None:
        self._client, self._upstream, self._transport = client, upstream, transport
        self._again, self._down = again, down
        self._usurpers: list[asyncio.Task[None]] = []
        self._muted = False
        self._ended = asyncio.Event()

    def cut(self) -> None:
        """Cut the client's connection, without a close frame."""
        self._transport.abort()
        self._ended.set()

    def tear(self, frame: Frame, after_bytes: int) -> None:
        """Send that many bytes of a message's frame, its head included, then cut."""
        self._transport.write(_on_the_wire(frame)[:after_bytes])
        self._transport.close()  # not abort(): what was written arrives
        self._ended.set()

    def mute(self) -> None:
        """Forward nothing any more, in neither direction, and leave both sockets open."""
        self._muted = True

    async def usurp(self) -> None:
        """Open a second socket to the server under the same client id, and keep it open."""
        self._usurpers.append(asyncio.create_task(_listen(await self._again())))

    async def down(self, seconds: float | None) -> None:
        """Take the whole proxy down, as `FaultProxy.down`."""
        await self._down(seconds)

    async def run(self, through: Through) -> None:
        """Pump until one side has left; a muted link stays until it is cut or cancelled."""
        tasks = {
            asyncio.create_task(self._pump_down(through)),
            asyncio.create_task(self._pump_up()),
            asyncio.create_task(self._ended.wait()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, *self._usurpers):
                task.cancel()
            await asyncio.gather(*tasks, *self._usurpers, return_exceptions=True)
        for task in done:
            task.result()

    async def _pump_down(self, through: Through) -> None:
        """From the server to the client."""
        with contextlib.suppress(ConnectionError):  # the client left; the other pump sees it too
            while True:
                message = await self._upstream.receive()
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    for frame in await through(message.data):
                        await self._send(self._client, frame)
                elif message.type in (WSMsgType.PING, WSMsgType.PONG):
                    await self._heartbeat(self._client, message)
                elif message.type is WSMsgType.CLOSE and not self._muted:
                    await self._client.close(code=_code(message))
                    return
                elif self._muted:
                    await self._ended.wait()
                    return
                else:  # without a close frame: the server died
                    self.cut()
                    return

    async def _pump_up(self) -> None:
        """From the client to the server."""
        with contextlib.suppress(ConnectionError):
            while True:
                message = await self._client.receive()
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await self._send(self._upstream, message.data)
                elif message.type in (WSMsgType.PING, WSMsgType.PONG):
                    await self._heartbeat(self._upstream, message)
                elif self._muted or message.type is WSMsgType.CLOSING:
                    # Muted: the server must not learn that the client left. Closing: the other
                    # pump closes this side and has not finished.
                    await self._ended.wait()
                    return
                else:
                    await self._client.close(code=_code(message))
                    return

    async def _send(self, side: Side, frame: Frame) -> None:
        if self._muted:
            return
        if isinstance(frame, str):
            await side.send_str(frame)
        else:
            await side.send_bytes(frame)

    async def _heartbeat(self, side: Side, message: aiohttp.WSMessage) -> None:
        if self._muted:
            return
        if message.type is WSMsgType.PING:
            await side.ping(message.data)
        else:
            await side.pong(message.data)


async def _listen(side: aiohttp.ClientWebSocketResponse) -> None:
    """Read all that comes: a socket that nobody reads stalls the server's others."""
    try:
        async for _ in side:
            pass
    finally:
        await side.close()


def _on_the_wire(frame: Frame) -> bytes:
    """Return a message as one unmasked frame (RFC 6455, section 5.2)."""
    payload = frame.encode() if isinstance(frame, str) else frame
    head = bytes([0x81 if isinstance(frame, str) else 0x82])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 2**16:
        return head + struct.pack(">BH", 126, len(payload)) + payload
    return head + struct.pack(">BQ", 127, len(payload)) + payload


def _code(message: aiohttp.WSMessage) -> int:
    """Return the close code to pass on; 1000 where the sender gave none that may be sent."""
    if message.type is not WSMsgType.CLOSE or message.data in (None, 0, 1005, 1006):
        return 1000
    return int(message.data)

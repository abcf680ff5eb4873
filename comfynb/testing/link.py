"""One websocket on its way through a `FaultProxy`: two pumps between two sockets."""

from __future__ import annotations

import asyncio
import contextlib
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
        cut: Aborts the client's connection.
        down: Takes the proxy down.
    """

    def __init__(
        self,
        client: web.WebSocketResponse,
        upstream: aiohttp.ClientWebSocketResponse,
        *,
        cut: Callable[[], None],
        down: Callable[[], Awaitable[None]],
    ) -> None:
        self._client, self._upstream = client, upstream
        self._cut, self._down = cut, down
        self._muted = False
        self._ended = asyncio.Event()

    def cut(self) -> None:
        """Cut the client's connection, without a close frame."""
        self._cut()
        self._ended.set()

    def mute(self) -> None:
        """Forward nothing any more, in neither direction, and leave both sockets open."""
        self._muted = True

    async def down(self) -> None:
        """Take the whole proxy down, as `FaultProxy.down`."""
        await self._down()

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
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
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


def _code(message: aiohttp.WSMessage) -> int:
    """Return the close code to pass on; 1000 where the sender gave none that may be sent."""
    if message.type is not WSMsgType.CLOSE or message.data in (None, 0, 1005, 1006):
        return 1000
    return int(message.data)

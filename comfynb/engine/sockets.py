"""The WebSocket clients: who is connected, and a queue of frames for each.

Frames are handed over from the worker thread in order and leave in order. Every socket has its own
bounded queue and its own sending task, so one that does not read delays nobody (in ComfyUI all
sends go through one loop, and one slow reader stalls everyone). A socket that falls behind loses
progress and previews first, which are worth nothing when late; one far behind is cut off.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import WSMsgType, web

from comfynb.engine.messages import event

LOSSY_BACKLOG = 8 * 2**20
"""Bytes waiting for a socket from which on progress and previews are left out."""
MAX_BACKLOG = 256 * 2**20
"""Bytes waiting for a socket at which it is cut off; its client reconnects and asks again."""

CLOSE_WITHIN = 1.0
"""Seconds that sockets have to take leave when the server stops."""

EVERYBODY: Final = object()
"""Address of a frame for all sockets, those that connect under no prompt's client id included."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket message.

    Attributes:
        data: Text or bytes, as it goes out.
        lossy: May be left out for a socket that does not keep up.
        metadata: None: for every socket; True or False: only for sockets that did or did not
            negotiate `supports_preview_metadata`.
    """

    data: str | bytes
    lossy: bool = False
    metadata: bool | None = None


@dataclass(eq=False)
class Client:
    """One open socket and what waits for it.

    Attributes:
        socket: The connection.
        hang_up: Ends it without a closing handshake, for one that does not read.
        metadata: Whether it negotiated `supports_preview_metadata`.
    """

    socket: web.WebSocketResponse
    hang_up: Callable[[], None]
    metadata: bool = False
    _waiting: deque[str | bytes] = field(default_factory=deque)
    _backlog: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, frame: Frame) -> None:
        """Queue a frame; never waits."""
        if frame.metadata is not None and frame.metadata != self.metadata:
            return
        if frame.lossy and self._backlog > LOSSY_BACKLOG:
            return
        self._waiting.append(frame.data)
        self._backlog += len(frame.data)
        self._wake.set()
        if self._backlog > MAX_BACKLOG:
            log.warning("a client does not read its socket: cut off")
            self._waiting.clear()
            self.hang_up()

    async def listen(self, features: Mapping[str, object]) -> None:
        """Read until the socket closes; the first JSON object may negotiate features."""
        negotiable = True
        async for message in self.socket:
            if message.type is not WSMsgType.TEXT or not negotiable:
                continue
            try:
                data = json.loads(message.data)
            except ValueError:
                continue
            if not isinstance(data, dict):
                continue
            negotiable = False
            if data.get("type") == "feature_flags":
                flags = data.get("data")
                if isinstance(flags, dict):
                    self.metadata = flags.get("supports_preview_metadata") is True
                self.put(Frame(event("feature_flags", features)))

    async def send_all(self) -> None:
        """Send what is queued, for ever; returns when the socket is gone or hopelessly behind."""
        while not self.socket.closed:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            data = self._waiting.popleft()
            sending = (
                self.socket.send_str(data)
                if isinstance(data, str)
                else self.socket.send_bytes(data)
            )
            try:
                await sending
            except (ConnectionError, RuntimeError):
                return
            self._backlog -= len(data)


class Sockets:
    """All open sockets, by client id.

    `send` may be called from any thread; everything else belongs to the event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clients: set[Client] = set()
        self._by_id: dict[str, Client] = {}
        self._outbox: deque[tuple[object, Frame]] = deque()
        self._flushing = False

    def send(self, frame: Frame, to: object) -> None:
        """Hand a frame over.

        Args:
            frame: What.
            to: A client id (nobody has it: the frame is dropped), or EVERYBODY.
        """
        self._outbox.append((to, frame))
        # One wake-up of the loop for many frames. The flag is cleared before the outbox is
        # emptied, so a frame that arrives in between is sent by one of the two.
        if not self._flushing:
            self._flushing = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:  # the loop is closed: the server is going down
                self._outbox.clear()

    def watched(self, client_id: str | None) -> bool:
        """Say whether anybody would get the frames of a prompt of that client."""
        return bool(self._clients) if client_id is None else client_id in self._by_id

    def add(self, client_id: str, client: Client) -> None:
        """Register a socket; it replaces an older one of the same id, which gets no more."""
        self._clients.add(client)
        self._by_id[client_id] = client

    def remove(self, client_id: str, client: Client) -> None:
        """Forget a socket.

        A newer socket of the same id stays registered (in ComfyUI it would lose its
        registration, issue #16010).
        """
        self._clients.discard(client)
        if self._by_id.get(client_id) is client:
            del self._by_id[client_id]

    async def close(self) -> None:
        """Close all sockets as "going away"; those that do not answer soon are cut off."""
        goodbyes = [
            asyncio.create_task(client.socket.close(code=1001, message=b"server stops"))
            for client in self._clients
        ]
        if goodbyes:
            _, late = await asyncio.wait(goodbyes, timeout=CLOSE_WITHIN)
            for goodbye in late:
                goodbye.cancel()
        for client in self._clients:
            client.hang_up()

    def _flush(self) -> None:
        self._flushing = False
        while self._outbox:
            to, frame = self._outbox.popleft()
            if to is EVERYBODY:
                for client in self._clients:
                    client.put(frame)
            elif isinstance(to, str) and to in self._by_id:
                self._by_id[to].put(frame)

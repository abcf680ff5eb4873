"""One connection to one ComfyUI: handshake, reading, reconnecting, gone.

A fresh client id for every connection: with a kept one, the server's late clean-up of the old
socket unregisters the new one, which then hears nothing while open (upstream issue 16010). The
price is that prompts sent under the old id are never heard of again; whoever owns them asks.

    closed -> connecting -> ready <-> reconnecting -> gone -> (open again) connecting
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable
from typing import Literal

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from comfynb.backends.base import ServerInfo
from comfynb.backends.comfyui.address import Address
from comfynb.backends.comfyui.handshake import NOT_YET, refusal, shake_hands
from comfynb.backends.comfyui.http import BrokenLineError, Http
from comfynb.backends.comfyui.messages import (
    MalformedMessageError,
    Message,
    ServerStatus,
    parse_binary,
    parse_text,
)
from comfynb.errors import (
    BackendError,
    NotComfyUIError,
    RedirectedError,
    ServerError,
    ServerGoneError,
)
from comfynb.loop import Signal

logger = logging.getLogger(__name__)

State = Literal["closed", "connecting", "ready", "reconnecting", "gone"]

HANDSHAKE_SECONDS = 10.0
FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.05, 2.0
"""Between two tries to reconnect: none before the first, then doubling between these."""
STEADY_SECONDS = 5.0
"""How long a connection must stand for the delays to begin anew."""
PONG_SECONDS = 5.0
"""How long a connection that we doubt may take to answer."""
FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
"""Must be the first decodable message, else flags are ignored without a word (measured)."""


class Connection:
    """The socket of one server, kept open.

    Attributes:
        state: Where it stands.
        client_id: Of the present connection; prompts are sent under it.
        epoch: Counts connections: a prompt sent in an older one is heard of no more.
    """

    def __init__(
        self,
        address: Address,
        http: Http,
        *,
        reconnect_for: float,
        alive: Callable[[], bool],
        on_message: Callable[[Message], None],
        on_reconnected: Callable[[], None],
        on_gone: Callable[[ServerGoneError], None],
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            address: Of the server.
            http: For the probe, and told to forget its connections after a reconnect.
            reconnect_for: Seconds of trying before the server counts as gone.
            alive: False ends the trying at once (the engine's process has ended).
            on_message: Called with each message, on our loop.
            on_reconnected: Called when a new connection stands.
            on_gone: Called once when the trying ends.
        """
        self.state: State = "closed"
        self.client_id = ""
        self.epoch = 0
        self._address, self._http = address, http
        self._reconnect_for, self._alive = reconnect_for, alive
        self._on_message, self._on_reconnected = on_message, on_reconnected
        self._on_gone = on_gone
        self._changed = Signal()
        self._opening = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._info: ServerInfo | None = None
        self._refusal = "it did not answer"  # what stood in the way of a new connection
        self._delay, self._ready_at = FIRST_DELAY_SECONDS, -STEADY_SECONDS

    async def open(self) -> ServerInfo:
        """Connect, or find the connection standing.

        Raises:
            BackendError: As `Backend.open` lists.
        """
        async with self._opening:
            if self.state == "reconnecting":
                await self.ready()
            if self.state != "ready" or self._info is None:
                await self._end_reader()
                self._set("connecting")
                try:
                    self._info = await probe(self._address, self._http)
                    self._socket = await self._connect_first()
                except BaseException:
                    self._set("closed")
                    raise
                self._set("ready")
                self._reader = asyncio.create_task(self._read(), name="comfynb-socket")
            return self._info

    async def ready(self) -> None:
        """Wait until messages can arrive.

        Raises:
            ServerGoneError: It could not be reached again, or we closed it.
        """
        await self._changed.until(lambda: self.state not in ("connecting", "reconnecting"))
        if self.state == "gone":
            raise self._gone_error()
        if self.state == "closed":
            label = self._address.label
            raise ServerGoneError(f"the connection to {label} was closed", server=label)

    def doubt(self) -> None:
        """Drop the connection unless it answers a ping: half open, it would stay so for long."""
        if self._socket is not None and (self._check is None or self._check.done()):
            self._check = asyncio.create_task(_check(self._socket), name="comfynb-ping")

    async def aclose(self) -> None:
        """Close the socket and end its task."""
        await self._end_reader()
        self._set("closed")

    async def _end_reader(self) -> None:
        tasks = [task for task in (self._reader, self._check) if task is not None]
        self._reader = self._check = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def _set(self, state: State) -> None:
        self.state = state
        self._changed.notify()

    def _gone_error(self) -> ServerGoneError:
        if not self._alive():
            text = f"{self._address.label} has ended"
        else:
            label, seconds = self._address.label, f"{self._reconnect_for:g} s"
            text = f"{label} could not be reached again within {seconds}: {self._refusal}"
        return ServerGoneError(text, server=self._address.label)

    async def _connect_first(self) -> ClientConnection:
        """Connect to a server that answered a moment ago; what may pass is tried once more.

        That is a handshake cut off, and a proxy whose server is not there yet.
        """
        try:
            return await self._connect()
        except (BrokenLineError, ServerError) as exc:
            if isinstance(exc, ServerError) and exc.status not in NOT_YET:
                raise
            logger.info("%s; once more", exc)
        await asyncio.sleep(FIRST_DELAY_SECONDS)
        return await self._connect()

    async def _connect(self) -> ClientConnection:
        """Make one connection: socket, first status, feature flags."""
        client_id = uuid.uuid4().hex
        failure: BackendError
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                socket = await shake_hands(self._address, self._http, client_id)
                try:
                    await socket.send(json.dumps(FLAGS))
                    # Before the first status nobody is registered, and messages are dropped.
                    while not isinstance(_parse(await socket.recv()), ServerStatus):
                        pass
                except BaseException:
                    await socket.close()
                    raise
        except (WebSocketException, OSError) as exc:  # a TimeoutError is one
            failure = refusal(self._address, exc, HANDSHAKE_SECONDS)
        else:
            self.client_id = client_id
            self.epoch += 1
            return socket
        raise failure  # out here: an exception of websockets holds the request with its headers

    async def _read(self) -> None:
        while self._socket is not None:
            try:
                async for frame in self._socket:
                    message = _parse(frame)
                    if message is not None:
                        self._hand_on(message)
            except WebSocketException:
                pass  # dropped without a close frame: ComfyUI ends so (1006)
            if not await self._again():
                return

    def _hand_on(self, message: Message) -> None:
        try:
            self._on_message(message)
        except Exception:  # a deaf connection would cost every prompt that is to come
            logger.exception("%s: a message could not be handled", self._address.label)

    async def _again(self) -> bool:
        """Reconnect with back-off; False when the server is gone for good."""
        self._set("reconnecting")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._reconnect_for
        # A connection that broke at once is no reason to try again at once.
        stood = loop.time() - self._ready_at >= STEADY_SECONDS
        delay = FIRST_DELAY_SECONDS if stood else self._delay
        logger.warning("%s: the connection was lost; reconnecting", self._address.label)
        while self._alive() and loop.time() < deadline:
            if delay > FIRST_DELAY_SECONDS:
                await asyncio.sleep(min(delay, deadline - loop.time()))
            delay = min(delay * 2, LAST_DELAY_SECONDS)
            try:
                async with asyncio.timeout_at(deadline):
                    socket = await self._connect()
            except (BackendError, TimeoutError) as exc:
                logger.debug("%s: %s", self._address.label, exc)
                self._refusal = str(exc) or self._refusal
                continue
            self._socket, self._delay, self._ready_at = socket, delay, loop.time()
            await self._http.renew()
            self._set("ready")
            self._on_reconnected()
            return True
        self._socket = None
        self._set("gone")
        self._on_gone(self._gone_error())
        return False


async def _check(socket: ClientConnection) -> None:
    try:
        async with asyncio.timeout(PONG_SECONDS):
            await (await socket.ping())
    except TimeoutError:
        socket.transport.abort()
    except WebSocketException:
        pass  # it broke meanwhile, which the reader notices


def _parse(frame: str | bytes) -> Message | None:
    try:
        return parse_text(frame) if isinstance(frame, str) else parse_binary(frame)
    except MalformedMessageError as exc:
        logger.warning("skipped a malformed message: %s", exc)
        return None


async def probe(address: Address, http: Http) -> ServerInfo:
    """Ask /system_stats who is there.

    Raises:
        BackendError: As `Backend.open` lists.
    """
    try:
        stats = await http.get_json("/system_stats")
    except RedirectedError:
        raise  # says by itself what to do
    except ServerError as exc:
        if exc.status is None or exc.status >= 500:
            raise
        text = f"{exc}; is this the address of a ComfyUI?"
        raise NotComfyUIError(text, server=address.label) from None
    return server_info(address.label, stats)


def server_info(label: str, stats: object) -> ServerInfo:
    """Read the answer to /system_stats.

    Raises:
        NotComfyUIError: If it does not look like ComfyUI's.
    """
    body = stats if isinstance(stats, dict) else {}
    system, listed = body.get("system"), body.get("devices")
    if not isinstance(system, dict) or not isinstance(listed, list):
        raise NotComfyUIError(
            f"{label} answers, but not as a ComfyUI does (no system and devices in /system_stats)",
            server=label,
        )
    devices = [d for d in listed if isinstance(d, dict)]
    device = str(devices[0].get("name") or "") if devices else ""
    # Our engine speaks the protocol of a ComfyUI, whose version it gives; its own matters more.
    protocol = str(system.get("comfyui_version") or "")
    return ServerInfo(label, str(system.get("comfynb_engine") or protocol), device, protocol)

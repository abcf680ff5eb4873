"""The opening of a WebSocket: with all that opens the door, and to no other door."""

from __future__ import annotations

import logging

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, ProxyError
from websockets.http11 import Response

from comfynb.backends.comfyui import proxies, tls
from comfynb.backends.comfyui.address import Address
from comfynb.backends.comfyui.http import (
    MAX_REDIRECTS,
    REDIRECTS,
    WAYS,
    BrokenLineError,
    Http,
    Place,
    origin,
)
from comfynb.errors import (
    AccessDeniedError,
    BackendError,
    CertificateError,
    NotComfyUIError,
    ServerError,
    ServerUnreachableError,
)
from comfynb.scrubbing import scrub

# At DEBUG websockets writes every frame, and the headers of its handshake, with the token.
_wire = logging.getLogger(f"{__name__}.wire")
_wire.setLevel(logging.INFO)

PING_SECONDS = 20.0
"""ComfyUI never pings by itself, but answers (measured)."""
NOT_YET = (502, 503, 504)
"""What a reverse proxy answers while the server behind it is starting (RFC 9110, 15.6)."""


class _Connect(connect):
    """Follows no redirect by itself: its own rules send our headers to other servers."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Follow none."""
        return exc


async def shake_hands(address: Address, http: Http, client_id: str) -> ClientConnection:
    """Open the socket, following redirects within its origin as HTTP does.

    Args:
        address: Of the server.
        http: Its HTTP side, whose cookies and trust hold here too.
        client_id: To register under.

    Raises:
        RedirectedError: It points to another origin.
        WebSocketException, OSError: As `websockets` does; see `refusal`.
    """
    url = Place("http" + address.websocket_url.removeprefix("ws"))
    for _ in range(MAX_REDIRECTS + 1):
        url = Place(url.copy_merge_params({**address.params, "clientId": client_id}))
        try:
            line = await _Connect(
                f"ws{str(url).removeprefix('http')}",
                additional_headers={**address.headers, **http.cookies.headers(str(url))},
                ssl=http.tls,
                max_size=None,  # a 2048x2048 PNG is 13 MB; 1 MiB defaults lose the socket
                compression=None,  # pictures are compressed already
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=1,
                proxy=None if address.loopback else True,
                logger=_wire,
            )
        except InvalidStatus as exc:
            http.cookies.take(str(url), exc.response.headers.raw_items())
            target = _target(url, exc.response)
            status = exc.response.status_code
            if target is None:
                raise
        else:
            if line.response is not None:
                http.cookies.take(str(url), line.response.headers.raw_items())
            return line
        if origin(target) != origin(url) or target.userinfo:
            raise http.redirected("GET /ws", status, target)
        url = target
    raise ServerError(f"{address.label} redirects the WebSocket in circles", server=address.label)


def _target(url: Place, answer: Response) -> Place | None:
    """Return where an answer to the handshake points to; None: nowhere."""
    location = answer.headers.get("Location")
    if answer.status_code not in REDIRECTS or not location:
        return None
    try:
        target = url.join(location)
        if target.scheme in ("ws", "wss"):
            target = target.copy_with(scheme="http" + target.scheme.removeprefix("ws"))
    except httpx.InvalidURL:
        return None
    return Place(target)


def refusal(address: Address, exc: Exception, patience: float) -> BackendError:
    """Return what stood in the way of the handshake, as an error of ours.

    Args:
        address: Of the server.
        exc: What `shake_hands` raised, or reading the first message.
        patience: Seconds after which a TimeoutError came.
    """
    label = address.label
    if isinstance(exc, InvalidStatus):
        status = exc.response.status_code
        if status in (401, 403):
            text = f"{label} refused the WebSocket with {status}; give the right {WAYS}"
            return AccessDeniedError(text, server=label, status=status)
        if status in NOT_YET:
            return ServerError(
                f"{label} answered the WebSocket at /ws with {status}; the ComfyUI behind that "
                "proxy may be starting: try again in a moment, or tell the proxy to pass "
                "WebSockets on",
                server=label,
                status=status,
            )
        return NotComfyUIError(
            f"{label} answered the WebSocket at /ws with {status}; "
            "a proxy before it may need to be told to pass WebSockets on",
            server=label,
        )
    if isinstance(exc.__cause__, EOFError) or isinstance(exc, ConnectionResetError):
        text = f"{label} broke off the WebSocket handshake"
        return BrokenLineError(text, server=label)
    if isinstance(exc, ProxyError | InvalidProxy):
        text = f"the proxy of this environment does not lead to {label}: {scrub(str(exc))}"
        return ServerUnreachableError(f"{text}; {proxies.ADVICE}", server=label)
    if isinstance(exc, InvalidHandshake):
        text = f"{label} does not speak WebSocket at /ws: {scrub(str(exc))}"
        return NotComfyUIError(text, server=label)
    if isinstance(exc, TimeoutError):
        return ServerUnreachableError(
            f"{label} did not finish the WebSocket handshake within {patience:g} s",
            server=label,
        )
    if fault := tls.explain(exc):
        return CertificateError(f"{label}: {fault}", server=label)
    text = f"nobody answers at {label}: {scrub(str(exc))}"
    return ServerUnreachableError(text, server=label)

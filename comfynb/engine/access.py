"""Who may talk to the server: pages of other origins may not, nor anyone without the token.

The engine listens on loopback, where every page in a browser and every user of the machine can
knock. ComfyUI's own defence is the comparison of Origin and Host (measured, http_cors); the token
is ours.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_origin(host: str | None, origin: str | None) -> bool:
    """Say whether a request may come from its page.

    Only a loopback Host is compared; ports only where both name one. A request without Origin
    does not come from another page.
    """
    if host is None or origin is None:
        return True
    try:
        here, there = urlsplit(f"//{host}"), urlsplit(origin)
        ports = here.port, there.port
    except ValueError:
        return False
    if not there.netloc or not here.hostname or not is_loopback(here.hostname):
        return True
    return here.hostname == there.hostname and (ports[0] == ports[1] or None in ports)


@web.middleware
async def refuse_other_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403 to other pages and 200 to any OPTIONS."""
    if not same_origin(request.headers.get("Host"), request.headers.get("Origin")):
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


def require_token(token: str) -> Middleware:
    """Return a middleware that answers 401 unless `Authorization: Bearer TOKEN` is there."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if hmac.compare_digest(given, expected):
            return await handler(request)
        error = {
            "type": "unauthorized",
            "message": "This engine wants its token: send Authorization: Bearer TOKEN",
            "details": "",
            "extra_info": {},
        }
        return web.json_response(
            {"error": error, "node_errors": {}},
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
        )

    return check

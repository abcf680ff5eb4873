"""Where a server is, with its secrets split off."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from comfynb.errors import BackendError
from comfynb.keyframes import EMPTY

DEFAULT_PORT = 8188
"""ComfyUI's own default."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address.

    Attributes:
        url: Scheme, host, port and base path; no user, no query, no trailing slash.
        headers: Sent with every request and with the WebSocket handshake. Not in the repr.
        params: Query parameters sent likewise, such as a token in the URL. Not in the repr.
    """

    url: str
    headers: Mapping[str, str] = field(default=EMPTY, repr=False)
    params: Mapping[str, str] = field(default=EMPTY, repr=False)

    @classmethod
    def parse(
        cls, url: str, *, token: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Address:
        """Read what a user gives: "gpu:8188", "http://host/base/", "https://user:pw@host".

        Args:
            url: With or without a scheme; user, password and query become secrets.
            token: Sent as `Authorization: Bearer`.
            headers: Further headers; they win over what the URL says.

        Raises:
            BackendError: If it is no address; the message never quotes its secrets.
        """
        text = url.strip()
        if "://" not in text:
            text = f"http://{text}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise BackendError(f"a server address is not readable: {exc}") from None
        scheme = _SCHEMES.get(parts.scheme.lower())
        if scheme is None or not host:
            raise BackendError(
                f"{parts.scheme}://{host or ''} is not the address of a ComfyUI; "
                f"give one like http://127.0.0.1:{DEFAULT_PORT}"
            )
        if port is None and "://" not in url:
            port = DEFAULT_PORT
        shown = f"[{host}]" if ":" in host else host
        base = f"{scheme}://{shown}" + (f":{port}" if port else "") + parts.path.rstrip("/")
        sent: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            sent["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent.update(headers or {})
        return cls(base, sent, dict(parse_qsl(parts.query)))

    @property
    def label(self) -> str:
        """Host, port and base path: the name of this server in logs and on screen."""
        return self.url.partition("://")[2]

    @property
    def websocket_url(self) -> str:
        """The address of `/ws`, without query."""
        return "ws" + self.url.removeprefix("http") + "/ws"

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine, where no proxy setting of the environment applies."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

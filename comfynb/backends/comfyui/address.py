"""Where a server is, with its secrets split off."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

from comfynb.errors import BackendError
from comfynb.keyframes import EMPTY

DEFAULT_PORT = 8188
"""ComfyUI's own default."""

_EXAMPLE = f"http://127.0.0.1:{DEFAULT_PORT}"
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address.

    Attributes:
        url: Scheme, host, port and base path; no user, no query, no trailing slash.
        headers: Sent with every request and with the WebSocket handshake. Not in the repr.
        params: Query parameters sent likewise, such as a token in the URL. Not in the repr.
        name: What to call it; "": host and port.
    """

    url: str
    headers: Mapping[str, str] = field(default=EMPTY, repr=False)
    params: Mapping[str, str] = field(default=EMPTY, repr=False)
    name: str = ""

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Address:
        """Read what a user gives: "gpu:8188", "http://host/base/", "https://user:pw@host".

        Args:
            url: With or without a scheme; user, password and query become secrets.
            token: Sent as `Authorization: Bearer`; white space around it is dropped.
            headers: Further headers; they win over what the URL says.
            name: What to call it; "": host and port.

        Raises:
            BackendError: If it is no address; the message never quotes its secrets.
        """
        text = url.strip()
        if "://" not in text:
            text = f"http://{text}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # its text may quote a password
            host, port = "", None
        if not host or _UNSENDABLE.search(text):
            raise BackendError(f"that is no address of a server; give one like {_EXAMPLE}")
        scheme = _SCHEMES.get(parts.scheme.lower())
        if scheme is None:
            raise BackendError(
                f"{parts.scheme}://{host} is not the address of a ComfyUI; give one like {_EXAMPLE}"
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
            sent["Authorization"] = f"Bearer {token.strip()}"
        for header, value in (headers or {}).items():
            sent = {k: v for k, v in sent.items() if k.lower() != header.lower()}
            sent[header] = value
        for header, value in sent.items():
            # What cannot be sent would be refused below, in errors that quote it.
            if not value.isascii() or not value.isprintable():
                raise BackendError(
                    f"the header {header} holds characters that cannot be sent; "
                    "look at the token for line breaks and letters beyond ASCII"
                )
        return cls(base, sent, dict(parse_qsl(parts.query)), name)

    @property
    def label(self) -> str:
        """Its name in logs and on screen: as given, else host, port and base path."""
        return self.name or self.url.partition("://")[2]

    @property
    def websocket_url(self) -> str:
        """The address of `/ws`, without query."""
        return "ws" + self.url.removeprefix("http") + "/ws"

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine, where no proxy setting of the environment applies."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

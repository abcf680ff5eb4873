"""Where a server is, with its secrets split off."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypedDict
from urllib.parse import parse_qsl, unquote, urlsplit

from comfynb.backends.comfyui import tls
from comfynb.errors import BackendError
from comfynb.keyframes import EMPTY
from comfynb.scrubbing import hide

DEFAULT_PORT = 8188
"""ComfyUI's own default."""

_EXAMPLE = f"http://127.0.0.1:{DEFAULT_PORT}"
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]")
_KINDS = {"bearer": "bearer token", "basic": "user and password"}
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Access(TypedDict, total=False):
    """What opens a server's door, as `connect` takes it; each part may be left out or None.

    Attributes:
        token: Sent as `Authorization: Bearer`; white space around it is dropped.
        auth: User and password, sent as `Authorization: Basic`; a token wins over it.
        headers: Further headers; they win over all else.
        cookies: Sent with every request, and replaced when the server sets one of that name.
        ca: A PEM file, or a folder of such, with the certificates that are trusted instead of
            this machine's; for `https` only.
        verify: False: take any certificate.
    """

    token: str | None
    auth: tuple[str, str] | None
    headers: Mapping[str, str] | None
    cookies: Mapping[str, str] | None
    ca: str | os.PathLike[str] | None
    verify: bool


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address.

    Attributes:
        url: Scheme, host, port and base path; no user, no query, no trailing slash.
        headers: Sent with every request and with the WebSocket handshake. Not in the repr.
        params: Query parameters sent likewise, such as a token in the URL. Not in the repr.
        cookies: Sent likewise. Not in the repr.
        ca: File or folder of the certificates that are trusted; "": those of this machine.
        verify: Whether its certificate is looked at.
        name: What to call it; "": host and port.
    """

    url: str
    headers: Mapping[str, str] = field(default=EMPTY, repr=False)
    params: Mapping[str, str] = field(default=EMPTY, repr=False)
    cookies: Mapping[str, str] = field(default=EMPTY, repr=False)
    ca: str = ""
    verify: bool = True
    name: str = ""

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        token: str | None = None,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        verify: bool = True,
        name: str = "",
    ) -> Address:
        """Read what a user gives: "gpu:8188", "http://host/base/", "https://user:pw@host".

        All that is secret in it is hidden from logs for the life of the process.

        Args:
            url: With or without a scheme; user, password and query become secrets.
            token: As `Access` says; so do the following ones.
            auth: Wins over user and password of the URL.
            headers: One that is called Cookie adds to the cookies.
            cookies: By name.
            ca: Must exist.
            verify: False warns.
            name: What to call it; "": host and port.

        Raises:
            BackendError: If it is no address, or one of the others cannot be used; the message
                never quotes a secret.
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
        if auth is None and parts.username is not None:
            auth = (unquote(parts.username), unquote(parts.password or ""))
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        sent, kept = _sent(token, auth, headers, cookies)
        hide([parts.password or "", *_secrets(token, auth, sent, params, kept)])
        certificates = tls.trusted(host, ca, verify=verify) if scheme == "https" else ""
        return cls(base, sent, params, kept, certificates, verify, name)

    @property
    def key(self) -> tuple[str, str]:
        """What tells one way to a server from another: the address, and a digest of all else."""
        secrets = [sorted(s.items()) for s in (self.headers, self.params, self.cookies)]
        rest = json.dumps([secrets, self.ca, self.verify])
        return self.url, hashlib.sha256(rest.encode()).hexdigest()

    @property
    def ways(self) -> tuple[str, ...]:
        """Which kinds of access are used, without what they hold."""
        found, params = [], self.params.items()
        for header, value in self.headers.items():
            kind = value.partition(" ")[0].lower() if header.lower() == "authorization" else ""
            found.append(_KINDS.get(kind, f"header {header}"))
        found += [f"cookie {name}" for name in self.cookies]
        found += [f"query parameter {name}" if value else "query" for name, value in params]
        return tuple(found)

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


def _sent(
    token: str | None,
    auth: tuple[str, str] | None,
    headers: Mapping[str, str] | None,
    cookies: Mapping[str, str] | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Return headers and cookies, all of which can be sent."""
    sent: dict[str, str] = {}
    kept: dict[str, str] = {}
    if auth is not None:
        sent["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    if token is not None:
        sent["Authorization"] = f"Bearer {token.strip()}"
    for header, value in (headers or {}).items():
        if header.lower() == "cookie":
            kept.update(_pairs(value))
        else:
            sent = {k: v for k, v in sent.items() if k.lower() != header.lower()}
            sent[header] = value
    kept.update(cookies or {})
    for what, values in (("header", sent), ("cookie", kept)):
        for name, value in values.items():
            # What cannot be sent would be refused below, in errors that quote it.
            if (
                not value.isascii()
                or not value.isprintable()
                or (what == "cookie" and ";" in value)
            ):
                raise BackendError(
                    f"the {what} {name} holds characters that cannot be sent; "
                    "look at the token for line breaks and letters beyond ASCII"
                )
    return sent, kept


def _pairs(header: str) -> Iterator[tuple[str, str]]:
    for pair in header.split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals:
            yield name, value


def _secrets(
    token: str | None,
    auth: tuple[str, str] | None,
    headers: Mapping[str, str],
    params: Mapping[str, str],
    cookies: Mapping[str, str],
) -> Iterator[str]:
    """Give all that opens a door; a user's name alone does not."""
    if token is not None:
        yield token.strip()
    if auth is not None:
        yield from (auth[1] or auth[0], ":".join(auth))
    for values in (headers, params, cookies):
        for name, value in values.items():
            yield value or name  # of "?abc" the name is all there is
            # "Bearer abc" is written whole by some, and its last word by others.
            yield value.rpartition(" ")[2]

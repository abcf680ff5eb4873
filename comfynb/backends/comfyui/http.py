"""Requests to one ComfyUI: errors translated, answers bounded, nothing secret in a message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from comfynb.backends.comfyui.address import Address
from comfynb.backends.comfyui.transport import LoopbackTransport
from comfynb.errors import (
    AccessDeniedError,
    NotComfyUIError,
    PromptRejectedError,
    ServerError,
    ServerUnreachableError,
)

MAX_BYTES = 512 * 1024 * 1024
"""The largest answer we take. /object_info is megabytes, a 2048x2048 PNG 13 MB (measured)."""

_SHOWN = 300
"""Characters of a server's text that we quote."""
_LISTED = 10
"""Complaints about nodes that we quote."""


class NotSentError(ServerUnreachableError):
    """The request never left, so that sending it again is safe."""


class BrokenLineError(ServerUnreachableError):
    """The connection broke before the answer was whole."""


class Http:
    """The HTTP side of one server."""

    def __init__(self, address: Address, *, timeout: float = 30.0) -> None:
        """Prepare; nothing is sent.

        Args:
            address: Where and with which secrets.
            timeout: Seconds without a byte after which a request fails; connecting has 5.
        """
        self._address = address
        self._timeout = httpx.Timeout(timeout, connect=5.0)
        self._client = self._make()

    def _make(self) -> httpx.AsyncClient:
        here = self._address.loopback and self._address.url.startswith("http:")
        return httpx.AsyncClient(
            headers=dict(self._address.headers),
            params=dict(self._address.params),
            timeout=self._timeout,
            trust_env=not self._address.loopback,
            # Reading the certificate store takes 20 ms and more; plain HTTP never needs it.
            verify=self._address.url.startswith("https"),
            transport=LoopbackTransport() if here else None,
        )

    async def renew(self) -> None:
        """Forget kept connections, which a restarted server does not know any more."""
        old, self._client = self._client, self._make()
        await old.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """GET and parse; bare NaN and Infinity are taken, as ComfyUI writes them."""
        try:
            data = await self._request("GET", path, params=params)
        except BrokenLineError:  # most often a kept connection that the server had closed
            data = await self._request("GET", path, params=params)
        return self._parse(path, data)

    async def get_bytes(self, path: str, params: Mapping[str, str]) -> bytes:
        """GET a file."""
        return await self._request("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """POST a command, whose answer is an empty body."""
        await self._request("POST", path, body=body)

    async def post_prompt(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /prompt.

        Raises:
            PromptRejectedError: The graph was refused (400).
            NotSentError: It never left; sending again is safe.
            ServerUnreachableError: It may or may not have arrived: ask before sending again.
            ServerError: Likewise.
        """
        answer = self._parse("/prompt", await self._request("POST", "/prompt", body=body))
        if not isinstance(answer, dict):
            raise ServerError(
                f"{self._address.label} answered POST /prompt with a {type(answer).__name__}",
                server=self._address.label,
            )
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        label = self._address.label
        content = None if body is None else json.dumps(body).encode()
        headers = None if body is None else {"Content-Type": "application/json"}
        try:
            async with self._client.stream(
                method, self._address.url + path, params=params, content=content, headers=headers
            ) as response:
                data = await _bounded(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise NotSentError(f"nobody answers at {label}: {_reason(exc)}", server=label) from None
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            broken = isinstance(exc, httpx.NetworkError | httpx.RemoteProtocolError)
            raise (BrokenLineError if broken else ServerUnreachableError)(
                f"{label} broke off while answering {method} {path}: {_reason(exc)}", server=label
            ) from None
        status = response.status_code
        if status < 300:
            return data
        if status == 400 and path == "/prompt":
            raise rejection(data, label)
        if status in (401, 403):
            raise AccessDeniedError(
                f"{label} refused {method} {path} with {status}; give the right "
                "connect(..., token=...) or headers=...",
                server=label,
                status=status,
            )
        raise ServerError(
            f"{label} answered {method} {path} with {status}: {_shorten(data) or 'no text'}",
            server=label,
            status=status,
        )

    def _parse(self, path: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise NotComfyUIError(
                f"{self._address.label} answered {path} with something that is not JSON "
                f"({_shorten(data)!r}); is this the address of a ComfyUI?",
                server=self._address.label,
            ) from None


async def _bounded(response: httpx.Response) -> bytes:
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BYTES:
        raise httpx.DecodingError(f"an answer of {declared} bytes is too large")
    parts, size = [], 0
    async for part in response.aiter_bytes():  # unpacked: a small answer may grow
        size += len(part)
        if size > MAX_BYTES:
            raise httpx.DecodingError(f"an answer of more than {MAX_BYTES} bytes is too large")
        parts.append(part)
    return b"".join(parts)


def _reason(exc: Exception) -> str:
    # httpx leaves some texts empty (timeouts); none of the others holds a URL with its query.
    return str(exc) or type(exc).__name__


def _shorten(data: bytes) -> str:
    return _cut(data[: _SHOWN * 4].decode("utf-8", "replace"))


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def rejection(data: bytes, label: str) -> PromptRejectedError:
    """Read ComfyUI's 400 answer to POST /prompt; every node error is quoted.

    Shape (PROTOCOL facts, ComfyUI 0.3.75): {"error": {type, message, details, extra_info},
    "node_errors": {id: {"errors": [{type, message, details}], "class_type"}}}.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = {}
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {"message": _shorten(data) or "no reason given"}
    nodes = node_errors(body.get("node_errors") if isinstance(body, dict) else None)
    text = _cut(str(error.get("message") or "the graph was refused"))
    details = _cut(str(error.get("details") or ""))
    if nodes:
        text += ": " + "; ".join(complaint for _, _, complaint in nodes[:_LISTED])
        if len(nodes) > _LISTED:
            text += f"; and {len(nodes) - _LISTED} more"
    elif details:
        text += f" ({details})"
    node, node_type = (nodes[0][0], nodes[0][1]) if nodes else (None, None)
    return PromptRejectedError(
        text,
        server=label,
        kind=str(error.get("type") or "rejected"),
        node=node,
        node_type=node_type,
    )


def node_errors(answer: object) -> list[tuple[str, str, str]]:
    """Flatten `node_errors` into (node id, class, text); anything malformed is skipped."""
    found = []
    for node, entry in answer.items() if isinstance(answer, dict) else ():
        if not isinstance(entry, dict):
            continue
        kind = str(entry.get("class_type") or "?")
        errors = entry.get("errors")
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, dict):
                text = _cut(str(error.get("message") or error.get("type") or "invalid"))
                details = _cut(str(error.get("details") or ""))
                found.append((str(node), kind, f"{text} ({details})" if details else text))
    return found

"""Requests to one ComfyUI: errors translated, answers bounded, nothing secret in a message."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx

from comfynb import loop
from comfynb.backends.comfyui import proxies, tls
from comfynb.backends.comfyui.address import Address
from comfynb.backends.comfyui.cookies import Cookies
from comfynb.backends.comfyui.rejection import rejection, shorten
from comfynb.backends.comfyui.transport import LoopbackTransport
from comfynb.errors import (
    AccessDeniedError,
    BackendError,
    CertificateError,
    NotComfyUIError,
    RedirectedError,
    ServerError,
    ServerUnreachableError,
)
from comfynb.scrubbing import scrub

MAX_BYTES = 512 * 1024 * 1024
"""The largest answer we take. /object_info is megabytes, a 2048x2048 PNG 13 MB (measured)."""

REDIRECTS = (301, 302, 303, 307, 308)
KEEP_METHOD = (307, 308)
"""Those after which a POST stays one (RFC 9110, 15.4); after the others it would become a GET."""
MAX_REDIRECTS = 5

WAYS = "connect(..., token=...), auth=..., headers=... or cookies=..."
"""What a user may give to get in."""

UPLOAD = "/upload/image"
"""Where any input file goes, sounds and videos too."""

_LARGE = 200_000
"""Bytes of JSON that take the loop too long: 1 MB takes about 10 ms (measured)."""

_LOGIN = re.compile(rb"""type=["']?password|log[ -]?in\b|sign[ -]?in\b""", re.IGNORECASE)


class NotSentError(ServerUnreachableError):
    """The request never left, so that sending it again is safe."""


class BrokenLineError(ServerUnreachableError):
    """The connection broke before the answer was whole."""


class Place(httpx.URL):
    """An address whose query may hold secrets: no traceback that lists variables shows them."""

    def __repr__(self) -> str:
        return f"Place({scrub(str(self.copy_with(userinfo=b'')))!r})"


class Http:
    """The HTTP side of one server.

    Attributes:
        cookies: Its cookies, for the WebSocket too.
        tls: How its certificate is checked, for the WebSocket too; None: it has none.
    """

    def __init__(self, address: Address, *, timeout: float = 30.0) -> None:
        """Prepare; nothing is sent.

        Args:
            address: Where and with which secrets.
            timeout: Seconds without a byte after which a request fails; connecting has 5.
        """
        self._address = address
        self._timeout = httpx.Timeout(timeout, connect=5.0)
        self.cookies = Cookies(address)
        # Reading the certificate store takes 20 ms and more; plain HTTP never needs it.
        secure = address.url.startswith("https:")
        self.tls = tls.context(address.ca, verify=address.verify) if secure else None
        proxies.hide_passwords()
        self._client = self._make()

    def _make(self) -> httpx.AsyncClient:
        here = self._address.loopback and self.tls is None
        try:
            return httpx.AsyncClient(
                headers=dict(self._address.headers),
                cookies=self.cookies.jar,
                timeout=self._timeout,
                trust_env=not self._address.loopback,
                verify=False if self.tls is None else self.tls,
                transport=LoopbackTransport() if here else None,
            )
        except (ValueError, ImportError) as exc:  # its address is wrong, or a package is missing
            reason = scrub(str(exc))
        text = f"a proxy of this environment cannot be used: {reason}; {proxies.ADVICE}"
        raise BackendError(text, server=self._address.label)

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
        if len(data) > _LARGE:
            return await loop.in_worker(self._parse, path, data)
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

    async def upload(self, name: str, data: bytes, mime: str) -> str:
        """POST a file to the server's input folder and return what the server calls it.

        Raises:
            ServerUnreachableError: It may or may not have arrived; sending again is safe.
            ServerError: The server did not take it: too large, or no place for it.
        """
        # httpx writes names as raw UTF-8, as ComfyUI wants them.
        form = httpx.Request(
            "POST", self._address.url, data={"type": "input"}, files={"image": (name, data, mime)}
        )
        content = form.read(), form.headers["Content-Type"]
        answer = self._parse(UPLOAD, await self._request("POST", UPLOAD, content=content))
        given = answer.get("name") if isinstance(answer, dict) else None
        if not isinstance(given, str) or not given:
            text = f"{self._address.label} took {name} and did not say what it calls it"
            raise ServerError(text, server=self._address.label)
        subfolder = answer.get("subfolder")
        return f"{subfolder}/{given}" if isinstance(subfolder, str) and subfolder else given

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: tuple[bytes, str] | None = None,
    ) -> bytes:
        if body is not None:
            content = json.dumps(body).encode(), "application/json"
        data, headers = None, None
        if content is not None:
            data, headers = content[0], {"Content-Type": content[1]}
        url = self._url(path, params or {})
        for _ in range(MAX_REDIRECTS + 1):
            response, answer = await self._exchange(method, path, url, data, headers)
            target = self._redirect(method, path, url, response)
            if target is None:
                break
            url = target
        fault = self._fault(method, path, response.status_code, answer)
        if fault is not None:
            del answer  # it may quote what we sent, and some tracebacks list variables
            raise fault
        return answer

    def _url(self, path: str, params: Mapping[str, str]) -> Place:
        try:
            url = Place(self._address.url + path)
        except httpx.InvalidURL:
            text = f"{self._address.label} cannot be the address of a server"
        else:
            return Place(url.copy_merge_params({**self._address.params, **params}))
        raise NotSentError(text, server=self._address.label)

    async def _exchange(
        self,
        method: str,
        path: str,
        url: Place,
        content: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[httpx.Response, bytes]:
        """Send once, and read the answer whatever its status."""
        label = self._address.label
        failure: BackendError
        try:
            async with self._client.stream(
                method, url, content=content, headers=headers
            ) as response:
                data = await _bounded(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            if fault := tls.explain(exc):
                failure = CertificateError(f"{label}: {fault}", server=label)
            else:
                text = f"nobody answers at {label}: {_reason(exc)}"
                failure = NotSentError(text, server=label)
        except httpx.ProxyError as exc:
            text = f"the proxy of this environment does not lead to {label}: {_reason(exc)}"
            failure = NotSentError(f"{text}; {proxies.ADVICE}", server=label)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            broken = isinstance(exc, httpx.NetworkError | httpx.RemoteProtocolError)
            failure = (BrokenLineError if broken else ServerUnreachableError)(
                f"{label} broke off while answering {method} {path}: {_reason(exc)}", server=label
            )
        else:
            self.cookies.settle(response.headers)
            return response, data
        raise failure  # out here: httpx's error, with its request, is not even its context

    def _redirect(
        self, method: str, path: str, url: Place, response: httpx.Response
    ) -> Place | None:
        """Return where to ask instead; None: this is the answer.

        Raises:
            RedirectedError: To another origin, or a POST that would become a GET.
        """
        status = response.status_code
        if status not in REDIRECTS or not response.headers.get("location"):
            return None
        try:
            target = Place(url.join(response.headers["location"]))
        except httpx.InvalidURL:
            return None
        same = origin(target) == origin(url) and not target.userinfo
        if same and (method == "GET" or status in KEEP_METHOD):
            return Place(target.copy_merge_params(dict(self._address.params)))
        raise self.redirected(f"{method} {path}", status, target)

    def redirected(self, what: str, status: int, target: httpx.URL) -> RedirectedError:
        """Return the error for a redirect that is not followed.

        Args:
            what: Method and path of the request.
            status: Of the answer.
            target: Where it points to.
        """
        label = self._address.label
        shown = scrub(str(target.copy_with(userinfo=b"", query=None, fragment=None)))
        base = shown.removesuffix(what.partition(" ")[2])
        text = f"{label} answered {what} with {status}, a redirect to {shown}"
        if target.host == httpx.URL(self._address.url).host:
            text += f"; give the address that it points to: connect({base!r})"
        else:
            text += (
                ", which is another server, and nothing was sent there; if that is a login page, "
                f"give {WAYS}; if the ComfyUI is there, connect({base!r})"
            )
        return RedirectedError(text, server=label, status=status, target=shown)

    def _fault(self, method: str, path: str, status: int, data: bytes) -> BackendError | None:
        """Return what an answer stands for that is no success."""
        label = self._address.label
        if status < 300:
            return None
        if status == 400 and path == "/prompt":
            return rejection(data, label)
        if status in (401, 403):
            text = f"{label} refused {method} {path} with {status}; give the right {WAYS}"
            return AccessDeniedError(text, server=label, status=status)
        if status == 407:
            text = f"the proxy of this environment wants a password of its own; {proxies.ADVICE}"
            return AccessDeniedError(text, server=label, status=status)
        said = shorten(data) or "no text"
        text = f"{label} answered {method} {path} with {status}: {said}"
        return ServerError(text, server=label, status=status)

    def _parse(self, path: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            pass
        advice = "is this the address of a ComfyUI?"
        if _LOGIN.search(data[:100_000]):
            advice = f"it looks like a login page: give {WAYS}"
        text = (
            f"{self._address.label} answered {path} with something that is not JSON "
            f"({shorten(data)!r}); {advice}"
        )
        del data  # as in _request
        raise NotComfyUIError(text, server=self._address.label)


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
    # httpx leaves some texts empty (timeouts).
    return scrub(str(exc)) or type(exc).__name__


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return what must be the same for our secrets to be sent there: scheme, host, port."""
    default = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, default if url.port is None else url.port

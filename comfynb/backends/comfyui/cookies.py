"""The cookies of one server: those a user gave, and those a login proxy sets on the way.

The standard library's jar decides about paths, expiry and `Secure`. It serves one origin only, so
that nothing in it can reach another server.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.cookiejar import CookieJar

import httpx

from comfynb.backends.comfyui.address import Address
from comfynb.scrubbing import hide

MOST = 100
"""Cookies that a server may set before all of its are forgotten."""


class Cookies:
    """The cookies of one server.

    Attributes:
        jar: For httpx, which fills and uses it by itself.
    """

    def __init__(self, address: Address) -> None:
        self.jar = CookieJar()
        self._given = address.cookies
        self._give()

    def headers(self, url: str) -> dict[str, str]:
        """Return the header to send to an `http` or `https` address of this server, if any."""
        request = httpx.Request("GET", url)
        httpx.Cookies(self.jar).set_cookie_header(request)
        return {"Cookie": request.headers["cookie"]} if "cookie" in request.headers else {}

    def take(self, url: str, headers: Iterable[tuple[str, str]]) -> None:
        """Keep what an answer sets that did not come through httpx."""
        response = httpx.Response(200, headers=list(headers), request=httpx.Request("GET", url))
        httpx.Cookies(self.jar).extract_cookies(response)
        self.settle(response.headers)

    def settle(self, headers: httpx.Headers) -> None:
        """Hide what an answer has set, and let it replace what the user gave under its name.

        Args:
            headers: Of the answer.
        """
        if "set-cookie" not in headers:
            return
        if len(self.jar) > MOST + len(self._given):
            self.jar.clear()
            self._give()
            return
        new = [cookie for cookie in self.jar if cookie.domain]
        hide(cookie.value for cookie in new if cookie.value)
        replaced = {cookie.name for cookie in new} & self._given.keys()
        for cookie in [c for c in self.jar if not c.domain and c.name in replaced]:
            self.jar.clear("", cookie.path, cookie.name)

    def _give(self) -> None:
        cookies = httpx.Cookies(self.jar)
        for name, value in self._given.items():  # without a domain: good for all the jar is for
            cookies.set(name, value)

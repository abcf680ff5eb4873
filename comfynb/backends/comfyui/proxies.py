"""The proxies that an environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY).

httpx and websockets find them by themselves; they are for other machines only, never for this one.
Here is what is left to do: their passwords are hidden like any other, and what goes wrong with them
is said as such, since a user sees a wrong ComfyUI otherwise.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from comfynb.backends.comfyui.address import Address
from comfynb.scrubbing import hide

ADVICE = "look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or name the host in NO_PROXY"


def in_use(address: Address) -> bool:
    """Whether the way to a server leads through a proxy."""
    parts = urlsplit(address.url)
    found = getproxies()
    named = parts.scheme in found or "all" in found
    return not address.loopback and named and not proxy_bypass(parts.hostname or "")


def hide_passwords() -> None:
    """Have the passwords of the environment's proxies replaced wherever they would be written."""
    for url in getproxies().values():
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
        except ValueError:  # no address, as in NO_PROXY; nor one that anybody can use
            continue
        if parts.password:
            password = unquote(parts.password)
            hide([parts.password, password, f"{unquote(parts.username or '')}:{password}"])

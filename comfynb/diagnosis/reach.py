"""Is anybody there, who, and who else may get in."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from comfynb._version import __version__
from comfynb.backends.comfyui import Address, proxies, tls
from comfynb.backends.comfyui.http import Http
from comfynb.backends.comfyui.socket import server_info
from comfynb.backends.embedded import missing
from comfynb.diagnosis.notes import Notes, count, span
from comfynb.diagnosis.visit import Visit, advice, mapping
from comfynb.errors import BackendError

CONNECT_SECONDS = 5.0
SOON_DAYS = 14
"""A certificate that expires within so many days is worth a warning."""


async def this_machine(_: Visit, notes: Notes) -> None:
    """What is installed here; nothing is sent."""
    python = ".".join(map(str, sys.version_info[:3]))
    notes.fact("comfynb", f"{__version__} on Python {python}", comfynb=__version__, python=python)
    lacking = missing()
    text = f"lacks {', '.join(lacking)}" if lacking else "installed"
    notes.fact("Embedded engine", text, engine_lacks=lacking)


async def reachability(visit: Visit, notes: Notes) -> None:
    """Name, port, certificate, and an answer that is a ComfyUI's; raises what stands in the way."""
    address = visit.address
    notes.fact("Address", address.url, url=address.url)
    if proxies.in_use(address):
        notes.fact("Way", "through the proxy of this environment", proxy=True)
    elif not await _knock(visit, notes):
        return
    begun = time.monotonic()
    try:
        stats = await visit.http.get_json("/system_stats")
        server_info(address.label, stats)  # raises for what is no ComfyUI
    except BackendError as exc:
        notes.problem(*advice(exc))
        return
    first = time.monotonic() - begun
    visit.stats = mapping(stats)
    begun = time.monotonic()
    await visit.http.get_json("/prompt")
    again = time.monotonic() - begun
    notes.fact(
        "Answer", f"in {span(first)}, on the open line in {span(again)}",
        first_answer_ms=round(first * 1000, 2), answer_ms=round(again * 1000, 2),
    )  # fmt: skip
    if again > 1:
        notes.warn(
            f"a small question takes {span(again)}",
            "look at the network, and at what else the server's machine does",
        )


async def _knock(visit: Visit, notes: Notes) -> bool:
    """Go step by step, so that the step that fails is known; False: it was told."""
    parts = urlsplit(visit.address.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    begun = time.monotonic()
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        notes.problem(
            f"the name {host} is not known on this machine",
            "look at its spelling, or give the server's IP address; a VPN may be needed",
        )
        return False
    took = time.monotonic() - begun
    with suppress(ValueError):
        ip_address(host)
        took = 0.0
    if took:
        numbers = ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))
        notes.fact("Name", f"{numbers}, in {span(took)}", name_ms=round(took * 1000, 2))
    begun = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=visit.http.tls)
    except TimeoutError:
        notes.problem(
            f"{host} does not answer at port {port}",
            "look at the address, at firewalls on the way, and whether its machine is on",
        )
        return False
    except ConnectionRefusedError:
        if not visit.named:
            notes.note("comfynb.connect() without an address uses the embedded engine then")
        notes.problem(
            f"nobody listens at {host}, port {port}",
            "start ComfyUI there (with --listen, if that is another machine) and look at the "
            "port; inside a container 127.0.0.1 is the container itself"
            + (", so give its host's name" if visit.address.loopback else ""),
        )
        return False
    except OSError as exc:
        fault = tls.explain(exc)
        what, _, step = (fault or str(exc)).partition("; ")
        notes.problem(f"{host}, port {port}: {what}", step or "look at the network")
        return False
    kind = "Port and TLS" if visit.http.tls else "Port"
    took = time.monotonic() - begun
    notes.fact(kind, f"{port}, open in {span(took)}", port=port, connect_ms=round(took * 1000, 2))
    _look_at_certificate(writer.get_extra_info("ssl_object"), notes)
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
    return True


def _look_at_certificate(line: ssl.SSLObject | None, notes: Notes) -> None:
    if line is None:
        return
    certificate = line.getpeercert() or {}  # empty where it is not checked
    until = certificate.get("notAfter")
    text, days = "not checked", None
    if isinstance(until, str):
        days = int((ssl.cert_time_to_seconds(until) - time.time()) / 86400)
        text = f"good for {count(days, 'day')}"
    notes.fact(
        "Certificate", f"{line.version()}, {text}", tls=line.version(), certificate_days=days
    )
    if days is None:
        notes.warn(
            "the certificate is not checked (verify=False)",
            "save the server's certificate and give ca='that.pem' instead",
        )
    elif days < SOON_DAYS:
        notes.warn(f"the certificate expires in {count(days, 'day')}", "renew it on the server")


async def access(visit: Visit, notes: Notes) -> None:
    """Which ways in are used, whether they are needed, and who else may come."""
    address = visit.address
    ways = address.ways
    notes.fact("Used", ", ".join(ways) or "none", ways=list(ways))
    needed = await _is_closed(address) if ways else False
    if ways:
        notes.fact("Without it", "refused" if needed else "let in as well", needed=needed)
    listening = visit.flag("--listen")
    beyond = not address.loopback or (listening is not None and not _is_loopback(listening))
    notes.fact("Open to", "other machines" if beyond else "this machine only", open_beyond=beyond)
    if beyond and not needed:
        notes.warn(
            "it lets anybody in who can reach it: to draw, to read pictures, to stop yours",
            "let it listen on 127.0.0.1 and reach it by an SSH tunnel, or put a proxy with TLS "
            "and a token before it; on a network of your own this may be as you want it",
        )
    if ways and not address.loopback and address.url.startswith("http:"):
        notes.warn(
            "what opens the door travels in the clear (http)",
            "use https, or an SSH tunnel",
        )
    if visit.flag("--enable-cors-header") in ("", "*"):
        notes.warn(
            "any web page open in a browser that can reach it may use it (--enable-cors-header)",
            "start it with the one origin that needs it, or without",
        )


def _is_loopback(name: str) -> bool:
    with suppress(ValueError):
        return all(ip_address(part.strip()).is_loopback for part in name.split(","))
    return name == "localhost"


async def _is_closed(address: Address) -> bool:
    """Whether it refuses those who bring nothing."""
    bare = Http(Address(address.url, ca=address.ca, verify=address.verify), timeout=5.0)
    try:
        await bare.get_json("/system_stats")
    except BackendError:
        return True
    finally:
        await bare.aclose()
    return False

"""One part after the other: each may fail for itself, and all end within a time."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

from comfynb import loop
from comfynb.backends.comfyui import Address
from comfynb.backends.comfyui.http import Http
from comfynb.backends.embedded import EmbeddedBackend
from comfynb.connecting import DEFAULT_URL, EMBEDDED
from comfynb.diagnosis import reach, server, trip, work
from comfynb.diagnosis.notes import Notes, span
from comfynb.diagnosis.values import Diagnosis
from comfynb.diagnosis.visit import Visit, advice
from comfynb.errors import BackendError

logger = logging.getLogger(__name__)

PART_SECONDS = 10.0
"""How long one part may take."""

Check = Callable[[Visit, Notes], Awaitable[None]]

PARTS: tuple[tuple[str, str, Check], ...] = (
    ("here", "This machine", reach.this_machine),
    ("reachability", "Reachability", reach.reachability),
    ("release", "Release", server.release),
    ("devices", "Devices", server.devices),
    ("websocket", "WebSocket", work.websocket),
    ("queue", "Queue", work.queue),
    ("history", "History", work.history),
    ("retrieval", "A file", work.retrieval),
    ("nodes", "Nodes", server.nodes),
    ("models", "Models", server.models),
    ("round_trip", "A small picture", trip.round_trip),
    ("access", "Access", reach.access),
)


async def diagnose(
    url: str | None = None,
    *,
    token: str | None = None,
    auth: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    ca: str | Path | None = None,
    verify: bool = True,
    timeout: float = 30.0,  # noqa: ASYNC109 - of all parts, each of which may fail
    round_trip: bool = True,
) -> Diagnosis:
    """Examine a server: what works, what does not, and the next step for each.

    It reads, and has one picture of 64 x 64 pixels made without a model, where nothing runs or
    waits there; of that, nothing stays in queue and history. A server that cannot be reached is a
    finding and no exception.

    Args:
        url: Of a ComfyUI; "embedded": an engine started for this; None: the environment's
            COMFYUI_URL, else 127.0.0.1:8188.
        token: As for `connect`; so are `auth`, `headers`, `cookies`, `ca` and `verify`.
        auth: User and password.
        headers: Further HTTP headers.
        cookies: By name.
        ca: Certificates to trust.
        verify: False takes any certificate.
        timeout: Seconds for all of it.
        round_trip: False: send no prompt.

    Returns:
        The diagnosis; in a notebook it shows itself.

    Raises:
        BackendError: The address is none, `ca` cannot be read, or the engine does not start.

    Example:
        diagnosis = await comfynb.diagnose("http://gpu:8188")
        diagnosis.ok, [finding.what for finding in diagnosis.findings]
    """
    chosen = url or os.environ.get("COMFYUI_URL") or DEFAULT_URL
    if chosen == EMBEDDED:
        return await loop.across(_examine_engine(timeout, round_trip=round_trip))
    address = Address.parse(
        chosen, token=token, auth=auth, headers=headers, cookies=cookies, ca=ca, verify=verify
    )
    named = chosen != DEFAULT_URL
    return await loop.across(_examine(address, timeout, round_trip=round_trip, named=named))


async def _examine_engine(limit: float, *, round_trip: bool) -> Diagnosis:
    """Examine an engine that is started for this and ended again."""
    engine = EmbeddedBackend()
    try:
        await engine.open()
        assert engine.address is not None
        return await _examine(engine.address, limit, round_trip=round_trip, named=True)
    finally:
        await engine.aclose()


async def _examine(address: Address, limit: float, *, round_trip: bool, named: bool) -> Diagnosis:
    """Go through all parts within a time; on our loop."""
    http = Http(address, timeout=min(limit, PART_SECONDS))
    visit = Visit(address, http, round_trip=round_trip, named=named)
    begun, at = time.monotonic(), datetime.now().astimezone()
    deadline = begun + limit
    parts = []
    try:
        for name, title, check in PARTS:
            notes = Notes(name, title)
            if name not in ("here", "reachability") and not visit.stats:
                notes.skip("it was not reached")
            elif time.monotonic() >= deadline:
                notes.skip("no time was left")
            else:
                await _one(check, visit, notes, deadline - time.monotonic())
            parts.append(notes.part())
    finally:
        await http.aclose()
    seconds = time.monotonic() - begun
    return Diagnosis(address.label, bool(visit.stats), tuple(parts), at, seconds)


async def _one(check: Check, visit: Visit, notes: Notes, left: float) -> None:
    """Examine one part; whatever happens to it, the others follow."""
    patience = min(left, PART_SECONDS)
    try:
        async with asyncio.timeout(patience):
            await check(visit, notes)
    except TimeoutError:
        notes.problem(
            f"no answer within {span(patience)}",
            "look at the server's log and at what it is doing; a longer timeout may help",
        )
    except BackendError as exc:
        notes.problem(*advice(exc))
    except Exception as exc:  # a server may answer anything, and the other parts still help
        logger.exception("%s: %s could not be examined", visit.address.label, notes.name)
        notes.warn(
            f"this could not be examined ({type(exc).__name__})",
            "please report it with the server's release",
        )

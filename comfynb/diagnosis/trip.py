"""One small picture of our own, and nothing left of it."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from contextlib import suppress

from comfynb.backends.base import Event, Released, Started
from comfynb.backends.comfyui import ComfyUIBackend
from comfynb.diagnosis.notes import Notes, span
from comfynb.diagnosis.visit import Visit
from comfynb.errors import BackendError


async def round_trip(visit: Visit, notes: Notes) -> None:
    """Have one small picture made without a model, and take its trace away again."""
    lacking = {"EmptyImage", "PreviewImage"} - visit.nodes
    if not visit.round_trip:
        notes.skip("nothing was to be sent")
    elif not visit.heard:
        notes.skip("without a WebSocket it cannot be followed")
    elif visit.stuck:
        notes.skip("its worker is dead")
    elif visit.busy:
        notes.skip("it is at work, and nobody should wait for a test")
    elif visit.nodes and lacking:
        notes.skip(f"it lacks {' and '.join(sorted(lacking))}")
    else:
        await _go_and_return(visit, notes)


async def _go_and_return(visit: Visit, notes: Notes) -> None:
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": random.randrange(2**24)}  # noqa: S311
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    prompt_id = str(uuid.uuid4())
    times: dict[str, float] = {}
    left = asyncio.Event()

    def listen(event: Event) -> None:
        times.setdefault(type(event).__name__, time.monotonic())
        if isinstance(event, Released):
            left.set()

    backend = ComfyUIBackend(visit.address, reconnect_for=2.0)
    try:
        await backend.open()
        begun = time.monotonic()
        outcome = await backend.render(prompt_id, graph, listen)
        took = time.monotonic() - begun
        if outcome.status == "done":
            await left.wait()
    finally:
        await asyncio.shield(_tidy(visit, backend, prompt_id))
    if outcome.status != "done":
        failure = outcome.failure
        notes.problem(
            f"a small prompt without a model ended as {outcome.status}: "
            + (failure.message if failure else "no reason given"),
            (failure.hint if failure else "") or "look at the server's log",
        )
        return
    began = times.get(Started.__name__)
    notes.fact(
        "In all", f"{span(took)} from sending it to its picture here",
        round_trip_ms=round(took * 1000, 2),
    )  # fmt: skip
    if began is not None:
        notes.fact("Begun after", span(began - begun), begun_ms=round((began - begun) * 1000, 2))
    if outcome.fetch_ms is not None:
        notes.fact("Fetched in", span(outcome.fetch_ms / 1000), fetch_ms=round(outcome.fetch_ms, 2))
    notes.fact("Left there", "nothing in queue and history; one temporary file of 64 x 64 pixels")
    if took > 5:
        notes.warn(
            f"a picture that costs nothing took {span(took)}",
            "look at the network, and at what else the server's machine does",
        )


async def _tidy(visit: Visit, backend: ComfyUIBackend, prompt_id: str) -> None:
    """Take our prompt off the queue, if it is there still, and out of the history."""
    with suppress(BackendError, TimeoutError):
        async with asyncio.timeout(5):
            await backend.cancel([prompt_id])
            await visit.http.post("/history", {"delete": [prompt_id]})
    await backend.aclose()

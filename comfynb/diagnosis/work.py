"""Does it work: the socket, the queue, and what was made last."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from comfynb import loop
from comfynb.backends.comfyui.handshake import refusal, shake_hands
from comfynb.backends.comfyui.socket import FLAGS
from comfynb.diagnosis.notes import Notes, clean, count, size, span
from comfynb.diagnosis.visit import ENTRIES, Visit, advice, listed, mapping, number
from comfynb.errors import BackendError, ServerError
from comfynb.pictures import BadPictureError, look

DEAD_SECONDS = 3.0
"""How long prompts must wait with none running before the worker counts as dead here."""
SKEW_SECONDS = 5.0
"""A clock that differs by more is worth a warning; a `Date` header has whole seconds."""
FLAGS_SECONDS = 2.0
VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".m4v")


async def websocket(visit: Visit, notes: Notes) -> None:
    """Handshake, first status, feature flags and a ping; and what its clock says."""
    begun = time.monotonic()
    try:
        line = await shake_hands(visit.address, visit.http, uuid.uuid4().hex)
    except (WebSocketException, OSError) as exc:
        notes.problem(*advice(refusal(visit.address, exc, 10)))
        return
    except BackendError as exc:
        notes.problem(*advice(exc))
        return
    visit.heard = True
    try:
        took = time.monotonic() - begun
        notes.fact("Handshake", span(took), handshake_ms=round(took * 1000, 2))
        response = line.response
        skew = _skew(response.headers.get("Date") if response else None)
        flags: Mapping[str, Any] | None = None
        with suppress(TimeoutError, WebSocketException):
            async with asyncio.timeout(FLAGS_SECONDS):
                await line.send(json.dumps(FLAGS))
                flags = await _flags(line)
        asked = time.monotonic()
        with suppress(TimeoutError, WebSocketException):
            async with asyncio.timeout(FLAGS_SECONDS):
                await (await line.ping())
                pong = time.monotonic() - asked
                notes.fact("Ping", span(pong), ping_ms=round(pong * 1000, 2))
    finally:
        await line.close()
    _tell_flags(flags, notes)
    _tell_skew(skew, notes)


async def _flags(line: ClientConnection) -> Mapping[str, Any]:
    """Read until the server answers to our flags."""
    while True:
        frame = await line.recv()
        if isinstance(frame, str):
            with suppress(ValueError, RecursionError):
                message = mapping(json.loads(frame))
                if message.get("type") == "feature_flags":
                    return mapping(message.get("data"))


def _tell_flags(flags: Mapping[str, Any] | None, notes: Notes) -> None:
    if flags is None:
        notes.fact("Feature flags", "none", flags=None)
        notes.note("it does not answer to feature flags, as releases before 0.3.44 do not")
        return
    told = {clean(name, 60): clean(value, 60) for name, value in list(flags.items())[:20]}
    shown = ", ".join(name for name, value in told.items() if value != "False")
    notes.fact("Feature flags", shown or "none", flags=told)


def _skew(date: str | None) -> float | None:
    """Seconds by which a server's clock is ahead of ours, by the `Date` it just sent."""
    if not date:
        return None
    try:
        told = email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return told + 0.5 - time.time()  # it cuts its seconds


def _tell_skew(skew: float | None, notes: Notes) -> None:
    if skew is None:
        notes.fact("Clock", "not told")
        return
    apart = (
        "as ours"
        if abs(skew) < SKEW_SECONDS
        else f"{span(abs(skew))} " + ("ahead of ours" if skew > 0 else "behind ours")
    )
    notes.fact("Clock", apart, clock_skew_ms=round(skew * 1000))
    if abs(skew) >= SKEW_SECONDS:
        notes.warn(
            f"its clock is {apart}",
            "set both machines by a time server (NTP), or times of its history mislead and "
            "logins expire early",
        )


async def queue(visit: Visit, notes: Notes) -> None:
    """What runs and waits, and whether anything works at it."""
    running, pending = await _queue(visit)
    deadline = time.monotonic() + DEAD_SECONDS
    while pending and not running and time.monotonic() < deadline:
        await asyncio.sleep(0.1)  # between two prompts there is a moment without one
        running, pending = await _queue(visit)
    visit.busy = bool(running or pending)
    visit.stuck = bool(pending and not running)
    notes.fact("Running", str(len(running)), running=len(running))
    notes.fact("Waiting", str(len(pending)), pending=len(pending))
    made = [number(mapping(item[3]).get("create_time")) / 1000 for item in running + pending]
    ages = [time.time() - at for at in made if at > 0]
    if ages and max(ages) > 0:
        notes.fact("Oldest", f"sent {span(max(ages))} ago", oldest_seconds=round(max(ages)))
    if visit.stuck:
        notes.problem(
            f"{count(len(pending), 'prompt')} waiting and none running: its worker is dead",
            "restart the server; what waits there is lost with it, and comfynb sends its own again",
        )


async def _queue(visit: Visit) -> tuple[list[Any], list[Any]]:
    answer = mapping(await visit.http.get_json("/queue"))

    def items(key: str) -> list[Any]:
        return [i for i in listed(answer.get(key)) if isinstance(i, list) and len(i) > 3]

    return items("queue_running"), items("queue_pending")


async def history(visit: Visit, notes: Notes) -> None:
    """How the last prompts ended, and what they gave."""
    answer = mapping(await visit.http.get_json("/history", {"max_items": str(ENTRIES)}))
    entries = [mapping(entry) for entry in list(answer.values())[-ENTRIES:]]
    notes.fact("Looked at", f"the last {count(len(entries), 'prompt')}" if entries else "is empty")
    files = [file for entry in reversed(entries) for file in _files(entry)]
    videos = [file for file in files if file["filename"].lower().endswith(VIDEOS)]
    visit.pictures = [file for file in files if file not in videos] + videos
    ends = [_ending(entry) for entry in entries]
    failed = [text for text in ends if text is not None]
    last = max((_ended_at(entry) for entry in entries), default=0.0)
    if entries:
        images = len(files) - len(videos)
        notes.fact("Gave", f"{count(images, 'image')}, {count(len(videos), 'video')}")
        notes.fact("Failed", f"{len(failed)} of {len(entries)}")
    if 0 < last <= time.time():
        notes.fact("Latest", f"{span(time.time() - last)} ago")
    notes.data(
        entries=len(entries), images=len(files) - len(videos), videos=len(videos),
        failed=len(failed), latest_at=last or None,
    )  # fmt: skip
    if failed and len(failed) == len(entries) > 1:
        notes.warn(
            f"each of the last {len(entries)} prompts failed; the latest: {failed[-1]}",
            "look at the server's log",
        )
    elif failed:
        notes.note(f"lately {len(failed)} of {count(len(entries), 'prompt')} failed: {failed[-1]}")


def _files(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """Files that a prompt gave: whatever list of {filename, subfolder, type} there is."""
    found = []
    for output in mapping(entry.get("outputs")).values():
        for value in mapping(output).values():
            for file in listed(value):
                name = mapping(file).get("filename")
                if isinstance(name, str) and name:
                    found.append(
                        {"filename": name, "subfolder": str(file.get("subfolder") or ""),
                         "type": str(file.get("type") or "output")}
                    )  # fmt: skip
    return found


def _events(entry: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    messages = listed(mapping(entry.get("status")).get("messages"))
    return [(str(m[0]), mapping(m[1])) for m in messages if isinstance(m, list) and len(m) == 2]


def _ending(entry: Mapping[str, Any]) -> str | None:
    """Why a prompt failed; None: it did not, or somebody interrupted it."""
    for kind, data in _events(entry):
        if kind == "execution_error":
            what = clean(data.get("exception_message") or "no reason given", 200)
            return f"{clean(data.get('node_type') or '?', 60)}: {what}"
    return None


def _ended_at(entry: Mapping[str, Any]) -> float:
    return max((number(data.get("timestamp")) / 1000 for _, data in _events(entry)), default=0.0)


async def retrieval(visit: Visit, notes: Notes) -> None:
    """Fetch the latest file of the history, as comfynb would."""
    if not visit.pictures:
        notes.skip("the history names no file")
        return
    file = visit.pictures[0]
    begun = time.monotonic()
    try:
        data = await visit.http.get_bytes("/view", file)
    except ServerError as exc:
        if exc.status != 404:
            raise
        notes.fact("File", clean(file["filename"], 80))
        notes.note(
            "the latest file of its history is no longer there",
            "it was deleted, or it was temporary and the server was restarted; new ones are not "
            "concerned",
        )
        return
    took = time.monotonic() - begun
    notes.fact("File", clean(file["filename"], 80))
    notes.fact(
        "Fetched", f"{size(len(data))} in {span(took)}",
        bytes=len(data), fetch_ms=round(took * 1000, 2),
    )  # fmt: skip
    if file["filename"].lower().endswith(VIDEOS):
        return
    try:
        found = await loop.in_worker(look, data)
    except BadPictureError as exc:
        notes.warn(f"the latest file of its history is no picture: {exc}", "look at it in ComfyUI")
        return
    notes.fact(
        "Type", f"{found.mime}, {found.width_px} x {found.height_px}",
        mime=found.mime, width_px=found.width_px, height_px=found.height_px,
    )  # fmt: skip

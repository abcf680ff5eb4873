"""Time per image, `executed` to yielded, and requests: a raw loop and comfynb in turns.

The raw loop's picture is there when it has its bytes; comfynb's when it is checked, on the disk
and in the log, and the generator has given it.

A turn of comfynb is all that a user waits for, from the call with scenes to the end of the run. Its
thumbnails, which nobody waits for, are finished before the raw loop's turn comes, so that it has
the machine for itself; they count as comfynb's processor time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import comfynb
from bench.figures import Row, quantile
from bench.raw import RawLoop
from bench.server import graph, new_colors
from comfynb import stores
from comfynb.backends.comfyui import Address, ComfyUIBackend
from comfynb.backends.comfyui.messages import Executed, Message
from comfynb.keyframes import Keyframe
from comfynb.log.records import result_id
from comfynb.servers import lanes
from comfynb.studio import Studio
from comfynb.testing import FaultProxy
from comfynb.workflows import Workflow

GRAPHS = {"100 ms graph": (0.1, 48, 0.95), "instant graph": (0.0, 48, 1.3)}
"""Name -> seconds in the node, images a round, largest ratio."""


class TappedBackend(ComfyUIBackend):
    """A backend that notes when it heard that a picture is there."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.heard: dict[str, float] = {}

    def _route(self, message: Message) -> None:
        if isinstance(message, Executed):
            key = result_id(message.prompt_id)
            self.heard.setdefault(key, time.perf_counter())
        super()._route(message)


@contextlib.contextmanager
def tapped_studio(url: str, seconds: float, log: Path):
    """A studio as `connect` makes it, on a backend that takes times."""
    lane = lanes.lane(("bench", url), lambda: TappedBackend(Address.parse(url)))
    flow = Workflow.load(graph(seconds))
    with Studio([lane], stores.hold(log), kind="comfyui", workflow=flow) as studio:
        yield studio, lane.backend


def scenes(count: int) -> list[dict]:
    return [
        {"prompt": "a colour", "knobs": {"EmptyImage.color": color}} for color in new_colors(count)
    ]


@dataclass(frozen=True)
class Turn:
    """What one turn took, in milliseconds a picture.

    Attributes:
        wall: From beginning to end.
        processor: Of this process, all threads.
        waits: Of each picture, from `executed` to its bytes or its keyframe.
    """

    wall: float
    processor: float
    waits: list[float]


async def measure(
    url: str, folder: Path, *, rounds: int, quick: bool, server: str = ""
) -> list[Row]:
    """Measure both graphs; a first round of each is not counted.

    Args:
        url: Of the server.
        folder: For the logs.
        rounds: How many count.
        quick: Few pictures.
        server: Stands before what is said of another server than the engine, which alone has
            limits.
    """
    before = f"{server}, " if server else ""
    rows = []
    for name, (seconds, images, limit) in GRAPHS.items():
        count = 3 if quick else images
        raw, ours = [], []
        log = folder / name.replace(" ", "-")
        with tapped_studio(url, seconds, log) as (studio, backend):
            async with RawLoop(url) as loop:
                for _ in range(1 + rounds):
                    raw.append(await _raw(loop, seconds, count))
                    ours.append(await _comfynb(studio, backend, count))
        raw, ours = raw[1:], ours[1:]
        rows += [
            Row(
                f"{before}{name}, a picture of {count}",
                [turn.wall for turn in ours],
                [turn.wall for turn in raw],
                judged="ratio",
                limit=None if server else limit,
            ),
            Row(
                f"{before}{name}, the client's processor time",
                [turn.processor for turn in ours],
                [turn.processor for turn in raw],
            ),
            *(
                Row(
                    f"{before}{name}, executed to yielded, p{share * 100:g}",
                    [quantile(turn.waits, share) for turn in ours],
                    [quantile(turn.waits, share) for turn in raw],
                )
                for share in (0.5, 0.95)
            ),
        ]
    rows.append(await _requests(url, folder / "requests", 3 if quick else 24, before))
    return rows


async def _raw(loop: RawLoop, seconds: float, count: int) -> Turn:
    drawing = graph(seconds)
    begun, worked = time.perf_counter(), time.process_time()
    for color in new_colors(count):
        drawing["color"]["inputs"]["color"] = color
        pictures = await loop.draw(drawing)
        assert len(pictures) == 1
    wall, processor = time.perf_counter() - begun, time.process_time() - worked
    waits, loop.waits = loop.waits, []
    return Turn(wall / count * 1000, processor / count * 1000, waits)


async def _comfynb(studio: Studio, backend: TappedBackend, count: int) -> Turn:
    wanted, waits = scenes(count), []
    begun, worked = time.perf_counter(), time.process_time()
    made = []
    async with contextlib.aclosing(studio.keyframes(wanted)) as keyframes:
        async for keyframe in keyframes:
            waits.append((time.perf_counter() - backend.heard.pop(keyframe.id)) * 1000)
            assert keyframe.status == "done"
            made.append(keyframe)
    wall = time.perf_counter() - begun
    assert len(made) == count
    while missing := [keyframe for keyframe in made if not _thumbnail(studio, keyframe).exists()]:
        made = missing
        await asyncio.sleep(0.002)
    return Turn(wall / count * 1000, (time.process_time() - worked) / count * 1000, waits)


def _thumbnail(studio: Studio, keyframe: Keyframe) -> Path:
    sha256 = keyframe.outputs[0].sha256
    return studio.log.folder / "thumbs" / sha256[:2] / f"{sha256}.webp"


async def _requests(url: str, log: Path, count: int, before: str) -> Row:
    """Count what a run sends on an open connection."""
    with (
        FaultProxy(url) as proxy,
        comfynb.connect(proxy.url, workflow=graph(0.02), log=log) as studio,
    ):
        await studio.run(scenes(1))
        earlier = proxy.requests.copy()
        await studio.run(scenes(count))
        sent = proxy.requests - earlier
    kinds = ", ".join(f"{sent[route] / count:g} {route}" for route in sent)
    return Row(f"{before}requests a picture: {kinds}", [sent.total() / count], unit="", limit=2)

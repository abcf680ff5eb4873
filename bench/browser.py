"""The grid in Chromium: from a thumbnail that is ready to its paint, beside the bare way.

The kernel's half is the real one (a `SceneGrid` on a board), the browser's half is the committed
bundle. In the place of kernel and notebook server stands one web socket, which both ways share.
The bare way is the least that shows a picture: a message with the same bytes, a Blob, an `<img>`.
Painted is when the picture is decoded and the frame after that has been made; of one that fades
in, the frame in which it begins to.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import os
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import comm
from PIL import Image

from bench.figures import Row, quantile
from bench.server import graph
from bench.wire import Link, SocketComm
from comfynb import loop
from comfynb.boards.board import Board
from comfynb.cells import make_cells
from comfynb.keyframes import THUMBNAIL_PX, Keyframe, Output
from comfynb.log import thumbnails
from comfynb.scenes import Storyboard
from comfynb.widgets import SceneGrid
from comfynb.widgets.scene_grid import STATIC
from comfynb.workflows import Workflow

SCRIPT = Path(__file__).with_name("browser.js")
LIMIT = 1.2
SIDE_PX = 1024
WARM = 2
"""Pictures of each page that are not counted."""
CALM_SECONDS = 0.35, 0.45
"""Between two pictures: the fade of the one before is over."""
PAGE = """<!doctype html><style>
  {css}
  body {{ margin: 0; display: grid; grid-template-columns: 1fr 1fr; align-items: start; }}
  #bare {{ display: flex; flex-wrap: wrap; gap: 22px; padding: 16px; }}
  #bare img {{ width: 190px; height: 190px; }}
  .comfynb {{ --cnb-max-height: none; }}
</style><div id="bare"></div><div id="grid"></div>"""


class Pictures:
    """Pictures in memory, as a store gives them to a grid.

    Attributes:
        names: Their hashes.
        made: When each thumbnail was ready.
    """

    def __init__(self, pictures: Sequence[bytes], make: Callable[[bytes], bytes]) -> None:
        self._pictures = {hashlib.sha256(data).hexdigest(): data for data in pictures}
        self._make = make
        self.names = tuple(self._pictures)
        self.made: dict[str, float] = {}

    def thumbnail(self, sha256: str) -> bytes:
        data = self._make(self._pictures[sha256])
        self.made[sha256] = time.perf_counter()
        return data


async def measure(*, rounds: int, quick: bool) -> list[Row]:
    """Measure in turns; without Playwright or Chromium there are the rows that need neither."""
    rows = [_making(rounds)]
    try:
        async with _page() as page, Link().open() as link:
            few, many = (2, 8) if quick else (20, 200)
            rows += await _singly(page, link, rounds=rounds, count=few)
            rows += await _at_once(page, link, rounds=rounds, count=many)
    except _NoBrowserError as error:
        print(f"the grid is not measured in a browser: {error}", file=sys.stderr)
    return rows


def _making(rounds: int) -> Row:
    """Make a thumbnail, beside Pillow alone."""
    data = _png(0, SIDE_PX)
    ours, plain = [], []
    for _ in range(1 + rounds):
        begun = time.perf_counter()
        thumbnails.make(data)
        middle = time.perf_counter()
        with Image.open(io.BytesIO(data)) as image:
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            image.save(io.BytesIO(), "WEBP")
        ours.append((middle - begun) * 1000)
        plain.append((time.perf_counter() - middle) * 1000)
    side = f"{SIDE_PX}x{SIDE_PX}"
    title = f"grid, a thumbnail of a {side} PNG of {len(data) / 1e6:.1f} MB, beside bare Pillow"
    return Row(title, ours[1:], plain[1:])


async def _singly(page, link: Link, *, rounds: int, count: int) -> list[Row]:
    """One picture at a time, by turns bare and through the grid, a new page each round.

    Before each its thumbnail is made, as in a run: the page has been told by then that the
    picture is there.
    """
    shares = {"p50": 0.5, "p95": 0.95}
    bare: dict[str, list[float]] = {name: [] for name in shares}
    ours: dict[str, list[float]] = {name: [] for name in shares}
    files = [_png(number, SIDE_PX) for number in range(WARM + count)]
    for _ in range(1 + rounds):
        plain, kept = [], []
        pictures = Pictures(files, thumbnails.make)
        async with _grid(page, link, len(files)) as board:
            for index, name in enumerate(pictures.names):
                await _calm()
                data = await asyncio.to_thread(pictures.thumbnail, name)
                link.post({"bare": name}, [data])
                await link.painted(name)
                plain.append((time.perf_counter() - pictures.made[name]) * 1000)
                await _calm()
                await _make(board, pictures, index)
                await link.painted(index)
                kept.append((time.perf_counter() - pictures.made[name]) * 1000)
        for name, share in shares.items():
            bare[name].append(quantile(plain[WARM:], share))
            ours[name].append(quantile(kept[WARM:], share))
    title = f"grid, a thumbnail of {len(thumbnails.make(files[0])) / 1000:.0f} kB, ready to painted"
    return [
        Row(f"{title}, {name}", ours[name][1:], bare[name][1:], judged="ratio", limit=LIMIT)
        for name in shares
    ]


async def _at_once(page, link: Link, *, rounds: int, count: int) -> list[Row]:
    """All at once, their thumbnails made before, each way on a page of its own."""
    bare, ours = [], []
    thumbs = [thumbnails.make(_png(number, THUMBNAIL_PX)) for number in range(count)]
    for _ in range(1 + rounds):
        pictures = Pictures(thumbs, bytes)
        async with _grid(page, link, count):
            begun = time.perf_counter()
            for name, data in zip(pictures.names, thumbs, strict=True):
                link.post({"bare": name}, [data])
            await asyncio.gather(*map(link.painted, pictures.names))
            bare.append(time.perf_counter() - begun)
        async with _grid(page, link, count) as board:
            begun = time.perf_counter()
            await _make(board, pictures, *range(count))
            await asyncio.gather(*map(link.painted, range(count)))
            ours.append(time.perf_counter() - begun)
    return [Row(f"grid, {count} thumbnails at once, all painted", ours[1:], bare[1:], unit="s")]


async def _calm() -> None:
    await asyncio.sleep(random.uniform(*CALM_SECONDS))  # any phase of the page's frames


@contextlib.asynccontextmanager
async def _grid(page, link: Link, count: int) -> AsyncIterator[Board]:
    """A grid of queued cells, in a new page."""
    link.forget()
    scenes = [{"id": f"s{i}", "prompt": f"picture {i}"} for i in range(count)]
    cells = make_cells(Storyboard.of(scenes), Workflow.load(graph(0)), kind="bench")
    board = Board(cells)
    create, comm.create_comm = comm.create_comm, functools.partial(SocketComm, link)
    try:
        grid = SceneGrid(board)
    finally:
        comm.create_comm = create
    link.comm = grid.comm
    traits = {"count": grid.count, "ratio": grid.ratio, "title": "", "protocol": grid.protocol}
    link.page = PAGE.format(css=(STATIC / "scene_grid.css").read_text("utf-8"))
    await page.goto(f"http://{link.host}/")
    await page.evaluate(SCRIPT.read_text("utf-8"))
    script = (STATIC / "scene_grid.js").read_text("utf-8")
    await page.evaluate(
        "given => host.open(...given)", [f"ws://{link.host}/socket", script, traits]
    )
    # The last tile has been told its prompt: so it is known to be in sight.
    await page.wait_for_function(
        "words => document.querySelector('#grid').innerText.includes(words)",
        arg=cells[-1].prompt,
    )
    yield board
    grid.close()


async def _make(board: Board, pictures: Pictures, *indices: int) -> None:
    """End cells with their pictures, as a run does: on comfynb's loop."""
    cells = [board.state.cells[index].cell for index in indices]
    outputs = [
        Output("save", 0, pictures.names[i], "image/png", 10**6, SIDE_PX, SIDE_PX) for i in indices
    ]

    async def end() -> None:
        for cell, output in zip(cells, outputs, strict=True):
            keyframe = Keyframe(
                id=output.sha256,
                run="bench",
                key=cell.key,
                scene=cell.scene,
                status="done",
                outputs=(output,),
                pictures=pictures,
            )
            board._states.refresh(cell, keyframe)  # noqa: SLF001 - what a run of its own would do

    await loop.across(end())


def _png(number: int, side: int) -> bytes:
    """Draw clouds with grain: about as hard to encode as a painting."""
    clouds = Image.effect_noise((12, 12), 120).resize((side, side), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((side, side), 24)
    light = Image.linear_gradient("L").rotate(number * 37).resize((side, side))
    picture = Image.merge("RGB", (clouds, Image.blend(clouds, grain, 0.3), light))
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


class _NoBrowserError(Exception):
    """There is no browser to measure in; says how to get one."""


@contextlib.asynccontextmanager
async def _page() -> AsyncIterator:
    """A page in Chromium from COMFYNB_CHROMIUM, the PATH, or Playwright's own."""
    try:
        from playwright.async_api import Error, async_playwright  # noqa: PLC0415 - may be missing
    except ImportError:
        raise _NoBrowserError("Playwright is missing; pip install playwright") from None
    chosen = os.environ.get("COMFYNB_CHROMIUM")
    path = chosen or shutil.which("chromium") or shutil.which("chromium-browser")
    async with async_playwright() as playwright:
        try:
            # The sandbox of a browser does not work for root in containers.
            browser = await playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
        except Error as error:
            how = "apt-get install chromium, or set COMFYNB_CHROMIUM"
            raise _NoBrowserError(f"{str(error).splitlines()[0]}; {how}") from None
        yield await browser.new_page(viewport={"width": 1800, "height": 1000})
        await browser.close()

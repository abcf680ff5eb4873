"""What a page is told of cells that gave other things than one picture."""

from __future__ import annotations

import hashlib

import pytest
from loopback import Page
from support import until
from test_media import png, wav

from comfynb.boards.board import Board
from comfynb.keyframes import Keyframe, Output
from comfynb.log import MemoryStore
from comfynb.plan import Plan
from comfynb.scenes import Storyboard
from comfynb.widgets import SceneGrid, clients
from comfynb.workflows import Workflow

POEM = "so much depends upon ü " * 200
SCENES = ("a text", "a sound", "a picture", "a file", "everything")
GIVEN = {
    "text/plain": POEM.encode(),
    "audio/wav": wav(),
    "image/png": png(),
    "application/octet-stream": b"glTF",
}


def outputs(*mimes: str) -> tuple[Output, ...]:
    return tuple(
        Output("5", n, hashlib.sha256(GIVEN[mime]).hexdigest(), mime, len(GIVEN[mime]))
        for n, mime in enumerate(mimes)
    )


@pytest.fixture
def page():
    """A page that shows a board of one cell for each kind of output, and one for all of them."""
    plan = Plan.make(
        Storyboard.of(SCENES), Workflow.load("txt2img"), kind="x", checkpoint="tiny.onnx"
    )
    store, keyframes = MemoryStore(), {}
    kinds = [(mime,) for mime in GIVEN]
    for cell, mimes in zip(plan.cells, [*kinds, tuple(GIVEN)], strict=True):
        made = Keyframe(
            id=cell.scene.id, run="r", key=cell.key, scene=cell.scene, status="done",
            outputs=outputs(*mimes),
        )  # fmt: skip
        keyframes[cell.index] = store.add_result(made, [GIVEN[mime] for mime in mimes])
    board = Board(plan.cells, keyframes=keyframes)
    grid = SceneGrid(board, static_twin=False)
    yield Page(grid, see=(0, 5))
    grid.close()
    board.close()


async def test_a_picture_or_else_the_beginning_of_a_text_stands_for_a_cell(page):
    await until(lambda: set(page.thumbs) == {0, 2, 4})
    message, excerpt = page.thumbs[0]
    assert message["mime"] == "text/plain"
    assert len(excerpt) <= clients.LONGEST_EXCERPT
    assert POEM.startswith(excerpt.decode()), "cut between two characters"
    assert {page.thumbs[i][0]["mime"] for i in (2, 4)} == {"image/webp"}
    assert page.thumbs[4][0]["sha256"] == page.thumbs[2][0]["sha256"]


async def test_every_output_is_described_and_can_be_had(page):
    await until(lambda: len(page.about) == 5)
    described = page.about[4]["outputs"]
    assert [output["kind"] for output in described] == ["text", "audio", "image", "file"]
    assert [(output["width_px"], output["bytes"] > 0) for output in described] == [(0, True)] * 4
    for number, (mime, data) in enumerate(list(GIVEN.items())[:3]):
        message, (sent,) = page.get(4, output=number)
        assert (message["mime"], sent) == (mime, data)
    refused, _ = page.get(4, output=3)
    assert "no browser shows it" in refused["error"]
    assert ".read(3)" in refused["error"]


async def test_what_is_too_large_for_a_page_is_refused_with_what_gives_it(page, monkeypatch):
    monkeypatch.setattr(clients, "LARGEST_SENT", 10)
    refused, _ = page.get(1)
    assert "too large for a page" in refused["error"]


async def test_the_count_on_a_tile_is_that_of_all_outputs(page):
    await until(lambda: len(page.cells) == 5)
    assert [page.cells[i]["n"] for i in range(5)] == [1, 1, 1, 1, 4]

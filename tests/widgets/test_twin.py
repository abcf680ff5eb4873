"""The contact sheet beside the grid: what a saved notebook shows."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import types

import pytest
from loopback import Page
from PIL import Image
from support import scenes, until

import comfynb
from comfynb.widgets import twin

SLOW = {"Guard.seconds": 0.3}


def picture(output: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(output["image/jpeg"])))


async def test_a_cell_shows_the_view_then_words_then_the_sheet(studio, notebook):
    grid = studio.grid({"title": "Harbour", "scenes": scenes(3, **SLOW)})
    grid._ipython_display_()  # it is the last expression of its cell: shown already
    view, sheet = notebook.display_pub.outputs
    assert notebook.display_pub.views == [grid.model_id]
    assert view["text/plain"] == "<SceneGrid of 3 scenes>"
    assert sheet == {
        "text/plain": "comfynb contact sheet: Harbour: 0 pictures · 3 not made yet",
    }
    await grid
    assert sheet["text/plain"] == "comfynb contact sheet: Harbour: 3 pictures"
    image = picture(sheet)
    assert image.format == "JPEG"
    assert image.info["comment"] == twin.MARK.encode()
    assert twin.MARK.encode() in base64.b64decode(sheet["image/jpeg"])[:1000]
    assert len(sheet["image/jpeg"]) <= 200_000


async def test_it_says_in_words_what_failed(studio, notebook):
    bad = {"prompt": "an owl", "id": "owl", "knobs": {"Guard.message": "the guard said no"}}
    await studio.grid([*scenes(1), bad])
    (sheet,) = notebook.display_pub.sheets
    assert "1 picture · 1 failed" in sheet["text/plain"]
    assert "owl: node_error" in sheet["text/plain"]
    assert "the guard said no" in sheet["text/plain"]


async def test_it_is_refreshed_now_and_then_and_when_the_runs_end(studio, notebook, monkeypatch):
    monkeypatch.setattr(twin, "REFRESH_SECONDS", 0.1)
    grid = studio.grid(scenes(3, **SLOW))
    texts = []
    (sheet,) = notebook.display_pub.sheets

    def ended():
        if sheet and (not texts or texts[-1] != sheet["text/plain"]):
            texts.append(sheet["text/plain"])
        return "3 pictures" in texts[-1]

    await until(ended)  # nobody awaits the grid
    assert len(texts) > 2
    updates = notebook.display_pub.updates
    assert updates <= 4
    grid.retry()  # nothing to make: nothing new to show
    await grid._board.until_idle()
    await until(lambda: not grid._board.active)
    assert notebook.display_pub.updates == updates


async def test_the_last_word_comes_from_the_cell_that_waits(studio, notebook):
    grid = studio.grid(scenes(1))
    (sheet,) = notebook.display_pub.sheets
    await until(lambda: "image/jpeg" in sheet)
    updates = notebook.display_pub.updates
    await grid
    assert notebook.display_pub.updates == updates + 1
    assert [k async for k in grid]
    assert notebook.display_pub.updates == updates + 2
    grid.wait()
    assert notebook.display_pub.updates == updates + 3


async def test_an_interrupted_await_leaves_an_honest_sheet(studio, notebook, engine):
    grid = studio.grid(scenes(2, **{"Guard.seconds": 60.0}))
    waiting = asyncio.ensure_future(grid._wait_or_cancel())
    await until(engine.prompts)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    (sheet,) = notebook.display_pub.sheets
    await until(lambda: "2 cancelled" in sheet.get("text/plain", ""))


async def test_a_log_shows_its_sheet_at_once(studio, notebook):
    await studio.run(scenes(2))
    comfynb.open_log(studio.log.folder).grid()
    (sheet,) = notebook.display_pub.sheets
    assert picture(sheet).size > (256, 256)
    assert notebook.display_pub.updates == 0


async def test_what_another_notebook_draws_refreshes_it_now_and_then(studio, notebook, monkeypatch):
    drawn = studio.board(scenes(3))
    drawn.runs[0].pause()
    await until(studio.log.runs)
    grid = comfynb.open_log(studio.log.folder).grid()
    (sheet,) = notebook.display_pub.sheets
    await until(lambda: grid._watching is not None)
    page = Page(grid)
    monkeypatch.setattr(twin, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(twin, "REFRESH_SECONDS", 0.3)
    drawn.runs[0].resume()
    await until(lambda: "3 pictures" in sheet["text/plain"])
    await until(lambda: page.head["made"] == 3)
    assert notebook.display_pub.updates <= 3
    drawn.close()


async def test_shown_in_another_cell_the_grid_is_the_same(studio, notebook):
    notebook.run("cell-1")
    grid = studio.grid(scenes(2, **SLOW))
    notebook.run("cell-2")
    grid._ipython_display_()
    assert notebook.display_pub.views == [grid.model_id] * 2
    await grid
    one, two = notebook.display_pub.sheets
    assert "2 pictures" in one["text/plain"]
    assert one == two


@pytest.mark.parametrize(("option", "sheets"), [(True, 1), (False, 0), ("auto", 1)])
def test_static_twin_says_whether(studio, notebook, option, sheets):
    grid = studio.grid(scenes(1), static_twin=option)
    grid.wait()
    assert len(notebook.display_pub.sheets) == sheets


@pytest.mark.parametrize("host", ["Colab", "VS Code"])
def test_hosts_that_would_show_both_get_none_by_themselves(studio, notebook, monkeypatch, host):
    if host == "Colab":
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    else:
        notebook.user_ns["__vsc_ipynb_file__"] = "first.ipynb"
    # Through the board: anywidget would turn to Colab's own modules.
    assert twin.wanted("auto") is False
    assert twin.wanted(True) is True


async def test_a_page_reloaded_while_pictures_are_made_knows_that_its_sheet_is_old(
    studio, notebook
):
    grid = studio.grid(scenes(2, **SLOW))
    page = Page(grid)
    await until(lambda: page.head)
    reloaded = Page(grid)
    await until(lambda: reloaded.head)
    assert (page.head["sheet"], reloaded.head["sheet"]) == ("fresh", "fresh")
    await grid
    await until(lambda: reloaded.head["sheet"] == "old")
    assert page.head["sheet"] == "fresh"
    assert page.do("snapshot")["ok"]
    assert "grid.snapshot()" in reloaded.do("snapshot")["error"]

    notebook.run("cell-2")
    grid.snapshot()
    await until(lambda: reloaded.head["sheet"] == "fresh")
    assert len(notebook.display_pub.sheets) == 2
    assert notebook.display_pub.sheets[1]["image/jpeg"]
    later = Page(grid)
    await until(lambda: later.head.get("sheet") == "fresh")


async def test_a_snapshot_without_a_twin_shows_one(studio, notebook):
    grid = studio.grid(scenes(1), static_twin=False)
    await grid
    assert "grid.snapshot()" in Page(grid).do("snapshot")["error"]
    grid.snapshot()
    (sheet,) = notebook.display_pub.sheets
    assert picture(sheet)


async def test_a_sheet_of_many_stays_small(instant, notebook):
    with comfynb.connect("embedded", workflow=instant, log=False) as studio:
        many = [{"prompt": f"x {i}", "knobs": {"EmptyImage.color": i}} for i in range(105)]
        grid = studio.grid(many)
        await grid
        (sheet,) = notebook.display_pub.sheets
        assert "105 pictures" in sheet["text/plain"]
        assert len(sheet["image/jpeg"]) <= 200_000
        grid.close()


async def test_a_sheet_that_cannot_be_drawn_says_so_and_stops_nothing(
    studio, notebook, monkeypatch
):
    def broken(board):
        raise RuntimeError("no ink")

    monkeypatch.setattr(twin, "_draw", broken)
    grid = studio.grid(scenes(1))
    assert [k.status for k in await grid] == ["done"]
    (sheet,) = notebook.display_pub.sheets
    assert "1 picture" in sheet["text/plain"]
    assert "no ink" in sheet["text/plain"]
    grid.snapshot()


async def test_what_stops_the_refreshing_is_said_in_the_panel(studio, notebook, monkeypatch):
    grid = studio.grid(scenes(2, **SLOW))
    page = Page(grid)

    def broken(*_, **__):
        raise OSError("the socket is closed")

    monkeypatch.setattr(notebook.display_pub, "publish", broken)
    await until(lambda: any("the socket is closed" in text for text in page.notices))
    await until(page.has(done=2))

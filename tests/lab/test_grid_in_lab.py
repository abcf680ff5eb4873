"""The scene grid where it lives: a real JupyterLab, a real kernel, a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import nbformat
import pytest
from lab.driver import PANEL, LabPage
from support import Stranger, wait_for

import comfynb

pytestmark = pytest.mark.timeout(120)

SCENES = """scenes = [{"id": f"s{i}", "title": f"Scene {i}", "prompt": f"a fox {i}", "seed": i,
           "knobs": {"Guard.seconds": SECONDS}} for i in range(COUNT)]
"""


def begin(url: str) -> str:
    return f"""import asyncio, contextlib, time, comfynb
studio = comfynb.connect({url!r}, workflow="flow.json", log="kept", reconnect_for=1)"""


def show(count: int = 9, seconds: float | str = 0.3) -> str:
    """Return a cell with a grid; each scene takes `seconds`, which may be a formula of its `i`."""
    scenes = SCENES.replace("SECONDS", str(seconds)).replace("COUNT", str(count))
    return f"{scenes}grid = studio.grid(scenes)\ngrid"


def tiles(lab, status: str = "") -> int:
    selector = f'.cnb-tile[data-status="{status}"]' if status else ".cnb-tile"
    return lab.page.locator(selector).count()


def painted(lab) -> int:
    """How many tiles show a picture that has been decoded."""
    return lab.page.evaluate(
        """() => [...document.querySelectorAll('.cnb-tile')].filter(tile =>
          [...tile.querySelectorAll('img')].some(i => i.complete && i.naturalWidth > 0)).length"""
    )


def wait_tiles(lab, count: int, *statuses: str, timeout: float = 30) -> None:
    def there() -> bool:
        lab.page.wait_for_timeout(20)
        return sum(tiles(lab, status) for status in statuses) == count

    wait_for(there, timeout)


def stop(lab) -> None:
    lab.page.get_by_role("button", name="Stop").click()


def clean(lab) -> bool:
    """Whether the page complained about nothing."""
    ours = [said for kind, said in lab.console if kind == "pageerror"]
    return not ours


def test_the_seeds_bug_nine_scenes_and_the_server_dies_after_the_fifth(lab, own_engine):
    page = lab(begin(own_engine.url), show(9, "3 if i == 5 else 0.3"))
    page.run(0)
    page.run(1)
    log = comfynb.Log(page.server.root / "kept", read_only=True)
    wait_for(lambda: len(log.keyframes(status="done")) == 5)
    own_engine.kill()
    wait_tiles(page, 4, "failed")
    assert tiles(page, "done") == 5
    wait_for(lambda: page.page.wait_for_timeout(20) or painted(page) == 5)
    words = page.page.locator('.cnb-tile[data-status="failed"]').all_inner_texts()
    assert all("nobody answers at" in text for text in words), words
    assert len(log.keyframes(status="done")) == 5
    own_engine.start()
    page.page.get_by_role("button", name=re.compile("Retry failed")).click()
    wait_tiles(page, 9, "done")
    assert len(own_engine.ended()) == 4
    page.save()
    page.open()  # a reload: the same kernel, a new page
    wait_tiles(page, 9, "done", "cached")
    wait_for(lambda: page.page.wait_for_timeout(20) or painted(page) == 9)
    page.restart()
    page.run(0)
    page.run(1, wait=False)
    begun = time.monotonic()
    wait_tiles(page, 9, "cached")
    wait_for(lambda: page.page.wait_for_timeout(20) or painted(page) == 9)
    print(f"nine pictures {time.monotonic() - begun:.2f} s after the cell's start")
    assert len(own_engine.ended()) == 4
    assert clean(page)


def test_tiles_are_there_at_once_and_fill_in_one_by_one_while_other_cells_run(lab, engine):
    page = lab(begin(engine.url), show(6, 0.6), "print(6 * 7)")
    page.run(0)
    page.run(1)
    page.page.wait_for_selector(".cnb-tile")
    assert tiles(page) == 6
    assert tiles(page, "done") == 0
    page.page.wait_for_selector('.cnb-tile[data-status="running"] [role="progressbar"]')
    page.run(2)
    assert page.text(2).strip() == "42"
    assert tiles(page, "done") < 6
    seen = []

    def one_more() -> bool:
        page.page.wait_for_timeout(20)
        done = page.page.eval_on_selector_all(
            '.cnb-tile[data-status="done"]', "all => all.map(tile => Number(tile.dataset.cell))"
        )
        seen.extend(index for index in done if index not in seen)
        return len(seen) == 6

    wait_for(one_more)
    assert seen == sorted(seen)
    assert clean(page)


def test_live_previews_move_in_the_running_tile(lab):
    cells = [
        'import comfynb\nstudio = comfynb.connect("embedded", log="kept")',
        'studio.grid(["a fox in the snowy forest at night"], knobs={"steps": 24})',
    ]
    page = lab(*cells)
    page.run(0)
    page.run(1)
    sources = set()

    def ended() -> bool:
        page.page.wait_for_timeout(20)
        sources.update(
            page.page.eval_on_selector_all(
                '.cnb-tile[data-status="running"] img', "all => all.map(i => i.src)"
            )
        )
        return tiles(page, "done") == 1

    wait_for(ended, 60)
    assert len(sources) >= 3
    assert clean(page)


def test_stop_works_while_the_kernel_is_idle(lab, engine):
    page = lab(begin(engine.url), show(6, 1.0))
    page.run(0)
    page.run(1)
    wait_tiles(page, 1, "running")
    stop(page)
    wait_for(lambda: not engine.prompts())
    wait_tiles(page, 6, "done", "cancelled")
    assert tiles(page, "cancelled") >= 4
    assert clean(page)


def test_stop_works_while_a_cell_awaits(lab, engine):
    page = lab(begin(engine.url), show(6, 1.0), "await grid")
    page.run(0)
    page.run(1)
    wait_tiles(page, 1, "running")
    page.run(2, wait=False)
    stop(page)
    wait_for(lambda: not engine.prompts())
    page.wait_ran(2)
    wait_tiles(page, 6, "done", "cancelled")
    assert tiles(page, "cancelled") >= 4
    assert clean(page)


def test_stop_while_a_cell_blocks_acts_without_the_main_thread(lab, engine):
    page = lab(begin(engine.url), show(6, 1.0), "time.sleep(3)")
    page.run(0)
    page.run(1)
    wait_tiles(page, 1, "running")
    page.run(2, wait=False)
    stop(page)
    # Some kernels deliver the message only when the cell has ended: then at once.
    page.wait_ran(2)
    wait_for(lambda: not engine.prompts(), 2)
    assert clean(page)


@pytest.mark.parametrize(
    "waiting",
    [
        "await grid",
        """async with contextlib.aclosing(studio.keyframes(scenes)) as keyframes:
    async for keyframe in keyframes:
        pass""",
    ],
    ids=["await", "async for"],
)
def test_interrupt_ends_the_wait_and_takes_only_our_prompts_away(lab, engine, waiting):
    first = show(6, 1.0) if waiting == "await grid" else show(6, 1.0).rpartition("grid = ")[0]
    page = lab(begin(engine.url), first, f"print('it runs')\n{waiting}")
    page.run(0)
    stranger = Stranger(engine)
    theirs = engine.post_prompt(client_id=stranger.client_id, **{"Guard.seconds": 60.0, "seed": 77})
    page.run(1)
    page.run(2, wait=False)
    wait_for(lambda: len(engine.prompts()) == 3)
    wait_for(lambda: page.page.wait_for_timeout(20) or "it runs" in page.text(2))
    begun = time.monotonic()
    page.interrupt()
    page.wait_ran(2)
    print(f"interrupted: back after {time.monotonic() - begun:.2f} s")
    wait_for(lambda: engine.prompts() == {theirs})
    assert not stranger.times("execution_interrupted", theirs)
    stranger.close()


def test_a_grid_and_a_generator_are_right_after_a_blocking_render(lab, engine):
    page = lab(
        begin(engine.url) + "\nprint(len(studio.render(['a fox', 'an owl'])))",
        show(3, 0.1),
        "print([k.status for k in await grid])",
        "print([k.status async for k in studio.keyframes(['a cat', 'a dog'])])",
    )
    for cell in range(4):
        page.run(cell)
    assert page.text(0).strip().endswith("2")
    assert page.text(2).strip() == "['done', 'done', 'done']"
    assert page.text(3).strip() == "['done', 'done']"
    wait_tiles(page, 3, "done")
    assert clean(page)


def test_two_displays_of_one_grid_show_the_same(lab, engine):
    page = lab(begin(engine.url), show(3, 0.1), "display(grid)")
    for cell in range(3):
        page.run(cell)
    wait_tiles(page, 6, "done")
    wait_for(lambda: page.page.wait_for_timeout(20) or painted(page) == 6)
    assert clean(page)


def test_a_saved_notebook_shows_the_pictures_without_a_kernel(lab, engine, tmp_path):
    page = lab(begin(engine.url), show(4, 0.0), "await grid\nNone")
    before = (page.server.root / page.name).stat().st_size
    for cell in range(3):
        page.run(cell)
    wait_tiles(page, 4, "done")
    assert not page.page.locator(".jp-OutputArea-child img[src^='data:image/jpeg']:visible").count()
    saved = page.save()
    wait_for(lambda: "image/jpeg" in saved.read_text("utf-8"))
    assert saved.stat().st_size - before <= 300_000
    outputs = nbformat.read(saved, 4).cells[1].outputs
    (sheet,) = [output for output in outputs if "image/jpeg" in output.data]
    assert re.search(r"4 (pictures|of 4)", sheet.data["text/plain"]), sheet.data["text/plain"]
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(saved)]
    html = tmp_path / "page.html"
    subprocess.run([*command, "--output", str(html)], check=True, capture_output=True)
    assert "data:image/jpeg;base64," in html.read_text("utf-8")
    # Reopened: another kernel, which knows no widget.
    page.server.end_kernels()
    page.open()
    page.page.wait_for_selector(".jp-OutputArea-child img[src^='data:image/jpeg']", state="visible")


@pytest.mark.long
def test_an_untrusted_copy_of_a_saved_notebook_shows_the_contact_sheet(lab, engine):
    page = lab(begin(engine.url), show(4, 0.0), "await grid\nNone")
    for cell in range(3):
        page.run(cell)
    book = nbformat.read(page.save(), 4)
    # Not a byte-for-byte copy: Jupyter trusts what it has signed, wherever it lies.
    book.cells.append(nbformat.v4.new_markdown_cell("from somebody else"))
    nbformat.write(book, str(page.server.root / "copy.ipynb"))
    copy = LabPage(page.server, page.page.context.new_page(), "copy.ipynb")
    assert copy.page.evaluate(f"{PANEL}.content.widgets[1].model.trusted") is False
    sheet = copy.page.locator(".jp-OutputArea-child img[src^='data:image/jpeg']")
    sheet.wait_for(state="visible")
    assert sheet.evaluate("image => image.decode().then(() => image.naturalWidth)") > 256
    assert tiles(copy) == 0
    assert clean(copy)


@pytest.mark.long
def test_reloaded_mid_run_it_goes_on_live_and_offers_a_snapshot_for_the_old_sheet(lab, engine):
    page = lab(begin(engine.url), show(5, 3.0), "grid.snapshot()")  # longer than a page loads
    page.run(0)
    page.run(1)
    wait_tiles(page, 1, "done")
    page.save()
    assert tiles(page, "done") < 5
    page.open()
    wait_tiles(page, 5, "done")
    wait_for(lambda: page.page.wait_for_timeout(20) or painted(page) == 5)
    old = page.page.get_by_text("the contact sheet saved with the notebook is old")
    old.wait_for()
    page.run(2)
    sheet = page.page.locator(".jp-OutputArea-child img[src^='data:image/jpeg']:visible")
    sheet.wait_for()
    old.wait_for(state="detached")
    outputs = nbformat.read(page.save(), 4).cells[2].outputs
    assert ["image/jpeg" in output.data for output in outputs] == [True]
    assert clean(page)


@pytest.mark.long
def test_a_thousand_keyframes_as_fast_as_they_come_are_all_right_at_the_end(lab, engine):
    page = lab(
        begin(engine.url),
        """flow = {
    "picture": {"class_type": "EmptyImage",
                "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0},
                "_meta": {"title": "Colour"}},
    "save": {"class_type": "SaveImage",
             "inputs": {"images": ["picture", 0], "filename_prefix": "quick"}},
}
quick = comfynb.connect(studio.server, workflow=flow, log="kept")
grid = quick.grid([{"prompt": f"colour {i}", "knobs": {"Colour.color": i}} for i in range(1000)])
grid""",
        "keyframes = await grid\nprint(sum(k.ok for k in keyframes))",
    )
    page.run(0)
    page.run(1)
    page.run(2, timeout=100)
    assert page.text(2).strip() == "1000"
    page.page.wait_for_function(
        "document.querySelector('.comfynb')?.innerText.includes('1000 of 1000')"
    )
    scroller = page.page.locator(".cnb-tile").first
    scroller.focus() if scroller.count() else None
    page.page.keyboard.press("End")
    wait_for(lambda: page.page.wait_for_timeout(50) or tiles(page, "done") == tiles(page) > 0)
    assert clean(page)

"""A real model on a real ComfyUI, drawn step by step in JupyterLab."""

from __future__ import annotations

import pytest
from lab.test_grid_in_lab import clean, painted, wait_tiles

import comfynb

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(120)]

GRID = """grid = studio.grid(
    ["a lighthouse at dawn", "a fox in a snowy forest", "a harbour at night"],
    knobs={"width": 64, "height": 64, "steps": 8},
)
"""
WATCH = """() => {
  window.seen = {};
  document.addEventListener('load', ({ target }) => {
    if (!target.matches('.cnb-tile[data-status=running] .cnb-preview')) return;
    (window.seen[target.closest('.cnb-tile').dataset.cell] ??= new Set()).add(target.src);
  }, true);
}"""
"""Notes which previews a running tile shows."""
COUNTS = "() => Object.values(window.seen).map(previews => previews.size)"


@pytest.fixture
def warm(comfyui, tmp_path):
    """The server with its model loaded, which takes some seconds."""
    with comfynb.connect(comfyui.url, log=tmp_path / "warm") as studio:
        studio.run(["a start"], knobs={"width": 64, "height": 64, "steps": 1}).wait()
    return comfyui


def test_a_picture_is_seen_to_grow_step_by_step(lab, warm, tmp_path):
    page = lab(f"import comfynb\nstudio = comfynb.connect({warm.url!r}, log='kept')", GRID)
    page.run(0)
    page.page.evaluate(WATCH)
    page.run(1)
    page.page.wait_for_function("() => Object.values(window.seen).some(p => p.size > 2)")
    page.page.screenshot(path=tmp_path / "while.png")
    wait_tiles(page, 3, "done", timeout=60)
    page.page.wait_for_function("() => document.querySelectorAll('.cnb-picture').length === 3")
    assert painted(page) == 3
    counts = page.page.evaluate(COUNTS)
    assert len(counts) == 3, "every picture was seen before it was finished"
    assert all(count >= 3 for count in counts), counts
    kept = comfynb.Log(page.server.root / "kept", read_only=True).keyframes()
    assert [k.status for k in kept] == ["done"] * 3
    assert all(k.image.size == (64, 64) for k in kept)
    assert clean(page)
    page.page.screenshot(path=tmp_path / "after.png")

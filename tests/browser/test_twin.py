"""The static contact sheet beside a live grid, in a page laid out as JupyterLab's output area."""

from __future__ import annotations

import base64
import io

import pytest
from browser.grid_page import GridPage
from PIL import Image

from comfynb.widgets.twin import MARK

AREA = """() => {
  const main = document.querySelector("main");
  main.innerHTML = `<div class="jp-OutputArea">
    <div class="jp-OutputArea-child" id="before"><pre>printed by the user</pre></div>
    <div class="jp-OutputArea-child" id="grid"></div>
    <div class="jp-OutputArea-child" id="after"></div>
  </div>`;
  host.hide(0);
  host.show(document.getElementById("grid"));
}"""


def sheet(comment: str) -> str:
    data = io.BytesIO()
    Image.new("RGB", (64, 64)).save(data, "jpeg", comment=comment.encode())
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'


@pytest.fixture
def area(grid) -> GridPage:
    grid.open(2)
    grid.page.evaluate(AREA)
    grid.batch()
    return grid


def put(area: GridPage, html: str) -> None:
    area.page.evaluate("html => { document.getElementById('after').innerHTML = html; }", html)


def test_the_twin_is_hidden_as_text_and_as_picture_and_comes_back(area):
    after = area.page.locator("#after")
    put(area, f"<pre>{MARK}: 0 of 24</pre>")
    after.wait_for(state="hidden")
    put(area, sheet(MARK))
    after.wait_for(state="hidden")
    area.page.evaluate("host.hide(1)")
    after.wait_for(state="visible")


def test_without_a_kernel_the_twin_stays(grid):
    grid.open(2)
    grid.page.evaluate(AREA)
    put(grid, sheet(MARK))
    grid.page.evaluate("new Promise(requestAnimationFrame)")
    assert grid.page.locator("#after").is_visible()
    grid.batch()
    grid.page.locator("#after").wait_for(state="hidden")


def test_output_of_the_user_is_never_hidden(area):
    put(area, sheet("a picture of mine"))
    area.page.evaluate("new Promise(requestAnimationFrame)")
    assert area.page.locator("#after").is_visible()
    assert area.page.locator("#before").is_visible()


def test_a_twin_whose_element_is_replaced_is_hidden_again(area):
    area.page.evaluate(
        """html => {
          const child = document.createElement("div");
          child.className = "jp-OutputArea-child";
          child.id = "after";
          child.innerHTML = html;
          document.getElementById("after").replaceWith(child);
        }""",
        sheet(MARK),
    )
    area.page.locator("#after").wait_for(state="hidden")

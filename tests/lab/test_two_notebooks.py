"""Two kernels on one log at once, each in a notebook of its own."""

from __future__ import annotations

import pytest
from lab.test_grid_in_lab import begin, clean, painted, tiles, wait_tiles
from support import wait_for

import comfynb

pytestmark = pytest.mark.timeout(120)

COUNT = 6


def draw(title: str, prompt: str) -> str:
    return f"""scenes = [{{"prompt": f"{prompt} {{i}}", "knobs": {{"Guard.seconds": 0.2}}}}
          for i in range({COUNT})]
grid = studio.grid({{"title": "{title}", "scenes": scenes}})
(run,) = grid._board.runs
run.pause()
grid"""


def look(title: str) -> str:
    """Show the run of another notebook, as soon as it has begun."""
    return f"""def begun():
    return [run.id for run in studio.log.runs() if run.storyboard["title"] == "{title}"]
while not begun():
    await asyncio.sleep(0.1)
comfynb.open_log("kept").grid(begun()[0])"""


@pytest.fixture
def two(lab, engine):
    """Two notebooks, connected to one server and one log."""
    pages = [
        lab(begin(engine.url), draw("one", "a fox"), look("two"), name="one.ipynb"),
        lab(begin(engine.url), draw("two", "an owl"), look("one"), name="two.ipynb"),
    ]
    for page in pages:
        page.run(0)
    return pages


def test_both_draw_into_one_log_and_see_pictures_and_ratings_of_the_other(two):
    for page in two:
        page.run(1)
    for page in two:
        page.run(2)
    for page in two:
        assert tiles(page, "done") < 2 * COUNT, "they look on while pictures are made"
        page.python("run.resume()")
    for page in two:
        wait_tiles(page, 2 * COUNT, "done")
        wait_for(lambda page=page: page.page.wait_for_timeout(20) or painted(page) == 2 * COUNT)
        assert clean(page)
    log = comfynb.Log(two[0].server.root / "kept", read_only=True)
    drawn = log.keyframes(status="done")
    assert len({keyframe.id for keyframe in drawn}) == len(drawn) == 2 * COUNT
    assert len({keyframe.run for keyframe in drawn}) == 2
    first, second = two
    theirs = second.page.locator(".cnb-tile").nth(COUNT)  # the first of the other's pictures
    theirs.get_by_role("button").first.focus()
    second.page.keyboard.press("5")
    second.page.keyboard.press("p")
    rated = first.page.get_by_role("button", name="rated 5 of 5, picked")
    wait_for(lambda: first.page.wait_for_timeout(20) or rated.count() == 1)
    assert [keyframe.rating for keyframe in log.keyframes(where="picked")] == [5]

"""Stars, picks, tags and notes in a real browser: seen, given, taken back."""

from __future__ import annotations

import pytest
from browser.grid_page import GridPage, until
from playwright.sync_api import Locator

WIDTHS = [380, 700, 1280]
FOCUSED = "document.activeElement.getAttribute('aria-label')"


def view(grid: GridPage, index: int = 0) -> Locator:
    """Open the viewer on a cell."""
    grid.tile(index).locator(".cnb-open").click()
    return grid.page.get_by_role("dialog")


def star(grid: GridPage, n: int) -> Locator:
    return grid.page.get_by_role("radio", name=f"{n} of 5")


def rating(grid: GridPage) -> int:
    """The rating that the viewer shows."""
    chosen = grid.page.locator(".cnb-star[aria-checked='true']")
    lit = grid.page.locator(".cnb-star[data-on='true']").count()
    if not lit:
        assert chosen.count() == 0
        return 0
    assert chosen.get_attribute("aria-label") == f"{lit} of 5"
    return lit


def badge(grid: GridPage, index: int = 0) -> str | None:
    """What the badge of a tile says aloud, and that it is there as little as it is silent."""
    shown = grid.tile(index).locator(".cnb-marks")
    words = shown.get_attribute("title") if shown.count() else None
    name = grid.tile(index).locator(".cnb-open").get_attribute("aria-label")
    assert name.endswith(words) if words else "rated" not in name and "picked" not in name
    return words


def made(grid: GridPage, count: int = 3, **fields) -> None:
    grid.open(count)
    for index in range(count):
        grid.make(index, **fields)
    grid.batch(active=False)
    grid.forget()


def test_a_tile_shows_what_is_said_about_its_picture_and_else_nothing(grid):
    made(grid)
    assert [badge(grid, i) for i in range(3)] == [None] * 3
    grid.make(0, rating=4)
    grid.make(1, picked=True)
    grid.make(2, rating=5, picked=True)
    assert [badge(grid, i) for i in range(3)] == [
        "rated 4 of 5",
        "picked",
        "rated 5 of 5, picked",
    ]
    assert grid.tile(0).locator(".cnb-marks").inner_text().strip() == "4"
    for hostile in ({"rating": 6}, {"rating": "4"}, {"rating": 2.5}, {"rating": -1, "picked": 1}):
        grid.make(0, **hostile)
        assert badge(grid, 0) is None


def test_a_star_is_shown_at_once_and_stays_when_it_is_kept(grid):
    made(grid)
    viewer = view(grid, 1)
    assert rating(grid) == 0
    star(grid, 4).click()
    assert (rating(grid), badge(grid, 1)) == (4, "rated 4 of 5")
    said = grid.wait_for("rate")
    assert said.items() >= {"cell": 1, "keyframe": "keyframe-1", "rating": 4}.items()
    grid.batch([{"i": 1, "status": "done", "n": 1}])  # sent before the kernel heard of it
    assert rating(grid) == 4
    grid.say("reply", req=said["req"], ok=True)
    assert rating(grid) == 4  # between the answer and the news too
    grid.batch([{"i": 1, "status": "done", "n": 1, "rating": 4}])
    assert (rating(grid), badge(grid, 1)) == (4, "rated 4 of 5")
    pick = viewer.get_by_role("button", name="Pick")
    assert pick.get_attribute("aria-pressed") == "false"
    pick.click()
    assert pick.get_attribute("aria-pressed") == "true"
    assert grid.wait_for("pick", cell=1, keyframe="keyframe-1")["picked"] is True
    assert badge(grid, 1) == "rated 4 of 5, picked"
    grid.batch([{"i": 1, "status": "done", "n": 1, "rating": 2}])  # somebody else was later
    assert rating(grid) == 2


def test_a_click_on_the_rating_takes_it_back(grid):
    made(grid, 1, rating=3)
    view(grid)
    star(grid, 3).click()
    assert rating(grid) == 0
    assert grid.wait_for("rate")["rating"] == 0
    assert badge(grid) is None


def test_what_is_refused_is_taken_back_and_the_viewer_says_why(grid):
    made(grid, 1, rating=2)
    viewer = view(grid)
    star(grid, 5).click()
    assert rating(grid) == 5
    grid.say("reply", req=grid.wait_for("rate")["req"], error="the disk is full")
    assert (rating(grid), badge(grid)) == (2, "rated 2 of 5")
    alert = viewer.get_by_role("alert")
    assert alert.inner_text().strip() == "the disk is full"
    viewer.get_by_role("button", name="Pick").click()
    grid.say("reply", req=grid.wait_for("pick")["req"], error="the disk is full")
    assert viewer.get_by_role("button", name="Pick").get_attribute("aria-pressed") == "false"
    assert "2 times" in alert.inner_text()
    box = alert.bounding_box()
    at = (box["x"] + 20, box["y"] + box["height"] / 2)
    assert grid.page.evaluate(
        "([x, y]) => Boolean(document.elementFromPoint(x, y).closest('.cnb-notices'))", at
    )
    alert.get_by_role("button", name="Dismiss").click()
    assert alert.count() == 0


def test_of_two_quick_clicks_the_last_counts(grid):
    made(grid, 1)
    view(grid)
    star(grid, 2).click()
    star(grid, 5).click()
    first, second = (m for m in grid.sent("rate"))
    assert (first["rating"], second["rating"]) == (2, 5)
    grid.say("reply", req=first["req"], ok=True)
    assert rating(grid) == 5
    grid.batch([{"i": 0, "status": "done", "n": 1, "rating": 2}])
    assert rating(grid) == 5
    grid.say("reply", req=second["req"], error="no")
    assert rating(grid) == 2


def test_a_rating_of_one_take_does_not_stick_to_the_next(grid):
    made(grid, 1)
    view(grid)
    star(grid, 5).click()
    said = grid.wait_for("rate")
    grid.batch([{"i": 0, "status": "done", "n": 1, "take": 2}])
    grid.about({"i": 0, "keyframe": "another"})
    grid.say("reply", req=said["req"], ok=True)
    assert rating(grid) == 0


def test_keys_rate_and_pick_in_the_grid(grid):
    made(grid)
    grid.page.keyboard.press("Tab")
    for key in ("4", "p", "4", "Control+1", "Shift+P"):
        grid.page.keyboard.press(key)
        for said in grid.sent():
            if said["kind"] in ("rate", "pick"):
                grid.say("reply", req=said["req"], ok=True)
    assert badge(grid, 0) == "rated 4 of 5, picked"
    said = [(m["kind"], m["cell"]) for m in grid.sent() if m["kind"] in ("rate", "pick")]
    assert said == [("rate", 0), ("pick", 0)]
    aloud = grid.page.locator("[aria-live]").all_inner_texts()
    assert "1, rated 4 of 5" in aloud  # the last key was the second 4
    grid.page.keyboard.press("ArrowRight")
    until(
        lambda: (
            grid.page.evaluate("document.activeElement.closest('[data-cell]').dataset.cell") == "1"
        ),
        "the arrow led nowhere",
    )
    for _ in range(3):
        grid.page.keyboard.down("5")  # held: it repeats itself
    grid.page.keyboard.up("5")
    assert badge(grid, 1) == "rated 5 of 5"
    assert len([m for m in grid.sent("rate") if m["cell"] == 1]) == 1
    grid.page.keyboard.press("0")
    assert badge(grid, 1) is None
    french = {"key": '"', "code": "Digit3", "bubbles": True, "cancelable": True}
    grid.page.evaluate(
        "init => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', init))", french
    )
    assert badge(grid, 1) == "rated 3 of 5"


def test_keys_rate_and_pick_in_the_viewer_and_arrows_still_walk(grid):
    made(grid)
    viewer = view(grid)
    star(grid, 1).click()
    grid.page.keyboard.press("ArrowRight")  # the click did not take the focus
    assert "2 of 3" in viewer.inner_text()
    assert rating(grid) == 0
    grid.page.keyboard.press("3")
    grid.page.keyboard.press("P")
    assert rating(grid) == 3
    assert badge(grid, 1) == "rated 3 of 5, picked"
    assert viewer.locator("[aria-live]").inner_text() == "2, picked"
    grid.page.keyboard.press("P")
    assert viewer.locator("[aria-live]").inner_text() == "2, not picked"
    grid.page.keyboard.press("0")
    assert viewer.locator("[aria-live]").inner_text() == "2, no rating"
    grid.page.keyboard.press("ArrowLeft")
    assert rating(grid) == 1


def test_the_stars_are_one_tab_stop_with_arrows_inside(grid):
    made(grid, 3, rating=3)
    viewer = view(grid, 1)
    assert viewer.locator(".cnb-star[tabindex='0']").count() == 1
    grid.page.keyboard.press("Tab")
    assert grid.page.evaluate(FOCUSED) == "3 of 5"
    assert star(grid, 3).evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    for key, left in (("ArrowRight", 4), ("End", 5), ("ArrowRight", 5), ("ArrowDown", 5)):
        grid.page.keyboard.press(key)
        assert (rating(grid), grid.page.evaluate(FOCUSED)) == (left, f"{left} of 5")
    for key, left in (("ArrowLeft", 4), ("ArrowUp", 3), ("2", 2), ("Home", 1)):
        grid.page.keyboard.press(key)
        assert rating(grid) == left
    assert "2 of 3" in viewer.inner_text()  # nobody walked on
    grid.page.keyboard.press("Space")
    assert rating(grid) == 0
    grid.page.keyboard.press("Tab")
    assert grid.page.evaluate("document.activeElement.textContent") == "Pick"


def test_pointing_at_a_star_shows_what_a_click_would_give(grid):
    made(grid, 1, rating=4)
    view(grid)

    def fills() -> list[str]:
        return grid.page.locator(".cnb-star > svg").evaluate_all(
            "all => all.map(e => getComputedStyle(e).fill)"
        )

    full, none = fills()[0], fills()[4]
    assert fills() == [full] * 4 + [none]
    star(grid, 2).hover()
    assert fills() == [full] * 2 + [none] * 3
    star(grid, 5).hover()
    assert fills()[:4] == [full] * 4
    assert fills()[4] not in (full, none)
    assert rating(grid) == 4
    assert not grid.sent("rate")


def test_where_nothing_can_be_said_the_controls_say_why(grid):
    why = "this log was opened with read_only=True"
    can = {"stop": False, "retry": False, "mark": False, "why": "no server", "why_mark": why}
    made(grid, 2, rating=2)
    grid.batch(can=can, active=False)
    grid.page.keyboard.press("Tab")
    grid.page.keyboard.press("5")
    assert grid.page.locator(".cnb-notice").inner_text().strip() == why
    viewer = view(grid)
    group = viewer.get_by_role("radiogroup", name="Rating")
    for control in (group, viewer.get_by_role("button", name="Pick")):
        assert control.get_attribute("aria-disabled") == "true"
        assert control.get_attribute("title") == why
        control.click(force=True)
    star(grid, 4).click(force=True)
    assert rating(grid) == 2
    assert not grid.sent("rate") + grid.sent("pick")


def test_only_what_was_made_can_be_rated(grid):
    grid.open(2)
    grid.batch([{"i": 0, "status": "failed", "rating": 3}, {"i": 1, "status": "running"}])
    grid.about({"i": 0, "error": {"kind": "e", "message": "m", "node": "", "hint": ""}}, {"i": 1})
    for index in (0, 1):
        viewer = view(grid, index)
        assert viewer.get_by_role("radiogroup").count() == 0
        grid.page.keyboard.press("4")
        grid.page.keyboard.press("Escape")
        grid.page.keyboard.press("p")
    assert not grid.sent("rate") + grid.sent("pick")


def test_tags_and_the_note_are_text(grid):
    made(grid, 1)
    tags, note = ["night", "<b>keep</b>", "t" * 100], "the light\nis <i>right</i>"
    grid.about({"i": 0, "keyframe": "keyframe-0", "tags": tags, "note": note})
    viewer = view(grid)
    assert viewer.get_by_role("list", name="Tags").get_by_role("listitem").all_inner_texts() == tags
    assert viewer.locator(".cnb-remark").inner_text() == note
    aside = viewer.locator(".cnb-aside")
    assert aside.evaluate("e => e.scrollWidth <= e.clientWidth")
    grid.about({"i": 0, "keyframe": "keyframe-0", "tags": 3, "note": {"a": 1}})
    assert viewer.get_by_role("list", name="Tags").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("ratio", [0.6, 2.5], ids=["tall", "wide"])
def test_the_badge_hides_nothing_at_any_width(grid, width, ratio):
    grid.page.set_viewport_size({"width": width, "height": 900})
    grid.open(4, ratio=ratio)
    titles = ["", "short", "a title that is longer than any tile is wide", "unknown"]
    for index, title in enumerate(titles):
        words = ["zzyzx"] if title == "unknown" else []
        grid.make(index, rating=5, picked=True, take=12, unknown_words=words)
        grid.about({"i": index, "title": title, "prompt": "p " * 100})
    for index in range(4):
        tile = grid.tile(index)
        mark = tile.locator(".cnb-marks").bounding_box()
        assert mark["y"] >= tile.locator(".cnb-frame").bounding_box()["y"] + round(
            tile.locator(".cnb-frame").bounding_box()["height"]
        )
        caption = tile.locator(".cnb-caption").bounding_box()
        assert mark["y"] + mark["height"] <= caption["y"] + caption["height"]
        assert mark["x"] + mark["width"] <= caption["x"] + caption["width"] + 0.5
        others = tile.locator(".cnb-caption > :not(.cnb-marks):not(:empty)")
        for box in (other.bounding_box() for other in others.all()):
            apart = (
                box is None  # not shown
                or box["x"] + box["width"] <= mark["x"] + 0.5
                or box["y"] + box["height"] <= mark["y"] + 3  # line boxes may touch
                or mark["y"] + mark["height"] <= box["y"] + 3
            )
            assert apart, (index, box, mark)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_badge_can_be_read_in_both_modes(grid, scheme):
    grid.page.emulate_media(color_scheme=scheme)
    made(grid, 1, rating=4, picked=True)
    ratios = grid.page.evaluate(
        """() => {
          const canvas = document.createElement('canvas').getContext('2d');
          const light = (color) => {
            canvas.fillStyle = color;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
              .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const paper = light(getComputedStyle(document.querySelector('.comfynb')).backgroundColor);
          return [...document.querySelectorAll('.cnb-marks, .cnb-marks > svg')].map((e) => {
            const ink = light(getComputedStyle(e).color);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
          });
        }"""
    )
    assert len(ratios) == 3
    assert min(ratios) >= 4.5

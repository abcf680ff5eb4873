"""Ratings, picks, tags and notes: what pages are told of them, and what they may say."""

from __future__ import annotations

import pytest
from loopback import Page
from support import scenes, until

import comfynb
from comfynb.widgets import telling


@pytest.fixture
def grid(studio):
    """A grid whose three pictures are made."""
    grid = studio.grid(scenes(3))
    grid.wait()
    return grid


async def seeing(grid, count: int = 3) -> Page:
    """Return a page that knows what it sees."""
    page = Page(grid, see=(0, count))
    await until(lambda: len(page.about) == len(page.cells) == count)
    return page


def marks(page: Page, cell: int) -> dict:
    return {
        name: page.cells[cell][name] for name in ("rating", "picked") if name in page.cells[cell]
    }


async def test_a_rating_is_kept_before_it_is_answered_and_every_page_is_told(grid, studio):
    page, other = await seeing(grid), Page(grid)
    assert page.head["can"]["mark"] is True
    assert marks(page, 1) == {}
    assert page.rate(1, 4)["ok"]
    assert [mark.value for mark in studio.log.marks(grid.keyframes[1].id)] == [4]
    await until(lambda: marks(page, 1) == marks(other, 1) == {"rating": 4})
    assert page.pick(1, picked=True)["ok"]
    await until(lambda: marks(page, 1) == marks(other, 1) == {"rating": 4, "picked": True})
    assert page.statuses[1] == ["done"]
    assert page.rate(1, 0)["ok"]
    assert page.pick(1, picked=False)["ok"]
    await until(lambda: marks(page, 1) == marks(other, 1) == {})
    assert studio.log.latest()[1].rating is None


async def test_two_quick_ratings_end_in_the_last(grid, studio):
    page = await seeing(grid)
    keyframe = page.about[0]["keyframe"]
    for number, rating in enumerate((1, 5, 2, 4, 3)):
        page.say(kind="rate", req=f"q{number}", cell=0, keyframe=keyframe, rating=rating)
    await until(lambda: len(page.replies) == 5)
    assert [mark.value for mark in studio.log.marks(keyframe)] == [1, 5, 2, 4, 3]
    await until(lambda: marks(page, 0) == {"rating": 3})


async def test_a_rating_is_about_the_picture_that_was_seen_and_no_other(grid, studio):
    page = await seeing(grid)
    seen = page.about.pop(0)["keyframe"]
    other = grid.keyframes[1].id
    assert "another picture" in page.rate(0, 5, other)["error"]
    await until(lambda: page.about.get(0, {}).get("keyframe") == seen)  # told once more
    assert "another picture" in page.rate(7, 5, other)["error"]
    assert not studio.log.marks()


async def test_a_page_that_goes_away_does_not_take_its_rating_along(grid, studio, on_loop):
    page = await seeing(grid)
    page.say(kind="rate", req="q", cell=2, keyframe=page.about[2]["keyframe"], rating=5)
    on_loop(grid._clients.close)
    await until(lambda: grid.keyframes[2].rating == 5)
    assert not page.replies


async def test_tags_and_notes_are_described_and_never_endless(grid, studio):
    page = await seeing(grid)
    keyframe = grid.keyframes[0]
    assert not {"tags", "note"} & page.about[0].keys()
    studio.log.tag(keyframe, *(f"tag-{n:02}" for n in range(telling.MOST_TAGS + 5)))
    studio.log.note(keyframe, "the light is right\n" + "x" * 9000)
    await until(lambda: len(page.about[0].get("tags", ())) == telling.MOST_TAGS)
    await until(lambda: page.about[0].get("note", "").startswith("the light is right\nx"))
    assert len(page.about[0]["note"]) == telling.LONGEST_TEXT
    assert page.about[1].keys() == page.about[2].keys() == page.about[0].keys() - {"tags", "note"}


async def test_a_grid_of_a_log_that_is_only_read_says_why_nothing_can_be_said(grid, studio):
    studio.log.rate(grid.keyframes[0], 2)
    opened = comfynb.open_log(studio.log.folder, read_only=True)
    page = await seeing(opened.grid())
    assert page.head["can"]["mark"] is False
    assert page.head["can"]["why_mark"] == telling.NO_MARKS
    assert marks(page, 0) == {"rating": 2}
    assert page.rate(0, 5)["error"]
    assert [mark.value for mark in studio.log.marks()] == [2]
    opened.close()


async def test_in_an_opened_log_pictures_are_rated_and_the_other_grid_shows_it(grid, studio):
    page = await seeing(grid)
    opened = comfynb.open_log(studio.log.folder)
    elsewhere = await seeing(opened.grid())
    assert "why_mark" not in elsewhere.head["can"]
    assert elsewhere.rate(2, 5)["ok"]
    await until(lambda: marks(page, 2) == {"rating": 5})
    assert page.pick(2, picked=True)["ok"]
    await until(lambda: marks(elsewhere, 2) == {"rating": 5, "picked": True})
    opened.close()


async def test_a_cell_without_a_picture_takes_no_rating(studio):
    grid = studio.grid([{"prompt": "an owl", "knobs": {"Guard.message": "boom"}}])
    await grid
    page = await seeing(grid, 1)
    await until(lambda: "keyframe" in page.about[0])
    assert "no picture" in page.rate(0, 4)["error"]

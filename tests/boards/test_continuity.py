"""What makes two storyboards one and the same at two moments."""

from __future__ import annotations

from typing import Any

import pytest

from comfynb.boards.continuity import has_same_scenes, is_same, storyboard_of
from comfynb.scenes import LEFT_OUT, Storyboard

FOX, OWL = {"id": "fox", "prompt": "a fox"}, {"id": "owl", "prompt": "an owl"}
A = ["a fox", "an owl"]


def titled(title: str, scenes: Any) -> Storyboard:
    return Storyboard.of(scenes, title=title)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(A, A, True, id="again"),
        pytest.param(A, ["a red fox", "an owl"], True, id="one prompt edited"),
        pytest.param(A, ["a whale", "a boat"], False, id="other prompts"),
        pytest.param(A, ["an owl", "a fox"], False, id="in other places"),
        pytest.param(["a fox"], ["a red fox"], False, id="nobody can tell"),
        pytest.param([FOX, OWL], [{**FOX, "prompt": "x"}, {**OWL, "prompt": "y"}], True, id="ids"),
        pytest.param([FOX], [OWL], False, id="other ids"),
        pytest.param([FOX, "a boat"], [FOX, "a whale"], True, id="one id is enough"),
        pytest.param(titled("Zoo", A), titled("Zoo", ["a whale", "a boat"]), True, id="title"),
        pytest.param(titled("Zoo", A), titled("Sea", A), False, id="other title"),
        pytest.param(titled("Zoo", A), A, False, id="no title any more"),
        pytest.param([LEFT_OUT] * 2, [LEFT_OUT] * 2, True, id="prompts left out"),
    ],
)
def test_what_is_the_same(one: Any, other: Any, *, same: bool) -> None:
    one, other = Storyboard.of(one), Storyboard.of(other)
    assert is_same(one, other) is is_same(other, one) is has_same_scenes(one, other) is same


def test_style_negative_seeds_and_knobs_may_change() -> None:
    changed = Storyboard.of(A, style="watercolour", negative="fog", seed=7, knobs={"steps": 4})
    assert is_same(Storyboard.of(A), changed)


def test_one_more_scene_is_the_same_storyboard_with_other_scenes() -> None:
    more = Storyboard.of([*A, "a whale"])
    assert is_same(Storyboard.of(A), more)
    assert not has_same_scenes(Storyboard.of(A), more)


def test_what_a_stranger_wrote_is_no_storyboard() -> None:
    assert storyboard_of({"scenes": 3}) is None

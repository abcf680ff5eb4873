"""Scenes and storyboards from what people have at hand, and what is refused."""

import copy
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest

from comfynb.errors import ComfynbError, SceneError
from comfynb.scenes import Scene, Storyboard


def ids(storyboard):
    return [scene.id for scene in storyboard]


def prompts(storyboard):
    return [scene.prompt for scene in storyboard]


class TestOf:
    def test_bare_strings_are_numbered_by_position(self):
        storyboard = Storyboard.of(["a fox", "a harbour"])
        assert ids(storyboard) == ["scene-1", "scene-2"]
        assert prompts(storyboard) == ["a fox", "a harbour"]

    def test_dicts_without_an_id_are_numbered_by_position(self):
        storyboard = Storyboard.of([{"id": "fox", "prompt": "a fox"}, {"prompt": "a harbour"}])
        assert ids(storyboard) == ["fox", "scene-2"]

    def test_strings_dicts_and_scenes_may_be_mixed(self):
        scene = Scene(id="x", prompt="a mill")
        storyboard = Storyboard.of(["a fox", {"prompt": "a harbour"}, scene])
        assert storyboard.scenes[2] is scene

    @pytest.mark.parametrize(
        "source",
        [
            "a fox",
            Scene(id="scene-1", prompt="a fox"),
            {"prompt": "a fox"},
            {"scenes": ["a fox"]},
            ["a fox"],
            ("a fox",),
            iter(["a fox"]),
            Storyboard.of(["a fox"]),
            OrderedDict(prompt="a fox"),
        ],
        ids=lambda source: type(source).__name__,
    )
    def test_one_scene_in_any_shape(self, source):
        assert Storyboard.of(source) == Storyboard(scenes=(Scene(id="scene-1", prompt="a fox"),))

    def test_a_storyboard_is_taken_as_it_is(self):
        storyboard = Storyboard.of("a fox")
        assert Storyboard.of(storyboard) is storyboard

    def test_shared_values_can_be_given_beside(self):
        storyboard = Storyboard.of(["a fox"], style="ink", seed=7, knobs={"steps": 8})
        assert (storyboard.style, storyboard.seed, storyboard.knobs) == ("ink", 7, {"steps": 8})

    def test_an_unknown_shared_value_suggests_the_nearest(self):
        with pytest.raises(SceneError, match=r"unknown key 'styl'. Did you mean 'style'"):
            Storyboard.of("a fox", styl="ink")

    def test_shared_knobs_may_stand_at_the_top_like_a_scenes(self):
        storyboard = Storyboard.of({"scenes": ["a fox"], "steps": 8, "knobs": {"cfg": 3}})
        assert storyboard.knobs == {"steps": 8, "cfg": 3}

    def test_common_knobs_may_stand_among_a_scenes_fields(self):
        scene = Storyboard.of([{"prompt": "a fox", "steps": 8, "knobs": {"Up.factor": 2}}]).scenes[
            0
        ]
        assert scene.knobs == {"steps": 8, "Up.factor": 2}

    @pytest.mark.parametrize(
        "empty", [None, "", "  ", float("nan"), np.float32("nan"), pd.NA, pd.NaT]
    )
    def test_an_empty_cell_means_not_given(self, empty):
        row = {"prompt": "a fox", "id": empty, "seed": empty, "title": empty, "steps": empty}
        assert Storyboard.of([row]) == Storyboard.of("a fox")

    def test_a_number_is_an_id(self):
        assert ids(Storyboard.of([{"id": 7, "prompt": "a"}, {"id": 8.0, "prompt": "b"}])) == [
            "7",
            "8",
        ]

    def test_numpy_scalars_are_numbers(self):
        row = {"prompt": "a fox", "seed": np.int64(3), "steps": np.int32(8), "cfg": np.float32(2.5)}
        scene = Storyboard.of([row]).scenes[0]
        assert (scene.seed, scene.knobs) == (3, {"steps": 8, "cfg": 2.5})
        assert {type(value) for value in (scene.seed, *scene.knobs.values())} == {int, float}

    def test_a_text_that_looks_like_a_file_is_not_taken_for_a_prompt(self):
        with pytest.raises(SceneError, match=r"looks like the name of a file.*Storyboard\.load"):
            Storyboard.of("scenes.yaml")

    @pytest.mark.parametrize("source", [None, 3, b"a fox", object])
    def test_what_is_no_storyboard_is_refused(self, source):
        with pytest.raises(SceneError, match=r"cannot be made of .*Give a prompt"):
            Storyboard.of(source)


class TestFrame:
    def test_each_row_is_a_scene(self):
        frame = pd.DataFrame(
            {
                "prompt": ["a fox", "a mill"],
                "steps": [8, None],
                "seed": [None, 2],
                "notes": [None, "x"],
            }
        )
        first, second = Storyboard.of(frame)
        assert first == Scene(id="scene-1", prompt="a fox", knobs={"steps": 8})
        assert second == Scene(id="scene-2", prompt="a mill", seed=2, notes="x")

    def test_an_index_named_id_gives_the_ids(self):
        frame = pd.DataFrame({"id": ["fox", "mill"], "prompt": ["a", "b"]}).set_index("id")
        assert ids(Storyboard.of(frame)) == ["fox", "mill"]

    def test_large_seeds_stay_exact_in_a_column_with_gaps(self):
        seeds = pd.array([2**63 + 1, None], dtype="UInt64")
        assert (
            Storyboard.of(pd.DataFrame({"prompt": ["a", "b"], "seed": seeds})).scenes[0].seed
            == 2**63 + 1
        )

    def test_a_seed_that_a_float_has_rounded_is_refused(self):
        frame = pd.DataFrame({"prompt": ["a", "b"], "seed": [2**60 + 1, None]})
        with pytest.raises(SceneError, match=r"row 1: the seed .* has lost its last digits.*Int64"):
            Storyboard.of(frame)

    def test_an_error_names_row_and_id(self):
        frame = pd.DataFrame({"id": ["a", "b", "fox"], "prompt": ["x", "y", None]})
        with pytest.raises(SceneError) as caught:
            Storyboard.of(frame)
        assert caught.value.row == "row 3 (id 'fox')"
        assert "prompt is missing" in str(caught.value)

    def test_unknown_and_doubled_columns_are_refused(self):
        with pytest.raises(SceneError, match=r"unknown key 'Prompt'. Did you mean 'prompt'\?"):
            Storyboard.of(pd.DataFrame({"Prompt": ["a"]}))
        with pytest.raises(SceneError, match="the column 'prompt' is there twice"):
            Storyboard.of(pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"]))

    def test_rows_of_a_frame_as_dicts_are_the_same(self):
        frame = pd.DataFrame({"prompt": ["a", "b"], "seed": pd.array([1, None], dtype="Int64")})
        assert Storyboard.of(frame.to_dict("records")) == Storyboard.of(frame)


class TestTexts:
    board = Storyboard.of(
        [{"id": "fox", "prompt": "a fox", "negative": "text"}, "a mill"],
        style="ink",
        negative="blur",
        knobs={"steps": 8, "cfg": 3},
    )

    def test_the_style_is_joined_behind_the_prompt(self):
        assert [self.board.prompt_of(scene) for scene in self.board] == [
            "a fox, ink",
            "a mill, ink",
        ]

    def test_negatives_are_joined(self):
        assert [self.board.negative_of(s) for s in self.board] == ["text, blur", "blur"]

    def test_without_style_and_negative_nothing_is_joined(self):
        board = Storyboard.of("a fox")
        assert board.prompt_of(board.scenes[0]) == "a fox"
        assert board.negative_of(board.scenes[0]) == ""

    def test_a_scenes_knobs_override_the_shared_ones(self):
        scene = Scene(id="x", prompt="x", knobs={"steps": 4})
        assert self.board.knobs_of(scene) == {"steps": 4, "cfg": 3}

    def test_the_label_is_the_title_or_the_id(self):
        assert Scene(id="x", prompt="p").label == "x"
        assert Scene(id="x", prompt="p", title="A fox").label == "A fox"

    def test_white_space_around_texts_is_dropped(self):
        assert Scene(id=" x ", prompt="\ta fox\n") == Scene(id="x", prompt="a fox")

    def test_length_and_order(self):
        assert len(self.board) == 2
        assert list(self.board) == list(self.board.scenes)


class TestValues:
    def test_the_callers_dict_is_not_shared(self):
        knobs = {"steps": 8}
        scene = Scene(id="x", prompt="p", knobs=knobs)
        knobs["steps"] = 9
        assert scene.knobs == {"steps": 8}

    def test_they_can_be_hashed_copied_and_pickled(self):
        board = Storyboard.of([{"prompt": "a", "steps": 8}], knobs={"cfg": 3})
        assert copy.deepcopy(board) == pickle.loads(pickle.dumps(board)) == board
        assert hash(board) == hash(copy.deepcopy(board))

    def test_dicts_hold_only_what_is_set_and_are_read_back(self):
        scene = Scene(id="x", prompt="p", seed=0, knobs={"steps": 8})
        assert scene.to_dict() == {"id": "x", "prompt": "p", "seed": 0, "knobs": {"steps": 8}}
        assert Scene.from_dict(scene.to_dict()) == scene
        board = Storyboard(scenes=(scene,), seed="random", title="t")
        assert Storyboard.from_dict(board.to_dict()) == board

    def test_importing_it_imports_no_heavy_package(self):
        code = (
            "import sys, comfynb.scenes, comfynb.cells; "
            "print([m for m in ('pandas', 'numpy', 'yaml', 'duckdb', 'PIL') if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"


REFUSED = {
    "empty prompt": ({"prompt": "  ", "id": "x"}, "the prompt is missing or empty. Say"),
    "no prompt": ({"id": "x"}, "the prompt is missing or empty. Say"),
    "prompt of a wrong type": ({"prompt": 3}, r"the prompt must be text, not 3 \(int\)"),
    "YAML's no": (
        {"prompt": "p", "id": False},
        r"the id must be text, not False \(bool\). Put it in",
    ),
    "id with a slash": ({"prompt": "p", "id": "a/b"}, "the id holds '/'. Ids are labels"),
    "id with a backslash": ({"prompt": "p", "id": "a\\b"}, r"the id holds '\\\\'"),
    "id with a line break": ({"prompt": "p", "id": "a\nb"}, r"the id holds '\\n'"),
    "id with a line separator": ({"prompt": "p", "id": "a\u2028b"}, r"the id holds '\\u2028'"),
    "id of dots": ({"prompt": "p", "id": ".."}, "'..' cannot be an id"),
    "long id": ({"prompt": "p", "id": "x" * 121}, "the id has 121 characters, more than 120"),
    "fractional id": ({"prompt": "p", "id": 1.5}, r"the id must be text, not 1.5 \(float\)"),
    "half a character": ({"prompt": "a \ud83d"}, "half a character"),
    "negative seed": ({"prompt": "p", "seed": -1}, r"the seed -1 is out of range. Seeds go from 0"),
    "seed too large": ({"prompt": "p", "seed": 2**64}, "out of range"),
    "huge seed": ({"prompt": "p", "seed": 10**5000}, "out of range"),
    "fractional seed": ({"prompt": "p", "seed": 1.5}, r"a whole number, not 1.5 \(float\)"),
    "infinite seed": ({"prompt": "p", "seed": float("inf")}, "the seed inf"),
    "true as seed": ({"prompt": "p", "seed": True}, r"a whole number, not True \(bool\)"),
    "text as seed": ({"prompt": "p", "seed": "7"}, "a whole number, not the text '7'"),
    "random scene": ({"prompt": "p", "seed": "random"}, "of a whole storyboard only"),
    "unknown key": ({"prompt": "p", "step": 3}, r"unknown key 'step'. Did you mean 'steps'"),
    "unlike any": ({"prompt": "p", "zzz": 3}, "unknown key 'zzz'. Known are: id, title, prompt"),
    "key that is no text": ({"prompt": "p", 3: 3}, "unknown key 3"),
    "fractional steps": ({"prompt": "p", "steps": 8.5}, r"'steps' must be a whole number, not 8.5"),
    "true as steps": ({"prompt": "p", "steps": True}, "'steps' must be a whole number, not True"),
    "text as cfg": ({"prompt": "p", "cfg": "7"}, "'cfg' must be a number, not the text '7'"),
    "infinite cfg": ({"prompt": "p", "cfg": float("inf")}, r"'cfg' must be a number, not inf"),
    "number as sampler": ({"prompt": "p", "sampler": 3}, r"'sampler' must be text, not 3 \(int\)"),
    "list as knob": (
        {"prompt": "p", "knobs": {"x": [1]}},
        r"'x' must be text, a number, true or fal",
    ),
    "None as knob": ({"prompt": "p", "knobs": {"x": None}}, r"'x' must be .* not nothing"),
    "knobs in a list": ({"prompt": "p", "knobs": [1]}, r"'knobs' must be a mapping, not \[1\]"),
    "knob twice": ({"prompt": "p", "steps": 1, "knobs": {"steps": 2}}, "'steps' is given twice"),
    "knob without name": ({"prompt": "p", "knobs": {3: 2}}, "name of a knob must be text, not 3"),
    "prompt as knob": ({"prompt": "p", "knobs": {"positive": "q"}}, "Use its own field 'prompt'"),
    "seed as knob": ({"prompt": "p", "knobs": {"seed": 2}}, "Use its own field 'seed'"),
    "a list": (["a fox"], r"a scene must be a text or a mapping, not \['a fox'\] \(list\)"),
    "nothing": (None, r"a scene must be a text or a mapping, not nothing \(None\)"),
}


class TestRefusals:
    @pytest.mark.parametrize(("row", "message"), REFUSED.values(), ids=REFUSED)
    def test_a_bad_scene_is_refused_with_its_row(self, row, message):
        with pytest.raises(SceneError, match=message) as caught:
            Storyboard.of(["a fox", row])
        assert caught.value.row.startswith("row 2")
        assert str(caught.value).startswith("row 2")
        assert caught.value.hint

    def test_a_row_is_named_with_its_id(self):
        with pytest.raises(SceneError, match=r"^row 1 \(id 'fox'\): the prompt"):
            Storyboard.of([{"id": "fox", "prompt": ""}])

    def test_ids_must_differ(self):
        rows = [{"id": "fox", "prompt": "a"}, "b", {"id": "fox", "prompt": "c"}]
        with pytest.raises(
            SceneError, match=r"row 3 \(id 'fox'\): the id is already used by row 1"
        ):
            Storyboard.of(rows)

    def test_a_given_id_may_not_be_the_number_of_another(self):
        with pytest.raises(SceneError, match="already used by row 1"):
            Storyboard.of(["a", {"id": "scene-1", "prompt": "b"}])

    @pytest.mark.parametrize(
        "empty", [[], (), {"scenes": []}, pd.DataFrame({"prompt": []})], ids=repr
    )
    def test_an_empty_storyboard_is_refused(self, empty):
        with pytest.raises(SceneError, match=r"no scenes. Give it at least one prompt"):
            Storyboard.of(empty)

    def test_a_mapping_without_scenes_is_refused(self):
        with pytest.raises(SceneError, match=r"there is no 'scenes'. Give a list"):
            Storyboard.of({"style": "ink"})
        with pytest.raises(SceneError, match=r"'scenes' must be a list, not the text 'a fox'"):
            Storyboard.of({"scenes": "a fox"})
        with pytest.raises(SceneError, match=r"unknown key 'scene'. Did you mean 'scenes'"):
            Storyboard.of({"scene": []})

    @pytest.mark.parametrize(
        ("shared", "message"),
        [
            ({"style": 3}, "the style must be text, not 3"),
            ({"seed": "any"}, "the seed must be a whole number, not the text 'any'"),
            ({"seed": -1}, "out of range"),
            ({"knobs": {"steps": "x"}}, "'steps' must be a whole number"),
            ({"knobs": {"negative": "x"}}, "Use its own field 'negative'"),
            ({"knobs": 3}, "knobs must be a mapping"),
        ],
    )
    def test_a_bad_shared_value_is_refused(self, shared, message):
        with pytest.raises(SceneError, match=message):
            Storyboard.of("a fox", **shared)

    def test_the_constructor_wants_scenes(self):
        with pytest.raises(SceneError, match=r"row 1: this must be a Scene, not the text 'a fox'"):
            Storyboard(scenes=("a fox",))
        with pytest.raises(SceneError, match=r"scenes must be a list of Scene.*Storyboard.of"):
            Storyboard(scenes="a fox")

    def test_a_scene_needs_an_id_of_its_own(self):
        with pytest.raises(SceneError, match="the id is missing"):
            Scene.from_dict({"prompt": "p"})
        with pytest.raises(SceneError, match="the id is empty"):
            Scene(id=" ", prompt="p")

    def test_it_is_a_value_error_and_a_comfynb_error(self):
        with pytest.raises(ValueError) as caught:
            Storyboard.of([])
        assert isinstance(caught.value, ComfynbError)

    def test_messages_stay_short_whatever_was_given(self):
        with pytest.raises(SceneError) as caught:
            Storyboard.of([{"id": ["x" * 10_000] * 10_000, "prompt": "p"}])
        assert len(str(caught.value)) < 1500

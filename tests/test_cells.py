"""Cells: a storyboard and a workflow become graphs with keys."""

import time
from copy import deepcopy

import pytest

from comfynb.cells import make_cells
from comfynb.errors import UnknownKnobError, WorkflowError
from comfynb.scenes import Storyboard
from comfynb.workflows import Workflow, content_key, leaf_nodes

TXT2IMG = Workflow.load("txt2img")
WITHOUT_NEGATIVE = deepcopy(dict(TXT2IMG.graph))
WITHOUT_NEGATIVE["sampler"]["inputs"]["negative"] = ["positive", 0]
WITHOUT_TEXTS = {
    "a": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "color": 0}},
    "b": {"class_type": "SaveImage", "inputs": {"images": ["a", 0], "filename_prefix": "x"}},
}


def cells_of(source, workflow=TXT2IMG, **more):
    return make_cells(Storyboard.of(source), workflow, **{"kind": "engine", **more})


def keys(source, **more):
    return [cell.key for cell in cells_of(source, **more)]


def inputs(cell, node):
    return cell.graph[node]["inputs"]


def test_each_scene_is_one_cell_in_order():
    storyboard = Storyboard.of(["a fox", "a mill"])
    cells = cells_of(storyboard)
    assert [cell.index for cell in cells] == [0, 1]
    assert [cell.scene for cell in cells] == list(storyboard)
    assert [cell.axes for cell in cells] == [{}, {}]


def test_texts_and_seed_are_set_on_the_graph_and_told():
    storyboard = Storyboard.of(
        [{"prompt": "a fox", "negative": "snow", "seed": 7}], style="ink", negative="blur"
    )
    (cell,) = cells_of(storyboard)
    assert (cell.prompt, cell.negative, cell.seed) == ("a fox, ink", "snow, blur", 7)
    assert inputs(cell, "positive")["text"] == "a fox, ink"
    assert inputs(cell, "negative")["text"] == "snow, blur"
    assert inputs(cell, "sampler")["seed"] == 7


def test_a_scene_without_seed_takes_the_storyboards_and_that_is_0():
    assert [cell.seed for cell in cells_of(["a", {"prompt": "b", "seed": 3}])] == [0, 3]
    assert [cell.seed for cell in cells_of(Storyboard.of(["a"], seed=5))] == [5]


def test_a_random_seed_is_drawn_once_for_all_scenes_each_time():
    storyboard = Storyboard.of(["a", "b", {"prompt": "c", "seed": 3}], seed="random")
    draws = [[cell.seed for cell in cells_of(storyboard)] for _ in range(4)]
    assert all(first == second and third == 3 for first, second, third in draws)
    assert len({first for first, _, _ in draws}) > 1
    assert inputs(cells_of(storyboard)[0], "sampler")["seed"] < 2**32


def test_knobs_come_from_the_workflow_the_storyboard_and_the_scene():
    storyboard = Storyboard.of([{"prompt": "a", "steps": 4}, "b"], knobs={"steps": 8, "cfg": 3})
    first, second = cells_of(storyboard)
    assert (first.knobs["steps"], first.knobs["cfg"], first.knobs["width"]) == (4, 3, 256)
    assert second.knobs["steps"] == inputs(second, "sampler")["steps"] == 8
    assert not {"positive", "negative", "seed"} & set(first.knobs)


def test_a_knob_by_title_is_told_by_that_name():
    (cell,) = cells_of([{"prompt": "a", "knobs": {"Canvas.width": 320}}])
    assert cell.knobs["Canvas.width"] == cell.knobs["width"] == 320


def test_the_workflows_own_negative_stays_where_none_is_asked_for():
    workflow = TXT2IMG.with_knobs({"negative": "blur"})
    first, second = cells_of(["a", {"prompt": "b", "negative": "snow"}], workflow)
    assert (first.negative, second.negative) == ("blur", "snow")


def test_the_checkpoint_is_filled_in_only_where_none_is_chosen():
    assert cells_of("a", checkpoint="tiny")[0].knobs["checkpoint"] == "tiny"
    chosen = TXT2IMG.with_knobs({"checkpoint": "mine"})
    assert cells_of("a", chosen, checkpoint="tiny")[0].knobs["checkpoint"] == "mine"
    board = Storyboard.of([{"prompt": "a", "checkpoint": "its"}, "b"], knobs={"checkpoint": "all"})
    assert [c.knobs["checkpoint"] for c in cells_of(board, checkpoint="t")] == ["its", "all"]
    assert cells_of("a")[0].knobs["checkpoint"] == ""


def test_the_workflow_stays_as_it_was():
    before = deepcopy(TXT2IMG.graph)
    cells_of([{"prompt": "a", "steps": 4}], checkpoint="tiny")
    assert TXT2IMG.graph == before


class TestKeys:
    def test_the_key_is_that_of_the_graph(self):
        for cell in cells_of(["a", {"prompt": "b", "steps": 4, "knobs": {"Canvas.width": 64}}]):
            assert cell.key == content_key(cell.graph, kind="engine")

    def test_asking_again_gives_the_same_keys(self):
        assert keys(["a", "b"], checkpoint="tiny") == keys(["a", "b"], checkpoint="tiny")

    def test_id_title_notes_and_place_do_not_matter(self):
        dressed = {"id": "x", "title": "T", "notes": "n", "prompt": "a"}
        assert keys(["b", dressed])[1] == keys(["a"])[0]

    def test_style_joined_or_written_out_is_the_same(self):
        assert keys(Storyboard.of("a", style="ink")) == keys("a, ink")

    def test_inserting_a_scene_remakes_nothing(self):
        assert set(keys(["a", "b"])) < set(keys(["a", "new", "b"]))

    def test_prompt_seed_knobs_checkpoint_and_kind_matter(self):
        rows = ["a", "b", *({"prompt": "a", **more} for more in ({"seed": 1}, {"steps": 4}))]
        made = [
            *keys(rows),
            *keys("a", kind="comfyui"),
            *keys("a", checkpoint="tiny"),
        ]
        assert len(set(made)) == len(made)


class TestRefusals:
    def test_an_unknown_knob_of_a_scene_names_the_scene(self):
        with pytest.raises(WorkflowError, match=r"^scene 'fox': .*'zoom'.*It has: ") as caught:
            cells_of([{"id": "fox", "prompt": "a", "knobs": {"zoom": 2}}])
        assert isinstance(caught.value.__cause__, UnknownKnobError)

    def test_an_unknown_shared_knob_is_told_with_the_nearest(self):
        with pytest.raises(UnknownKnobError, match="did you mean 'steps'"):
            cells_of(Storyboard.of("a", knobs={"stepz": 2}))

    def test_a_value_of_a_wrong_kind_names_scene_and_node(self):
        with pytest.raises(WorkflowError, match=r"scene 'scene-2': .*\(node canvas, .*not 1.5"):
            cells_of(["a", {"prompt": "b", "knobs": {"Canvas.width": 1.5}}])

    def test_a_negative_needs_a_place(self):
        workflow = Workflow.load(WITHOUT_NEGATIVE)
        assert cells_of(["a"], workflow)[0].negative == ""
        with pytest.raises(
            WorkflowError, match=r"scene 'scene-2': .*no place for a negative prompt"
        ):
            cells_of(["a", {"prompt": "b", "negative": "snow"}], workflow)
        with pytest.raises(WorkflowError, match=r"scene 'scene-1': .*title 'negative'"):
            cells_of(Storyboard.of("a", negative="snow"), workflow)

    def test_a_prompt_needs_a_place_where_there_are_texts(self):
        graph = deepcopy(WITHOUT_TEXTS)
        graph["c"] = {"class_type": "MyEncoder", "inputs": {"text": "lost"}}
        with pytest.raises(WorkflowError, match=r"no place for a prompt.* title 'positive'"):
            cells_of("a", Workflow.load(graph))
        graph["c"]["_meta"] = {"title": "positive"}
        assert inputs(cells_of("a", Workflow.load(graph))[0], "c")["text"] == "a"

    def test_a_workflow_without_any_texts_needs_no_prompt(self):
        (cell,) = cells_of(
            [{"prompt": "red", "knobs": {"a.color": 255}}], Workflow.load(WITHOUT_TEXTS)
        )
        assert (cell.prompt, cell.seed) == ("red", 0)
        assert inputs(cell, "a")["color"] == 255
        assert leaf_nodes(cell.graph) == ("b",)

    def test_a_scenes_own_seed_needs_a_place(self):
        with pytest.raises(WorkflowError, match=r"scene 'scene-1': .*no place for a seed"):
            cells_of([{"prompt": "a", "seed": 3}], Workflow.load(WITHOUT_TEXTS))


def test_a_thousand_cells_are_made_quickly():
    storyboard = Storyboard.of([f"scene number {n}" for n in range(1000)])
    start = time.perf_counter()
    assert len({cell.key for cell in cells_of(storyboard, checkpoint="tiny")}) == 1000
    assert time.perf_counter() - start < 1.5  # 0.1 s on an idle core

"""What a server would refuse is named before it is sent, and nothing that it would take."""

import json
import pickle
import re
from copy import deepcopy
from pathlib import Path

import pytest

from comfynb.errors import WorkflowCheckError
from comfynb.workflows import NodeTypes, Workflow, check_graphs

from . import graphs
from .graphs import changed, node

RECORDED = json.loads(Path(__file__).with_name("object_info.json").read_text("utf-8"))
CHECKPOINTS = ["v1-5.safetensors", "sd15/Fox.safetensors"]


def known(**classes):
    """The recorded classes, with files on the server, and these besides."""
    info = {**deepcopy(RECORDED), **classes}
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = CHECKPOINTS
    info["LoraLoader"]["input"]["required"]["lora_name"][0] = ["ink.safetensors"]
    info["LoadImage"]["input"]["required"]["image"][0] = ["example.png"]
    return NodeTypes.of(info)


def report(*made, types=None, **more):
    pairs = [(f"scene-{number}", graph) for number, graph in enumerate(made, 1)]
    return check_graphs(pairs, types or known(), server="gpu:8188", **more)


def only(found):
    (problem,) = found.problems
    return problem


def test_a_graph_that_runs_has_no_problem():
    found = report(graphs.sd15())
    assert (found.ok, found.checked, found.problems) == (True, True, ())
    assert str(found) == "gpu:8188 can run the workflow"


PROBLEMS = {
    "node type": (
        {**graphs.sd15(), "3": node("KSamplr", **graphs.sd15()["3"]["inputs"])},
        ("3", "KSamplr", ""), r"no node type 'KSamplr'; did you mean 'KSampler'",
    ),
    "node type of nobody": (
        {**graphs.sd15(), "x": node("Zebra")},
        ("x", "Zebra", ""), r"no node type 'Zebra'. Install the custom node",
    ),
    "checkpoint": (
        changed(graphs.sd15(), "4", ckpt_name="fox.safetensors"),
        ("4", "CheckpointLoaderSimple", "ckpt_name"),
        r"no checkpoint 'fox.safetensors'; did you mean 'sd15/Fox.safetensors'",
    ),
    "range": (
        changed(graphs.sd15(), "3", steps=0),
        ("3", "KSampler", "steps"), r"it takes 1 to 10000, not 0",
    ),
    "type": (
        changed(graphs.sd15(), "3", steps="many"),
        ("3", "KSampler", "steps"), r"it takes a whole number, not the text 'many'",
    ),
    "choice": (
        changed(graphs.sd15(), "3", sampler_name="eulr"),
        ("3", "KSampler", "sampler_name"), r"'eulr' is none of its choices; did you mean 'euler'",
    ),
    "image": (
        changed(graphs.img2img(), "10", image="exmple.png"),
        ("10", "LoadImage", "image"), r"no image 'exmple.png'; did you mean 'example.png'",
    ),
    "required": (
        {**graphs.sd15(), "9": node("SaveImage", images=["8", 0])},
        ("9", "SaveImage", "filename_prefix"), r"required and missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("graph", "where", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_each_kind_of_problem_is_an_error_with_its_node_and_the_nearest(graph, where, message):
    problem = only(report(graph))
    assert (problem.node, problem.node_type, problem.input) == where
    assert problem.is_error
    assert problem.scenes == ()
    assert re.search(message, problem.message)


def test_a_lora_is_named_as_one():
    graph = graphs.sd15()
    graph["lora"] = node("LoraLoader", lora_name="inc.safetensors", strength_model=1,
                         strength_clip=1, model=["4", 0], clip=["4", 1])  # fmt: skip
    graph["3"]["inputs"]["model"] = ["lora", 0]
    problem = only(report(graph))
    assert "no LoRA 'inc.safetensors'; did you mean 'ink.safetensors'" in problem.message
    assert problem.nearest == ("ink.safetensors",)


def test_a_workflow_without_an_output_is_told_so():
    graph = graphs.sd15()
    del graph["9"]
    problem = only(report(graph))
    assert "no output node" in problem.message
    assert "SaveImage" in problem.message


def test_one_report_names_everything_that_is_wrong():
    graph = changed(graphs.sd15(), "3", steps=0, cfg=300, sampler_name="eulr")
    graph = changed(graph, "4", ckpt_name="gone.safetensors")
    graph["x"] = node("Zebra")
    assert len(report(graph).errors) == 5


class TestWhatTheServerTakes:
    """None of this is refused by ComfyUI 0.3.75 (execution.py), so none of it is an error."""

    @pytest.mark.parametrize("value", ["33", 33.0, True])
    def test_numbers_that_it_can_read(self, value):
        assert report(changed(graphs.sd15(), "3", steps=value)).problems == ()

    def test_a_fraction_that_it_cuts_is_a_warning(self):
        problem = only(report(changed(graphs.sd15(), "3", steps=33.9)))
        assert (problem.severity, "cuts 33.9 to 33" in problem.message) == ("warning", True)

    def test_a_node_that_no_output_needs(self):
        graph = {**graphs.sd15(), "x": node("KSampler", steps=0)}
        assert report(graph).problems == ()

    def test_a_branch_beside_one_that_is_sound(self):
        graph = graphs.sd15()
        graph["b"] = changed(graphs.sd15(), "3", steps=0)["3"]
        graph["c"] = node("VAEDecode", samples=["b", 0], vae=["4", 2])
        graph["d"] = node("SaveImage", images=["c", 0], filename_prefix="x")
        found = report(graph)
        assert found.ok
        assert "runs the rest" in only(found).message

    def test_but_a_missing_class_anywhere(self):
        assert not report({**graphs.sd15(), "x": node("Zebra")}).ok

    @pytest.mark.parametrize("name", ["sub/fox.png", "fox.png [output]", "fox.tga"])
    def test_an_image_that_its_list_does_not_show(self, name):
        assert report(changed(graphs.img2img(), "10", image=name)).ok

    def test_an_image_that_is_about_to_be_uploaded(self):
        graph = changed(graphs.img2img(), "10", image="comfynb-1.png")
        assert not report(graph).ok
        assert report(graph, uploads={"comfynb-1.png"}).problems == ()

    def test_a_custom_node_may_judge_for_itself(self):
        info = {"input": {"required": {"mode": [["a"], {}], "n": ["INT", {"max": 3}]}},
                "output": ["LATENT"], "python_module": "custom_nodes.mine"}  # fmt: skip
        graph = graphs.sd15() | {"5": node("Mine", mode="b", n=4)}
        found = report(graph, types=known(Mine=info))
        assert (found.ok, len(found.warnings)) == (True, 2)

    def test_choices_of_the_newer_encoding(self):
        info = {"input": {"required": {"mode": ["COMBO", {"options": ["a"]}]}},
                "output": ["LATENT"], "python_module": "comfy_extras.nodes_x"}  # fmt: skip
        found = report(graphs.sd15() | {"5": node("New", mode="b")}, types=known(New=info))
        assert (found.ok, len(found.warnings)) == (True, 1)

    def test_what_only_a_server_knows(self):
        info = {"input": {"required": {"model": ["COMBO", {"remote": {"route": "/x"}}],
                                       "images": ["COMFY_AUTOGROW_V3", {}]}},
                "output": ["LATENT"], "python_module": "comfy_extras.nodes_x"}  # fmt: skip
        graph = graphs.sd15() | {"5": node("New", model="anything", **{"images.image0": "b"})}
        assert report(graph, types=known(New=info)).problems == ()


class TestScenes:
    def test_a_problem_stands_once_with_the_scenes_it_concerns(self):
        flow = Workflow.load(graphs.sd15())
        bad = flow.with_knobs({"sampler": "eulr"}).graph
        found = report(flow.graph, bad, flow.graph, bad)
        assert only(found).scenes == ("scene-2", "scene-4")
        assert not found.shared
        assert found.of("scene-2") == found.problems
        assert found.of("scene-1") == ()
        assert str(found).startswith("gpu:8188 cannot run 2 of 4 scenes: 1 problem\n")

    def test_what_all_have_is_shared_and_raised_at_once(self):
        bad = Workflow.load(changed(graphs.sd15(), "4", ckpt_name="gone")).graph
        found = report(bad, bad)
        assert found.shared == found.errors
        with pytest.raises(WorkflowCheckError, match="nothing was sent") as caught:
            found.raise_for_shared()
        assert caught.value.problems == found.errors

    def test_it_is_not_shared_where_other_scenes_were_not_checked(self):
        assert not report(changed(graphs.sd15(), "4", ckpt_name="gone"), of=5).shared

    def test_one_bad_scene_of_a_thousand_is_found(self):
        flow = Workflow.load(graphs.sd15())
        made = [flow.with_knobs({"positive": f"scene {n}"}).graph for n in range(1000)]
        made[500] = flow.with_knobs({"steps": 0}).graph
        assert only(report(*made)).scenes == ("scene-501",)

    def test_without_node_types_nothing_is_refused_and_the_report_says_so(self):
        found = check_graphs([("a", graphs.sd15())], None, server="gpu:8188")
        assert (found.ok, found.checked) == (True, False)
        assert "could not be checked" in str(found)


class TestReport:
    graph = changed(graphs.sd15(), "3", steps=0, sampler_name="<b>eulr</b>")

    def test_its_html_is_escaped_and_names_each_problem(self):
        html = report(self.graph)._repr_html_()
        assert "<b>eulr" not in html
        assert "&lt;b&gt;eulr" in html
        assert html.count('<b class="bad">') == 2

    def test_the_error_shows_the_same_table(self):
        found = report(self.graph)
        with pytest.raises(WorkflowCheckError) as caught:
            found.raise_for_errors()
        assert caught.value._repr_html_() == found._repr_html_()
        assert str(caught.value) == str(found)

    def test_the_error_crosses_processes(self):
        with pytest.raises(WorkflowCheckError) as caught:
            report(self.graph).raise_for_errors()
        assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems

    def test_hundreds_of_problems_stay_readable(self):
        made = [changed(graphs.sd15(), "3", sampler_name=f"bad{n}") for n in range(500)]
        found = report(*made)
        assert len(found.problems) == 500
        assert str(found).endswith("and 470 more")
        assert len(found._repr_html_()) < 150_000

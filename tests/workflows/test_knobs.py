"""Knobs are found by following links, in graphs of many shapes."""

from copy import deepcopy

import numpy as np
import pytest

from comfynb.errors import UnknownKnobError, WorkflowError
from comfynb.workflows import Workflow

from . import graphs
from .graphs import node


def places(graph):
    return {name: f"{k.node}.{k.input}" for name, k in Workflow.load(graph).knobs.items()}


def values(graph):
    return {name: knob.value for name, knob in Workflow.load(graph).knobs.items()}


def test_the_first_graph_of_comfyui_has_every_knob_of_text_to_image():
    assert places(graphs.sd15()) == {
        "positive": "6.text",
        "negative": "7.text",
        "seed": "3.seed",
        "steps": "3.steps",
        "cfg": "3.cfg",
        "sampler": "3.sampler_name",
        "scheduler": "3.scheduler",
        "denoise": "3.denoise",
        "width": "5.width",
        "height": "5.height",
        "batch_size": "5.batch_size",
        "checkpoint": "4.ckpt_name",
    }


def test_a_knob_knows_its_node_and_value():
    knob = Workflow.load(graphs.sd15()).knobs["checkpoint"]
    assert (knob.name, knob.node, knob.input) == ("checkpoint", "4", "ckpt_name")
    assert (knob.value, knob.node_type) == ("v1-5.safetensors", "CheckpointLoaderSimple")
    assert knob.title == "Load Checkpoint"


def test_swapped_links_swap_positive_and_negative():
    graph = graphs.changed(graphs.sd15(), "3", positive=["7", 0], negative=["6", 0])
    assert (values(graph)["positive"], values(graph)["negative"]) == ("text", "a bottle")


def test_of_two_stages_the_first_counts_whatever_the_ids():
    found = places(graphs.advanced())
    assert found["seed"] == "z first.noise_seed"
    assert found["positive"] == "p1.text_g"
    assert found["negative"] == "n1.text"
    assert found["width"] == "leer.width"
    assert found["checkpoint"] == "base.ckpt_name"
    assert "denoise" not in found


def test_of_samplers_side_by_side_the_first_by_id_counts():
    graph = graphs.sd15()
    graph["10"] = deepcopy(graph["3"])
    graph["11"] = node("VAEDecode", samples=["10", 0], vae=["4", 2])
    assert places(dict(reversed(graph.items())))["seed"] == "3.seed"


def test_both_texts_of_an_sdxl_encoder_are_set():
    graph = Workflow.load(graphs.advanced()).with_knobs({"positive": "a mill"}).graph
    assert {graph["p1"]["inputs"][name] for name in ("text_g", "text_l")} == {"a mill"}


def test_conditioning_is_followed_through_a_controlnet_and_a_combination():
    found = places(graphs.conditioned())
    assert (found["positive"], found["negative"]) == ("6.text", "7.text")
    assert found["image"] == "14.image"


def test_an_image_is_found_behind_the_latent():
    found = places(graphs.img2img())
    assert found["image"] == "10.image"
    assert "width" not in found


def test_of_several_images_only_one_behind_the_latent_is_a_knob():
    graph = graphs.img2img()
    graph["20"] = node("LoadImage", image="other.png")
    assert places(graph)["image"] == "10.image"
    graph = graphs.conditioned()
    graph["20"] = node("LoadImage", image="other.png")
    assert "image" not in places(graph)


def test_the_size_of_a_scaled_image_is_the_size():
    assert places(Workflow.load("img2img").graph)["width"] == "scale.width"


@pytest.mark.parametrize("make", [graphs.one_text, graphs.zeroed])
def test_a_text_for_both_is_positive_alone(make):
    found = places(make())
    assert found["positive"] == "6.text"
    assert "negative" not in found


def test_what_a_custom_sampler_takes_from_other_nodes_is_found_there():
    assert places(graphs.custom_advanced()) == {
        "positive": "3.clip_l",
        "seed": "6.value",
        "steps": "9.steps",
        "guidance": "4.guidance",
        "sampler": "8.sampler_name",
        "scheduler": "9.scheduler",
        "denoise": "9.denoise",
        "width": "16.value",
        "height": "10.height",
        "batch_size": "10.batch_size",
        "checkpoint": "1.unet_name",
        "vae": "13.vae_name",
        "clip": "2.clip_name1",
        "clip_2": "2.clip_name2",
    }


def test_a_text_may_be_held_by_a_primitive():
    assert places(graphs.linked_text())["positive"] == "10.value"


def test_somebody_elses_sampler_is_recognised_by_what_it_takes():
    assert places(graphs.foreign_sampler()) == places(graphs.sd15())


def test_a_graph_without_a_sampler_has_none_but_titles_still_work():
    workflow = Workflow.load(graphs.no_sampler())
    assert not workflow.knobs
    assert workflow.with_knobs({"Colour.color": 255}).graph["a"]["inputs"]["color"] == 255


def test_a_node_titled_as_a_knob_is_that_knob():
    graph = graphs.sd15()
    graph["20"] = node("StringNode", "positive", string="mine")
    graph["21"] = node("Numbers", "seed", seed=4, other=5)
    found = places(graph)
    assert (found["positive"], found["seed"]) == ("20.string", "21.seed")


def test_two_nodes_of_that_title_are_none():
    graph = graphs.sd15()
    graph["20"] = node("StringNode", "positive", string="mine")
    graph["21"] = node("StringNode", "positive", string="mine too")
    assert places(graph)["positive"] == "6.text"


def test_knobs_do_not_depend_on_the_order_of_nodes_and_inputs():
    for make in (graphs.sd15, graphs.advanced, graphs.conditioned, graphs.custom_advanced):
        graph = make()
        turned = {
            node_id: {**graph[node_id], "inputs": dict(reversed(graph[node_id]["inputs"].items()))}
            for node_id in reversed(graph)
        }
        assert places(turned) == places(graph)


class TestNames:
    workflow = Workflow.load(graphs.advanced())

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("seed", ("z first", "noise_seed")),
            ("Style.strength_model", ("lora", "strength_model")),
            ("lora.strength_model", ("lora", "strength_model")),
            ("LoraLoader.strength_model", None),
            ("p2.text", ("p2", "text")),
            ("EmptyLatentImage.width", ("leer", "width")),
        ],
    )
    def test_a_value_can_be_named_by_title_class_or_id(self, name, place):
        if place is None:
            with pytest.raises(UnknownKnobError):
                self.workflow.knob(name)
        else:
            knob = self.workflow.knob(name)
            assert (knob.name, knob.node, knob.input) == (name, *place)

    def test_a_title_alone_is_enough_where_there_is_one_value(self):
        assert Workflow.load(graphs.img2img()).knob("Load Checkpoint").input == "ckpt_name"
        with pytest.raises(UnknownKnobError):
            self.workflow.knob("Style")

    def test_a_title_that_several_nodes_have_asks_for_the_id(self):
        with pytest.raises(
            WorkflowError, match=r"2 nodes are called 'KSamplerAdvanced.cfg'. Say 'a se"
        ):
            self.workflow.knob("KSamplerAdvanced.cfg")
        title = "CLIP Text Encode (Prompt)"
        with pytest.raises(WorkflowError, match=r"Say '6.text' or '7.text'"):
            Workflow.load(graphs.sd15()).knob(title)

    def test_a_linked_input_is_no_knob(self):
        with pytest.raises(UnknownKnobError):
            self.workflow.knob("lora.model")

    def test_an_unknown_knob_suggests_the_nearest(self):
        with pytest.raises(UnknownKnobError) as caught:
            self.workflow.with_knobs({"step": 3})
        assert caught.value.knob == "step"
        assert caught.value.nearest[0] == "steps"
        assert "did you mean 'steps'" in str(caught.value)
        assert "It has: positive, negative, seed" in str(caught.value)

    def test_the_nearest_may_be_a_title(self):
        with pytest.raises(UnknownKnobError, match=r"did you mean 'Style.strength_model'"):
            self.workflow.knob("Style.strenght_model")


class TestValues:
    workflow = Workflow.load(graphs.sd15())

    @pytest.mark.parametrize(
        ("name", "given", "kept"),
        [
            ("steps", 30, 30),
            ("steps", 30.0, 30),
            ("steps", np.int64(30), 30),
            ("cfg", 7, 7),
            ("cfg", 7.5, 7.5),
            ("cfg", np.float32(7.5), 7.5),
            ("denoise", 0.5, 0.5),
            ("seed", 2**64 - 1, 2**64 - 1),
            ("seed", 0, 0),
            ("positive", "", ""),
            ("sampler", "heun", "heun"),
        ],
    )
    def test_a_value_of_the_right_kind_is_set(self, name, given, kept):
        value = self.workflow.with_knobs({name: given}).knobs[name].value
        assert value == kept
        assert type(value) is type(kept)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            (
                "steps",
                33.9,
                r"the knob 'steps' \(node 3, KSampler.steps\) takes a whole number, not 33.9",
            ),
            ("steps", True, "a whole number, not True"),
            ("steps", "20", "a whole number, not the text '20'"),
            ("steps", None, "a whole number, not nothing"),
            ("steps", float("nan"), "a whole number, not nan"),
            ("seed", 1.5, "a whole number, not 1.5"),
            ("seed", -1, r"the seed -1 \(int\) is out of range. Seeds go from 0"),
            ("seed", 2**64, "out of range"),
            ("3.seed", -1, "out of range"),
            ("cfg", "7", "a number, not the text '7'"),
            ("cfg", False, r"a number, not False \(bool\)"),
            ("cfg", np.bool_(True), r"a number, not True \(bool\)"),
            ("cfg", float("inf"), "a number, not inf"),
            ("cfg", [7], r"a number, not \[7\] \(list\)"),
            ("sampler", 3, r"takes text, not 3 \(int\)"),
            ("positive", "a \ud83d", "half a character"),
            ("width", 512.5, "a whole number, not 512.5"),
        ],
    )
    def test_a_value_of_another_kind_is_refused(self, name, value, message):
        with pytest.raises(WorkflowError, match=message):
            self.workflow.with_knobs({name: value})

    def test_a_seed_held_by_a_primitive_is_still_a_seed(self):
        workflow = Workflow.load(graphs.custom_advanced())
        for value in (1.5, -1, 2**64):
            with pytest.raises(WorkflowError):
                workflow.with_knobs({"seed": value})
        with pytest.raises(WorkflowError):
            workflow.with_knobs({"width": 512.5})

    def test_a_switch_takes_true_or_false_only(self):
        workflow = Workflow.load({"a": node("X", on=True), "b": node("X", "B", anything=None)})
        assert workflow.with_knobs({"a.on": False}).graph["a"]["inputs"]["on"] is False
        with pytest.raises(WorkflowError, match="takes true or false, not 1"):
            workflow.with_knobs({"a.on": 1})
        assert workflow.with_knobs({"B": "x"}).graph["b"]["inputs"]["anything"] == "x"

    def test_a_whole_number_where_the_kind_is_not_known_may_become_a_fraction(self):
        workflow = Workflow.load(graphs.advanced()).with_knobs({"Style.strength_model": 0.8})
        assert workflow.graph["lora"]["inputs"]["strength_model"] == 0.8

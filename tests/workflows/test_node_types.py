"""What a server says about its node classes, sound and malformed."""

import json
import logging
from pathlib import Path

import pytest

from comfynb.workflows.node_types import NodeTypes

RECORDED = json.loads(Path(__file__).with_name("object_info.json").read_text("utf-8"))
"""Some classes as ComfyUI 0.3.75 answers them."""


def inputs_of(**required):
    return NodeTypes.of({"Node": {"input": {"required": required}}})["Node"].inputs


def test_a_real_class_is_read():
    sampler = NodeTypes.of(RECORDED)["KSampler"]
    assert (sampler.display_name, sampler.category) == ("KSampler", "sampling")
    assert (sampler.outputs, sampler.output_names) == (("LATENT",), ("LATENT",))
    assert not sampler.output_node
    assert [name for name, input_ in sampler.inputs.items() if input_.is_widget] == [
        "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise",
    ]  # fmt: skip
    seed, cfg = sampler.inputs["seed"], sampler.inputs["cfg"]
    assert (seed.type, seed.minimum, seed.maximum) == ("INT", 0, 2**64 - 1)
    assert seed.control_after_generate
    assert not cfg.control_after_generate
    assert (cfg.type, cfg.default, cfg.step) == ("FLOAT", 8.0, 0.1)
    assert "euler" in (sampler.inputs["sampler_name"].choices or ())
    assert sampler.inputs["model"].type == "MODEL"
    assert NodeTypes.of(RECORDED)["SaveImage"].output_node


def test_choices_are_read_in_both_encodings():
    inputs = inputs_of(
        old=[["a", "b"], {"default": "b", "tooltip": "Old"}],
        new=["COMBO", {"options": ["a", "b"], "default": "b", "tooltip": "New"}],
    )
    assert [input_.type for input_ in inputs.values()] == ["COMBO", "COMBO"]
    assert [input_.choices for input_ in inputs.values()] == [("a", "b"), ("a", "b")]
    assert [input_.default for input_ in inputs.values()] == ["b", "b"]
    assert [input_.tooltip for input_ in inputs.values()] == ["Old", "New"]


def test_choices_that_only_another_address_knows_are_unknown():
    remote = inputs_of(model=["COMBO", {"remote": {"route": "/models"}}])["model"]
    assert (remote.type, remote.choices, remote.is_widget) == ("COMBO", None, True)


def test_inputs_stand_in_the_editors_order():
    spec = ["INT", {}]
    info = {
        "input": {"required": {"b": spec, "a": spec, "late": spec}, "optional": {"d": spec}},
        "input_order": {"required": ["a", "gone", ["odd"], "b"], "optional": "odd"},
    }
    inputs = NodeTypes.of({"Node": info})["Node"].inputs
    assert list(inputs) == ["a", "b", "late", "d"]
    assert [input_.required for input_ in inputs.values()] == [True, True, True, False]


def test_without_an_order_inputs_stand_as_they_came():
    assert list(inputs_of(b=["INT"], a=["FLOAT"])) == ["b", "a"]


def test_links_unions_and_forced_links_are_no_widgets():
    inputs = inputs_of(
        model=["MODEL"], either=["INT,FLOAT", {}], forced=["STRING", {"forceInput": True}]
    )
    assert not any(input_.is_widget for input_ in inputs.values())
    assert inputs["either"].type == "INT,FLOAT"


def test_uploads_and_long_texts_are_known():
    inputs = inputs_of(
        image=[["a.png"], {"image_upload": True}],
        audio=["COMBO", {"audio_upload": True, "options": []}],
        text=["STRING", {"multiline": True}],
    )
    assert [input_.upload for input_ in inputs.values()] == ["image", "audio", None]
    assert inputs["text"].multiline


def test_malformed_inputs_are_left_out_with_a_warning(caplog):
    info = {
        "input": {
            "required": {"a": ["INT", {"min": "x", "max": float("nan")}], "b": [], "c": 5, "d": [7]}
        },
        "output": "IMAGE",
        "output_name": None,
        "display_name": 4,
    }
    with caplog.at_level(logging.WARNING):
        node = NodeTypes.of({"Node": info})["Node"]
    assert list(node.inputs) == ["a"]
    assert (node.inputs["a"].minimum, node.inputs["a"].maximum) == (None, None)
    assert (node.outputs, node.output_names, node.display_name) == ((), (), "Node")
    assert len(caplog.records) == 3


@pytest.mark.parametrize("info", [{}, {"input": None}, {"input": {"required": []}}])
def test_a_class_without_inputs_has_none(info):
    assert NodeTypes.of({"Node": info})["Node"].inputs == {}


def test_malformed_classes_are_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        node_types = NodeTypes.of({"Good": {"input": {}}, "Bad": "text"})
    assert list(node_types) == ["Good"]
    assert "Bad" in caplog.text
    assert "Bad" not in node_types
    assert NodeTypes.of(["no mapping"]) == {}


def test_what_came_is_kept_for_later():
    family = {"options": [{"key": "a", "inputs": {"required": {"x": ["INT", {}]}}}]}
    inputs = inputs_of(mode=["COMFY_DYNAMICCOMBO_V3", family])
    assert (inputs["mode"].type, inputs["mode"].options) == ("COMFY_DYNAMICCOMBO_V3", family)
    assert NodeTypes.of(RECORDED).object_info == RECORDED

"""What POST /prompt refuses, beyond the cases that http_prompt.jsonl records."""

import math

import pytest

from comfynb.engine.files import Files
from comfynb.engine.nodes import builtin
from comfynb.engine.registry import Input, Node
from comfynb.engine.validate import RefusedPromptError, validate


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def image(**changes):
    return node("EmptyImage", **{"width": 8, "height": 8, "batch_size": 1, "color": 1, **changes})


SAVE = node("SaveImage", images=["1", 0], filename_prefix="x")


@pytest.fixture
def check(tmp_path):
    files = Files(tmp_path / "output", tmp_path / "input", tmp_path / "temp")
    registry = builtin()
    registry.add(
        Node(
            "Options",
            lambda call, **_: (),
            output_node=True,
            inputs=(
                Input("flag", "BOOLEAN", default=False),
                Input("text", "STRING"),
                Input("amount", "FLOAT", min=0.0, max=1.0, optional=True),
                Input("word", choices=[f"word-{i}" for i in range(21)], optional=True),
            ),
        )
    )
    return lambda graph, targets=None: validate(graph, registry, files, targets)


def errors_of(refused, node_id):
    return refused.value.node_errors[node_id]["errors"]


def test_a_sound_graph_is_accepted_with_all_its_outputs(check):
    accepted = check({"1": image(), "2": SAVE, "3": SAVE})
    assert accepted.outputs == ["2", "3"]
    assert accepted.node_errors == {}


def test_targets_choose_the_outputs(check):
    assert check({"1": image(), "2": SAVE, "3": SAVE}, ["3"]).outputs == ["3"]


def test_an_invalid_output_that_is_not_asked_for_does_not_matter(check):
    graph = {"1": image(), "2": SAVE, "3": node("SaveImage")}
    assert check(graph, ["2"]).node_errors == {}


def test_values_are_coerced_in_place(check):
    graph = {"1": node("Options", flag=1, text=5, amount="0.5")}
    check(graph)
    assert graph["1"]["inputs"] == {"flag": True, "text": "5", "amount": 0.5}


@pytest.mark.parametrize("width", ["abc", None, {}, math.inf, math.nan])
def test_what_is_not_a_number_is_refused(check, width):
    with pytest.raises(RefusedPromptError) as refused:
        check({"1": image(width=width), "2": SAVE})
    (error,) = errors_of(refused, "1")
    assert error["type"] == "invalid_input_type"
    assert error["message"] == "Failed to convert an input value to a INT value"


def test_nan_passes_for_a_float(check):
    assert check({"1": node("Options", flag=True, text="", amount=math.nan)}).outputs == ["1"]


def test_all_errors_of_a_node_are_named(check):
    with pytest.raises(RefusedPromptError) as refused:
        check({"1": node("EmptyImage", width=0, height="x", batch_size=9999), "2": SAVE})
    assert [(e["type"], e["extra_info"]["input_name"]) for e in errors_of(refused, "1")] == [
        ("value_smaller_than_min", "width"),
        ("invalid_input_type", "height"),
        ("value_bigger_than_max", "batch_size"),
        ("required_input_missing", "color"),
    ]


def test_every_output_that_needs_a_bad_node_is_named(check):
    with pytest.raises(RefusedPromptError) as refused:
        check({"1": image(width=0), "2": SAVE, "3": SAVE})
    assert refused.value.node_errors["1"]["dependent_outputs"] == ["2", "3"]
    assert refused.value.node_errors["1"]["class_type"] == "EmptyImage"


def test_a_bad_node_is_not_blamed_on_an_output_that_does_not_need_it(check):
    graph = {"1": image(width=0), "2": SAVE, "3": node("PreviewImage")}
    with pytest.raises(RefusedPromptError) as refused:
        check(graph)
    assert refused.value.node_errors["1"]["dependent_outputs"] == ["2"]
    assert refused.value.node_errors["3"]["dependent_outputs"] == ["3"]


def test_the_details_name_the_errors_of_output_nodes_only(check):
    with pytest.raises(RefusedPromptError) as refused:
        check({"1": image(width=0), "2": SAVE, "3": node("PreviewImage")})
    assert refused.value.error["details"] == "Required input is missing: images"


def test_an_output_without_inputs_is_an_exception_during_validation(check):
    with pytest.raises(RefusedPromptError) as refused:
        check({"1": {"class_type": "SaveImage"}})
    (error,) = errors_of(refused, "1")
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] == "KeyError"


def test_an_output_linked_to_nowhere_is_an_exception_during_validation(check):
    with pytest.raises(RefusedPromptError) as refused:
        check({"2": SAVE})
    assert errors_of(refused, "2")[0]["type"] == "exception_during_validation"


def test_a_circle_is_refused_without_naming_a_node(check):
    graph = {
        "1": node("ImageInvert", image=["2", 0]),
        "2": node("ImageInvert", image=["1", 0]),
        "3": SAVE,
    }
    with pytest.raises(RefusedPromptError) as refused:
        check(graph)
    assert refused.value.error["type"] == "prompt_outputs_failed_validation"
    assert refused.value.node_errors == {}


def test_a_long_list_is_counted_not_quoted(check):
    with pytest.raises(RefusedPromptError) as refused:
        check({"1": node("Options", flag=True, text="", word="nope")})
    (error,) = errors_of(refused, "1")
    assert error["details"] == "word: 'nope' not in (list of length 21)"
    assert error["extra_info"]["input_config"] is None


@pytest.mark.parametrize(
    "name", ["nope.png", "../secret.png", "/etc/passwd", "a\0b", "x.png [output]"]
)
def test_load_image_wants_a_file_of_its_folder(check, tmp_path, name):
    (tmp_path / "secret.png").write_bytes(b"")
    graph = {"1": node("LoadImage", image=name), "2": SAVE}
    with pytest.raises(RefusedPromptError) as refused:
        check(graph)
    assert errors_of(refused, "1")[0]["details"] == f"image - Invalid image file: {name}"


def test_load_image_takes_other_folders_by_name(check, tmp_path):
    (tmp_path / "output" / "sub").mkdir(parents=True)
    (tmp_path / "output" / "sub" / "x.png").write_bytes(b"")
    assert check({"1": node("LoadImage", image="sub/x.png [output]"), "2": SAVE}).outputs == ["2"]


@pytest.mark.parametrize(
    ("width", "said"), [(100, "not a multiple of 32"), (300, "multiple of 32")]
)
def test_sizes_the_model_cannot_draw_are_refused_before_they_are_queued(check, width, said):
    graph = {
        "1": node("EmptyLatentImage", width=width, height=256, batch_size=1),
        "2": node("CheckpointLoaderSimple", ckpt_name="tiny-scenes.onnx"),
        "3": node("VAEDecode", samples=["1", 0], vae=["2", 2]),
        "4": node("PreviewImage", images=["3", 0]),
    }
    with pytest.raises(RefusedPromptError) as refused:
        check(graph)
    (error,) = errors_of(refused, "1")
    assert error["type"] == "custom_validation_failed"
    assert said in error["details"]

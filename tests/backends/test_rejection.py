"""What a server says against a graph is told in full: node, class, input, received, allowed."""

import json
from pathlib import Path

import pytest

from comfynb.backends.comfyui.rejection import node_errors, rejection

TRANSCRIPT = Path(__file__).parents[1] / "engine" / "transcripts" / "http_prompt.jsonl"


def recorded():
    """Every answer of ComfyUI 0.3.75 that has node errors, by the type of its first one."""
    found = {}
    for line in TRANSCRIPT.read_text("utf-8").splitlines():
        body = json.loads(line)["data"]
        answer = body.get("json") if isinstance(body, dict) else None
        errors = node_errors(answer.get("node_errors")) if isinstance(answer, dict) else []
        if errors and body["status"] == 400:
            entry = next(iter(answer["node_errors"].values()))["errors"][0]
            found.setdefault(entry["type"], answer)
    return found


RECORDED = recorded()
TOLD = {
    "required_input_missing": "Required input is missing",
    "value_smaller_than_min": "width: Value 0 smaller than min of 1; it takes 1 to 16384",
    "value_bigger_than_max": "width: Value 999999 bigger than max of 16384; it takes 1 to 16384",
    "invalid_input_type": "INT value (width, abc, invalid literal",
    "value_not_in_list": "Value not in list (upscale_method: 'xx' not in ['nearest-exact', 'bilin",
    "return_type_mismatch": "(width, received_type(IMAGE) mismatch input_type(INT))",
    "custom_validation_failed": "(image - Invalid image file: nope.png)",
}


@pytest.mark.parametrize(("kind", "text"), TOLD.items(), ids=TOLD)
def test_each_kind_of_complaint_of_a_real_server_names_input_value_and_range(kind, text):
    error = rejection(json.dumps(RECORDED[kind]).encode(), "gpu")
    assert text in str(error)
    first = node_errors(RECORDED[kind]["node_errors"])[0]
    assert (error.node, error.node_type) == first[:2]
    assert first.input in str(error)


def test_what_was_received_is_there_for_a_program():
    (error,) = node_errors(RECORDED["value_smaller_than_min"]["node_errors"])
    assert (error.input, error.received, error.allowed) == ("width", 0, "1 to 16384")


def test_complaints_about_several_nodes_name_each():
    one = RECORDED["value_smaller_than_min"]["node_errors"]["1"]
    body = {"error": {"message": "bad"}, "node_errors": {"1": one, "7": one}}
    text = str(rejection(json.dumps(body).encode(), "gpu"))
    assert text.count("node 1 (EmptyImage), width") == text.count("node 7 (EmptyImage), width") == 1


@pytest.mark.parametrize(
    "error",
    [
        {"type": "invalid_prompt", "details": "Node ID '#3'"},
        {"type": "missing_node_type", "details": "Node ID '#3'",
         "extra_info": {"node_id": "3", "class_type": "Zebra"}},
    ],
)  # fmt: skip
def test_a_missing_class_names_its_node(error):
    body = {"error": {"message": "node Zebra does not exist", **error}, "node_errors": {}}
    assert rejection(json.dumps(body).encode(), "gpu").node == "3"


@pytest.mark.parametrize(
    "extra", [5, [], {"input_name": 5}, {"input_config": [[], 3]}, {"input_config": [None]},
              {"received_value": "x" * 100_000, "input_config": ["INT", {"min": "a", "max": []}]}]
)  # fmt: skip
def test_malformed_details_are_passed_over_and_long_ones_cut(extra):
    errors = {"1": {"class_type": "X" * 10_000, "errors": [{"message": "m", "extra_info": extra}]}}
    (error,) = node_errors(errors)
    assert "m" in error.message
    assert len(error.message) + len(error.node_type) < 1000

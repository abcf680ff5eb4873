"""One tree of errors: everything we raise on purpose is in it, and says what to do."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from comfynb import errors
from comfynb.errors import (
    AccessDeniedError,
    CheckpointError,
    ComfynbError,
    KeyframeFailedError,
    LogError,
    PromptRejectedError,
    SceneError,
    ServerError,
    UnknownKnobError,
    WorkflowError,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException)
}

SAMPLES = [
    SceneError("it is empty", source="scenes.csv", row="row 3", hint="Write one"),
    WorkflowError("no graph"),
    UnknownKnobError("step", ["steps", "cfg"], ["steps"]),
    CheckpointError("gpu:8188", ["a.safetensors", "b.safetensors"]),
    AccessDeniedError("refused", server="gpu:8188", status=401),
    ServerError("trouble", server="gpu:8188", status=500),
    PromptRejectedError("bad", server="gpu:8188", kind="x", node="3", node_type="KSampler"),
    LogError("gone", folder="runs"),
    KeyframeFailedError([("scene-1", "boom")]),
]


def test_every_error_is_in_the_tree_and_in_its_drawing():
    drawing = errors.__doc__
    for name, value in CLASSES.items():
        assert issubclass(value, ComfynbError)
        assert name in drawing, f"{name} is not drawn"
        assert value.__doc__


def test_the_drawing_holds_nothing_that_is_not_there():
    words = {word for word in errors.__doc__.split() if word.endswith("Error")}
    assert words - {"ValueError"} <= set(CLASSES) | {"ValueError)"}


@pytest.mark.parametrize("kind", [SceneError, WorkflowError, errors.QueryError])
def test_what_a_caller_gave_wrongly_is_a_value_error_too(kind):
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_keep_text_and_fields_across_processes(error):
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_a_scene_error_names_source_and_row_and_says_what_to_do():
    assert str(SAMPLES[0]) == "scenes.csv, row 3: it is empty. Write one"
    assert str(SceneError("it is empty")) == "it is empty"


def test_an_unknown_knob_names_the_nearest_and_all():
    assert str(SAMPLES[2]) == (
        "the workflow has no knob 'step'; did you mean 'steps'? It has: steps, cfg"
    )
    assert str(UnknownKnobError("x", [])) == "the workflow has no knob 'x'. It has: none"


def test_a_checkpoint_error_lists_what_the_server_has():
    text = str(SAMPLES[3])
    assert "gpu:8188 has 2 checkpoints" in text
    assert "connect(checkpoint=...)" in text
    assert text.endswith("\n  a.safetensors\n  b.safetensors")
    assert "models/checkpoints" in str(CheckpointError("gpu:8188", []))
    wanted = str(CheckpointError("gpu:8188", ["a"], wanted="b"))
    assert "no checkpoint 'b'" in wanted


def test_failed_keyframes_are_all_named():
    error = KeyframeFailedError([("one", "boom"), ("two", "gone")])
    assert str(error) == "2 of the keyframes failed:\n  one: boom\n  two: gone"

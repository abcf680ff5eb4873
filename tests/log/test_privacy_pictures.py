"""Logs that leave prompts or workflows out: pictures keep their pixels and lose what they tell."""

import dataclasses
import hashlib
import json

import pytest
from log.private import output, pixels, written

from comfynb.inputs import InputFile


def test_who_adds_a_keyframe_goes_on_with_what_was_kept_and_what_was_asked(private, secret):
    keyframe, data = secret
    kept = private.add_result(keyframe, [data])
    assert kept.outputs[0].sha256 == hashlib.sha256(kept.read()).hexdigest()
    assert kept.outputs[0].bytes == len(kept.read()) < len(data)
    assert (kept.prompt, kept.workflow) == (keyframe.prompt, keyframe.workflow)
    assert private.keyframes()[0].outputs == kept.outputs


@pytest.mark.parametrize("mime", ["image/png", "image/webp", "image/jpeg"])
def test_pictures_keep_their_pixels(private, make_keyframe, mime):
    data = written(mime)
    kept = private.add_result(make_keyframe(status="done", outputs=(output(data, mime),)), [data])
    assert pixels(kept.read()) == pixels(data)
    assert b"velvetine" not in kept.read()
    assert kept.warnings == ()


@pytest.mark.parametrize("tail", [b"velvetine", b"\xff\xfe\x00\x0bvelvetine"])
def test_what_stands_behind_a_jpeg_goes_too(private, make_keyframe, tail):
    data = written("image/jpeg") + tail
    kept = private.add_result(
        make_keyframe(status="done", outputs=(output(data, "image/jpeg"),)), [data]
    )
    assert pixels(kept.read()) == pixels(data)
    assert b"velvetine" not in kept.read()


def test_what_cannot_be_cleaned_is_kept_and_told(private, make_keyframe):
    gif, text, cut = written("image/gif"), b"a velvetine", written()[:-20]
    outputs = (
        output(gif, "image/gif"),
        output(text, "text/plain", 1),
        output(cut, "image/png", 2),
    )
    made = make_keyframe(status="done", outputs=outputs)
    for kept in (private.add_result(made, [gif, text, cut]), *private.keyframes()):
        assert [kept.read(index) for index in range(3)] == [gif, text, cut]
        assert [warning.partition(": the ")[2] for warning in kept.warnings] == [
            "image/gif file is kept as the server sent it and may hold the prompt and workflow",
            "text is kept as the server sent it and may repeat the prompt",
            "image/png file is kept as the server sent it and may hold the prompt and workflow",
        ]


def test_inputs_stay_as_they_are_and_are_named(private, record):
    file = InputFile.of_bytes(written())
    private.add_input(file)
    board = {"scenes": [{"id": "a", "prompt": "zibbel", "knobs": {"image": dict(file)}}]}
    private.add_run(dataclasses.replace(record, storyboard=board))
    assert private.read(file.sha256) == file.data
    (run,) = private.runs()
    assert run.storyboard["scenes"][0]["knobs"] == {"image": dict(file)}
    assert private.verify().unnamed == 0


def test_a_log_that_leaves_nothing_out_keeps_what_the_server_sent(log, secret):
    keyframe, data = secret
    kept = log.add_result(keyframe, [data])
    assert (kept.read(), kept.outputs, log.leaves_out) == (data, keyframe.outputs, ())
    assert "leaves_out" not in json.loads((log.folder / "comfynb-log.json").read_text())

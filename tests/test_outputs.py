"""What prompts give besides single pictures: all of it is kept, typed from its bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from test_media import box, ebml, png, wav
from test_pictures import animation, claiming

import comfynb
from comfynb.errors import KeyframeFailedError
from comfynb.log import Log
from comfynb.testing import EngineProcess
from comfynb.workflows import Workflow

NODES = Path(__file__).with_name("media_nodes.py")


@pytest.fixture(scope="module")
def giving():
    """An engine whose nodes give whatever a test wants."""
    with EngineProcess(nodes=NODES) as engine:
        yield engine


def give(data: bytes, suffix: str, key: str = "images", **says) -> dict:
    inputs = {"data": base64.b64encode(data).decode(), "suffix": suffix, "key": key}
    return {"class_type": "Give", "inputs": {**inputs, "says": json.dumps(says)}}


def tell(words: str, /, **says) -> dict:
    return {"class_type": "Tell", "inputs": {"words": words, "says": json.dumps(says)}}


async def made(engine, tmp_path, *nodes: dict, log=None):
    """What a graph of these nodes comes to, alone on a server."""
    graph = {str(n): node for n, node in enumerate(nodes, 1)}
    log = tmp_path / "log" if log is None else log
    with comfynb.connect(engine.url, workflow=Workflow.load(graph), log=log) as studio:
        (keyframe,) = await studio.run("x")
    return keyframe


async def test_everything_that_a_prompt_gave_is_kept_and_found_again(giving, tmp_path):
    files = {
        ".mp4": box(b"isom"),
        ".webm": ebml(b"webm"),
        ".webp": animation("WEBP"),
        ".wav": wav(),
        ".flac": b"fLaC" + b"\0" * 40,
        ".glb": b"glTF" + b"\2\0\0\0",
        ".png": png(),
    }
    keys = {".wav": "audio", ".flac": "audio", ".glb": "3d"}
    nodes = [give(data, suffix, keys.get(suffix, "images")) for suffix, data in files.items()]
    keyframe = await made(giving, tmp_path, *nodes, tell("a fox in the snow"))
    assert (keyframe.status, keyframe.warnings) == ("done", ()), str(keyframe.error)
    kinds = ["video", "video", "animation", "audio", "audio", "file", "image", "text"]
    assert [output.kind for output in keyframe.outputs] == kinds
    assert [keyframe.read(n) for n in range(7)] == list(files.values())
    assert keyframe.text == "a fox in the snow"
    assert keyframe.picture.mime == "image/webp"
    assert [image.size for image in keyframe.images] == [(5, 4), (8, 6)]
    (found,) = Log(tmp_path / "log").keyframes()
    assert found.outputs == keyframe.outputs
    suffixes = {path.suffix for path in (tmp_path / "log" / "blobs").rglob("*.*")}
    assert suffixes == {".mp4", ".webm", ".webp", ".wav", ".flac", ".bin", ".png", ".txt"}


@pytest.mark.parametrize("node", [tell("only words"), give(wav(), ".wav", "audio")])
async def test_a_cell_without_a_picture_is_done_and_cached_all_the_same(giving, tmp_path, node):
    first = await made(giving, tmp_path, node)
    assert (first.status, first.picture, len(first.outputs)) == ("done", None, 1)
    with pytest.raises(KeyframeFailedError, match="no picture, it gave"):
        first.image  # noqa: B018
    again = await made(giving, tmp_path, node)
    assert (again.status, again.outputs) == ("cached", first.outputs)
    assert again.read() == first.read()


async def test_without_a_log_it_is_kept_in_memory(giving, tmp_path):
    keyframe = await made(giving, tmp_path, tell("in memory"), log=False)
    assert keyframe.text == "in memory"


@pytest.mark.parametrize(
    ("data", "suffix", "why"),
    [
        (b"<html><script>alert(1)</script>", ".png", "no PNG"),
        (b"", ".png", "0 bytes"),
        (png()[:48], ".png", "damaged"),
        (claiming(30_000, 30_000), ".png", "30000 x 30000 pixels"),
        (b"\0" * 64, ".mp4", "not video/mp4"),
    ],
    ids=["html", "empty", "cut", "bomb", "zeros"],
)
async def test_what_should_be_shown_and_cannot_be_fails_with_the_reason(
    giving, tmp_path, data, suffix, why
):
    keyframe = await made(giving, tmp_path, give(data, suffix))
    assert (keyframe.status, keyframe.error.kind) == ("failed", "bad_picture")
    assert why in keyframe.error.message
    assert keyframe.outputs == ()
    assert not list((tmp_path / "log" / "blobs").rglob("*.*"))


async def test_a_bad_file_beside_a_good_one_is_a_warning(giving, tmp_path):
    keyframe = await made(giving, tmp_path, give(b"<svg>", ".png"), give(png(), ".jpg"))
    assert keyframe.status == "done"
    assert [output.mime for output in keyframe.outputs] == ["image/png"]
    bad, mislabelled = keyframe.warnings
    assert bad.startswith("output 0 of node 1: 5 bytes that are no PNG")
    assert mislabelled.startswith("output 0 of node 2: the file")
    assert "holds image/png" in mislabelled


async def test_names_that_lead_elsewhere_are_asked_for_and_nowhere_written(giving, tmp_path):
    """A name is a question to the server; what comes is stored under its content's."""
    names = ["../../etc/passwd", "/etc/passwd", "..\\x.png", "a\0b.png", "ü.png"]
    hostile = [{"filename": name, "subfolder": "..", "type": "temp"} for name in names]
    keyframe = await made(giving, tmp_path, give(png(), ".png", images2=hostile))
    assert keyframe.status in ("failed", "lost"), "what cannot be fetched is not passed over"
    assert keyframe.read() == png(), "what could be is kept"
    assert {path.name for path in tmp_path.iterdir()} == {"log"}
    assert len(list((tmp_path / "log" / "blobs").rglob("*.*"))) == 1


async def test_files_that_cannot_exist_are_left_out_with_a_warning(giving, tmp_path):
    hostile = [{"filename": "x" * 5000}, {"filename": "half \ud800.png"}, {"filename": 7}, None]
    keyframe = await made(giving, tmp_path, give(png(), ".png", more=hostile))
    assert keyframe.status == "done"
    assert len(keyframe.outputs) == 1
    assert len([w for w in keyframe.warnings if "cannot exist" in w]) == 2


async def test_an_endless_text_is_cut_and_too_many_outputs_are_left_out(giving, tmp_path):
    long, many = "x" * 200_000, ["y"] * 5000
    keyframe = await made(giving, tmp_path, tell(long), tell("", text=many), log=False)
    assert keyframe.status == "done"
    assert len(keyframe.outputs) == 1000
    assert keyframe.outputs[0].bytes == 100_000
    assert any("200,000 characters" in warning for warning in keyframe.warnings)
    assert any("more than 1,000 outputs" in warning for warning in keyframe.warnings)


async def test_texts_of_odd_shapes_are_texts_or_nothing(giving, tmp_path):
    keyframe = await made(giving, tmp_path, tell("", text=["a", 5, 0.5, None, {"b": 1}, "ü\n"]))
    assert keyframe.text == "a\n5\n0.5\nü\n"
    keyframe = await made(giving, tmp_path, tell("", text="bare"))
    assert keyframe.text == "bare"

"""Input files: whatever a picture is given as becomes one file, named by its content."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_media import wav

from comfynb.cells import make_cells
from comfynb.errors import SceneError, WorkflowError
from comfynb.inputs import InputFile, as_input, local_file
from comfynb.keyframes import Keyframe, Output
from comfynb.log import MemoryStore
from comfynb.plan import Plan
from comfynb.scenes import Scene, Storyboard
from comfynb.workflows import Workflow

IMG2IMG = Workflow.load("img2img")
RED = Image.new("RGB", (8, 6), "red")


def encoded(kind: str = "PNG", image: Image.Image = RED, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(file: InputFile) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file.data)))


def keyframe(data: bytes, mime: str) -> Keyframe:
    output = Output("9", 0, hashlib.sha256(data).hexdigest(), mime, len(data))
    made = Keyframe(
        id="k", run="r", key="0" * 64, scene=Scene(id="fox", prompt="a fox"), status="done",
        outputs=(output,),
    )  # fmt: skip
    return MemoryStore().add_result(made, [data])


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif")]
)
def test_files_keep_their_own_bytes(tmp_path, kind, suffix):
    data = encoded(kind)
    path = tmp_path / "photo of ünïcode.bin"
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    for given in (path, data, bytearray(data), memoryview(data), keyframe(data, "image/png")):
        file = as_input(given)
        assert (file.data, file.sha256) == (data, sha256)
        assert file.name == f"comfynb-{sha256[:32]}{suffix}"


@pytest.mark.parametrize("channels", [3, 4])
def test_an_array_becomes_a_png_of_the_same_pixels(channels):
    array = np.random.default_rng(1).integers(0, 256, (6, 8, channels), np.uint8)
    same = [array, np.asfortranarray(array), array / 255, (array / 255).astype(np.float32)]
    assert {as_input(given).name for given in same} == {as_input(array).name}
    assert as_input(array).name.endswith(".png")
    assert np.array_equal(pixels(as_input(array)), array)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "YCbCr", "F", "I;16"])
def test_a_pil_image_of_any_mode_becomes_a_png(mode):
    file = as_input(Image.new(mode, (8, 6)))
    assert file.mime == "image/png"
    assert Image.open(io.BytesIO(file.data)).size == (8, 6)


def test_a_photo_that_lies_on_its_side_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    photo = Image.open(io.BytesIO(encoded("JPEG", exif=exif)))
    assert pixels(as_input(photo)).shape[:2] == (8, 6)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"", "no picture"),
        (b"<svg onload='alert(1)'>", "no picture"),
        (encoded()[:50], "no picture"),
        (np.zeros((6, 8), np.uint8), r"shape \(6, 8\)"),
        (np.zeros((1, 6, 8, 3), np.uint8), r"shape.*array\[0\]"),
        (np.zeros((3, 6, 8), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.zeros((6, 8, 3), np.int32), "type int32.*Give uint8"),
        (np.zeros((6, 8, 3), bool), "type bool"),
        (np.full((6, 8, 3), 255.0), "from 255 to 255.*divide by 255"),
        (np.full((6, 8, 3), -0.1), "from -0.1"),
        (np.full((6, 8, 3), np.nan), "NaN"),
        (np.full((6, 8, 3), np.inf), "inf"),
        (Path("/nowhere/x.png"), "no file '/nowhere/x.png'"),
        (Path(), "no file"),
        (keyframe(b"text", "text/plain"), "keyframe 'fox' has no picture"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_scene_named(given, why):
    with pytest.raises(SceneError, match=why) as raised:
        Storyboard.of(["a whale", {"id": "fox", "prompt": "a fox", "image": given}])
    assert "row 2 (id 'fox')" in str(raised.value)
    assert "the knob 'image'" in str(raised.value)
    assert raised.value.hint


def test_a_path_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no picture at all")
    with pytest.raises(SceneError, match=r"notes\.png' cannot be used: it is no picture"):
        as_input(path)


def test_other_values_are_no_files():
    for value in ("x.png", 3, 0.5, True, None, np.float32(1), {"a": 1}, [1]):
        assert as_input(value) is None


def test_json_keeps_name_and_sha256_and_gives_the_file_back_without_its_bytes(tmp_path):
    board = Storyboard.of({"prompt": "a fox", "image": RED})
    (scene,) = board
    file = scene.knobs["image"]
    kept = json.loads(json.dumps(board.to_dict()))
    assert kept["scenes"][0]["knobs"]["image"] == {"name": file.name, "sha256": file.sha256}
    back = Storyboard.from_dict(kept)
    assert back == board
    assert back.scenes[0].knobs["image"].data is None
    for suffix in (".yaml", ".json"):
        board.save(tmp_path / f"board{suffix}")
        assert Storyboard.load(tmp_path / f"board{suffix}") == board
    with pytest.raises(SceneError, match="no place for the knob 'image'"):
        board.save(tmp_path / "board.csv")
    assert pickle.loads(pickle.dumps(file)) == file


@pytest.mark.parametrize(
    "kept",
    [
        {"name": "comfynb-../../etc/passwd.png", "sha256": "0" * 64},
        {"name": f"comfynb-{'0' * 32}.exe", "sha256": "0" * 64},
        {"name": f"comfynb-{'0' * 32}.png", "sha256": "1" * 64},
        {"name": f"comfynb-{'0' * 32}.png", "sha256": "0" * 63},
        {"name": f"comfynb-{'0' * 32}.png", "sha256": "0" * 64, "more": 1},
        {"name": 1, "sha256": 2},
    ],
)
def test_a_mapping_that_is_not_ours_is_no_file(kept):
    with pytest.raises(SceneError, match="must be text"):
        Scene(id="fox", prompt="a fox", knobs={"image": kept})


def cell(image: object, workflow: Workflow = IMG2IMG, knob: str = "image"):
    board = {"scenes": [{"id": "fox", "prompt": "a fox", "knobs": {knob: image}}]}
    (made,) = Plan.make(Storyboard.of(board), workflow, kind="x", checkpoint="c").cells
    return made


def test_the_graph_names_the_file_and_the_key_follows_its_content(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded())
    made = cell(str(path))
    (file,) = made.inputs
    assert made.knobs["image"] == file.name
    assert any(node["inputs"].get("image") == file.name for node in made.graph.values())
    assert (
        made.key
        == cell(encoded()).key
        == cell(path).key
        == cell(keyframe(encoded(), "image/png")).key
    )
    path.write_bytes(encoded("PNG", Image.new("RGB", (8, 6), "blue")))
    assert cell(str(path)).key != made.key
    assert cell("photo.png").key != made.key


def test_a_name_on_the_server_stays_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_file("example.png") is None
    assert cell("example.png").inputs == ()
    assert cell("example.png").knobs["image"] == "example.png"
    (tmp_path / "example.png").write_bytes(encoded())
    assert cell("example.png").knobs["image"].startswith("comfynb-")


@pytest.mark.parametrize("text", ["/nowhere/x.png", "./x.png", "~/no such picture.png", "../x.png"])
def test_a_text_that_can_only_be_a_path_must_be_there(text):
    with pytest.raises(SceneError, match=r"scene 'fox'.*the knob 'image': there is no file"):
        cell(text)


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x.png", "a\0b.png", "x" * 5000])
def test_a_text_that_no_path_can_be_is_left_to_the_server(text):
    assert cell(text).inputs == ()


def test_of_a_shared_and_an_own_picture_only_those_that_are_used_are_sent():
    board = Storyboard(
        scenes=(
            Scene(id="own", prompt="a", knobs={"image": encoded()}),
            Scene(id="shared", prompt="a"),
        ),
        knobs={"image": encoded("JPEG")},
    )
    own, shared = make_cells(board, IMG2IMG, kind="x", checkpoint="c")
    assert [file.mime for file in own.inputs] == ["image/png"]
    assert [file.mime for file in shared.inputs] == ["image/jpeg"]
    assert own.key != shared.key


def test_any_knob_that_takes_an_upload_takes_a_file():
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Pose"}},
        "2": {"class_type": "LoadAudio", "inputs": {"audio": "a.wav"}},
        "3": {"class_type": "Mix", "inputs": {"image": ["1", 0], "audio": ["2", 0], "name": "x"}},
    }
    flow = Workflow.load(graph)
    assert cell(encoded(), flow, "Pose").inputs[0].mime == "image/png"
    assert cell(wav(), flow, "LoadAudio.audio").inputs[0].mime == "audio/wav"
    with pytest.raises(WorkflowError, match=r"scene 'fox'.*'audio', not image/png"):
        cell(encoded(), flow, "LoadAudio.audio")
    with pytest.raises(WorkflowError, match="takes a file of the kind 'image', not audio/wav"):
        cell(wav(), flow, "Pose")


def test_a_number_knob_takes_no_file():
    with pytest.raises(WorkflowError, match="takes no file"):
        cell(encoded(), IMG2IMG, "sampler.steps")

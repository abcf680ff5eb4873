"""What a real ComfyUI's own nodes give: animations, videos, texts, and all of it at once.

Its nodes for sounds need torchaudio, which is not installed here; test_outputs.py has those.
"""

from __future__ import annotations

import io

import plain
import pytest
from PIL import Image

import comfynb
from comfynb.log import Log
from comfynb.testing import Cut, FaultProxy
from comfynb.workflows import Workflow

pytestmark = pytest.mark.comfyui

ANIMATED = {
    "SaveAnimatedWEBP": (
        {"fps": 6.0, "lossless": False, "quality": 80, "method": "fastest"},
        "image/webp",
    ),
    "SaveAnimatedPNG": ({"fps": 6.0, "compress_level": 4}, "image/png"),
}


def frames(count: int = 4) -> dict:
    return plain.node("Noise", "seed", side=64, batch=count, seed=0, text="")


async def render(server, tmp_path, graph, scene="x"):
    workflow = Workflow.load(graph)
    with comfynb.connect(server.url, workflow=workflow, log=tmp_path / "log") as studio:
        (keyframe,) = await studio.run(scene)
    assert keyframe.status == "done", str(keyframe.error)
    assert Log(tmp_path / "log").keyframes()[0].outputs == keyframe.outputs
    return keyframe


@pytest.mark.parametrize("node", ANIMATED)
async def test_an_animation_is_one_output_with_its_frames(comfyui, tmp_path, node):
    options, mime = ANIMATED[node]
    graph = {
        "1": frames(),
        "2": plain.node(node, images=["1", 0], filename_prefix="moving", **options),
    }
    keyframe = await render(comfyui, tmp_path, graph)
    (output,) = keyframe.outputs
    assert (output.kind, output.mime, output.frames) == ("animation", mime, 4)
    assert (output.width_px, output.height_px) == (64, 64)
    assert keyframe.image.n_frames == 4


def video() -> dict:
    return {
        "1": frames(8),
        "2": plain.node("CreateVideo", images=["1", 0], fps=8.0),
        "3": plain.node(
            "SaveVideo", video=["2", 0], filename_prefix="v", format="mp4", codec="h264"
        ),
    }


async def test_videos_are_kept_as_they_are(comfyui, tmp_path):
    options = {"filename_prefix": "v", "codec": "vp9", "fps": 8.0, "crf": 32.0}
    graph = {**video(), "4": plain.node("SaveWEBM", images=["1", 0], **options)}
    keyframe = await render(comfyui, tmp_path, graph)
    assert [output.mime for output in keyframe.outputs] == ["video/mp4", "video/webm"]
    assert keyframe.picture is None
    assert keyframe.path.suffix == ".mp4"


async def test_a_video_that_was_made_goes_in_again(comfyui, tmp_path):
    made = await render(comfyui, tmp_path / "made", video())
    graph = {
        "1": plain.node("LoadVideo", file="missing.mp4"),
        "2": plain.node(
            "SaveVideo", video=["1", 0], filename_prefix="v", format="mp4", codec="auto"
        ),
    }
    scene = {"prompt": "x", "knobs": {"LoadVideo.file": made.read()}}
    keyframe = await render(comfyui, tmp_path / "again", graph, scene)
    assert [output.mime for output in keyframe.outputs] == ["video/mp4"]


async def test_a_text_alone_is_done(comfyui, tmp_path):
    graph = {
        "1": plain.node("Words", "positive", text="?"),
        "2": plain.node("PreviewAny", source=["1", 0]),
    }
    keyframe = await render(comfyui, tmp_path, graph, "a fox, ünïcode")
    assert (keyframe.text, keyframe.picture) == ("a fox, ünïcode", None)


async def test_all_at_once_keeps_every_output_in_the_order_of_the_graph(comfyui, tmp_path):
    graph = plain.several()
    graph["text"] = plain.node("PreviewAny", source=["words", 0])
    graph["sent"] = plain.node("SaveImageWebsocket", images=["inverted", 0])
    keyframe = await render(comfyui, tmp_path, graph)
    got = [(output.node, output.index, output.kind) for output in keyframe.outputs]
    assert got == [
        ("save", 0, "image"), ("save", 1, "image"), ("text", 0, "text"), ("sent", 0, "image"),
        ("show", 0, "image"),
    ]  # fmt: skip
    assert len({image.tobytes() for image in keyframe.images[:2]}) == 2
    assert keyframe.images[2].size == keyframe.images[3].size == (32, 32)
    assert Image.open(io.BytesIO(keyframe.read())).size == (64, 64)


async def test_pictures_that_a_cut_socket_lost_are_said_to_be_lost(comfyui, tmp_path):
    workflow = Workflow.load(plain.by_socket())
    with FaultProxy(comfyui.url) as proxy:
        proxy.add(Cut("binary:4"))
        with comfynb.connect(proxy.url, workflow=workflow, log=tmp_path / "log") as studio:
            (keyframe,) = await studio.run("x")
    assert (keyframe.status, keyframe.error.kind) == ("failed", "no_output")
    assert "did not come" in keyframe.error.message
    assert "SaveImage or PreviewImage" in keyframe.error.hint

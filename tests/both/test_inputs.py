"""Pictures to start from, on both servers: sent once, named by their content, and really used."""

from __future__ import annotations

import io

import numpy as np
import plain
from PIL import Image
from support import Engine

import comfynb
from comfynb.log import Log
from comfynb.testing import Fail, FaultProxy
from comfynb.workflows import Workflow


def inverting() -> Workflow:
    """A picture in its opposite colours."""
    return Workflow.load(
        {
            "load": plain.node("LoadImage", image="missing.png"),
            "invert": plain.node("ImageInvert", image=["load", 0]),
            "save": plain.node("SaveImage", images=["invert", 0], filename_prefix="inverted"),
        }
    )


def random_pixels(seed: int | None = None) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def inverted(keyframe) -> np.ndarray:
    """The input, as the server saw it."""
    return 255 - np.asarray(keyframe.image.convert("RGB"))


async def test_a_picture_given_in_any_way_is_what_the_server_works_on(server, tmp_path):
    pixels, path = random_pixels(), tmp_path / "ünïcode photo.png"
    path.write_bytes(png(pixels))
    image = Image.fromarray(pixels)
    with comfynb.connect(server.url, workflow=inverting(), log=tmp_path / "log") as studio:
        given = [path, str(path), path.read_bytes(), image, pixels, pixels / 255]
        keyframes = []
        for value in given:
            keyframes += await studio.run({"prompt": "x", "image": value}, force=True)
        again = await studio.run({"prompt": "x", "image": keyframes[0]}, force=True)
    assert [str(k.error) for k in (*keyframes, *again)] == ["None"] * 7
    for keyframe in keyframes:
        assert np.abs(inverted(keyframe).astype(int) - pixels).max() <= 1
    assert np.abs(inverted(again[0]).astype(int) - (255 - pixels)).max() <= 2


async def test_the_same_content_is_sent_once_and_made_once(server, tmp_path):
    pixels = random_pixels()
    with (
        FaultProxy(server.url) as proxy,
        comfynb.connect(proxy.url, workflow=inverting(), log=tmp_path / "log") as studio,
    ):
        scenes = [{"prompt": str(n), "image": pixels} for n in range(5)]
        other = {"prompt": "other", "image": random_pixels()}
        keyframes = await studio.run([*scenes, other])
        assert {k.ok for k in keyframes} == {True}, [str(k.error) for k in keyframes]
        assert proxy.requests["POST /upload"] == 2
        assert proxy.requests["POST /prompt"] == 2
        again = await studio.run([*scenes, other])
        assert [k.status for k in again] == ["cached"] * 6
        await studio.run([*scenes, other], force=True)
        assert proxy.requests["POST /upload"] == 2


async def test_a_later_process_uploads_out_of_the_log(server, tmp_path):
    pixels = random_pixels()
    folder = tmp_path / "log"
    with comfynb.connect(server.url, workflow=inverting(), log=folder) as studio:
        (first,) = await studio.run({"prompt": "x", "image": pixels})
    (record,) = Log(folder).runs()
    storyboard = comfynb.Storyboard.from_dict(record.storyboard)
    assert storyboard.scenes[0].knobs["image"].data is None
    with (
        FaultProxy(server.url) as proxy,
        comfynb.connect(proxy.url, workflow=inverting(), log=folder) as studio,
    ):
        assert [k.status for k in await studio.run(storyboard)] == ["cached"]
        (second,) = await studio.run(storyboard, force=True)
        assert proxy.requests["POST /upload"] == 1
    assert (second.key, second.status) == (first.key, "done")
    assert np.array_equal(inverted(second), inverted(first))


async def lose_input(studio, pixels):
    """Start from a picture and remove its bytes; return the storyboard that has them no more."""
    await studio.run({"prompt": "x", "image": pixels})
    (record,) = studio.log.runs()
    storyboard = comfynb.Storyboard.from_dict(record.storyboard)
    studio.log.path(storyboard.scenes[0].knobs["image"].sha256).unlink()
    return storyboard


async def test_a_file_that_is_gone_from_the_log_fails_its_cell_and_says_so(server, tmp_path):
    folder = tmp_path / "log"
    with comfynb.connect(server.url, workflow=inverting(), log=folder) as studio:
        storyboard = await lose_input(studio, random_pixels())
        (made,) = await studio.run(storyboard, force=True)
    assert made.status == "done"  # the server has it, and nobody reads it again
    with comfynb.connect(server.url, workflow=inverting(), log=folder) as studio:
        (failed,) = await studio.run(storyboard, force=True)
    assert failed.status == "failed"
    assert "has no picture" in failed.error.message


async def test_an_upload_that_breaks_off_is_sent_again(server, tmp_path):
    with FaultProxy(server.url) as proxy:
        proxy.add(Fail(route="POST /upload", nth=1, status=503))
        with comfynb.connect(proxy.url, workflow=inverting(), log=tmp_path / "log") as studio:
            (keyframe,) = await studio.run({"prompt": "x", "image": random_pixels()})
    assert keyframe.status == "done", str(keyframe.error)
    assert proxy.requests["POST /upload"] == 2


async def test_an_upload_that_is_refused_fails_its_cell_alone(server, tmp_path):
    with FaultProxy(server.url) as proxy:
        proxy.add(Fail(route="POST /upload", nth=1, status=413, body="Request Entity Too Large"))
        with comfynb.connect(proxy.url, workflow=inverting(), log=tmp_path / "log") as studio:
            scenes = [{"prompt": str(n), "image": random_pixels()} for n in range(2)]
            keyframes = await studio.run(scenes)
    assert sorted(k.status for k in keyframes) == ["done", "failed"]
    (failed,) = (k for k in keyframes if not k.ok)
    assert "413" in failed.error.message


async def test_after_a_restart_the_picture_is_used_again_whatever_became_of_the_upload(
    own_server, tmp_path
):
    """The engine's input folder is gone with it; a ComfyUI keeps its own."""
    pixels = random_pixels()
    with (
        FaultProxy(own_server.url) as proxy,
        comfynb.connect(proxy.url, workflow=inverting(), log=tmp_path / "log") as studio,
    ):
        await studio.run({"prompt": "x", "image": pixels})
        own_server.kill()
        own_server.start()
        (again,) = await studio.run({"prompt": "x", "image": pixels}, force=True)
    assert again.status == "done", str(again.error)
    assert np.abs(inverted(again).astype(int) - pixels).max() <= 1
    assert proxy.requests["POST /upload"] == (2 if isinstance(own_server, Engine) else 1)


async def test_what_a_restarted_server_lost_is_read_again_and_not_kept_in_memory(
    own_server, tmp_path
):
    folder = tmp_path / "log"
    with comfynb.connect(own_server.url, workflow=inverting(), log=folder) as studio:
        storyboard = await lose_input(studio, random_pixels())
        own_server.kill()
        own_server.start()
        (again,) = await studio.run(storyboard, force=True)
    if isinstance(own_server, Engine):
        assert "has no picture" in again.error.message
    else:
        assert again.status == "done", str(again.error)

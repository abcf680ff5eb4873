"""Workflows in all the forms in which people have them; hostile files among them."""

import io
import json
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from comfynb.errors import WorkflowError
from comfynb.keyframes import Keyframe
from comfynb.scenes import Scene
from comfynb.workflows import Workflow, read_source

from . import graphs
from .drawings import sd15, types

API = graphs.sd15()
UI = sd15().saved()


def keyframe(graph):
    scene = Scene(id="fox", prompt="a fox")
    return Keyframe(id="i", run="r", key="k", scene=scene, status="done", workflow=graph)


def png(texts=(), *, after=b""):
    """A PNG with text chunks, as ComfyUI's SaveImage writes it; `after` stands behind the data."""
    info = PngImagePlugin.PngInfo()
    for name, value in texts:
        info.add_text(name, value if isinstance(value, str) else json.dumps(value))
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG", pnginfo=info)
    data = file.getvalue()
    end = data.rindex(b"IEND") - 4
    return data[:end] + after + data[end:]


def chunk(kind, content):
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", 0)


def with_exif(kind, texts):
    """A WebP or JPEG with EXIF texts, as ComfyUI's ImageSaveHelper writes them."""
    image = Image.new("RGB", (8, 8), "teal")
    exif = image.getexif()
    for tag, text in texts.items():
        exif[tag] = text
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


BOTH = [("prompt", API), ("workflow", UI)]
EXIF = {0x0110: "prompt:" + json.dumps(API), 0x010F: "workflow:" + json.dumps(UI)}


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("txt2img", "library"),
        (API, "API"),
        ({"prompt": API, "client_id": "x"}, "API"),
        (json.dumps(API).encode(), "API"),
        (png(BOTH), "PNG, API inside"),
        (png([("prompt", API)]), "PNG, API inside"),
        (with_exif("WEBP", EXIF), "WebP, API inside"),
        (with_exif("JPEG", EXIF), "JPEG, API inside"),
        (
            keyframe(API),
            "keyframe",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_form_is_known_and_said(source, form):
    workflow = Workflow.load(source)
    assert workflow.form == form
    assert f"form={form!r}" in repr(workflow)
    if form != "library":
        assert workflow.graph == API


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (UI, "UI"),
        (json.dumps(UI).encode(), "UI"),
        (png([("workflow", UI)]), "PNG, UI inside"),
        (with_exif("WEBP", {0x010F: EXIF[0x010F]}), "WebP, UI inside"),
    ],
    ids=["dict", "bytes", "PNG", "WebP"],
)
def test_the_editors_format_waits_for_a_servers_node_classes(source, form):
    assert read_source(source).form == form
    with pytest.raises(WorkflowError, match=r"ComfyUI's own editor.*comfynb\.connect"):
        Workflow.load(source)
    workflow = Workflow.load(source, types())
    assert workflow.form == form
    assert workflow.knobs["positive"].value == "a fox"
    assert workflow.graph["3"]["inputs"]["steps"] == 20


def test_a_dict_that_waits_is_copied():
    saved = sd15().saved()
    source = read_source(saved)
    saved["nodes"].clear()
    assert Workflow.of(source, types()).knobs["steps"].value == 20


def test_a_picture_is_found_by_its_bytes_and_named_by_its_file(tmp_path):
    path = tmp_path / "ComfyUI_00001_.jpg"  # a PNG by mistake
    path.write_bytes(png(BOTH))
    assert Workflow.load(path).name == "ComfyUI_00001_"
    assert Workflow.load(str(path)).form == "PNG, API inside"


def test_an_animated_picture_has_it_behind_its_frames():
    after = chunk(b"comf", b"workflow\0" + json.dumps(UI).encode())
    after += chunk(b"comf", b"prompt\0" + json.dumps(API).encode())
    assert Workflow.load(png(after=after)).graph == API


def test_packed_and_international_texts_are_read():
    text = json.dumps(API).encode()
    packed = zlib.compress(text)
    for content in (
        chunk(b"zTXt", b"prompt\0\0" + packed),
        chunk(b"iTXt", b"prompt\0\0\0en\0title\0" + text),
        chunk(b"iTXt", b"prompt\0\1\0en\0title\0" + packed),
    ):
        assert Workflow.load(png(after=content)).graph == API


def test_a_broken_prompt_leaves_the_editors_workflow():
    source = read_source(png([("prompt", "{}"), ("workflow", UI)]))
    assert source.form == "PNG, UI inside"


def test_a_picture_larger_than_a_json_file_may_be_is_read(tmp_path):
    path = tmp_path / "big.png"
    path.write_bytes(png(BOTH, after=chunk(b"noIs", bytes(11_000_000))))
    assert Workflow.load(path).graph == API


BAD = {
    "without": (png(), r"no workflow of ComfyUI's in this PNG picture\. Pictures lose it"),
    "of others": (png([("parameters", "a fox, Steps: 20")]), r"in this PNG .*it has: 'parameters'"),
    "jpeg without": (with_exif("JPEG", {0x010F: "Canon"}), "in this JPEG picture"),
    "webp without": (with_exif("WEBP", {}), "in this WebP picture"),
    "no json": (png([("prompt", "{oops")]), "the prompt in the picture is not JSON"),
    "deep": (png([("prompt", "[" * 200_000)]), "the prompt in the picture is not JSON"),
    "no graph": (png([("prompt", {"1": {"inputs": {}}})]), "node '1'.*class_type"),
    "bomb": (
        png(after=chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(10_000_001)))),
        "text in the picture is longer than 10 MB",
    ),
    "damaged text": (png(after=chunk(b"zTXt", b"prompt\0\0\xff\xff")), "text .* is damaged"),
    "cut": (png()[:20], "no workflow of ComfyUI's"),
    "cut within a chunk": (png(BOTH)[:100], "the prompt in the picture is not JSON"),
    "long chunk": (png()[:33] + struct.pack(">I4s", 2**32 - 1, b"tEXt"), "no workflow"),
    "damaged webp": (b"RIFF\x10\0\0\0WEBPjunk", "the picture is damaged"),
    "damaged jpeg": (b"\xff\xd8\xff\xe1\xff\xffExif\0\0junk", "the picture is damaged"),
    "gif": (b"GIF89a", "not JSON .*no PNG, WebP or JPEG"),
}


@pytest.mark.parametrize(("content", "says"), BAD.values(), ids=BAD)
def test_a_picture_without_a_sound_workflow_is_refused_by_name(tmp_path, content, says):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(WorkflowError, match=says) as caught:
        Workflow.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_keyframe_without_its_workflow_says_so():
    with pytest.raises(WorkflowError, match=r"keyframe of '.*fox' was not kept"):
        Workflow.load(keyframe(None))


def test_an_error_of_the_conversion_names_the_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(UI))
    with pytest.raises(WorkflowError, match=r"^.*mine\.json: node 4 is of the class"):
        Workflow.load(path, types().of({}))

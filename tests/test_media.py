"""What a node gave: typed from its bytes, whatever a server calls it."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from PIL import Image

from comfynb.media import UNKNOWN, look_at, type_of
from comfynb.pictures import BadPictureError


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "JPEG")
    return file.getvalue()


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 800)
    return file.getvalue()


def box(brand: bytes) -> bytes:
    return struct.pack(">I", 20) + b"ftyp" + brand + b"\0\0\2\0" + b"isom" + b"\0" * 100


def ebml(doctype: bytes) -> bytes:
    head = b"\x42\x86\x81\x01\x42\x82" + bytes([0x80 | len(doctype)]) + doctype
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(head)]) + head + b"\0" * 100


FILES = {
    "a.mp4": ("video/mp4", box(b"isom")),
    "b.mp4": ("video/mp4", box(b"mp42")),
    "a.mov": ("video/quicktime", box(b"qt  ")),
    "a.m4a": ("audio/mp4", box(b"M4A ")),
    "a.webm": ("video/webm", ebml(b"webm")),
    "a.mkv": ("video/x-matroska", ebml(b"matroska")),
    "a.flac": ("audio/flac", b"fLaC" + b"\0" * 100),
    "a.ogg": ("audio/ogg", b"OggS" + b"\0" * 100),
    "a.opus": ("audio/ogg", b"OggS" + b"\0" * 100),
    "a.wav": ("audio/wav", wav()),
    "a.mp3": ("audio/mpeg", b"ID3\4" + b"\0" * 100),
    "b.mp3": ("audio/mpeg", b"\xff\xfb\x90\x00" + b"\0" * 100),
    "a.png": ("image/png", png()),
    "A.JPG": ("image/jpeg", jpeg()),
}


@pytest.mark.parametrize("name", FILES)
def test_the_type_comes_from_the_bytes_and_fits_the_name(name):
    mime, data = FILES[name]
    looked, warning = look_at(data, name)
    assert (looked.mime, warning) == (mime, "")
    assert type_of(data) == mime
    assert (looked.width_px, looked.height_px) == ((8, 6) if mime.startswith("image") else (0, 0))


@pytest.mark.parametrize(
    ("name", "data", "mime"),
    [
        ("x.png", jpeg(), "image/jpeg"),
        ("x.mp4", png(), "image/png"),
        ("x.png", wav(), "audio/wav"),
        ("x.flac", b"OggS" + b"\0" * 50, "audio/ogg"),
    ],
)
def test_a_wrong_suffix_is_a_warning_and_the_bytes_count(name, data, mime):
    looked, warning = look_at(data, name)
    assert looked.mime == mime
    assert mime in warning
    assert name in warning


@pytest.mark.parametrize("name", ["", "x.png", "x.webm", "x.mp3", "../../x.PNG"])
@pytest.mark.parametrize(
    "data",
    [b"", b"<html><script>", b"<svg onload='alert(1)'>", b"\xff\xe0\0\0", b"ftyp", b"\0" * 64],
)
def test_what_should_be_shown_and_is_no_such_thing_is_refused(name, data):
    with pytest.raises(BadPictureError, match="bytes that are"):
        look_at(data, name)


def test_a_damaged_picture_is_refused_whatever_its_name_says():
    for name in ("", "x.png", "x.mp4", "x.glb"):
        with pytest.raises(BadPictureError, match="damaged"):
            look_at(png()[:48], name)


@pytest.mark.parametrize("name", ["mesh.glb", "page.html", "drawing.svg", "notes.txt", "bare"])
def test_a_file_of_another_kind_is_kept_as_bytes_that_nothing_shows(name):
    looked, warning = look_at(b"<svg onload='alert(1)'>", name)
    assert (looked.mime, looked.frames, warning) == (UNKNOWN, 1, "")


def test_a_text_is_a_text_whatever_it_looks_like():
    assert look_at(png(), is_text=True).looked.mime == "text/plain"

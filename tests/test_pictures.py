"""Looking at bytes: what they are is found from them alone, and damage is found before saving."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import sys
import threading
import warnings
import zlib

import pytest
from PIL import Image, features

from comfynb import pictures
from comfynb.pictures import BadPictureError, look

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    chance = random.Random(1)
    raw = chance.randbytes(size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands()))
    file = io.BytesIO()
    Image.frombytes(mode, size, raw).save(file, kind)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "mime"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        pytest.param("AVIF", "image/avif", marks=needs_avif),
    ],
)
def test_type_size_and_hash_come_from_the_bytes(kind, mime):
    data = picture(kind, mode="P" if kind == "GIF" else "RGB")
    assert look(data) == (hashlib.sha256(data).hexdigest(), mime, 40, 30, 1)


def animation(kind: str, count: int = 3, size: tuple[int, int] = (5, 4)) -> bytes:
    frames = [Image.new("RGB", size, (40 * n % 256, n % 256, 255)) for n in range(count)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_the_frames_of_an_animation_are_counted(kind):
    seen = look(animation(kind))
    assert seen[2:] == (5, 4, 3)
    assert seen.mime == f"image/{kind.lower()}"


def test_of_a_long_animation_a_second_s_worth_is_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "LOOKED_PIXELS", 20 * 4)
    assert look(animation("WEBP", 50)).frames == 4


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_an_animation_that_is_cut_off_is_found(kind):
    data = animation(kind, 8, (64, 64))
    with pytest.raises(BadPictureError, match="damaged"):
        look(data[: len(data) * 2 // 3])


def test_a_jpeg_of_a_camera_is_a_jpeg():
    """Pillow calls it MPO when a second picture, such as a depth map, stands behind it."""
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(
        file, "MPO", save_all=True, append_images=[Image.new("RGB", (5, 4))]
    )
    assert Image.open(file).format == "MPO"
    assert look(file.getvalue())[1:] == ("image/jpeg", 5, 4, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><html>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        picture("TIFF"),
        picture("BMP"),
        picture("ICO"),
        b"\0" * 1000,
        random.Random(2).randbytes(1000),
    ],
    ids=["nothing", "a head", "svg", "html", "pdf", "eps", "tiff", "bmp", "ico", "zeros", "noise"],
)
def test_what_is_not_on_the_list_is_refused(data):
    with pytest.raises(BadPictureError, match=r"no PNG, JPEG, WebP, GIF or AVIF|damaged"):
        look(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_a_truncated_picture_is_found(kind, part):
    data = picture(kind, (200, 200))
    with pytest.raises(BadPictureError, match="damaged"):
        look(data[: int(len(data) * part)])


def test_a_flipped_bit_in_a_png_is_found():
    data = bytearray(picture(size=(100, 100)))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadPictureError, match="damaged"):
        look(bytes(data))


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (30_000, 7_000)]
)
def test_a_small_file_that_claims_to_be_huge_is_not_unpacked(width, height):
    with pytest.raises(BadPictureError, match=rf"{width} x {height} pixels"):
        look(claiming(width, height))


def test_a_large_picture_below_the_limit_raises_no_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert look(picture(size=(40, 30)))[2:] == (40, 30, 1)


def test_looking_in_many_threads_leaves_the_warning_filters_alone(monkeypatch):
    """`catch_warnings` is for one thread: overlapping ones restore each other's filters."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data, before = picture(size=(40, 30)), list(warnings.filters)

    def many():
        for _ in range(300):
            look(data)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert warnings.filters == before

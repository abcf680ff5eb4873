"""Thumbnails as files beside the log's pictures."""

import io
import threading

import pytest
from PIL import Image

from comfynb.log.thumbnails import make


@pytest.fixture
def kept(log, make_keyframe, png):
    data = png(500, 250)
    return log.add_result(make_keyframe("fox", [data]), [data]).outputs[0].sha256


def test_a_thumbnail_is_a_file_named_by_its_picture(log, kept):
    path = log.thumbnail(kept)
    assert path == log.folder / "thumbs" / kept[:2] / f"{kept}.webp"
    assert path.stat().st_size < log.path(kept).stat().st_size


def test_a_thumbnail_is_made_once(log, kept):
    path = log.thumbnail(kept)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert log.thumbnail(kept) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize("damage", ["missing", "empty", "zeros", "short", "folder missing"])
def test_a_thumbnail_that_is_not_whole_is_made_again(log, kept, damage):
    path = log.thumbnail(kept)
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder missing":
        path.parent.rmdir()
    elif damage != "missing":
        content = {"empty": b"", "zeros": bytes(len(whole)), "short": whole[:-10]}[damage]
        path.write_bytes(content)
    assert log.thumbnail(kept).read_bytes() == whole


def test_many_threads_get_the_same_whole_thumbnail(log, kept):
    found = []

    def look():
        found.append(log.thumbnail(kept).read_bytes())

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in (log.folder / "thumbs" / kept[:2]).iterdir()] == [f"{kept}.webp"]


def test_a_linked_thumbnail_is_not_followed(log, kept, tmp_path):
    path = log.thumbnail(kept)
    secret = tmp_path / "secret.webp"
    path.rename(secret)
    path.symlink_to(secret)
    assert not log.thumbnail(kept).is_symlink()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "I;16"])
def test_pictures_of_every_mode_have_thumbnails(png, mode):
    data = png(40, 20, mode, None if len(mode) > 1 and mode != "I;16" else 1)
    with Image.open(io.BytesIO(make(data))) as image:
        assert image.size == (40, 20)
        assert image.mode == ("RGBA" if "A" in mode else "RGB")


def test_a_thumbnail_looks_like_its_picture(png):
    with Image.open(io.BytesIO(make(png(1000, 500, "RGB", (200, 40, 90))))) as image:
        assert image.size == (384, 192)
        assert all(
            abs(a - b) < 12 for a, b in zip(image.getpixel((9, 9)), (200, 40, 90), strict=True)
        )


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_other_types_have_thumbnails(kind):
    file = io.BytesIO()
    Image.new("RGB", (1600, 800), (10, 200, 30)).save(file, kind)
    with Image.open(io.BytesIO(make(file.getvalue()))) as image:
        assert image.size == (384, 192)


def test_a_picture_of_16_bits_keeps_its_brightness(png):
    with Image.open(io.BytesIO(make(png(40, 20, "I;16", 30_000)))) as image:
        assert all(abs(value - 117) < 4 for value in image.getpixel((9, 9)))

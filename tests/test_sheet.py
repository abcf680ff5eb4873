"""The contact sheet: which cells stand where, in which words, in how many bytes."""

import base64
import contextlib
import dataclasses
import hashlib
import io
import os
import tracemalloc
from pathlib import Path

import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image, ImageChops

import comfynb
from comfynb.cells import make_cells
from comfynb.errors import LogError
from comfynb.keyframes import Failure, Keyframe, Output
from comfynb.log import MemoryStore
from comfynb.pictures import look
from comfynb.scenes import Scene, Storyboard
from comfynb.showing.lettering import Face
from comfynb.showing.sheet import (
    HAIRLINE,
    MAT,
    PAPER,
    contact_sheet,
    encode_jpeg,
    encode_png,
    save_sheet,
    summary,
)
from comfynb.workflows import Workflow

RED, BLUE = (220, 30, 30), (30, 30, 220)


class Shelf:
    """Keeps pictures in memory, and counts who looks at them."""

    def __init__(self):
        self.pictures = {}
        self.reads = 0

    def put(self, image):
        file = io.BytesIO()
        image.save(file, "PNG")
        sha256 = hashlib.sha256(file.getvalue()).hexdigest()
        self.pictures[sha256] = file.getvalue()
        return Output("9", 0, sha256, "image/png", len(file.getvalue()), *image.size)

    def read(self, sha256):
        self.reads += 1
        if sha256 not in self.pictures:
            raise LogError("its file is gone")
        return self.pictures[sha256]

    def path(self, sha256, mime):
        return None


@pytest.fixture
def shelf():
    return Shelf()


def scene(number=1, title="", prompt="a lighthouse at dawn"):
    return Scene(id=f"scene-{number}", prompt=prompt, title=title)


def made(shelf, colour=RED, size=(64, 64), *, of=None, mode="RGB"):
    output = shelf.put(Image.new(mode, size, colour))
    return Keyframe(
        id="k", run="r", key="0", scene=of or scene(), status="done", outputs=(output,),
        pictures=shelf,
    )  # fmt: skip


def failed(message="boom", kind="node_error"):
    return Keyframe(
        id="k", run="r", key="0", scene=scene(), status="failed", error=Failure(kind, message)
    )


def blobs(sheet, colour):
    """Boxes (left, top, right, bottom) of the solid areas of a colour, in reading order."""
    plain = Image.new("RGB", sheet.size, colour)
    mask = ImageChops.difference(sheet, plain).convert("L").point(lambda v: 255 * (v < 8))
    boxes = []
    while box := mask.getbbox():
        # The first pixel from the top, then as far right and down as the colour goes.
        top = box[1]
        left = mask.crop((0, top, mask.width, top + 1)).getbbox()[0]
        right, bottom = left, top
        while right < mask.width and mask.getpixel((right, top)):
            right += 1
        while bottom < mask.height and mask.getpixel((left, bottom)):
            bottom += 1
        boxes.append((left, top, right, bottom))
        mask.paste(0, (left, top, right, bottom))
    return boxes


def ink(image):
    """How many pixels are neither paper nor mat."""
    return sum(
        count
        for count, colour in image.getcolors(image.width * image.height)
        if colour not in {rgb(PAPER), rgb(MAT), rgb(HAIRLINE)}
    )


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


def test_cells_stand_in_order_row_by_row(shelf):
    keyframes = [made(shelf, RED), made(shelf, BLUE), made(shelf, BLUE), made(shelf, RED)]
    sheet = contact_sheet(keyframes, columns=2)
    (left, top, *_), (right, below, *_) = blobs(sheet, RED)
    assert [box[2:] for box in blobs(sheet, BLUE)] == [
        (right + 256, top + 256),
        (left + 256, below + 256),
    ]
    assert left < right
    assert top < below


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), 1.0), ((96, 54), 54 / 96), ((48, 64), 64 / 48)]
)
def test_pictures_keep_their_aspect_ratio_and_fill_their_tile(shelf, size, expected):
    sheet = contact_sheet([made(shelf, RED, size) for _ in range(3)])
    boxes = blobs(sheet, RED)
    assert len(boxes) == 3
    for left, top, right, bottom in boxes:
        assert right - left == 256
        assert (bottom - top) / (right - left) == pytest.approx(expected, abs=0.01)


def test_a_picture_of_another_shape_is_fitted_into_the_common_box(shelf):
    sheet = contact_sheet([made(shelf, RED), made(shelf, RED), made(shelf, BLUE, (64, 16))])
    ((left, top, right, bottom),) = blobs(sheet, BLUE)
    assert (right - left, bottom - top) == (256, 64)


def test_a_cell_without_picture_is_a_quiet_tile_with_the_reason_in_words(shelf):
    keyframes = [made(shelf), failed("out of memory in KSampler")]
    sheet = contact_sheet(keyframes, columns=2)
    _, top, right, _ = blobs(sheet, RED)[0]
    tile = (right + 24, top, right + 24 + 256, top + 256)
    assert sheet.getpixel((tile[0] + 8, tile[1] + 8)) == rgb(MAT)
    assert sheet.getpixel(tile[:2]) == rgb(HAIRLINE)
    wordy = ink(sheet.crop(tile))
    silent = ink(contact_sheet([keyframes[0], failed("")], columns=2).crop(tile))
    assert wordy > silent > 100


@pytest.mark.parametrize("data", [None, b"", b"<html>not a picture</html>", "cut"])
def test_a_picture_that_cannot_be_read_is_a_tile_too(shelf, data):
    keyframe = made(shelf)
    sha256 = keyframe.outputs[0].sha256
    if data is None:
        shelf.pictures.clear()
    else:
        shelf.pictures[sha256] = shelf.pictures[sha256][:60] if data == "cut" else data
    sheet = contact_sheet([keyframe])
    assert not blobs(sheet, RED)
    assert rgb(MAT) in {colour for _, colour in sheet.getcolors(10**6)}


def test_transparent_pictures_stand_on_the_mat(shelf):
    sheet = contact_sheet([made(shelf, (0, 0, 0, 0), mode="RGBA")])
    assert sheet.getpixel((sheet.width // 2, 150)) == rgb(MAT)


def test_caption_shows_number_title_and_prompt(shelf):
    def caption(of):
        sheet = contact_sheet([made(shelf, of=of)], note="")
        bottom = blobs(sheet, RED)[0][3]
        return sheet.crop((0, bottom, sheet.width, sheet.height))

    untitled = caption(scene())
    titled = caption(scene(title="Lighthouse"))
    assert ink(untitled) > 50
    assert ink(titled) > 1.3 * ink(untitled)


def test_long_captions_stay_within_their_tile_in_two_lines(shelf):
    long = scene(prompt="very " * 200 + "x" * 500)
    sheet = contact_sheet([made(shelf, of=long), made(shelf, of=long)], columns=2)
    boxes = blobs(sheet, RED)
    right, bottom = boxes[0][2:]
    gap = sheet.crop((right + 1, 0, right + 23, sheet.height))
    assert ink(gap) == 0
    assert ink(sheet.crop((0, bottom + 50, sheet.width, sheet.height))) == 0


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (8, 4, 2), (9, 3, 3), (20, 5, 4)]
)
def test_shape_is_found_where_no_columns_are_given(shelf, count, columns, rows):
    sheet = contact_sheet([made(shelf)] * count)
    boxes = blobs(sheet, RED)
    assert len({box[0] for box in boxes}) == columns
    assert len({box[1] for box in boxes}) == rows


def test_cells_that_are_not_made_yet_have_their_place(shelf):
    waiting = dataclasses.replace(failed(), status="queued", error=None)
    assert summary([made(shelf), waiting, failed()]) == "1 picture · 1 failed · 1 not made yet"
    assert len(blobs(contact_sheet([waiting, made(shelf)], columns=2), RED)) == 1


def test_cells_of_a_storyboard_can_be_shown_before_anything_is_made():
    cells = make_cells(
        Storyboard.of(["a fox", "an owl"]), Workflow.load("txt2img"), kind="test", checkpoint="x"
    )
    assert summary(cells) == "0 pictures · 2 not made yet"
    assert contact_sheet(cells, columns=1).size == contact_sheet([failed()] * 2, columns=1).size


def test_a_store_gives_its_thumbnails():
    file = io.BytesIO()
    Image.new("RGB", (640, 320), RED).save(file, "PNG")
    seen = look(file.getvalue())
    output = Output("9", 0, seen.sha256, seen.mime, len(file.getvalue()), 640, 320)
    keyframe = dataclasses.replace(failed(), status="done", error=None, outputs=(output,))
    with contextlib.closing(MemoryStore()) as store:
        kept = store.add_result(keyframe, [file.getvalue()])
        (box,) = blobs(contact_sheet([kept], tile_px=384), (220, 30, 30))
    assert (box[2] - box[0], box[3] - box[1]) == (384, 192)


def test_of_a_long_board_it_shows_a_sample_and_says_how_many_more(shelf):
    keyframes = [made(shelf, BLUE), *[made(shelf)] * 998, made(shelf, BLUE)]
    shelf.reads = 0
    tracemalloc.start()
    sheet = contact_sheet(keyframes, tile_px=96)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shelf.reads == 99  # the hundredth place says "and 901 more"
    assert len(blobs(sheet, BLUE)) == 2  # the first and the last are among them
    assert peak < 5_000_000
    assert sheet.width < 2000


def test_thumbnails_are_used_where_they_are_large_enough(shelf):
    small = io.BytesIO()
    Image.new("RGB", (32, 32), BLUE).save(small, "PNG")
    keyframe = made(shelf)
    assert blobs(contact_sheet([keyframe], thumbnail=lambda _: small.getvalue()), BLUE)
    shelf.thumbnail = lambda _: small.getvalue()  # as a log has
    assert blobs(contact_sheet([keyframe]), BLUE)
    assert blobs(contact_sheet([keyframe], tile_px=512), RED)


def test_a_notebook_shows_a_sheet_once_and_small(shelf):
    noise = shelf.put(Image.frombytes("RGB", (300, 300), os.urandom(270_000)))
    noisy = dataclasses.replace(made(shelf), outputs=(noise,))
    sheet = comfynb.contact_sheet([noisy] * 12)
    bundle, _ = DisplayFormatter().format(sheet)
    assert bundle.keys() == {"text/plain", "image/jpeg"}
    assert len(encode_png(sheet)) > len(bundle["image/jpeg"])
    assert len(base64.b64decode(bundle["image/jpeg"])) <= 200_000


def test_the_same_cells_give_the_same_sheet(shelf):
    keyframes = [made(shelf), failed()]
    assert encode_png(contact_sheet(keyframes)) == encode_png(contact_sheet(keyframes))


@pytest.mark.parametrize("prompt", ["雪の森の狐", "Лиса в снегу", "ثعلب", "🦊", "a\x00b\nc", "￿"])
def test_any_text_can_be_drawn(shelf, prompt):
    keyframe = dataclasses.replace(made(shelf), scene=scene(title=prompt), prompt=prompt)
    sheet = contact_sheet([keyframe, failed(prompt + "\ud800")], title=prompt)
    assert len(blobs(sheet, RED)) == 1


def test_letters_that_no_font_has_are_set_in_plain_form(monkeypatch):
    monkeypatch.setattr(
        "comfynb.showing.lettering._name_of_font", lambda text: "" if text.isascii() else None
    )
    face = Face(16)
    assert face.width("café") == face.width("cafe")
    assert face.width("a — b") == face.width("a - b")


def test_fit_cuts_with_an_ellipsis_only_where_it_must():
    face = Face(16)
    assert face.fit("short", 200) == "short"
    cut = face.fit("a long line of words that goes on", 100)
    assert cut.endswith("…")
    assert face.width(cut) <= 100
    assert face.wrap("one two three four", 70, 4) == ["one two", "three four"]
    assert face.wrap("one two three four", 70, 1) == ["one two…"]


def test_jpeg_stays_within_its_bound_by_quality_and_then_by_size(shelf):
    noise = Image.effect_noise((256, 256), 90).convert("RGB")
    keyframe = dataclasses.replace(made(shelf), outputs=(shelf.put(noise),))
    sheet = contact_sheet([keyframe] * 20)
    for bound in (200_000, 20_000):
        data = encode_jpeg(sheet, max_bytes=bound)
        assert bound / 4 < len(data) <= bound
        with Image.open(io.BytesIO(data)) as image:
            ratio = image.width / image.height
            assert image.format == "JPEG"
        assert ratio == pytest.approx(sheet.width / sheet.height, rel=0.02)
    with pytest.raises(ValueError, match="max_bytes"):
        encode_jpeg(sheet, max_bytes=10)


def test_save_chooses_the_format_by_the_name(shelf, tmp_path):
    sheet = contact_sheet([made(shelf)])
    png = save_sheet(sheet, tmp_path / "new" / "sheet.png")
    jpeg = save_sheet(sheet, str(tmp_path / "sheet.JPG"), max_bytes=20_000)
    assert isinstance(jpeg, Path)
    with Image.open(png) as image:
        assert image.convert("RGB").tobytes() == sheet.tobytes()
    with Image.open(jpeg) as image:
        assert image.format == "JPEG"
    with pytest.raises(ValueError, match=r"not as 'sheet\.gif'"):
        save_sheet(sheet, tmp_path / "sheet.gif")
    with pytest.raises(ValueError, match="keeps every pixel"):
        save_sheet(sheet, tmp_path / "sheet.png", max_bytes=20_000)


@pytest.mark.parametrize(
    ("cells", "options"),
    [(0, {}), (1, {"columns": 0}), (1, {"tile_px": 10}), (1, {"limit": 1})],
)
def test_impossible_options_are_refused(shelf, cells, options):
    with pytest.raises(ValueError):
        contact_sheet([made(shelf)] * cells, **options)


def gave(shelf, mime, data):
    sha256 = hashlib.sha256(data).hexdigest()
    shelf.pictures[sha256] = data
    return Keyframe(
        id="k", run="r", key="0", scene=scene(), status="done", pictures=shelf,
        outputs=(Output("5", 0, sha256, mime, len(data)),),
    )  # fmt: skip


def test_what_is_no_picture_is_counted_by_its_kind(shelf):
    cells = [
        made(shelf),
        gave(shelf, "text/plain", b"a"),
        gave(shelf, "text/plain", b"b"),
        failed(),
    ]
    assert summary(cells) == "1 picture · 2 texts · 1 failed"
    assert summary([gave(shelf, "audio/ogg", b"a")]) == "1 audio"
    assert summary([gave(shelf, "video/mp4", b"a")]) == "1 video"


def test_a_tile_without_a_picture_shows_words_in_its_place(shelf):
    poem = gave(shelf, "text/plain", b"so much depends upon a red wheel barrow")
    empty = contact_sheet([gave(shelf, "text/plain", b"")])
    assert ink(contact_sheet([poem])) > ink(empty) + 200
    assert ink(contact_sheet([gave(shelf, "video/mp4", b"x")])) > ink(empty)
    shelf.pictures.clear()
    contact_sheet([poem])  # a text that is gone is words too


def test_the_first_picture_is_drawn_whatever_came_before_it(shelf):
    words = gave(shelf, "text/plain", b"first")
    both = dataclasses.replace(made(shelf), outputs=(*words.outputs, *made(shelf).outputs))
    assert blobs(contact_sheet([both]), RED)

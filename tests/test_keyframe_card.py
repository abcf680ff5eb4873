"""What a keyframe looks like in a notebook."""

import base64
import hashlib
import io
import os
import re

import nbformat
import pytest
from html_page import Page
from IPython.core.formatters import DisplayFormatter
from PIL import Image

import comfynb
from comfynb.errors import LogError
from comfynb.keyframes import Failure, Keyframe, Output, Timings
from comfynb.log import Log, MemoryStore
from comfynb.pictures import look
from comfynb.scenes import Scene

SCENE = Scene(id="fox", prompt="a fox", title="The fox is up")
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def file_of(frames, kind="PNG"):
    file = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:]} if frames[1:] else {}
    frames[0].save(file, kind, **more)
    return file.getvalue()


def png(size=(64, 48), colour="teal"):
    return file_of([Image.new("RGB", size, colour)])


def output(index, data, mime=""):
    if mime:
        return Output("9", index, hashlib.sha256(data).hexdigest(), mime, len(data))
    seen = look(data)
    size = (seen.width_px, seen.height_px, seen.frames)
    return Output("9", index, seen.sha256, seen.mime, len(data), *size)


def keyframe(*files, store=None, mime="", **fields):
    """Keep a keyframe with these files; all of one type where that is given."""
    given = {
        "id": "id", "run": "run", "key": "0" * 64, "scene": SCENE, "status": "done",
        "prompt": "a fox, storybook style", "seed": 7, "timings": Timings(total_ms=860),
        "outputs": tuple(output(n, data, mime) for n, data in enumerate(files)),
    }  # fmt: skip
    return (store or MemoryStore()).add_result(Keyframe(**{**given, **fields}), files)


def shown(made):
    page = Page(made._repr_html_())
    return re.sub(r"\s+", " ", page.text), page


def picture_in(img):
    kind, data = img["src"].split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_last_line_of_a_cell_shows_the_picture_and_a_list_stays_a_list():
    made = keyframe(png())
    bundle, _ = DisplayFormatter().format(made)
    assert bundle == {
        "text/plain": "<Keyframe The fox is up: done>",
        "text/html": made._repr_html_(),
    }
    bundle, _ = DisplayFormatter().format([made, made])
    assert bundle.keys() == {"text/plain"}


def test_it_says_what_was_asked_and_what_came_and_what_was_said_of_it():
    knobs = {"steps": 16, "cfg": 4.0, "sampler": "dpmpp_2m"}
    text, page = shown(
        keyframe(
            png(), knobs=knobs, axes={"style": "ink"}, take=2, rating=4, tags=("burnt",),
            picked=True, note="a little dark?", warnings=("one came late",),
            unknown_words=("zibbel",),
        )
    )  # fmt: skip
    for part in (
        "The fox is up", "done · style ink · seed 7 · steps 16 · cfg 4 · dpmpp_2m",
        "take 2 · 0.86 s", "a fox, storybook style", "★★★★", "picked", "burnt",
        "a little dark?", "one came late", "does not know: zibbel",
    ):  # fmt: skip
        assert part in text, part
    (img,) = page.pictures
    assert picture_in(img).size == (64, 48)
    assert img["alt"] == "a fox, storybook style"


def test_a_server_s_own_result_says_nothing_of_its_time():
    assert "0.86 s" not in shown(keyframe(png(), server_cached=True))[0]


def test_what_failed_says_why_and_what_to_do_in_place_of_a_picture():
    error = Failure("node_error", "out of memory", "5 (KSampler)", "Make it smaller")
    text, page = shown(keyframe(png(), status="failed", error=error))
    for part in ("failed", "node_error", "out of memory", "5 (KSampler)", "Make it smaller"):
        assert part in text, part
    assert page.pictures == []
    assert "lost by the server" in shown(keyframe(status="lost"))[0]
    assert "not made yet" in shown(keyframe(status="queued"))[0]


def test_other_outputs_than_pictures_are_said():
    text, _ = shown(keyframe(b"A poem about a fox. " * 100, mime="text/plain"))
    assert "A poem about a fox." in text
    assert len(text) < 900
    assert "video/mp4, 2 kB" in shown(keyframe(bytes(2000), mime="video/mp4"))[0]
    assert "2 images more" in shown(keyframe(png(), png(), png()))[0]
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    text, page = shown(keyframe(file_of(frames, "GIF")))
    assert "an animation: the first of its 3 frames" in text
    assert picture_in(page.pictures[0]).convert("RGB").getpixel((9, 9))[0] > 200
    assert shown(keyframe())[1].pictures == []


def test_what_strangers_wrote_stays_text_and_short():
    scene = Scene(id="x", prompt=EVIL, title=EVIL)
    error = Failure(EVIL, EVIL * 500, EVIL, EVIL)
    more = {
        "scene": scene, "prompt": EVIL * 500, "tags": (EVIL,) * 50, "note": EVIL, "rating": 10**9,
        "axes": {EVIL: EVIL}, "knobs": {"sampler": EVIL}, "warnings": (EVIL,) * 50,
        "unknown_words": (EVIL,) * 50,
    }  # fmt: skip
    for made in (
        keyframe(png(), **more),
        keyframe(EVIL.encode(), mime="text/plain", **more),
        keyframe(status="failed", error=error, **more),
    ):
        html = made._repr_html_()
        page = Page(html)
        assert page.names <= {"div", "span", "b", "i", "img"}
        assert all(picture.keys() == {"alt", "style", "src"} for picture in page.pictures)
        assert len(html) < 20_000


def test_the_worst_of_pictures_stays_small_and_needs_no_style_sheet():
    noise = Image.frombytes("RGB", (1024, 768), os.urandom(1024 * 768 * 3))
    html = keyframe(file_of([noise]))._repr_html_()
    assert len(html) < 40_000
    assert "<style" not in html


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_file_that_is_gone_or_damaged_is_said_without_naming_folders(tmp_path, how):
    log = Log(tmp_path / "log")
    made = keyframe(png(), store=log)
    made.path.unlink() if how == "gone" else made.path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    text, page = shown(made)
    assert ("its picture is gone" if how == "gone" else "its picture cannot be decoded") in text
    assert page.pictures == []
    assert str(tmp_path) not in made._repr_html_()
    with pytest.raises(LogError):
        made.thumbnail  # noqa: B018
    log.close()


def test_a_text_whose_file_is_gone_is_said():
    made = keyframe(b"a poem", mime="text/plain")
    made.pictures._pictures.clear()
    assert "its file is gone" in shown(made)[0]


def test_a_table_of_ones_own_has_pictures_or_a_word():
    (img,) = Page(keyframe(png((400, 200))).thumbnail_html(96)).pictures
    assert picture_in(img).size == (192, 96)
    assert "max-width:96px" in img["style"]
    (img,) = Page(keyframe(png((900, 900))).thumbnail_html(300)).pictures
    assert picture_in(img).size == (384, 384), "no larger than thumbnails are"
    failed = keyframe(status="failed", error=Failure("node_error", "out of memory"))
    assert Page(failed.thumbnail_html()).text.strip() == "node_error"
    assert Page(keyframe(b"a", mime="text/plain").thumbnail_html()).text.strip() == "text"


def test_the_notebook_about_the_log_shows_keyframes_as_they_are_shown_now():
    path = comfynb.__path__[0] + "/../notebooks/02_the_log.ipynb"
    cells = nbformat.read(path, 4).cells
    html = [o.data["text/html"] for c in cells for o in c.get("outputs", []) if "data" in o
            and "comfynb-keyframe" in o.data.get("text/html", "")]  # fmt: skip
    assert len(html) == 3
    assert all(Page(one).pictures for one in html)

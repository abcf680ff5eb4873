"""The exported page: what is in it, what cannot get in, and that it needs nothing else."""

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfynb.errors import LogError
from comfynb.keyframes import Failure, Keyframe, Output, Timings
from comfynb.scenes import Scene
from comfynb.showing.export import write_page

VOID = {"meta", "img", "path", "br"}
NASTY = (
    """</script><script>alert(1)</script> "quoted" 'single' <img src=x onerror=alert(2)> &amp;"""
)


class Shelf:
    """Keeps pictures in memory."""

    def __init__(self):
        self.pictures = {}

    def put(self, image, **options):
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        sha256 = hashlib.sha256(file.getvalue()).hexdigest()
        self.pictures[sha256] = file.getvalue()
        return Output("9", 0, sha256, "image/png", len(file.getvalue()), *image.size)

    def read(self, sha256):
        if sha256 not in self.pictures:
            raise LogError("its file is gone")
        return self.pictures[sha256]

    def path(self, sha256, mime):
        return None


class Page(HTMLParser):
    """The page as elements: (tag, attributes, text inside) in order; fails on crossed tags."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text("utf-8")
        self.elements = []
        self.open = []
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, name=None):
        return [
            (attributes, text)
            for found, attributes, text in self.elements
            if found == tag and (name is None or name in (attributes.get("class") or "").split())
        ]

    def texts(self, tag, name=None):
        return [text for _, text in self.all(tag, name)]

    def pictures(self):
        found = []
        for attributes, _ in self.all("img"):
            kind, _, data = attributes["src"].partition(";base64,")
            assert kind == "data:image/webp"
            with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
                image.load()
                found.append(image)
        return found


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def write(tmp_path):
    return lambda cells, **options: Page(write_page(cells, tmp_path / "page.html", **options))


def made(shelf, colour=(200, 40, 40), size=(64, 64), **more):
    fields = {
        "id": "k", "run": "r", "key": "0", "status": "done", "pictures": shelf,
        "scene": Scene(id="scene-1", prompt="a lighthouse at dawn", title="Lighthouse"),
        "prompt": "a lighthouse at dawn, storybook style", "negative": "fog", "seed": 41,
        "knobs": {"steps": 16, "cfg": 4.0, "sampler": "dpmpp_2m", "checkpoint": "tiny.onnx"},
        "outputs": (shelf.put(Image.new("RGB", size, colour)),),
        "timings": Timings(total_ms=760.0), "server": "embedded engine",
    }  # fmt: skip
    return Keyframe(**fields | more)


def failed(**more):
    fields = {
        "id": "k", "run": "r", "key": "0", "status": "failed",
        "scene": Scene(id="scene-2", prompt="a fox"), "prompt": "a fox",
        "error": Failure("node_error", "out of memory", "5 (KSampler)", "Make it smaller"),
    }  # fmt: skip
    return Keyframe(**fields | more)


def test_a_cell_that_broke_off_says_why_although_a_picture_came_before(shelf, write):
    half = failed(outputs=(shelf.put(Image.new("RGB", (8, 8))),), pictures=shelf)
    page = write([half])
    assert page.pictures() == []
    assert "out of memory" in page.source


def test_every_cell_is_there_in_order_with_what_made_it(shelf, write):
    second = made(shelf, scene=Scene(id="s", prompt="a fox"), prompt="a fox", seed=42)
    page = write([made(shelf), second, failed()], title="Harbour")
    assert page.texts("h1") == ["Harbour"]
    assert page.texts("title") == ["Harbour"]
    assert page.texts("h2") == ["Lighthouse", "a fox", "a fox"]
    assert page.texts("span", "number") == ["1", "2", "3"]
    assert page.texts("p", "prompt") == ["a lighthouse at dawn, storybook style"]
    assert "2 pictures · 1 failed" in page.texts("header")[0]
    facts = page.texts("dl", "facts")[0]
    for fact in ("seed41", "steps16", "cfg4", "samplerdpmpp_2m", "64 \u00d7 64", "0.76 s", "done"):
        assert fact in facts
    assert [a["alt"] for a, _ in page.all("img")] == [
        "a lighthouse at dawn, storybook style",
        "a fox",
    ]


def test_a_cell_without_picture_says_why_and_what_to_do(shelf, write):
    page = write([made(shelf), failed(), failed(status="queued", error=None)])
    assert [" ".join(text.split()) for text in page.texts("div", "missing")] == [
        "failed out of memory node 5 (KSampler) Make it smaller",
        "not made yet",
    ]
    assert len(page.all("button", "open")) == 1


@pytest.mark.parametrize("data", [None, b"<svg onload=alert(1)>"])
def test_a_picture_that_cannot_be_read_is_named(shelf, write, data):
    keyframe = made(shelf)
    shelf.pictures = {} if data is None else dict.fromkeys(shelf.pictures, data)
    page = write([keyframe])
    assert "the picture cannot be read" in page.texts("div", "missing")[0]
    assert page.all("img") == []


def test_every_output_of_a_keyframe_can_be_opened(shelf, write):
    outputs = tuple(shelf.put(Image.new("RGB", (32, 32), (n, 0, 0))) for n in range(3))
    page = write([made(shelf, outputs=outputs)])
    labels = [attributes["aria-label"] for attributes, _ in page.all("button", "open")]
    assert labels == [f"Look at 1, picture {n} of 3: Lighthouse" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 48), (64, 48)), ((1536, 1024), (768, 512)), ((10, 2000), (4, 768))],
)
def test_pictures_are_webp_of_at_most_768_px_in_their_aspect_ratio(shelf, write, size, expected):
    page = write([made(shelf, size=size)])
    (image,) = page.pictures()
    assert image.size == expected
    attributes = page.all("img")[0][0]
    assert (attributes["width"], attributes["height"]) == tuple(map(str, expected))
    red, green, blue = image.convert("RGB").getpixel((expected[0] // 2, expected[1] // 2))
    assert abs(red - 200) < 12
    assert abs(green - 40) < 12
    assert abs(blue - 40) < 12


def test_what_a_server_wrote_into_the_file_does_not_leave_with_it(shelf, write):
    info = PngInfo()
    info.add_text("workflow", '{"secret": "/home/someone/model"}')
    output = shelf.put(Image.new("RGB", (64, 64)), pnginfo=info, exif=b"Exif\x00\x00secret")
    page = write([made(shelf, outputs=(output,))])
    ((attributes, _),) = page.all("img")
    data = base64.b64decode(attributes["src"].partition(",")[2])
    assert b"secret" not in data
    assert b"EXIF" not in data


def test_transparent_pictures_stay_transparent(shelf, write):
    page = write([made(shelf, outputs=(shelf.put(Image.new("RGBA", (8, 8), (9, 9, 9, 0))),))])
    assert page.pictures()[0].getpixel((4, 4))[3] == 0


def test_whatever_was_written_is_text_and_never_markup(shelf, write):
    nasty = made(
        shelf,
        scene=Scene(id="s", prompt="p", title=NASTY), prompt=NASTY, negative=NASTY,
        knobs={NASTY: NASTY, "steps": NASTY}, axes={f"2 {NASTY}": NASTY}, server=NASTY,
        warnings=(NASTY,), unknown_words=(NASTY,),
    )  # fmt: skip
    broken = failed(error=Failure(NASTY, NASTY, NASTY, NASTY))
    page = write([nasty, broken], title=NASTY, note=NASTY)
    assert len(page.all("script")) == 1
    assert len(page.all("style")) == 1
    assert len(page.all("img")) == 1
    assert all(not name.startswith("on") for _, a, _ in page.elements for name in a)
    assert page.texts("h1") == [NASTY]
    assert page.texts("h2")[0] == NASTY
    assert page.all("img")[0][0]["alt"] == NASTY
    assert page.texts("dl", "facts")[0].count(NASTY) == 6
    assert page.texts("div", "missing")[0].count(NASTY) == 3


def test_signs_that_html_cannot_hold_are_replaced(shelf, write):
    page = write([failed(error=Failure("k", "a\x00b\x1b[31m\ud800\u202e"))])
    assert "a\ufffdb\ufffd[31m\ufffd\ufffd" in page.texts("div", "missing")[0]


def test_endless_texts_are_cut(shelf, write):
    page = write([made(shelf, prompt="x" * 1_000_000)])
    assert len(page.texts("p", "prompt")[0]) == 4000
    assert len(page.source) < 60_000


def test_it_needs_nothing_from_outside(shelf, write):
    page = write([made(shelf), failed()])
    without_pictures = re.sub(r'src="data:[^"]*"', "", page.source)
    assert not re.search(r"https?://|url\(|@import|<link|<iframe|srcset", without_pictures)
    for _, attributes, _ in page.elements:
        assert not {"href", "action", "style", "srcset"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")


def test_the_policy_allows_exactly_its_own_style_and_script(shelf, write):
    page = write([made(shelf)])
    policy = next(
        attributes["content"]
        for attributes, _ in page.all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    hashes = {
        tag: base64.b64encode(hashlib.sha256(page.texts(tag)[0].encode()).digest()).decode()
        for tag in ("style", "script")
    }
    assert policy == (
        "default-src 'none'; img-src data:;"
        f" style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}';"
        " base-uri 'none'; form-action 'none'"
    )
    # It must stand before what it is about.
    assert page.source.index("Content-Security-Policy") < page.source.index("<style>")


def test_the_script_finds_every_element_that_it_asks_for(shelf, write):
    page = write([made(shelf)])
    classes = {name for _, a, _ in page.elements for name in (a.get("class") or "").split()}
    asked = set(re.findall(r'querySelector(?:All)?\("([^"]+)"\)', page.texts("script")[0]))
    names = {name for selector in asked for name in re.findall(r"\.(\w+)", selector)}
    assert names
    assert names <= classes


def test_ids_are_unique_and_buttons_have_names(shelf, write):
    page = write([made(shelf), failed(), made(shelf)])
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert ids == ["cell-1", "cell-2", "cell-3"]
    assert all(attributes.get("aria-label") for attributes, _ in page.all("button"))


def test_the_file_is_replaced_in_one_step(shelf, tmp_path):
    path = tmp_path / "new" / "page.html"
    assert write_page([made(shelf)], str(path)) == path
    before = path.read_bytes()

    class Full:
        def read(self, sha256):
            raise MemoryError

    with pytest.raises(MemoryError):
        write_page([made(shelf), dataclasses.replace(made(shelf), pictures=Full())], path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("cells", "options"), [(0, {}), (1, {"side_px": 1}), (1, {"quality": 0})])
def test_impossible_options_are_refused(shelf, tmp_path, cells, options):
    with pytest.raises(ValueError):
        write_page([made(shelf)] * cells, tmp_path / "page.html", **options)


def given(shelf, mime, data=b"bytes", frames=1):
    sha256 = hashlib.sha256(data).hexdigest()
    shelf.pictures[sha256] = data
    return Output("5", 0, sha256, mime, len(data), frames=frames)


def test_texts_stand_on_the_page_and_other_files_are_named(shelf, write):
    picture = shelf.put(Image.new("RGB", (8, 8)))
    outputs = (
        given(shelf, "text/plain", NASTY.encode()),
        picture,
        given(shelf, "video/mp4", b"v" * 52_000),
        given(shelf, "application/octet-stream", b"glTF"),
    )
    page = write([made(shelf, outputs=outputs)])
    assert len(page.pictures()) == 1
    assert page.texts("p", "said") == [NASTY]
    assert page.texts("p", "beside") == [
        "video/mp4, 52 kB: not on this page, the log has it",
        "a file, 0 kB: not on this page, the log has it",
    ]


def test_a_cell_without_a_picture_shows_what_it_gave(shelf, write):
    cells = [
        made(shelf, outputs=(given(shelf, "text/plain", b"a poem"),)),
        made(shelf, outputs=(given(shelf, "audio/flac", b"a" * 9000),)),
    ]
    page = write(cells)
    assert page.pictures() == []
    assert [a["class"] for a, _ in page.all("p", "said")] == ["said bare"]
    assert page.texts("p", "state") == ["audio/flac, 9 kB: not on this page, the log has it"]
    assert "1 audio · 1 text" in page.texts("p")[0]


def test_an_animation_shows_its_first_frame_and_says_so(shelf, write):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    page = write([made(shelf, outputs=(given(shelf, "image/gif", file.getvalue(), 2),))])
    (image,) = page.pictures()
    assert image.convert("RGB").getpixel((2, 2))[0] > 200
    assert "first frame" in page.texts("p", "beside")[0]


def test_a_text_whose_file_is_gone_says_so(shelf, write):
    output = given(shelf, "text/plain", b"gone")
    del shelf.pictures[output.sha256]
    page = write([made(shelf, outputs=(output,))])
    assert page.texts("p", "state") == ["the text cannot be read"]

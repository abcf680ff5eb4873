"""What a log looks like in a notebook."""

import base64
import io
import re

import pytest
from html_page import Page
from PIL import Image

from comfynb import open_log
from comfynb.keyframes import EMPTY
from comfynb.log import Log, RunRecord, card
from comfynb.scenes import Scene


def shown(log):
    return Page(log._repr_html_())


def words(log):
    return re.sub(r"\s+", " ", shown(log).text)


def image(picture):
    kind, data = picture["src"].split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def add(log, make_keyframe, png):
    """Append a keyframe with a picture: `add(name, seconds=..., **fields)`."""

    def append(name, *, data=None, **fields):
        data = data or png(color="teal")
        return log.add_result(make_keyframe(name, [data], **fields), [data])

    return append


def test_it_counts_what_is_there(log, add, make_keyframe, png):
    log.add_run(RunRecord(id="run-1", storyboard=EMPTY, cells=()))
    for i in range(3):
        add(f"scene-{i}", data=png(), seconds=i, server="box-1")
    log.add_result(make_keyframe("owl", seconds=4 * 86400, server="box-2"))
    text = words(log)
    for part in (
        "4 keyframes", "3 pictures", "1 run ", "3 done", "1 failed",
        "22 Nov 2026 to 26 Nov 2026", "made on box-2 box-1",
    ):  # fmt: skip
        assert part in text, part


def test_size_on_disk_is_that_of_all_files_without_what_links_lead_to(log, add, png, tmp_path):
    add("fox", data=png(400, 400))
    far = tmp_path / "far"
    far.mkdir()
    (far / "big").write_bytes(bytes(10**7))
    (log.folder / "linked").symlink_to(far)
    log._repr_html_()  # which makes the thumbnail
    files = [path for path in log.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert card._size(log.folder) == sum(path.stat().st_size for path in files)
    assert f"{card._bytes(card._size(log.folder))} on disk" in words(log)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (9949, "9.9 kB"), (12_345, "12 kB"),
     (999_499, "999 kB"), (999_500, "1.0 MB"), (2_400_000_000, "2.4 GB"),
     (3 * 10**15, "3,000.0 TB")],
)  # fmt: skip
def test_sizes_are_said_in_round_numbers(size, text):
    assert card._bytes(size) == text


def test_the_last_pictures_are_shown_newest_first_one_a_place(log, add):
    for i in range(14):
        add(f"scene-{i}", seconds=i)
    add("scene-3", seconds=20)
    pictures = shown(log).pictures
    names = ["scene-3", *(f"scene-{i}" for i in range(13, 2, -1) if i != 3), "scene-2"]
    assert [picture["alt"] for picture in pictures] == names[:12]
    assert image(pictures[0]).size == (64, 48)


def test_it_stays_small_with_the_worst_of_pictures(log, add, png):
    for i in range(13):
        add(f"scene-{i}" * 12, data=png(1024, 1024), seconds=i)
    html = log._repr_html_()
    assert len(html) < 120_000
    assert len(Page(html).pictures) == 12


def test_it_names_no_absolute_path(log, add, tmp_path, monkeypatch):
    add("fox")
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) not in log._repr_html_()
    assert words(log).strip().startswith("log ")


def test_what_a_stranger_wrote_stays_text(log, add):
    evil = '<script>alert(1)</script>"><img src=x onerror=y>'
    scene = Scene(id="fox", prompt="a fox", title=evil)
    add("fox", scene=scene, server=evil, status="done")
    page = shown(log)
    assert "script" not in page.names
    assert [picture["alt"] for picture in page.pictures] == [evil]
    assert "onerror" not in page.pictures[0]
    assert page.text.count("<script>") == 2


def test_what_was_said_of_a_picture_is_shown(log, add):
    add("plain", seconds=1)
    log.rate(add("fox", seconds=2), 4)
    log.pick(add("owl", seconds=3))
    text = words(log)
    assert text.count("★★★★ ") == 1
    assert text.count("✓") == 1


def test_a_picture_that_is_gone_or_broken_leaves_its_place(log, add, png):
    gone = add("gone", data=png(), seconds=1)
    broken = add("broken", data=b"no picture", seconds=2)
    add("there", data=png(), seconds=3)
    gone.path.unlink()
    assert broken.path.exists()
    page = shown(log)
    assert [picture["alt"] for picture in page.pictures] == ["there"]
    assert page.text.count("cannot be shown") == 2


def test_a_log_with_nothing_in_it_says_so(tmp_path):
    log = Log(tmp_path / "none")
    assert "Nothing was made yet" in words(log)
    assert not log.folder.exists()
    log.add_run(RunRecord(id="r", storyboard=EMPTY, cells=()))
    assert "A run has begun" in words(log)
    log.close()


def test_a_log_that_cannot_be_read_says_why_instead_of_failing(log, add, tmp_path, monkeypatch):
    from comfynb.errors import LogError

    add("fox")
    monkeypatch.chdir(tmp_path)

    def fail(*_):
        raise LogError(f"cannot read the log at {log.folder}: Input/output error")

    monkeypatch.setattr(log._reader, "rows", fail)
    assert "cannot read the log at log: Input/output error" in words(log)
    assert str(tmp_path) not in log._repr_html_()


def test_an_opened_log_looks_the_same(log, add):
    add("fox")
    log._repr_html_()  # makes the small copies, which count in the size on disk
    opened = open_log(log.folder)
    assert opened._repr_html_() == log._repr_html_()
    opened.close()


def test_rows_stay_rows_where_the_style_sheet_was_stripped(log, add):
    add("a fox")
    html = log._repr_html_()
    for name in ("numbers", "words", "pictures"):
        assert f'class="{name}" style="display:flex;' in html
    (sheet,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert ".pictures { display: grid !important;" in sheet


def test_an_opened_log_says_where_the_reading_is(log, add):
    add("fox")
    opened = open_log(log.folder)
    with pytest.raises(AttributeError, match=r"its log has: say \.log\.sql"):
        opened.sql("select 1")
    with pytest.raises(AttributeError, match=r"has no 'sqll'$"):
        _ = opened.sqll
    opened.close()

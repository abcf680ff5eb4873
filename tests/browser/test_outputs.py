"""What is no still picture, in a real browser: texts, animations, sounds, videos, other files."""

from __future__ import annotations

import io
import math
import struct
import wave

from browser.grid_page import GridPage, draw, output, until
from PIL import Image

POEM = "so much depends\nupon\n\na red wheel\nbarrow <b>glazed</b>"


def wav(seconds: float = 0.25, rate: int = 8000) -> bytes:
    """A short tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        tone = (math.sin(n / 8) * 20_000 for n in range(int(seconds * rate)))
        sound.writeframes(b"".join(struct.pack("<h", int(value)) for value in tone))
    return file.getvalue()


def blinking() -> bytes:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("#c33", "#33c")]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=100, loop=0)
    return file.getvalue()


def made(grid: GridPage, index: int, *outputs: dict) -> None:
    grid.batch([{"i": index, "status": "done", "ms": 900.0, "n": len(outputs)}])
    grid.about({"i": index, "outputs": list(outputs)})


def text_output(n: int = 0) -> dict:
    return output(0, n, kind="text", mime="text/plain", width_px=0, height_px=0, bytes=len(POEM))


def sound_output(n: int = 0) -> dict:
    return output(0, n, kind="audio", mime="audio/wav", width_px=0, height_px=0, bytes=4044)


def answer(grid: GridPage, number: int, data: bytes, mime: str) -> None:
    request = grid.wait_for("get", output=number)
    grid.say("full", [data], req=request["req"], i=request["cell"], output=number, mime=mime)


def test_a_cell_that_gave_a_text_shows_how_it_begins(grid):
    grid.open(2)
    made(grid, 0, text_output())
    grid.say("thumb", [POEM.encode()], i=0, sha256="a", mime="text/plain", width_px=0, height_px=0)
    said = grid.tile(0).locator(".cnb-said")
    assert said.inner_text() == POEM, "as text, never as markup"
    assert grid.tile(0).locator("img").count() == 0
    grid.tile(0).locator(".cnb-open").click()
    answer(grid, 0, POEM.encode(), "text/plain")
    assert grid.page.locator(".cnb-text-stage").inner_text() == POEM


def test_a_cell_without_a_picture_says_what_it_gave(grid):
    grid.open(3)
    made(grid, 0, sound_output())
    made(grid, 1, output(1, kind="file", mime="application/octet-stream", bytes=52_000))
    assert grid.tile(0).locator(".cnb-kind").inner_text() == "sound\nWAV, 4 kB"
    assert grid.tile(1).locator(".cnb-kind").inner_text() == "file\n52 kB"
    grid.tile(1).locator(".cnb-open").click()
    until(
        lambda: "kept in the log" in grid.page.locator(".cnb-stage").inner_text(),
        "the viewer did not say where the file is",
    )
    assert not grid.sent("get"), "a file that no browser shows is not asked for"


def test_a_sound_can_be_played(grid):
    grid.open(1)
    made(grid, 0, sound_output())
    grid.tile(0).locator(".cnb-open").click()
    answer(grid, 0, wav(), "audio/wav")
    player = grid.page.locator("audio[controls]")
    until(lambda: player.evaluate("e => e.readyState") >= 2, "the sound was not decoded")
    assert player.evaluate("e => e.duration") == 0.25


def test_the_viewer_walks_through_all_that_a_cell_gave(grid):
    grid.open(2)
    outputs = [
        text_output(0),
        output(0, 1),
        output(0, 2, kind="animation", mime="image/webp"),
        sound_output(3),
        output(0, 4, kind="file", mime="application/octet-stream", bytes=52_000),
    ]
    made(grid, 0, *outputs)
    grid.thumb(0)
    assert grid.tile(0).locator(".cnb-several").inner_text() == "+4"
    assert grid.tile(0).locator(".cnb-open").get_attribute("aria-label").endswith("5 outputs")
    grid.tile(0).locator(".cnb-open").click()
    choice = grid.page.locator(".cnb-choice button")
    assert choice.all_inner_texts() == ["1 text", "2", "3 animation", "4 sound", "5 file"]
    assert choice.nth(1).get_attribute("aria-pressed") == "true", "the picture stands for the cell"
    answer(grid, 1, draw(1, (512, 512), "png"), "image/png")
    until(lambda: grid.page.locator("[data-full=true] img").count(), "no full picture")

    grid.page.keyboard.press("ArrowDown")
    answer(grid, 2, blinking(), "image/webp")
    until(lambda: grid.page.locator("[data-full=true] img").count(), "no animation")
    assert grid.page.locator(".cnb-stage img").evaluate("e => e.naturalWidth") == 64
    grid.page.keyboard.press("ArrowDown")
    answer(grid, 3, wav(), "audio/wav")
    grid.page.locator("audio[controls]").wait_for()
    grid.page.keyboard.press("ArrowDown")
    grid.page.keyboard.press("ArrowDown")
    assert choice.nth(4).get_attribute("aria-pressed") == "true", "after the last one it stays"
    for _ in range(4):
        grid.page.keyboard.press("ArrowUp")
    answer(grid, 0, POEM.encode(), "text/plain")
    grid.page.locator(".cnb-text-stage").wait_for()
    grid.page.keyboard.press("ArrowRight")
    assert "Scene 2" in grid.page.locator(".cnb-aside h2").inner_text()


def test_a_type_that_is_not_on_the_list_is_never_shown(grid):
    grid.open(1)
    made(grid, 0, output(0, kind="video", mime="text/html"))
    grid.tile(0).locator(".cnb-open").click()
    answer(grid, 0, b"<script>alert(1)</script>", "text/html")
    until(lambda: grid.page.locator(".cnb-notice").count(), "nothing was said")
    assert "not shown here" in grid.page.locator(".cnb-notice").first.inner_text()
    assert grid.page.locator(".cnb-stage video").count() == 0


def test_a_video_gets_a_player(grid):
    grid.open(1)
    made(grid, 0, output(0, kind="video", mime="video/webm", bytes=1_200_000))
    assert grid.tile(0).locator(".cnb-kind").inner_text() == "video\nWEBM, 1.2 MB"
    grid.tile(0).locator(".cnb-open").click()
    answer(grid, 0, b"\x1a\x45\xdf\xa3", "video/webm")
    grid.page.locator("video[controls]").wait_for()

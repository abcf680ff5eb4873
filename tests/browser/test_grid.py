"""What the grid shows and says, in a real browser, to a kernel that says what we like."""

from __future__ import annotations

import re

import pytest
from browser.grid_page import GridPage, description, draw, output, until

WIDTHS = [380, 700, 1280]


def texts(grid: GridPage, selector: str) -> list[str]:
    return grid.page.locator(selector).all_inner_texts()


def test_hello_is_said_and_tiles_are_there_before_any_answer(grid):
    grid.open(9, ratio=2.0, title="The fox")
    assert grid.sent("hello")[0]["have"] == 0
    frames = grid.page.locator(".cnb-frame")
    assert frames.count() == 9
    box = frames.first.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(2.0, rel=0.02)
    assert texts(grid, ".cnb-number") == [str(n) for n in range(1, 10)]
    assert grid.page.get_by_role("heading", name="The fox").is_visible()
    assert "waiting for the kernel" in grid.page.locator(".cnb-connection").inner_text()


def test_each_batch_is_painted_and_acknowledged(grid):
    grid.open(3)
    first = grid.batch([{"i": 0, "status": "submitted"}])
    grid.wait_for("ack", seq=first)
    assert grid.tile(0).get_attribute("data-status") == "submitted"
    second = grid.batch([{"i": 0, "status": "running", "step": 5, "steps": 20}], made=0)
    grid.wait_for("ack", seq=second)
    bar = grid.tile(0).get_by_role("progressbar")
    assert bar.get_attribute("aria-valuenow") == "5"
    assert bar.get_attribute("aria-valuemax") == "20"
    assert grid.tile(0).locator(".cnb-note").inner_text() == "5/20"


def test_a_gap_is_asked_for_again_and_is_not_acknowledged(clocked):
    clocked.open(3)
    clocked.batch([{"i": 0, "status": "submitted"}])
    clocked.page.clock.run_for(1500)
    lost = clocked.batch([{"i": 1, "status": "submitted"}], skip=2)
    assert clocked.wait_for("hello", have=1)
    assert lost not in [ack["seq"] for ack in clocked.sent("ack")]
    assert clocked.tile(1).get_attribute("data-status") == "queued"
    clocked.version = 1
    mended = clocked.batch([{"i": i, "status": "submitted"} for i in (1, 2)])
    clocked.page.clock.run_for(300)
    clocked.wait_for("ack", seq=mended)
    assert clocked.tile(2).get_attribute("data-status") == "submitted"


def test_a_kernel_that_forgot_the_page_is_greeted_again(clocked):
    clocked.open(3)
    clocked.batch()
    clocked.page.clock.run_for(1500)
    clocked.forget()
    clocked.say("batch", seq=0, cells=[], previews=[], **{"from": 1, "to": 1})
    clocked.wait_for("hello", have=1)
    assert not clocked.sent("ack")


def test_silence_while_a_run_is_active_is_answered_with_hello(clocked):
    clocked.open(3)
    clocked.batch(active=True)
    clocked.forget()
    clocked.page.clock.run_for(6000)
    assert clocked.sent("hello")[0]["have"] == 1
    clocked.batch(active=False)
    clocked.forget()
    clocked.page.clock.run_for(20_000)
    assert not clocked.sent("hello")


def test_the_visible_range_is_told_when_one_scrolls_and_when_the_grid_is_out_of_sight(grid):
    grid.open(60)
    first = grid.wait_for("see")
    assert first["from"] == 0
    assert 0 < first["to"] < 60
    grid.page.evaluate("document.querySelector('.cnb-scroller').scrollTop = 1e6")
    grid.wait_for("see", to=60)
    grid.forget()
    grid.page.evaluate("document.querySelector('main').style.marginTop = '5000px'")
    grid.wait_for("see", to=0)


def test_a_preview_is_replaced_then_covered_and_every_url_is_revoked(grid):
    grid.open(2)
    for step in range(1, 4):
        grid.batch(
            [{"i": 0, "status": "running", "step": step, "steps": 4}],
            previews={0: draw(step, kind="jpeg")},
        )
    assert grid.urls() == 1
    assert grid.tile(0).locator(".cnb-preview").is_visible()
    grid.make(0)
    picture = grid.tile(0).locator(".cnb-picture")
    until(lambda: picture.evaluate("img => img.naturalWidth === 96"), "no picture came")
    assert grid.tile(0).locator(".cnb-preview").count() == 1  # it fades in over the preview
    until(lambda: grid.urls() == 1, "the preview's URL was kept")
    assert grid.tile(0).locator(".cnb-preview").count() == 0


def test_a_failed_tile_says_why_and_retries(grid):
    grid.open(3)
    error = {"kind": "node_error", "message": "no <b>such</b> file", "node": "4", "hint": "copy it"}
    grid.about({"i": 1, "error": error})
    grid.batch([{"i": 1, "status": "failed"}], failed=1)
    tile = grid.tile(1)
    assert "no <b>such</b> file" in tile.inner_text()  # as text
    assert "copy it" in tile.inner_text()
    tile.locator(".cnb-open").focus()  # its ring comes to the front, but not of this button
    tile.get_by_role("button", name="Retry").click()
    asked = grid.wait_for("do", name="retry")
    assert asked["cells"] == [1]
    grid.say("reply", req=asked["req"], error="the server does not answer")
    notice = grid.page.locator(".cnb-notice")
    assert notice.inner_text().strip() == "the server does not answer"
    notice.get_by_role("button", name="Dismiss").click()
    assert notice.count() == 0


def test_a_tile_says_what_was_deleted_and_what_is_being_made_elsewhere(grid):
    grid.open(3)
    grid.make(0)
    until(lambda: grid.tile(0).locator(".cnb-picture").count() == 1, "no picture came")
    error = {"kind": "deleted", "message": "it was deleted", "node": None, "hint": "retry"}
    grid.about({"i": 2, "error": error})
    cells = [{"i": 0, "status": "submitted", "stale": True}, {"i": 1, "status": "submitted"}]
    grid.batch([*cells, {"i": 2, "status": "cancelled"}])
    sent, waiting, deleted = (grid.tile(index) for index in range(3))
    assert "on the server" in sent.locator(".cnb-note").inner_text(), "beside its old picture"
    assert waiting.locator(".cnb-waiting").inner_text() == "on the server"
    assert "Deleted" in deleted.inner_text()
    assert deleted.get_by_role("button", name=re.compile("deleted$")).count() == 1
    assert deleted.get_by_role("button", name="Retry").is_visible()
    deleted.locator(".cnb-open").click()
    dialog = grid.page.get_by_role("dialog")
    assert dialog.get_by_role("button", name="Retry").is_visible()
    dialog.get_by_role("button", name="Make another").click()
    assert grid.wait_for("do", name="regenerate")["cells"] == [2]


def test_buttons_that_cannot_work_say_why_and_ask_for_nothing(grid):
    grid.open(2)
    why = "this board shows a log"
    grid.batch(
        [{"i": 0, "status": "failed"}],
        failed=1,
        active=False,
        connection="none",
        can={"stop": False, "retry": False, "why": why},
    )
    for button in grid.page.get_by_role("button", name="Retry").all():
        assert button.get_attribute("aria-disabled") == "true"
        assert button.get_attribute("title") == why
        button.click(force=True)
    assert not grid.sent("do")


def test_the_header_tells_counts_times_server_and_acts(grid):
    grid.open(9)
    grid.batch([{"i": 0, "status": "failed"}], made=5, failed=1, elapsed_s=65.0, left_s=90.0)
    figures = grid.page.locator(".cnb-figures").inner_text()
    assert "5 of 9" in figures
    assert "1 failed" in figures
    assert "1:05" in figures
    assert "1:30 left" in figures
    assert "embedded engine" in grid.page.locator(".cnb-server").inner_text()
    for name, action in (
        ("Stop", "stop"),
        ("Pause", "pause"),
        ("Retry failed (1)", "retry_failed"),
    ):
        grid.page.locator(".cnb-header").get_by_role("button", name=name).click()
        request = grid.wait_for("do", name=action)
        grid.say("reply", req=request["req"], ok=True)
    grid.batch(paused=True)
    grid.page.get_by_role("button", name="Resume").click()
    assert grid.wait_for("do", name="resume")
    until(lambda: "5 of 9 made, 1 failed" in texts(grid, "[aria-live]")[0], "progress was not said")


def test_a_button_that_goes_away_leaves_the_focus_in_the_grid(grid):
    grid.open(3)
    grid.batch([{"i": 1, "status": "failed"}], failed=1)
    grid.page.get_by_role("button", name="Stop").click()
    grid.batch(active=False)
    assert grid.page.get_by_role("button", name="Stop").count() == 0
    focused = "document.activeElement.closest('[data-cell]')?.dataset.cell"
    assert grid.page.evaluate(focused) == "0"
    grid.tile(1).get_by_role("button", name="Retry").click()
    grid.batch([{"i": 1, "status": "queued"}])
    assert grid.page.evaluate(focused) == "1"


def test_the_viewer_asks_for_the_full_picture_walks_and_gives_the_focus_back(grid):
    grid.open(3)
    for index in range(3):
        grid.make(index)
    grid.tile(1).locator(".cnb-open").click()
    viewer = grid.page.get_by_role("dialog")
    assert viewer.get_by_role("img").is_visible()  # the small one meanwhile
    request = grid.wait_for("get", cell=1, output=0)
    grid.say(
        "full", [draw(9, (640, 480), "png")], req=request["req"], i=1, output=0, mime="image/png"
    )
    image = viewer.get_by_role("img")
    until(lambda: image.evaluate("img => img.naturalWidth") == 640, "the full picture is not shown")
    shown = viewer.inner_text()
    assert description(1)["prompt"] in shown
    assert str(2**64 - 2) in shown  # every digit of the seed
    assert "512 \N{MULTIPLICATION SIGN} 512" in shown
    grid.page.keyboard.press("ArrowRight")
    assert "3 of 3" in viewer.inner_text()
    request = grid.wait_for("get", cell=2)
    grid.say("reply", req=request["req"], error="the file is gone")
    viewer.get_by_text("the file is gone").wait_for()
    grid.page.keyboard.press("ArrowRight")
    assert "3 of 3" in viewer.inner_text()  # it does not go round
    grid.page.keyboard.press("Escape")
    assert viewer.count() == 0
    focused = "document.activeElement.closest('[data-cell]')?.dataset.cell"
    until(lambda: grid.page.evaluate(focused) == "2", "the focus was lost")


def test_the_seed_is_copied_and_another_output_is_asked_for(grid):
    grid.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    grid.open(1)
    grid.make(0, n=2)
    grid.tile(0).locator(".cnb-open").click()
    viewer = grid.page.get_by_role("dialog")
    viewer.get_by_role("button", name="Copy the seed").click()
    viewer.get_by_text("Copied").wait_for()
    assert grid.page.evaluate("navigator.clipboard.readText()") == str(2**64 - 1)
    viewer.get_by_role("button", name="2", exact=True).click()
    assert grid.wait_for("get", cell=0, output=1)
    viewer.get_by_role("button", name="Make another").click()
    assert grid.wait_for("do", name="regenerate")["cells"] == [0]


def test_the_grid_is_one_tab_stop_and_arrows_move_inside(grid):
    grid.open(9)
    grid.batch(active=False)
    stops = "document.querySelectorAll('[role=grid] button[tabindex=\"0\"]').length"
    assert grid.page.evaluate(stops) == 1
    grid.page.keyboard.press("Tab")
    focused = "document.activeElement.closest('[data-cell]')?.dataset.cell"
    assert grid.page.evaluate(focused) == "0"
    columns = int(grid.page.get_by_role("grid").get_attribute("aria-colcount"))
    for key, cell in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("End", 8),
        ("ArrowRight", 8),
        ("Home", 0),
    ):
        grid.page.keyboard.press(key)
        until(lambda cell=cell: grid.page.evaluate(focused) == str(cell), f"{key} did not lead on")
    assert grid.page.evaluate(stops) == 1
    grid.page.keyboard.press("Enter")
    assert grid.page.get_by_role("dialog").is_visible()


def test_malformed_messages_give_a_notice_and_nothing_breaks(grid):
    grid.open(3)
    grid.say("batch", seq="x", cells=3)
    grid.say("batch", seq=1, cells=[{"i": 0, "status": "exploded"}], **{"from": 0, "to": 1})
    grid.say("about", cells=[None])
    grid.say("thumb", i=0, sha256="a", mime="image/svg+xml")
    grid.say("thumb", i=0, sha256="a", mime="image/png")
    grid.say("sing")
    grid.say("sing")
    shown = texts(grid, ".cnb-notice p")
    assert 0 < len(shown) <= 4
    assert any("sing" in text and "2 times" in text for text in shown)
    grid.say("about", cells=[{**description(0), "title": {"a": 1}, "knobs": [1], "outputs": None}])
    grid.thumb(99)
    grid.batch([{"i": 99, "status": "done"}, {"i": 0, "status": "done", "ms": None}])
    assert grid.tile(0).get_attribute("data-status") == "done"


def test_messages_for_another_tab_are_ignored(grid):
    grid.open(2)
    own, grid.client = grid.client, "somebody-else"
    grid.batch([{"i": 0, "status": "done"}])
    grid.client = own
    assert grid.tile(0).get_attribute("data-status") == "queued"
    assert not grid.sent("ack")


def test_two_views_show_the_same_and_one_may_go(grid):
    grid.open(2)
    grid.show()
    grid.make(0)
    pictures = grid.page.locator("[data-cell='0'] .cnb-picture")
    assert pictures.count() == 2
    assert len({img.get_attribute("src") for img in pictures.all()}) == 1
    assert len(grid.sent("hello")) == 1
    grid.page.evaluate("host.hide(0)")
    assert pictures.count() == 1
    grid.make(1)
    assert grid.page.locator("[data-cell='1'] .cnb-picture").count() == 1


@pytest.mark.parametrize("signals", [True, False], ids=["signals", "returned functions"])
def test_closing_leaves_no_urls_listeners_or_timers(clocked, signals):
    clocked.open(4, signals=signals)
    for index in range(3):
        clocked.make(index)
    clocked.batch(
        [{"i": 3, "status": "running", "step": 1, "steps": 2}],
        previews={3: draw(5, kind="jpeg")},
    )
    clocked.tile(0).locator(".cnb-open").click()
    assert clocked.urls() == 4
    clocked.page.evaluate("host.hide(0); host.close()")
    assert clocked.urls() == 0
    left = "[...host.model.listeners.values()].reduce((n, s) => n + s.size, 0)"
    assert clocked.page.evaluate(left) == 0
    clocked.forget()
    clocked.page.clock.run_for(30_000)
    clocked.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert not clocked.sent()


def test_a_dead_kernel_is_said_and_a_living_one_heard_again(grid):
    grid.open(2)
    grid.wait_for("ack", seq=grid.batch([{"i": 0, "status": "failed"}], failed=1))
    grid.wait_for("see")
    grid.page.evaluate("host.model.alive = false")
    grid.page.get_by_role("button", name="Stop").click()
    notice = grid.page.locator(".cnb-notice")
    assert notice.inner_text().strip() == "The kernel is gone; run the cell again."
    assert grid.page.get_by_role("button", name="Stop").get_attribute("aria-disabled") == "true"
    grid.page.evaluate("host.model.alive = true")
    grid.batch()
    assert notice.count() == 0


def test_a_restarted_kernel_is_noticed_without_a_click(grid):
    grid.open(2)
    grid.batch(active=False)
    grid.page.evaluate("host.model.alive = false; host.model.trigger('comm_live_update')")
    assert grid.page.get_by_text("The kernel is gone").is_visible()


def test_what_was_lost_on_the_way_is_asked_for_again(clocked):
    clocked.open(2)
    clocked.page.clock.run_for(200)
    clocked.about({"i": 1})
    clocked.batch([{"i": 0, "status": "done"}], active=False)
    clocked.about({"i": 0, "outputs": [output(0)]})
    clocked.wait_for("see")
    clocked.forget()
    clocked.page.clock.run_for(10_000)
    seen = [(m["from"], m["to"]) for m in clocked.sent("see")]
    assert seen[:2] == [(0, 0), (0, 2)]
    clocked.thumb(0)
    clocked.forget()
    clocked.page.clock.run_for(60_000)
    assert not clocked.sent("see")


def test_a_thousand_cells_are_windowed_and_each_can_be_reached(grid):
    grid.open(1000)
    drawn = grid.page.locator(".cnb-tile")
    assert drawn.count() < 80
    grid.batch([{"i": i, "status": "done", "n": 1} for i in range(1000)], made=1000, active=False)
    grid.page.keyboard.press("Tab")
    grid.page.keyboard.press("End")
    grid.wait_for("see", to=1000)
    grid.about({"i": 999, "title": "the last", "outputs": [output(999)]})
    grid.thumb(999)
    assert grid.tile(999).locator(".cnb-picture").is_visible()
    assert "the last" in grid.tile(999).inner_text()
    focused = "document.activeElement.closest('[data-cell]')?.dataset.cell"
    until(lambda: grid.page.evaluate(focused) == "999", "the last tile has no focus")
    assert drawn.count() < 80
    for _ in range(5):
        grid.page.keyboard.press("PageUp")
    until(lambda: int(grid.page.evaluate(focused)) < 999, "PageUp led nowhere")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_at_any_width(grid, width):
    grid.page.set_viewport_size({"width": width, "height": 800})
    grid.open(12, title="A title that is long enough to need a second line on a narrow screen")
    error = {"kind": "e", "message": "x" * 300, "node": "4", "hint": "y " * 100}
    grid.about({"i": 0, "title": "t" * 200, "prompt": "p" * 2000, "error": error})
    grid.batch(
        [
            {"i": 0, "status": "failed"},
            {"i": 1, "status": "done", "ms": 5e6, "take": 12, "unknown_words": ["w" * 90]},
        ],
        failed=1,
        server="a-server-with-a-very-long-name.example:8188 " * 3,
    )
    grid.say("notice", level="error", text="n" * 500)
    wide = "[...document.querySelectorAll('.comfynb, .cnb-scroller, .cnb-header')]"
    assert grid.page.evaluate(f"{wide}.every(e => e.scrollWidth <= e.clientWidth)")
    assert grid.page.evaluate("document.documentElement.scrollWidth") <= width
    retry = grid.tile(0).get_by_role("button", name="Retry").bounding_box()
    frame = grid.tile(0).locator(".cnb-frame").bounding_box()
    assert retry["y"] + retry["height"] <= frame["y"] + frame["height"]
    assert retry["y"] >= frame["y"]


def test_colours_are_the_hosts_and_the_mode_is_the_hosts(grid):
    grid.open(1)
    style = "getComputedStyle(document.querySelector('.comfynb'))"
    for scheme, paper in (("light", "rgb(252, 251, 249)"), ("dark", "rgb(22, 21, 20)")):
        grid.page.emulate_media(color_scheme=scheme)
        assert grid.page.evaluate(f"{style}.backgroundColor") == paper
    grid.page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    assert grid.page.evaluate(f"{style}.colorScheme") == "light"
    grid.page.evaluate("document.body.style.setProperty('--jp-layout-color1', 'rgb(1, 2, 3)')")
    assert grid.page.evaluate(f"{style}.backgroundColor") == "rgb(1, 2, 3)"


def test_who_wants_no_motion_gets_none(grid):
    grid.page.emulate_media(reduced_motion="reduce")
    grid.open(2)
    grid.batch([{"i": 0, "status": "running"}])
    grid.make(1)
    picture = grid.tile(1).locator(".cnb-picture")
    assert picture.evaluate("e => getComputedStyle(e).transitionDuration") == "0s"
    moving = grid.tile(0).locator(".cnb-progress > div")
    assert moving.evaluate("e => getComputedStyle(e).animationDuration") == "0s"


def test_a_page_that_was_reloaded_says_that_the_saved_sheet_is_old(grid):
    grid.open(1)
    grid.batch(sheet="old")
    assert "grid.snapshot()" in grid.page.locator(".cnb-notice").inner_text()
    grid.batch(sheet="fresh")
    assert grid.page.locator(".cnb-notice").count() == 0

"""What pages are told: everything, in order, no faster than they take it."""

from __future__ import annotations

import io
import itertools
import threading
import time
import types

import pytest
from loopback import Page
from PIL import Image
from support import scenes, until

import comfynb
from comfynb import loop
from comfynb.widgets import client, clients


@pytest.fixture
def grid(studio):
    """A grid whose three pictures are made."""
    grid = studio.grid(scenes(3))
    grid.wait()
    return grid


async def test_a_page_sees_the_tiles_at_once_and_each_cell_to_its_end(studio):
    grid = studio.grid(scenes(3, **{"Guard.seconds": 0.1}))
    page = Page(grid, see=(0, 3))
    await until(lambda: len(page.cells) == 3)
    await until(page.has(done=3))
    for seen in page.statuses.values():
        order = [s for s in ("queued", "submitted", "running", "done") if s in seen]
        assert order == seen
        assert seen[-1] == "done"
    assert all(cell["n"] == 1 and cell["ms"] > 0 for cell in page.cells.values())
    await until(lambda: page.head["active"] is False)
    assert page.head | {"elapsed_s": 0} == {
        "made": 3,
        "failed": 0,
        "total": 3,
        "elapsed_s": 0,
        "left_s": None,
        "active": False,
        "running": 0,
        "paused": False,
        "server": studio.server,
        "connection": "connected",
        "sheet": "fresh",
        "can": {"stop": False, "retry": True, "mark": True},
    }


async def test_running_cells_show_steps_and_moving_previews(studio):
    grid = studio.grid(scenes(2, **{"Guard.seconds": 0.2, "steps": 30}))
    page = Page(grid, see=(0, 2))
    steps = set()

    def done():
        steps.update(
            (c["step"], c["steps"])
            for m in page.of_kind("batch")
            for c in m["cells"]
            if "step" in c
        )
        return page.has(done=2)()

    await until(done)
    assert len(steps) > 4
    assert all(0 <= step <= total for step, total in steps)
    assert max(map(len, page.previews.values())) > 1
    for shown in page.previews.values():
        assert len(shown) == len(set(shown))  # each once
        assert Image.open(io.BytesIO(shown[-1])).size > (8, 8)


async def test_the_head_estimates_what_is_left_from_what_was_made(studio):
    grid = studio.grid(scenes(6, **{"Guard.seconds": 0.3}))
    page = Page(grid)
    await until(lambda: page.head.get("left_s") is not None, 20)
    head = page.head
    assert (head["active"], head["running"]) == (True, 1)
    assert head["can"] == {"stop": True, "retry": True, "mark": True}
    assert 0.2 < head["left_s"] < 60
    assert head["elapsed_s"] > 0
    await grid.cancel()


async def test_a_gap_is_asked_again_and_repaired(studio):
    grid = studio.grid(scenes(5, **{"Guard.seconds": 0.1}))
    page = Page(grid)
    await until(lambda: page.version > 0)
    lost = []
    page.lose = lambda m: m["kind"] == "batch" and len(lost) < 2 and not lost.append(m)
    await until(lambda: len(lost) == 2)
    await until(page.has(done=5))
    assert page.gaps == 1
    assert len(page.of_kind("batch")) > 4


async def test_hello_after_a_reload_replays_everything(grid):
    await until(Page(grid, see=(0, 3)).has(done=3))
    reloaded = Page(grid, see=(0, 3))
    await until(reloaded.has(done=3))
    await until(lambda: len(reloaded.thumbs) == len(reloaded.about) == 3)


async def test_hello_with_what_is_known_tells_only_the_rest(grid):
    page = Page(grid)
    await until(page.has(done=3))
    before = len(page.of_kind("batch"))
    page.say(kind="hello", have=page.version)
    await until(lambda: len(page.of_kind("batch")) > before)
    assert page.of_kind("batch")[-1]["cells"] == []


async def test_a_version_of_another_life_counts_as_nothing(grid):
    page = Page(grid)
    await until(page.has(done=3))
    page.say(kind="hello", have=10**9)
    await until(lambda: page.of_kind("batch")[-1]["from"] == 0)
    assert len(page.of_kind("batch")[-1]["cells"]) == 3


async def test_nothing_is_sent_before_a_hello(studio):
    grid = studio.grid(scenes(2))
    heard = []
    grid.comm.pages.append(types.SimpleNamespace(take=lambda *message: heard.append(message)))
    await grid
    assert not heard
    await until(Page(grid).has(done=2))
    assert heard


async def test_the_first_news_after_a_pause_goes_at_once_and_the_rest_in_batches(studio):
    grid = studio.grid(scenes(2, **{"Guard.seconds": 0.5}))
    page = Page(grid)
    await until(page.has(done=2))
    times = [m["at"] for m in page.of_kind("batch")]
    spaces = [b - a for a, b in itertools.pairwise(times)]
    assert min(spaces) > clients.BATCH_SECONDS * 0.8
    assert 8 < len(times) < 40  # the guard reports a hundred steps


async def test_a_page_that_does_not_acknowledge_gets_four_batches_and_the_rest_later(studio):
    grid = studio.grid(scenes(4, **{"Guard.seconds": 0.15}))
    quick, slow = Page(grid), Page(grid, acks=False)
    await until(quick.has(done=4))
    assert len(slow.of_kind("batch")) == client.CREDIT
    slow.acks = True
    slow.say(kind="ack", seq=client.CREDIT)
    await until(slow.has(done=4))
    assert slow.gaps == 0


async def test_a_silent_page_is_forgotten_until_its_next_hello(studio, monkeypatch):
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(clients, "TICK_SECONDS", 0.1)
    grid = studio.grid(scenes(4, **{"Guard.seconds": 0.2}))
    quick, closed = Page(grid), Page(grid, acks=False)
    await until(lambda: len(grid._clients) == 1)
    told = len(closed.messages)
    await until(quick.has(done=4))
    assert len(closed.messages) == told
    closed.acks = True
    closed.say(kind="ack", seq=told)  # it wakes up: the answer shows it the gap
    await until(closed.has(done=4))


async def test_an_idle_page_is_not_forgotten(grid, monkeypatch):
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(clients, "TICK_SECONDS", 0.05)
    page = Page(grid)
    await until(page.has(done=3))
    until_then = time.monotonic() + 0.4
    await until(lambda: time.monotonic() > until_then)
    assert len(grid._clients) == 1
    assert len(page.of_kind("batch")) < 5


async def test_thumbnails_and_descriptions_come_for_what_is_on_screen(studio):
    grid = studio.grid(scenes(6))
    page = Page(grid, see=(2, 4))
    await grid
    await until(lambda: set(page.thumbs) == set(page.about) == {2, 3})
    page.see(0, 3)
    await until(lambda: set(page.thumbs) == set(page.about) == {0, 1, 2, 3})
    message, data = page.thumbs[2]
    assert (message["width_px"], message["height_px"]) == (64, 64)
    assert message["mime"] == "image/webp"
    assert Image.open(io.BytesIO(data)).format == "WEBP"
    assert message["sha256"] == grid.keyframes[2].outputs[0].sha256
    sent = [m["i"] for m in page.of_kind("thumb")]
    assert sorted(sent) == [0, 1, 2, 3]  # 2 stayed on screen and was not sent again
    page.thumbs.clear()
    page.see(0, 0)
    page.see(0, 1)
    await until(lambda: set(page.thumbs) == {0})


async def test_a_description_says_all_that_there_is(studio):
    words = {"prompt": "a fox", "title": "Fox", "negative": "fog", "seed": 2**64 - 1}
    bad = {"prompt": "an owl", "id": "owl", "knobs": {"Guard.message": "the guard said no"}}
    grid = studio.grid([words, bad], style="ink")
    page = Page(grid, see=(0, 2))
    await grid
    await until(lambda: page.about.get(1, {}).get("error") and page.about[0]["outputs"])
    fox, owl = page.about[0], page.about[1]
    assert (fox["title"], fox["number"], fox["prompt"]) == ("Fox", 1, "a fox, ink")
    assert (fox["negative"], fox["seed"]) == ("fog", "18446744073709551615")
    assert fox["knobs"]["width"] == "64"
    assert fox["outputs"][0]["mime"] == "image/png"
    assert fox["timings"]["total_ms"] > 0
    assert fox["server"] == studio.server
    assert "error" not in fox
    assert owl["id"] == "owl"
    assert owl["error"]["kind"] == "node_error"
    assert "the guard said no" in owl["error"]["message"]
    assert owl["error"]["hint"]


async def test_a_thumbnail_that_cannot_be_made_is_said_once(grid, studio):
    first = grid.keyframes[0]
    await until(lambda: all(studio.log.thumbnail(k.outputs[0].sha256) for k in grid.keyframes))
    studio.log.thumbnail(first.outputs[0].sha256).unlink()
    first.path.unlink()
    page = Page(grid, see=(0, 3))
    await until(lambda: set(page.thumbs) == {1, 2})
    await until(lambda: page.notices)
    page.see(0, 2)
    await until(lambda: page.get(1)[0]["kind"] == "full")
    assert len(page.notices) == 1
    assert page.get(0)[0]["error"]


async def test_full_pictures_come_when_asked_for_exactly_as_they_are(grid):
    page = Page(grid)
    message, (data,) = page.get(1)
    assert (message["kind"], message["i"], message["output"]) == ("full", 1, 0)
    assert message["mime"] == "image/png"
    assert data == grid.keyframes[1].read()
    assert page.get(7)[0]["error"]
    assert page.get(1, output=3)[0]["error"]


async def test_no_more_full_pictures_than_credit_are_on_their_way(grid):
    page = Page(grid, acks=False)

    async def ask() -> None:
        for number in range(40):
            page.say(kind="get", req=f"q{number}", cell=0, output=0)

    await loop.across(ask())  # on its loop: all are there before the first is answered
    await until(lambda: len(page.replies) >= 40 - clients.MOST_REQUESTS + 4)
    refused = [r for r, _ in page.replies.values() if "error" in r]
    assert len(refused) == 40 - clients.MOST_REQUESTS
    assert len(page.of_kind("full")) == client.PICTURE_CREDIT // clients.FULL_COST
    page.acks = True
    await until(lambda: page.of_kind("batch"))
    page.say(kind="ack", seq=page.of_kind("batch")[-1]["seq"])
    await until(lambda: len(page.of_kind("full")) == clients.MOST_REQUESTS)


async def test_malformed_messages_are_answered_and_harm_nobody(grid):
    page = Page(grid)
    for content in (None, "x", {}, {"v": 1}, {"v": 1, "client": page.client, "kind": "dance"}):
        page.comm.hear(content)
    page.say(kind="see", **{"from": -1, "to": 3})
    assert page.ask(kind="get", cell="first", output=0)[0]["error"]
    assert page.ask(kind="do", name="dance")[0]["error"]
    await until(lambda: len(page.notices) == 2)
    assert "dance" in page.notices[0]
    page.see(0, 2**31 - 1)  # sound, but more than there is
    await until(lambda: len(page.thumbs) == 3)


async def test_messages_may_come_on_any_thread(grid):
    page = Page(grid)
    threads = [threading.Thread(target=page.see, args=(0, stop)) for stop in (1, 2, 3)]
    for thread in threads:
        thread.start()
        thread.join()
    await until(lambda: len(page.thumbs) == 3)


async def test_more_pages_than_are_remembered_push_out_the_oldest(grid):
    pages = [Page(grid) for _ in range(clients.MOST_CLIENTS + 5)]
    await until(pages[-1].has(done=3))
    assert len(grid._clients) == clients.MOST_CLIENTS
    forgotten = next(page for page in pages if page.client not in grid._clients._clients)
    forgotten.see(0, 1)  # it is told where we are, so that it sees what it missed
    await until(lambda: 0 in [batch["seq"] for batch in forgotten.of_kind("batch")])


async def test_two_pages_see_the_same(studio):
    grid = studio.grid(scenes(4))
    one, two = Page(grid, see=(0, 4)), Page(grid, see=(0, 4))
    await grid
    await until(one.has(done=4))
    await until(two.has(done=4))
    await until(lambda: len(one.thumbs) == len(two.thumbs) == 4)
    assert one.thumbs.keys() == two.thumbs.keys()
    assert [one.cells[i] for i in range(4)] == [two.cells[i] for i in range(4)]


async def test_a_thousand_keyframes_as_fast_as_they_come_lose_nothing(instant, tmp_path):
    count = 1000
    with comfynb.connect("embedded", workflow=instant, log=False) as studio:
        many = [{"prompt": "x", "knobs": {"EmptyImage.color": i}} for i in range(count)]
        grid = studio.grid(many)
        page = Page(grid, see=(0, 30))
        keyframes = await grid
        assert [k.status for k in keyframes] == ["done"] * count
        await until(page.has(done=count))
        assert page.gaps == 0
        await until(lambda: len(page.thumbs) == 30)
        page.see(0, count)
        await until(lambda: len(page.thumbs) == len(page.about) == count, 30)
        times = [m["at"] for m in page.messages]
        busiest = max(sum(t <= u < t + 1 for u in times) for t in times[::20])
        assert busiest < 900  # above 1000 a second the notebook server drops messages
        grid.close()

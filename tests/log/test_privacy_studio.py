"""Logs that leave prompts or workflows out, end to end: a studio, a grid, a killed session."""

import json

import pytest
from log.private import seal, told
from support import CHECKPOINT, scenes, script, until, wait_for

import comfynb
from comfynb.errors import LogError, SceneError
from comfynb.log import Log
from comfynb.showing.export import write_page
from comfynb.widgets.telling import about

PROMPTS = [
    {"id": "one", "prompt": "a velvetine glimmerquark", "notes": "mothnote"},
    {
        "id": "two",
        "title": "The second",
        "prompt": "zibbel by night",
        "negative": "murkfrost",
        "knobs": {"steps": 2, "Guard.message": ""},
    },
    {
        "id": "bad",
        "prompt": "a quillmoon over hills",
        "knobs": {"Guard.message": "cannot draw 'a quillmoon over hills, wools...': Quillmoon?"},
    },
]


@pytest.fixture
def connect(engine, flow, tmp_path):
    def connect(**options):
        log = Log(tmp_path / "log", **options)
        return comfynb.connect(engine.url, workflow=flow, log=log)

    return connect


async def test_a_studio_leaves_no_word_of_its_prompts_anywhere(engine, connect, tmp_path):
    folder = tmp_path / "log"
    with connect(leave_out=("prompts", "workflows")) as studio:
        made = await studio.run(PROMPTS, style="woolstitch", seed=5)
        assert [k.status for k in made] == ["done", "done", "failed"]
        assert made[0].prompt == "a velvetine glimmerquark, woolstitch"
        assert "glimmerquark" in made[0].unknown_words
        assert "quillmoon" in made[2].error.message
        small = folder / "thumbs"
        await until(lambda: len(list(small.rglob("*.webp"))) == 2)
        assert told(folder) == set()
        seal(studio.log)
    assert list((folder / "seg").glob("*.parquet"))
    assert told(folder) == set()

    # What was made is found, with what the cell itself asks for; what failed is made again.
    known = engine.ended()
    with connect() as studio:
        assert studio.log.leaves_out == ("prompts", "workflows")
        with pytest.raises(LogError, match=r"cannot be resumed: .* Call grid\(scenes\)"):
            studio.resume()
        grid = studio.grid(PROMPTS, style="woolstitch", seed=5)
        again = await grid
        assert [(k.id, k.status) for k in again[:2]] == [(k.id, "cached") for k in made[:2]]
        assert [k.prompt for k in again] == [k.prompt for k in made]
        assert again[1].knobs == made[1].knobs
        assert again[0].read() == made[0].read()
        assert len(engine.ended() - known) == 1
        grid.retry()
        await grid
        assert len(studio.log.takes("bad")) == 3
        grid.close()
        latest = studio.log.sql("select scene, title, prompt, steps from latest order by scene")
        assert list(latest["title"]) == ["bad", "one", "The second"]
        assert set(latest["prompt"]) == {""}
    assert told(folder) == set()


async def test_an_opened_log_shows_its_tiles_by_their_ids(connect, tmp_path):
    with connect(leave_out="prompts") as studio:
        await studio.run(PROMPTS[:2])
    opened = comfynb.open_log(tmp_path / "log")
    grid = opened.grid()
    cells = opened.board().state.cells
    assert [state.status for state in cells] == ["done", "done"]
    assert [state.cell.scene.label for state in cells] == ["one", "The second"]
    assert {state.cell.prompt for state in cells} == {""}
    assert [about(state)["title"] for state in cells] == ["one", "The second"]
    keyframes = [state.keyframe for state in cells]
    page = write_page(keyframes, tmp_path / "page.html")
    assert '<h2 dir="auto">one</h2>' in page.read_text()
    assert told(tmp_path) == set()
    grid.close()
    with pytest.raises(SceneError, match="prompt was left out"), connect() as studio:
        studio.plan([keyframe.scene for keyframe in keyframes])
    opened.close()


KILLED = """
import sys
import comfynb
from support import scenes
url, flow, log = sys.argv[1:]
log = comfynb.Log(log, leave_out="prompts")
studio = comfynb.connect(url, workflow=flow, log=log)
run = studio.run(scenes(2, **{"Guard.seconds": 0.4}))
run.wait()
"""


async def test_what_a_dead_session_sent_is_fetched(engine, connect, flow, tmp_path):
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(flow.graph, default=dict))
    known = engine.ended()
    child = script(KILLED, engine.url, file, tmp_path / "log")
    wait_for(lambda: len(engine.prompts()) == 2)
    child.kill()
    child.communicate()
    with connect() as studio:
        assert len(studio.log.orphans()) == 2
        made = await studio.run(scenes(2, **{"Guard.seconds": 0.4}))
        assert [k.status for k in made] == ["done", "done"]
        assert all(CHECKPOINT.encode() not in k.read() for k in made)
        assert len(engine.ended() - known) == 2
        assert told(tmp_path / "log", ["a fox", "a owl"]) == set()


async def test_two_logs_of_a_folder_in_one_process_each_leave_out_their_own(engine, flow, tmp_path):
    with (
        comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as one,
        comfynb.connect(engine.url, workflow=flow, log=Log(tmp_path / "log")) as same,
        comfynb.connect(
            engine.url, workflow=flow, log=Log(tmp_path / "log", leave_out="prompts")
        ) as two,
    ):
        assert one.log is same.log
        assert two.log.leaves_out == ("prompts", "workflows")
        await two.run(PROMPTS[:1])
        two.log.close()
        assert told(tmp_path / "log") == set()

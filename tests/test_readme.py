"""What the README shows is true."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from support import script

import comfynb

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


def block(words: str) -> str:
    (found,) = [text for text in PYTHON if words in text]
    return found


@pytest.mark.parametrize("text", PYTHON)
def test_every_block_is_python(text):
    compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_storyboard_is_one():
    (text,) = [text for kind, text in BLOCKS if kind == "yaml"]
    board = comfynb.Storyboard.of(yaml.safe_load(text))
    fox, moon = board
    assert board.prompt_of(fox) == "a fox in the snowy forest at night, watercolor"
    assert (moon.id, moon.seed, board.knobs_of(moon)) == ("moon", 3, {"steps": 24, "cfg": 5})


AS_A_NOTEBOOK = """
import ast, asyncio, json, sys

blocks, shown = json.loads(sys.argv[1]), []
names = {"scenes": [{"id": "moon", "prompt": "an astronaut on the moon"}], "display": shown.append}

async def main():
    for text in blocks:
        if "studio" in names:
            small = {"width": 64, "height": 64}
            names["studio"].workflow = names["studio"].workflow.with_knobs(small)
        code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if asyncio.iscoroutine(result):
            await result
    names["studio"].close()

asyncio.run(main())
assert [image.size for image in shown] == [(64, 64)], shown
assert names["run"].ended
assert len(names["log"].df()) >= 3
"""


def test_the_first_lines_the_generator_the_handle_and_the_log_do_what_they_say(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    wanted = ("studio.render(", "aclosing(studio.keyframes", "run.pause(), run", "log.df()")
    blocks = [block(words) for words in wanted]
    # In a process of its own: render() in a running loop patches asyncio, and for good.
    process = script(AS_A_NOTEBOOK, json.dumps(blocks), errors=True)
    said, complaints = process.communicate(timeout=50)
    assert process.returncode == 0, complaints
    assert said.count(" done ") == 2
    assert "embedded engine" in complaints


def test_every_file_it_names_is_there():
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) >= 3
    for link in links:
        assert (ROOT / link).exists(), link

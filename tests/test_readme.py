"""What the README shows is true."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
import yaml

import comfynb

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


def block(words: str) -> str:
    (found,) = [text for text in PYTHON if words in text]
    return found


async def execute(text: str, names: dict) -> None:
    """Run a block as a notebook cell does: with `await` at its top level."""
    code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if asyncio.iscoroutine(result):
        await result


@pytest.mark.parametrize("text", PYTHON)
def test_every_block_is_python(text):
    compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_storyboard_is_one():
    (text,) = [text for kind, text in BLOCKS if kind == "yaml"]
    board = comfynb.Storyboard.of(yaml.safe_load(text))
    fox, moon = board
    assert board.prompt_of(fox) == "a fox in the snowy forest at night, watercolor"
    assert (moon.id, moon.seed, board.knobs_of(moon)) == ("moon", 3, {"steps": 24, "cfg": 5})


async def test_the_first_lines_the_handle_and_the_log_do_what_they_say(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shown = []
    names = {
        "scenes": [{"id": "moon", "prompt": "an astronaut on the moon"}],
        "display": shown.append,
    }
    await execute(block("studio.render("), names)
    said = capsys.readouterr()
    assert said.out.count(" done ") == 2
    assert "embedded engine" in said.err
    names["studio"].workflow = names["studio"].workflow.with_knobs({"width": 64, "height": 64})
    await execute(block("aclosing(studio.keyframes"), names)
    assert [image.size for image in shown] == [(64, 64)]
    await execute(block("run.pause(), run.resume()"), names)
    assert names["run"].ended
    names["studio"].close()
    await execute(block("log.df()"), names)
    assert len(names["log"].df()) >= 3


def test_every_file_it_names_is_there():
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) >= 3
    for link in links:
        assert (ROOT / link).exists(), link

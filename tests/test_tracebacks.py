"""What a notebook shows of a caller's mistake: the caller's line and the message, in a kernel."""

from __future__ import annotations

import json
import re
import traceback

import jupyter_client
import pytest
from support import guarded_graph

from comfynb.errors import ComfynbError, LogError, MarkError, QueryError, SceneError, WorkflowError
from comfynb.tracebacks import shown

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BEGIN = """
import comfynb
studio = comfynb.connect({url!r}, workflow={flow!r}, log=False)
"""


@pytest.fixture(scope="module")
def kernel(shared_engine, tmp_path_factory):
    """Runs cells; returns the error that a notebook shows, without its colours."""
    folder = tmp_path_factory.mktemp("kernel")
    graph = guarded_graph()
    graph["zebra"] = {"class_type": "Zebra", "inputs": {}}
    (folder / "flow.json").write_text(json.dumps(graph))
    manager, client = jupyter_client.manager.start_new_kernel(cwd=str(folder))

    def run(*lines: str) -> str:
        heard: list[dict] = []
        client.execute_interactive("\n".join(lines), output_hook=heard.append, timeout=30)
        errors = [said["content"] for said in heard if said["msg_type"] == "error"]
        return "".join(COLOUR.sub("", "\n".join(error["traceback"])) for error in errors)

    assert not run(BEGIN.format(url=shared_engine.url, flow="flow.json"))
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("studio.render(3)", "SceneError: a storyboard cannot be made of 3 (int)"),
        ("studio.render(['a fox'], knobs={'step': 3})", "did you mean 'steps'"),
        ("studio.workflow.with_knobs({'steps': 'many'})", "KnobValueError"),
        ("await studio.run(['a fox'])", "no node type 'Zebra'"),  # raised on another thread
    ],
)
def test_a_mistake_is_shown_as_the_callers_line_and_what_is_wrong(kernel, line, says):
    text = kernel(line)
    assert f"----> 1 {line}" in text
    assert says in text
    assert text.count("File ") == 0
    assert text.count("Cell In[") == 1


def test_the_callers_own_functions_are_shown_on_both_sides_of_ours(kernel):
    text = kernel(
        "def mine():",
        "    yield comfynb.Storyboard.of(3).scenes[0]",
        "def draw(scenes):",
        "    studio.render(scenes)",
        "draw(mine())",
    )
    marked = [
        line.partition(" ")[2].split(" ", 1)[1] for line in text.splitlines() if "-->" in line
    ]
    assert [line.strip() for line in marked] == [
        "draw(mine())",
        "studio.render(scenes)",
        "yield comfynb.Storyboard.of(3).scenes[0]",
    ]


def test_what_it_was_raised_from_is_a_line_below(kernel):
    text = kernel(
        "from comfynb.errors import SceneError",
        "try:",
        "    int('x')",
        "except ValueError as error:",
        "    raise SceneError('no') from error",
    )
    assert "----> 5" in text
    assert text.splitlines()[-1].startswith("caused by ValueError: invalid literal")


def test_everything_is_kept_and_shown_to_who_asks(kernel):
    short = kernel("studio.render(3)")
    whole = kernel("%tb Verbose")
    assert "scene_input.py" in whole or "scenes.py" in whole
    assert short.splitlines()[-1] in whole
    asked = "import sys, traceback; traceback.extract_tb(sys.last_value.__traceback__)"
    assert not kernel(f"{asked}[-1].filename.index('comfynb')")


def test_a_bug_of_ours_shows_where_it_is(kernel):
    text = kernel(
        "from unittest.mock import patch",
        "with patch('comfynb.studio.Plan.make', lambda *_, **__: {}['gone']):",
        "    studio.render(['a fox'])",
    )
    assert "studio.py" in text
    assert "KeyError: 'gone'" in text


def test_only_the_callers_mistakes_look_so():
    short = {
        kind
        for kind in (SceneError, WorkflowError, MarkError, QueryError, LogError, ComfynbError)
        if hasattr(kind, "_render_traceback_")
    }
    assert short == {SceneError, WorkflowError, MarkError, QueryError}


def test_without_a_notebook_it_looks_like_any_error():
    error = SceneError("no")
    assert shown(error) == traceback.format_exception(error)

"""The fixtures for other people's tests: what their documentation shows, run by pytest."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap

import pytest

from comfynb.errors import EngineError
from comfynb.testing import EngineProcess, plugin

pytest_plugins = ["pytester"]


def shown(opening: str) -> str:
    """The example in the plugin's documentation that begins so."""
    text = inspect.cleandoc(plugin.__doc__)
    start = text.index("    " + opening)
    lines = []
    for line in text[start:].splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line)
    return textwrap.dedent("\n".join(lines))


ANOTHER = """
import types, pytest

{fixture}

def test_that_server_stands_behind_the_proxy(fault_proxy):
    assert fault_proxy.upstream == "http://gpu:8188"
"""


def test_what_the_documentation_shows_passes(pytester):
    pytester.makeconftest(shown("pytest_plugins"))
    pytester.makepyfile(
        test_example=shown("import comfynb"),
        test_another=ANOTHER.format(fixture=shown("@pytest.fixture")),
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=50).assert_outcomes(passed=2)


def test_nobodys_pytest_loads_it_unasked():
    code = "from importlib.metadata import entry_points as e; print(e(group='pytest11').names)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "comfynb" not in names.stdout


def test_an_engine_that_cannot_start_says_so(tmp_path, capfd):
    with pytest.raises(EngineError, match="did not start"):
        EngineProcess(nodes=tmp_path / "missing.py").start()
    assert "missing.py" in capfd.readouterr().err


def test_an_engine_comes_back_on_its_port_with_its_token():
    with EngineProcess(token="a-token") as engine:
        url, first = engine.url, engine.process
        with pytest.raises(EngineError, match="running already"):
            engine.start()
        engine.restart()
        assert engine.url == url
        assert engine.process is not first
        assert engine.running
    assert not engine.running

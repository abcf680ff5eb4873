"""The grid in a real kernel, run as nbconvert and papermill run notebooks: no browser at all."""

from __future__ import annotations

import json
import os

import jupyter_client
import nbclient
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from support import guarded_graph, wait_for

QUICK = "knobs={'width': 64, 'height': 64, 'steps': 1}"


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.fixture
def run(monkeypatch):
    """Runs cells in a new kernel; returns the notebook as it would be saved."""
    # The embedded engine, whatever listens on this machine.
    monkeypatch.setenv("COMFYUI_URL", "embedded")

    def run(*cells: str):
        notebook = new_notebook(cells=[new_code_cell(text) for text in cells])
        client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
        client.execute(env=dict(os.environ))
        return notebook

    return run


def outputs_of(notebook) -> list[dict]:
    return [o["data"] for cell in notebook.cells for o in cell.outputs if "data" in o]


def test_a_notebook_run_without_a_browser_saves_pictures(run):
    text = f"""
import comfynb
studio = comfynb.connect(log="log")
grid = studio.grid(["a fox", "an owl", "a whale"], {QUICK})
keyframes = await grid
"""
    notebook = run(text, "keyframes", "grid", "list(k.status for k in await grid.retry())")
    outputs = outputs_of(notebook)
    views = [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o]
    sheets = [o for o in outputs if o["text/plain"].startswith("comfynb contact sheet:")]
    assert len(views) == len(sheets) == 2  # the cell that made it, and the one that shows it
    assert all("image/jpeg" in sheet for sheet in sheets)
    assert views[0]["text/plain"] == "<SceneGrid of 3 scenes>"
    assert "<Keyframe scene-1: done>" in outputs[2]["text/plain"]
    assert outputs[-1]["text/plain"] == "['done', 'done', 'done']"
    text = nbformat.writes(notebook)
    assert "0x" not in json.dumps([o["text/plain"] for o in outputs])
    assert len(text) < 300_000


class Kernel:
    """A kernel to which cells are sent one by one."""

    def __init__(self) -> None:
        self._manager, self._client = jupyter_client.manager.start_new_kernel(kernel_name="python3")

    def begin(self, code: str) -> str:
        """Send a cell and do not wait for it."""
        return self._client.execute(code, stop_on_error=False)

    def end(self, message_id: str, timeout: float = 30) -> dict:
        """Wait for the answer to a cell."""
        while True:
            reply = self._client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == message_id:
                return reply["content"]

    def run(self, code: str) -> dict:
        return self.end(self.begin(code))

    def value(self, expression: str) -> str:
        """Return the repr of something in the kernel."""
        message_id = self._client.execute("", user_expressions={"value": expression})
        return self.end(message_id)["user_expressions"]["value"]["data"]["text/plain"]

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(engine, tmp_path):
    """A kernel with a studio on the shared engine."""
    (tmp_path / "flow.json").write_text(json.dumps(guarded_graph()))
    kernel = Kernel()
    text = f"""
import comfynb
studio = comfynb.connect({engine.url!r}, workflow="flow.json", log="log")
def scenes(seconds):
    return [{{"prompt": f"x {{i}}", "seed": i, "knobs": {{"Guard.seconds": seconds}}}}
            for i in range(3)]
"""
    assert kernel.run(text)["status"] == "ok"
    yield kernel
    kernel.close()


def interrupted(kernel, engine, cell: str) -> dict:
    """Run a cell, interrupt it when our prompts are on the server, and return its answer."""
    running = kernel.begin(cell)
    wait_for(lambda: len(engine.prompts()) >= 2)
    kernel.interrupt()
    reply = kernel.end(running)
    assert reply["status"] == "error"
    return reply


def test_interrupting_await_cancels_and_an_iteration_detaches(kernel, engine):
    interrupted(kernel, engine, "grid = studio.grid(scenes(60))\nawait grid")
    assert not engine.prompts()
    assert kernel.value("repr(grid)").startswith("'<SceneGrid 0 of 3")

    stranger = engine.post_prompt(**{"Guard.seconds": 1.0, "seed": 7})
    interrupted(kernel, engine, "grid = studio.grid(scenes(60))\nasync for k in grid: pass")
    assert len(engine.prompts() - {stranger}) == 2  # it goes on
    assert kernel.run("await grid.cancel()")["status"] == "ok"
    assert engine.prompts() <= {stranger}
    wait_for(lambda: stranger in engine.ended())
    assert engine.get("/history")[stranger]["status"]["status_str"] == "success"

    interrupted(kernel, engine, "grid = studio.grid(scenes(60))\ngrid.wait()")
    assert len(engine.prompts()) == 2  # it goes on
    assert kernel.run("await grid.cancel()")["status"] == "ok"


def test_a_grid_goes_on_while_other_cells_run_and_block(kernel):
    assert kernel.run("studio.render(scenes(0.01)[:1])")["status"] == "ok"
    assert kernel.run("grid = studio.grid(scenes(0.2))")["status"] == "ok"
    text = "import time\ntime.sleep(1.5)\nmade = len(grid.keyframes)"
    assert kernel.run(text)["status"] == "ok"
    assert kernel.value("made") == "3"

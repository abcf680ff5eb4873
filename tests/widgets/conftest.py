"""Grids whose comms end in this process."""

from __future__ import annotations

import gc
import itertools
import types

import comm
import IPython
import pytest
from loopback import LoopbackComm

import comfynb
from comfynb import loop
from comfynb.widgets import scene_grid
from comfynb.workflows import Workflow

INSTANT = {
    "blank": {
        "class_type": "EmptyImage",
        "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0},
    },
    "save": {
        "class_type": "SaveImage",
        "inputs": {"images": ["blank", 0], "filename_prefix": "instant"},
    },
}


@pytest.fixture(autouse=True)
def _loopback(monkeypatch, tmp_path):
    """Comms record; where the front end has not been built, a stand-in takes its place."""
    monkeypatch.setattr(comm, "create_comm", LoopbackComm)
    if not (scene_grid.STATIC / "scene_grid.js").exists():
        (tmp_path / "scene_grid.js").write_text("export default {}")
        (tmp_path / "scene_grid.css").write_text("")
        monkeypatch.setattr(scene_grid, "STATIC", tmp_path)
    yield
    import ipywidgets

    ipywidgets.Widget.close_all()
    gc.collect()


@pytest.fixture
def studio(engine, flow, tmp_path):
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        yield studio


@pytest.fixture
def instant() -> Workflow:
    """A workflow that takes a millisecond; each scene turns its colour."""
    return Workflow.load(INSTANT)


class Publisher:
    """Keeps the outputs of cells as a notebook document does."""

    def __init__(self) -> None:
        self.outputs: list[dict] = []
        self.updates = 0
        self._shown: dict[str, list[dict]] = {}

    def publish(self, data, metadata=None, *, transient=None, update=False):
        display_id = (transient or {}).get("display_id")
        if update:
            self.updates += 1
            for output in self._shown.get(display_id, ()):
                output.clear()
                output.update(data)
            return
        self.outputs.append(dict(data))
        if display_id is not None:
            self._shown.setdefault(display_id, []).append(self.outputs[-1])

    @property
    def views(self) -> list[str]:
        """Ids of the models of the live views."""
        mime = "application/vnd.jupyter.widget-view+json"
        return [output[mime]["model_id"] for output in self.outputs if mime in output]

    @property
    def sheets(self) -> list[dict]:
        return [o for o in self.outputs if o["text/plain"].startswith("comfynb contact sheet:")]


class Notebook:
    """A shell with a kernel, as far as the grid looks at it."""

    def __init__(self) -> None:
        self.kernel = object()
        self.user_ns: dict = {}
        self.display_pub = Publisher()
        self.events = types.SimpleNamespace(trigger=lambda _: None)
        self._executions = itertools.count(1)
        self._parent: dict = {}

    def run(self, cell: str | None, code: str = "") -> None:
        """From now on this cell runs."""
        self._parent = {
            "header": {"msg_id": f"m{next(self._executions)}"},
            "metadata": {} if cell is None else {"cellId": cell},
            "content": {"code": code},
        }

    def get_parent(self) -> dict:
        return self._parent


@pytest.fixture
def notebook(monkeypatch):
    shell = Notebook()
    shell.run("cell-1")
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    return shell


@pytest.fixture
def on_loop():
    """Calls something on comfynb's own loop and returns what it returned."""

    def call(function, *arguments):
        async def there():
            return function(*arguments)

        return loop.wait(there(), timeout=10)

    return call

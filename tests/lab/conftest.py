"""A JupyterLab for this folder's tests, and a page for each."""

from __future__ import annotations

import json
import shutil

import pytest
from browser.conftest import browser  # noqa: F401 - a fixture
from lab.driver import LabPage, LabServer
from support import guarded_graph

FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="module")
def lab_root(tmp_path_factory):
    """A folder for a JupyterLab, with a workflow in it."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install jupyterlab")
    root = tmp_path_factory.mktemp("lab")
    (root / "flow.json").write_text(json.dumps(guarded_graph()))
    return root


@pytest.fixture(scope="module")
def lab_server(lab_root):
    server = LabServer(lab_root)
    yield server
    server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keep whether the test's body failed, for the fixture below."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def lab(lab_server, browser, request):  # noqa: F811
    """Opens a notebook of some cells; each test has its log folder. A failure says what it saw."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(15_000)
    pages: list[LabPage] = []

    def open_notebook(*cells: str, name: str = "test.ipynb") -> LabPage:
        lab_server.notebook(name, *cells)
        pages.append(LabPage(lab_server, context.new_page(), name))
        return pages[-1]

    yield open_notebook
    if request.node.stash.get(FAILED, False):
        for page in pages:
            print(page.report())
    context.close()
    lab_server.end_kernels()
    shutil.rmtree(lab_server.root / "kept", ignore_errors=True)

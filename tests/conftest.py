"""Fixtures that every room's tests share."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from real_server import MISSING, RealComfyUI, is_installed
from support import Engine, guarded_graph

from comfynb.workflows import Workflow

# Our own fixtures for other projects; and what prints the fault matrix, which must be known to
# the process that distributes the tests too.
pytest_plugins = ["comfynb.testing.plugin", "both.fault_matrix"]


def pytest_configure():
    """Let interrupts through: a shell that puts us into the background has them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_engine():
    """One engine for all tests that leave it alive."""
    engine = Engine()
    yield engine
    engine.stop()


@pytest.fixture
def engine(shared_engine):
    """The shared engine, with an empty queue before and after."""
    shared_engine.quiet()  # a run that a test left behind may have sent its prompt only now
    yield shared_engine
    shared_engine.quiet()


@pytest.fixture
def comfyui_engine(engine):
    """What `fault_proxy` stands before: the engine with the test nodes."""
    return engine


@pytest.fixture
def own_engine():
    """An engine that the test may kill."""
    engine = Engine()
    yield engine
    if engine.process.poll() is None:
        engine.stop()


@pytest.fixture(scope="session")
def start_comfyui():
    """A function that starts a real ComfyUI with more flags; all end with the session."""
    if not is_installed():
        # A machine that checks everything must not pass because something was not there.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    started = []

    def start(*flags: str) -> RealComfyUI:
        started.append(RealComfyUI(*flags))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def shared_comfyui(start_comfyui):
    """One real ComfyUI for all tests that leave it alive."""
    return start_comfyui("--preview-method", "latent2rgb")


@pytest.fixture
def comfyui(shared_comfyui):
    """The shared ComfyUI, with an empty queue before and after."""
    assert not shared_comfyui.prompts()
    yield shared_comfyui
    shared_comfyui.quiet()


@pytest.fixture(scope="session")
def mortal_comfyui(start_comfyui):
    """One for all tests that may kill theirs: starting one takes from 5 to 25 s."""
    return start_comfyui()


@pytest.fixture
def own_comfyui(mortal_comfyui):
    """A real ComfyUI that the test may kill; it remembers nothing of the tests before."""
    if not mortal_comfyui.runs:
        mortal_comfyui.start()
    mortal_comfyui.post("/history", {"clear": True})
    yield mortal_comfyui
    if mortal_comfyui.runs:
        mortal_comfyui.quiet()


@pytest.fixture
def flow() -> Workflow:
    """A workflow of about 20 ms, without pauses."""
    return Workflow.load(guarded_graph())


@pytest.fixture
def slow_flow() -> Workflow:
    """A workflow that takes 0.4 s a picture, with progress, and can be interrupted."""
    return Workflow.load(guarded_graph(seconds=0.4))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    """The tests choose their servers themselves."""
    monkeypatch.delenv("COMFYUI_URL", raising=False)


@pytest.fixture(autouse=True)
def _asyncio_as_it_is():
    """`render()` inside a running loop patches asyncio for good: such a test needs a process."""
    yield
    assert not hasattr(asyncio, "_nest_patched"), "this test patched asyncio for all that follow"

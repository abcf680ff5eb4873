"""Fixtures that every room's tests share."""

from __future__ import annotations

import asyncio
import signal

import pytest
from support import Engine, guarded_graph, wait_for

from comfynb.workflows import Workflow


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
    assert not shared_engine.prompts()
    yield shared_engine
    shared_engine.post("/queue", {"clear": True})
    shared_engine.post("/interrupt", {})
    wait_for(lambda: not shared_engine.prompts())


@pytest.fixture
def own_engine():
    """An engine that the test may kill."""
    engine = Engine()
    yield engine
    if engine.process.poll() is None:
        engine.stop()


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

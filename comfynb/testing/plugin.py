"""Fixtures of pytest for whoever builds on comfynb, or on ComfyUI at all.

One line in the topmost `conftest.py` brings them in; there is no entry point, so that having
comfynb installed neither slows nor changes anybody's pytest:

    pytest_plugins = ["comfynb.testing.plugin"]

A test then has a real server that needs no GPU, and a proxy before it that breaks on demand:

    import comfynb
    from comfynb.testing import Cut


    def test_a_dropped_socket_costs_no_picture(fault_proxy, tmp_path):
        fault_proxy.add(Cut("executed", prompt=2))
        with comfynb.connect(fault_proxy.url, log=tmp_path) as studio:
            quick = {"width": 64, "height": 64, "steps": 1}
            keyframes = studio.render(["a fox", "an owl"], knobs=quick)
        assert [keyframe.status for keyframe in keyframes] == ["done", "done"]
        assert fault_proxy.requests["POST /prompt"] == 2

Override `comfyui_engine` to test against something else: anything with a `url` and a `token`
serves, such as a ComfyUI of yours:

    @pytest.fixture(scope="session")
    def comfyui_engine():
        return types.SimpleNamespace(url="http://gpu:8188", token="")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from comfynb.testing.engine import EngineProcess
from comfynb.testing.fault_proxy import FaultProxy


class Server(Protocol):
    """What `fault_proxy` asks of the server behind it."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def token(self) -> str:
        """Bearer token that it wants; "": none."""


@pytest.fixture(scope="session")
def comfyui_engine() -> Iterator[EngineProcess]:
    """The embedded engine as a process of its own: one for the whole session.

    It speaks ComfyUI's protocol on loopback and wants no token; a 64x64 picture of one step takes
    it about 20 ms. `restart()` kills it and starts it again on the same port.
    """
    with EngineProcess() as engine:
        yield engine


@pytest.fixture
def fault_proxy(comfyui_engine: Server) -> Iterator[FaultProxy]:
    """A `FaultProxy` before `comfyui_engine`, without rules: one for each test."""
    with FaultProxy(comfyui_engine.url, token=comfyui_engine.token or None) as proxy:
        yield proxy

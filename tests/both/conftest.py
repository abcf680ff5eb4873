"""Every test here runs on the engine and on a real ComfyUI: `make test` does the one half.

`server` is shared and left alive, with an empty queue before and after; `own_server` may be
killed, and is there again for the next test. Graphs that both can run are in tests/plain.py.
"""

from __future__ import annotations

import pytest

SERVERS = ["engine", pytest.param("comfyui", marks=pytest.mark.comfyui)]


@pytest.fixture(params=SERVERS)
def server(request):
    """A server with the test nodes; a `support.Server`."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=SERVERS)
def own_server(request):
    """A server that the test may kill and start."""
    return request.getfixturevalue(f"own_{request.param}")

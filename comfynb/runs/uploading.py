"""Input files on their way: from the log, which has them by then, to the server."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from comfynb import loop
from comfynb.backends.base import Backend, Read
from comfynb.cells import Cell
from comfynb.errors import ClosedError
from comfynb.log import Store


async def uploaded(cell: Cell, backend: Backend, store: Store) -> Mapping[str, Any]:
    """Have the files of a cell on a server; return the graph as that server must be given it.

    Args:
        cell: What is to be made.
        backend: Where; it sends each file once.
        store: Has the bytes.

    Raises:
        LogError: The bytes are not there any more.
        BackendError: A file could not be sent.
    """
    renamed: dict[Any, str] = {}
    for file in cell.inputs:
        given = await backend.upload(file.name, file.mime, _reading(file.sha256, store))
        if given != file.name:
            renamed[file.name] = given
    return _with_names(cell.graph, renamed) if renamed else cell.graph


def _reading(sha256: str, store: Store) -> Read:
    """Return what reads a file; a server that is used for longer than its log holds on to none."""
    kept = weakref.ref(store)

    async def read() -> bytes:
        log = kept()
        if log is None:
            raise ClosedError(f"the log that has the input {sha256} was closed; connect again")
        return await loop.in_worker(log.read, sha256)

    return read


def _with_names(graph: Mapping[str, Any], renamed: Mapping[Any, str]) -> Mapping[str, Any]:
    """Return a graph with some texts replaced; a file's own name can mean nothing else."""
    return {
        node_id: {
            **node,
            "inputs": {
                name: renamed.get(value, value) if isinstance(value, str) else value
                for name, value in node["inputs"].items()
            },
        }
        for node_id, node in graph.items()
    }

"""Input files on their way: from the scenes, or from the log, to the server that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfynb import loop
from comfynb.backends.base import Backend
from comfynb.cells import Cell
from comfynb.log import Store


async def uploaded(cell: Cell, backend: Backend, store: Store) -> Mapping[str, Any]:
    """Have the files of a cell on a server; return the graph as that server must be given it.

    Args:
        cell: What is to be made.
        backend: Where; it sends each file once.
        store: Has the bytes of a file that an earlier process was given.

    Raises:
        LogError: The bytes are not there any more.
        BackendError: A file could not be sent.
    """
    renamed: dict[Any, str] = {}
    for file in cell.inputs:
        data = file.data
        if data is None:
            data = await loop.in_worker(store.read, file.sha256)
        given = await backend.upload(file.name, data, file.mime)
        if given != file.name:
            renamed[file.name] = given
    return _with_names(cell.graph, renamed) if renamed else cell.graph


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

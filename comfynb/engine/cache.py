"""Results kept from one prompt to the next.

As in ComfyUI's classic cache, a result is found by what went into it: class, values and the same
for everything upstream, not by node id; and only results of the last prompt's nodes are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from comfynb.engine.files import Files
from comfynb.engine.order import Graph
from comfynb.engine.registry import NodeResult, Registry


def signatures(graph: Graph, registry: Registry, files: Files) -> dict[str, str]:
    """Return what identifies the result of each node.

    Nodes that must run each time, that depend on such a node, or that cannot run (validation
    may accept a graph in part) have none.
    """
    found: dict[str, str | None] = {}

    def signature(node_id: str) -> str | None:
        if node_id not in found:
            found[node_id] = None  # for a cycle
            found[node_id] = compute(node_id)
        return found[node_id]

    def compute(node_id: str) -> str | None:
        entry = graph.get(node_id)
        if entry is None or "inputs" not in entry:
            return None
        node = registry[entry["class_type"]]
        values: dict[str, Any] = {}
        literals: dict[str, Any] = {}
        declared = {item.name for item in node.inputs}
        # Inputs that the class does not know count too, as in ComfyUI (measured, http_prompt).
        for name, value in entry["inputs"].items():
            if name in declared and isinstance(value, list):
                source = signature(value[0]) if len(value) == 2 else None
                if source is None:
                    return None
                values[name] = ["link", source, value[1]]
            else:
                values[name] = literals[name] = value
        changed: object = ""
        if node.changed is not None:
            try:
                changed = node.changed(files, literals)
            except (OSError, ValueError):  # the node will run and say what is wrong
                changed = None
            if changed is None:
                return None
        text = json.dumps([node.name, sorted(values.items()), changed])
        return hashlib.sha256(text.encode()).hexdigest()

    return {node_id: text for node_id in graph if (text := signature(node_id)) is not None}


class OutputCache:
    """Results by signature. Used by the worker thread only."""

    def __init__(self) -> None:
        self._results: dict[str, NodeResult] = {}

    def keep(self, used: Mapping[str, str]) -> None:
        """Drop all results but those of the nodes with these signatures (values)."""
        wanted = set(used.values())
        self._results = {key: item for key, item in self._results.items() if key in wanted}

    def get(self, signature: str | None) -> NodeResult | None:
        """Return the result, or None."""
        return None if signature is None else self._results.get(signature)

    def put(self, signature: str | None, result: NodeResult) -> None:
        """Keep a result; without a signature it is not kept."""
        if signature is not None:
            self._results[signature] = result

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()

"""Which node runs next.

ComfyUI's order, as its transcripts show it: nodes are found backwards from the outputs, the last
link of a node first; of those that are ready, output nodes go first, then the one found first.
Nodes whose results are known already are not visited, unless they are outputs themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfynb.engine.registry import Registry

Graph = Mapping[str, Any]


def links(graph: Graph, registry: Registry, node_id: str) -> Iterator[tuple[str, int]]:
    """Yield (node id, output number) for each linked input, in the order of the graph."""
    node = graph[node_id]
    declared = {item.name for item in registry[node["class_type"]].inputs}
    for name, value in node["inputs"].items():
        if name in declared and isinstance(value, list):
            yield value[0], value[1]


def upstream(graph: Graph, registry: Registry, node_id: str) -> list[str]:
    """Return the ids of all nodes that a node depends on, each once, nearest first."""
    found: dict[str, None] = {}
    waiting = [node_id]
    while waiting:
        for source, _ in links(graph, registry, waiting.pop(0)):
            if source not in found:
                found[source] = None
                waiting.append(source)
    return list(found)


class Order:
    """The nodes of one prompt that are still to be visited."""

    def __init__(self, graph: Graph, registry: Registry, known: Callable[[str], bool]) -> None:
        """Start empty.

        Args:
            graph: A validated graph.
            registry: Its node classes.
            known: Says whether a node's result is there already.
        """
        self._graph = graph
        self._registry = registry
        self._known = known
        self._pending: dict[str, set[str]] = {}

    def add(self, output: str) -> None:
        """Add an output node and all that it needs."""
        waiting = [output]
        while waiting:
            node_id = waiting.pop()
            if node_id in self._pending:
                continue
            needs = self._pending[node_id] = set[str]()
            if self._known(node_id):
                continue
            for source, _ in links(self._graph, self._registry, node_id):
                if not self._known(source):
                    needs.add(source)
                    waiting.append(source)

    def take(self) -> str | None:
        """Return the node to visit now and forget it; None: all are done.

        Call `done` before taking the next.
        """
        ready = [node_id for node_id, needs in self._pending.items() if not needs]
        if not ready:
            assert not self._pending, "validation lets no cycle pass"
            return None
        shown = (n for n in ready if self._registry[self._graph[n]["class_type"]].output_node)
        chosen = next(shown, ready[0])
        del self._pending[chosen]
        return chosen

    def done(self, node_id: str) -> None:
        """Say that a node's result is there."""
        for needs in self._pending.values():
            needs.discard(node_id)

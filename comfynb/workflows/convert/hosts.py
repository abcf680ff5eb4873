"""What was typed in on the nodes of subgraphs.

A node of a subgraph saves the values of those of its inputs that lead to a widget inside, in the
order of the subgraph's inputs (ComfyUI_frontend, SubgraphNode.ts, 1.49). Files of before 2026 save
none there: what was typed in on the outside was written into the node inside (`proxyWidgets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfynb.workflows.convert.editor import MAX_DEPTH, EditorGraph, EditorNode


@dataclass(frozen=True, slots=True)
class Held:
    """A value that was typed in elsewhere: in a primitive, or on a subgraph."""

    value: Any


class HostValues:
    """The values on the nodes of subgraphs, by the number of the input.

    Args:
        subgraphs: Definitions by id.
    """

    def __init__(self, subgraphs: Mapping[str, EditorGraph]) -> None:
        self._subgraphs = subgraphs
        self._places: dict[str, dict[int, int]] = {}

    def of(self, host: EditorNode, port: int) -> Held | None:
        """Return the value of an input of a subgraph's node, or None where it saved none."""
        place = self._places_of(host.type).get(port)
        if place is None or not isinstance(host.values, list) or place >= len(host.values):
            return None
        return Held(host.values[place])

    def _places_of(self, subgraph: str, depth: int = 0) -> dict[int, int]:
        """Return where in the list of values an input's is, by its number."""
        if subgraph not in self._places and depth <= MAX_DEPTH:
            self._places[subgraph] = {}  # one that holds itself has none
            ports = self._subgraphs[subgraph].inputs
            numbers = range(len(ports))
            typed = [number for number in numbers if self._is_typed(subgraph, number, depth)]
            self._places[subgraph] = {number: place for place, number in enumerate(typed)}
        return self._places.get(subgraph, {})

    def _is_typed(self, subgraph: str, port: int, depth: int) -> bool:
        """Whether an input leads to a widget inside, or inside a subgraph there."""
        graph = self._subgraphs[subgraph]
        for link_id in graph.inputs[port].links:
            link = graph.links.get(link_id)
            node = graph.nodes.get(link.target) if link is not None else None
            if link is None or node is None or not 0 <= link.target_slot < len(node.inputs):
                continue
            slot = node.inputs[link.target_slot]
            if node.type in self._subgraphs:
                names = [port.name for port in self._subgraphs[node.type].inputs]
                if slot.name in names and names.index(slot.name) in self._places_of(
                    node.type, depth + 1
                ):
                    return True
            elif slot.is_widget:
                return True
        return False

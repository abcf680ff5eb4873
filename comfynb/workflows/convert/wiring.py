"""Where an input's value comes from, through everything that only the editor knows.

A link in the editor may lead to a reroute, a primitive, a bypassed node, into a subgraph or out of
one; a server knows none of these. Source of the rules: ComfyUI_frontend, ExecutableNodeDTO.ts
(resolveInput, resolveOutput, _getBypassSlotIndex) and executionUtil.ts (graphToPrompt), 1.49:

- a link from a muted node is none;
- a bypassed node hands on the input in the place of the output where both types fit, else the
  first of exactly the type that is wanted, else the first that fits; else the link is none;
- the inside of a subgraph that is muted or bypassed is not there;
- an input on a subgraph's border goes on outside. Where nothing is linked there, the value that
  was typed in on the outside counts, and where there is none, the one inside;
- nodes inside have the ids of the way to them: "12:3".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfynb.errors import WorkflowError
from comfynb.workflows.convert.editor import (
    BORDER_IN,
    BYPASSED,
    MUTED,
    EditorGraph,
    EditorNode,
    EditorWorkflow,
    Link,
    Slot,
)

REROUTES = frozenset({"Reroute", "Reroute (rgthree)"})
_MAX_NODES = 20_000
"""Subgraphs within subgraphs multiply: a file of a few kB could stand for billions of nodes."""
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Held:
    """A value that was typed in elsewhere: in a primitive, or on a subgraph."""

    value: Any


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a node that runs, by its full id."""

    node: str
    slot: int


@dataclass(eq=False)
class Scope:
    """A graph in the place where it is used: the one on top, or a subgraph in its node.

    Attributes:
        graph: Its nodes and links.
        prefix: What stands before its nodes' ids: "" on top, else "12:".
        host: The node that stands for it in `outside`, or None on top.
        outside: Where that node is, or None on top.
        inside: The scopes of its own subgraphs that run, by the id of their node.
    """

    graph: EditorGraph
    prefix: str = ""
    host: EditorNode | None = None
    outside: Scope | None = None
    inside: dict[str, Scope] = field(default_factory=dict)

    def walk(self) -> Iterator[tuple[Scope, EditorNode]]:
        """Yield the nodes that run, here and inside; subgraphs' own nodes are left out."""
        for node in self.graph.nodes.values():
            if node.id in self.inside:
                yield from self.inside[node.id].walk()
            elif node.is_active:
                yield self, node


def unfold(workflow: EditorWorkflow) -> Scope:
    """Put the definitions of subgraphs in the places where they are used.

    Raises:
        WorkflowError: A subgraph holds itself, or there are more than 20,000 nodes.
    """
    top = Scope(workflow.graph)
    waiting, count = [(top, 0)], 0
    while waiting:
        scope, depth = waiting.pop()
        count += len(scope.graph.nodes)
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise WorkflowError(
                "the workflow's subgraphs lie too deep in one another, or one in itself "
                f"(more than {_MAX_DEPTH} levels or {_MAX_NODES} nodes). "
                "Open it in ComfyUI and unpack a subgraph"
            )
        for node in scope.graph.nodes.values():
            if node.is_active and node.type in workflow.subgraphs:
                inner = Scope(
                    workflow.subgraphs[node.type], f"{scope.prefix}{node.id}:", node, scope
                )
                scope.inside[node.id] = inner
                waiting.append((inner, depth + 1))
    return top


def source_of(
    scope: Scope, slot: Slot, host_values: HostValues, virtual: frozenset[str]
) -> Output | Held | None:
    """Follow a node's input to what it gets.

    Args:
        scope: Where the node is.
        slot: Its input.
        host_values: What was typed in on subgraphs.
        virtual: Types that only the editor knows.

    Returns:
        An output of a node that runs; a value; or None where nothing is linked in the end.

    Raises:
        WorkflowError: The links go in a circle.
    """
    held: Held | None = None
    wanted, here = slot.type, (scope, slot.link)
    seen: set[tuple[Scope, str]] = set()
    while here[1] is not None:
        scope, link_id = here[0], here[1]
        if (scope, link_id) in seen:
            raise WorkflowError(
                f"the links of {slot.name!r} go in a circle through reroutes or bypassed nodes. "
                "Remove one of them in ComfyUI"
            )
        seen.add((scope, link_id))
        link = scope.graph.links.get(link_id)
        if link is None:
            return held
        if link.origin == BORDER_IN:
            held = host_values.of(scope, link.origin_slot) or held
            if scope.outside is None:
                return held
            here = (scope.outside, _outer_link(scope, link))
            continue
        arrived = _step(scope, link, wanted, virtual)
        if not isinstance(arrived, tuple):
            return arrived
        here, held = arrived, None
    return held


def _step(
    scope: Scope, link: Link, wanted: str, virtual: frozenset[str]
) -> Output | Held | tuple[Scope, str | None] | None:
    """Look at the node behind a link: it ends there, or a further link is behind it."""
    node = scope.graph.nodes.get(link.origin)
    if node is None or node.mode == MUTED:
        return None
    if node.mode == BYPASSED:
        passed = _bypass(node, link.origin_slot, wanted)
        return None if passed is None else (scope, passed.link)
    if node.id in scope.inside:
        inner = scope.inside[node.id]
        ports = inner.graph.outputs
        ids = ports[link.origin_slot].links if 0 <= link.origin_slot < len(ports) else ()
        return inner, next((link_id for link_id in ids if link_id in inner.graph.links), None)
    if node.type not in virtual:
        return Output(scope.prefix + node.id, link.origin_slot)
    if node.type in REROUTES:
        return (scope, node.inputs[0].link) if node.inputs else None
    if node.type == "PrimitiveNode":
        values = node.values
        return Held(values[0]) if isinstance(values, list) and values else None
    if node.type == "GetNode":
        return _published(scope, node)
    return None


def _bypass(node: EditorNode, place: int, wanted: str) -> Slot | None:
    """Return the input that a bypassed node hands on in the place of an output."""
    if not node.inputs:
        return None
    opposite = node.inputs[place] if 0 <= place < len(node.inputs) else None
    if wanted == "*":
        return opposite or node.inputs[0]
    output = node.outputs[place] if 0 <= place < len(node.outputs) else "*"
    if opposite is not None and fits(opposite.type, output) and fits(opposite.type, wanted):
        return opposite
    exact = next((slot for slot in node.inputs if slot.type == wanted), None)
    return exact or next(
        (slot for slot in node.inputs if fits(slot.type, output) and fits(slot.type, wanted)), None
    )


def fits(one: str, other: str) -> bool:
    """Whether the editor would connect two types (LiteGraph.isValidConnection)."""
    if "*" in (one, other) or one == other:
        return True
    mine, theirs = ({part.strip() for part in kind.lower().split(",")} for kind in (one, other))
    return "*" in mine | theirs or not mine.isdisjoint(theirs)


def _published(scope: Scope, getter: EditorNode) -> tuple[Scope, str | None] | None:
    """Return what a SetNode of the same name gets (KJNodes), here or further outside."""
    name = getter.values[0] if isinstance(getter.values, list) and getter.values else None
    place: Scope | None = scope
    while place is not None:
        for node in place.graph.nodes.values():
            if node.type == "SetNode" and node.inputs and node.values and node.is_active:
                values = node.values
                if isinstance(values, list) and values[0] == name:
                    return place, node.inputs[0].link
        place = place.outside
    return None


def _outer_link(scope: Scope, link: Link) -> str | None:
    """Return what is linked on the outside to the input that a link from the border belongs to."""
    ports = scope.graph.inputs
    if scope.host is None or not 0 <= link.origin_slot < len(ports):
        return None
    slot = scope.host.slot(ports[link.origin_slot].name)
    return None if slot is None else slot.link


class HostValues:
    """What was typed in on the nodes of subgraphs.

    A node of a subgraph saves the values of those of its inputs that lead to a widget inside, in
    their order. Files of before 2026 save none there: what was typed in on the outside was written
    into the node inside (`proxyWidgets`).
    """

    def __init__(self, subgraphs: Mapping[str, EditorGraph]) -> None:
        self._subgraphs = subgraphs
        self._places: dict[str, dict[int, int]] = {}

    def of(self, scope: Scope, port: int) -> Held | None:
        """Return the value of an input of a scope's node, or None where it saved none."""
        host = scope.host
        if host is None or not isinstance(host.values, list):
            return None
        place = self._places_of(host.type).get(port)
        if place is None or place >= len(host.values):
            return None
        return Held(host.values[place])

    def _places_of(self, subgraph: str) -> dict[int, int]:
        """Return where in the list of values an input's is, by its number."""
        if subgraph not in self._places:
            self._places[subgraph] = {}  # one that holds itself has none
            ports = self._subgraphs[subgraph].inputs
            typed = [number for number in range(len(ports)) if self._is_typed(subgraph, number)]
            self._places[subgraph] = {number: place for place, number in enumerate(typed)}
        return self._places[subgraph]

    def _is_typed(self, subgraph: str, port: int) -> bool:
        graph = self._subgraphs[subgraph]
        for link_id in graph.inputs[port].links:
            link = graph.links.get(link_id)
            node = graph.nodes.get(link.target) if link is not None else None
            if link is None or node is None or not 0 <= link.target_slot < len(node.inputs):
                continue
            slot = node.inputs[link.target_slot]
            if node.type in self._subgraphs:
                names = [port.name for port in self._subgraphs[node.type].inputs]
                if slot.name in names and names.index(slot.name) in self._places_of(node.type):
                    return True
            elif slot.is_widget:
                return True
        return False

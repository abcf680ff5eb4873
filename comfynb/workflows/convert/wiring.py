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
    MAX_DEPTH,
    MUTED,
    EditorGraph,
    EditorNode,
    EditorWorkflow,
    Link,
    Slot,
)
from comfynb.workflows.convert.hosts import Held, HostValues

REROUTES = frozenset({"Reroute", "Reroute (rgthree)"})
_MAX_NODES = 20_000
"""Subgraphs within subgraphs multiply: a file of a few kB could stand for billions of nodes."""


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
        if count > _MAX_NODES or depth > MAX_DEPTH:
            raise WorkflowError(
                "the workflow's subgraphs lie too deep in one another, or one in itself "
                f"(more than {MAX_DEPTH} levels or {_MAX_NODES} nodes). "
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


class Wires:
    """Where the inputs of a workflow's nodes come from.

    What was followed once is remembered, so that long chains that many inputs share cost nothing.

    Args:
        subgraphs: Definitions by id.
        virtual: Types that only the editor knows.
    """

    def __init__(self, subgraphs: Mapping[str, EditorGraph], virtual: frozenset[str]) -> None:
        self._host_values = HostValues(subgraphs)
        self._virtual = virtual
        self._known: dict[tuple[Scope, str, str], Output | Held | None] = {}
        self._published: dict[Scope, dict[Any, str | None]] = {}

    def source_of(self, scope: Scope, slot: Slot) -> Output | Held | None:
        """Follow an input of a node in a scope to what it gets.

        Returns:
            An output of a node that runs; a value; or None where nothing is linked in the end.

        Raises:
            WorkflowError: The links go in a circle.
        """
        passed: dict[tuple[Scope, str, str], None] = {}
        found = self._follow(scope, slot, passed)
        self._known.update(dict.fromkeys(passed, found))
        return found

    def _follow(
        self, scope: Scope, slot: Slot, passed: dict[tuple[Scope, str, str], None]
    ) -> Output | Held | None:
        """Follow an input; what is in `passed` then leads to the same, wherever one comes from."""
        held: Held | None = None
        here: tuple[Scope, str | None] = (scope, slot.link)
        seen: set[tuple[Scope, str]] = set()
        while here[1] is not None:
            scope, link_id = here[0], here[1]
            key = (scope, link_id, slot.type)
            if held is None:
                if key in self._known:
                    return self._known[key]
                passed[key] = None
            if (scope, link_id) in seen:
                raise WorkflowError(
                    f"the links of {slot.name!r} go in a circle through reroutes or bypassed "
                    "nodes. Remove one of them in ComfyUI"
                )
            seen.add((scope, link_id))
            link = scope.graph.links.get(link_id)
            if link is None:
                return held
            if link.origin == BORDER_IN:
                if scope.host is None or scope.outside is None:
                    return held
                held = self._host_values.of(scope.host, link.origin_slot) or held
                here = (scope.outside, _outer_link(scope, scope.host, link))
                continue
            arrived = self._step(scope, link, slot.type)
            if not isinstance(arrived, tuple):
                return arrived
            here, held = arrived, None
        return held

    def _step(
        self, scope: Scope, link: Link, wanted: str
    ) -> Output | Held | tuple[Scope, str | None] | None:
        """Look at the node behind a link: it ends there, or a further link is behind it."""
        node = scope.graph.nodes.get(link.origin)
        if node is None or node.mode == MUTED:
            return None
        if node.mode == BYPASSED:
            handed = _bypass(node, link.origin_slot, wanted)
            return None if handed is None else (scope, handed.link)
        if node.id in scope.inside:
            inner = scope.inside[node.id]
            ports = inner.graph.outputs
            ids = ports[link.origin_slot].links if 0 <= link.origin_slot < len(ports) else ()
            return inner, next((link_id for link_id in ids if link_id in inner.graph.links), None)
        if node.type not in self._virtual:
            return Output(scope.prefix + node.id, link.origin_slot)
        if node.type in REROUTES:
            return (scope, node.inputs[0].link) if node.inputs else None
        if node.type == "PrimitiveNode":
            return Held(node.first) if node.has_values else None
        return self._got(scope, node) if node.type == "GetNode" else None

    def _got(self, scope: Scope, getter: EditorNode) -> tuple[Scope, str | None] | None:
        """Return what a SetNode of the same name gets (KJNodes), here or further outside."""
        place: Scope | None = scope
        while place is not None:
            if place not in self._published:
                self._published[place] = {
                    str(node.first): node.inputs[0].link
                    for node in place.graph.nodes.values()
                    if node.type == "SetNode" and node.inputs and node.is_active
                }
            if str(getter.first) in self._published[place]:
                return place, self._published[place][str(getter.first)]
            place = place.outside
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
    mine, theirs = ({part.strip() for part in kind.lower().split(",")} for kind in (one, other))
    return "*" in mine | theirs or not mine.isdisjoint(theirs)


def _outer_link(scope: Scope, host: EditorNode, link: Link) -> str | None:
    """Return what is linked on the outside to the input that a link from the border belongs to."""
    ports = scope.graph.inputs
    if not 0 <= link.origin_slot < len(ports):
        return None
    slot = host.slot(ports[link.origin_slot].name)
    return None if slot is None else slot.link

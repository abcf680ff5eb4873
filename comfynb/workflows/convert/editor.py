"""What ComfyUI's editor saves: nodes with slots, links, and definitions of subgraphs.

Source of the shapes: Comfy-Org/ComfyUI_frontend, workflow schema 0.4 and 1.0. They differ in that
a link is a list, `[id, origin, slot, target, slot, type]`, or an object; inside subgraphs it is
always an object. A subgraph is defined once under `definitions.subgraphs` and used by any number
of nodes whose type is its id. Inside it, two nodes that are not there stand for its border: what
comes in has the origin -10, what goes out the target -20.

Node and link ids may be numbers or texts; here they are texts. Positions, sizes, colours, groups
and whatever else only draws the graph is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfynb.errors import WorkflowError
from comfynb.values import describe, short

BORDER_IN, BORDER_OUT = "-10", "-20"
MUTED, BYPASSED = 2, 4
"""Modes of nodes (LGraphEventMode): not run; not run, and what comes in goes on."""
MAX_DEPTH = 32
"""Subgraphs may lie in one another so deep."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An input of a node.

    Attributes:
        name: As the graph calls it.
        type: Such as "MODEL", "INT,FLOAT" or "*".
        link: Id of its link, or None.
        is_widget: Whether a value can be typed in where it is not linked.
    """

    name: str
    type: str
    link: str | None
    is_widget: bool


@dataclass(frozen=True, slots=True)
class EditorNode:
    """A node as it was drawn.

    Attributes:
        id: Within its graph.
        type: Its class, or the id of a subgraph, or a class that only the editor has.
        title: What the user called it, or None.
        mode: 0, `MUTED`, `BYPASSED`, or another.
        inputs: Its slots, linked or not.
        outputs: The types of its outputs.
        values: What was typed in: a list in the order of its widgets, or by name.
        named: The same by name, where a newer editor saved that too, or None.
    """

    id: str
    type: str
    title: str | None
    mode: int
    inputs: tuple[Slot, ...]
    outputs: tuple[str, ...]
    values: list[Any] | dict[str, Any]
    named: Mapping[str, Any] | None

    @property
    def is_active(self) -> bool:
        """Whether it runs."""
        return self.mode not in (MUTED, BYPASSED)

    @property
    def has_values(self) -> bool:
        """Whether anything was typed in, as a list."""
        return isinstance(self.values, list) and bool(self.values)

    @property
    def first(self) -> Any:
        """The first of the values that were typed in, or None."""
        return self.values[0] if isinstance(self.values, list) and self.values else None

    def slot(self, name: str) -> Slot | None:
        """Return an input by its name."""
        return next((slot for slot in self.inputs if slot.name == name), None)


@dataclass(frozen=True, slots=True)
class Link:
    """A link from an output to an input."""

    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a subgraph, with the links that it has inside."""

    name: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EditorGraph:
    """The nodes and links of a workflow or of a subgraph's definition.

    Attributes:
        nodes: By id, in the saved order.
        links: By id.
        inputs: Of a subgraph: what comes in.
        outputs: Of a subgraph: what goes out.
    """

    nodes: Mapping[str, EditorNode]
    links: Mapping[str, Link]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class EditorWorkflow:
    """A saved file.

    Attributes:
        graph: The graph on top.
        subgraphs: Definitions by id.
    """

    graph: EditorGraph
    subgraphs: Mapping[str, EditorGraph]


def is_editor_format(data: Any) -> bool:
    """Whether parsed JSON is what the editor saves, and not the API format."""
    return isinstance(data, Mapping) and isinstance(data.get("nodes"), list)


def parse_editor(data: Mapping[str, Any]) -> EditorWorkflow:
    """Read what the editor saved.

    Raises:
        WorkflowError: A node is malformed; says which. Malformed links are links to nothing.
    """
    definitions = data.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    return EditorWorkflow(
        _graph(data),
        {str(subgraph["id"]): _graph(subgraph) for subgraph in _mappings(subgraphs, "id")},
    )


def _graph(data: Mapping[str, Any]) -> EditorGraph:
    nodes = data.get("nodes")
    if not isinstance(nodes, list):
        raise WorkflowError(f"a subgraph's nodes must be a list, not {describe(nodes)}")
    parsed = [_node(node) for node in nodes]
    return EditorGraph(
        {node.id: node for node in parsed},
        dict(_links(data.get("links"))),
        tuple(_ports(data.get("inputs"))),
        tuple(_ports(data.get("outputs"))),
    )


def _node(data: Any) -> EditorNode:
    node_id = _id(data.get("id")) if isinstance(data, Mapping) else None
    kind = data.get("type") if isinstance(data, Mapping) else None
    if node_id is None or not isinstance(kind, str) or not kind:
        raise WorkflowError(
            f"a node must have an id and a type: {short(data)}. Save the workflow again in ComfyUI"
        )
    title, mode, values = data.get("title"), data.get("mode"), data.get("widgets_values")
    return EditorNode(
        id=node_id,
        type=kind,
        title=title if isinstance(title, str) and title else None,
        mode=mode if isinstance(mode, int) else 0,
        inputs=tuple(
            Slot(str(slot["name"]), _type(slot), _id(slot.get("link")), bool(slot.get("widget")))
            for slot in _mappings(data.get("inputs"), "name")
        ),
        outputs=tuple(map(_type, _mappings(data.get("outputs")))),
        values=values if isinstance(values, list | dict) else [],
        named=_named(data.get("widgets_values_named"), values),
    )


def _named(named: Any, values: Any) -> Mapping[str, Any] | None:
    # Tools that change a file often change the list alone: then the names hold old values.
    if isinstance(named, Mapping) and list(named.values()) == values:
        return named
    return None


def _links(data: Any) -> Iterator[tuple[str, Link]]:
    for link in data if isinstance(data, list) else ():
        if isinstance(link, list):
            fields = link[:5]
        elif isinstance(link, Mapping):
            fields = [
                link.get(name)
                for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            ]
        else:
            continue
        if len(fields) < 5:
            continue
        link_id, origin, origin_slot, target, target_slot = fields
        ids = (_id(link_id), _id(origin), _id(target))
        if None not in ids and isinstance(origin_slot, int) and isinstance(target_slot, int):
            yield str(ids[0]), Link(str(ids[1]), origin_slot, str(ids[2]), target_slot)


def _ports(data: Any) -> Iterator[Port]:
    for port in _mappings(data):
        links = port.get("linkIds")
        ids = [_id(link) for link in links] if isinstance(links, list) else []
        yield Port(str(port.get("name")), tuple(link for link in ids if link is not None))


def _mappings(data: Any, *needed: str) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a list that have the needed keys."""
    for item in data if isinstance(data, list) else ():
        if isinstance(item, Mapping) and all(item.get(key) is not None for key in needed):
            yield item


def _id(value: Any) -> str | None:
    """Return an id as text, so that 4 and "4" are the same; None for what is none."""
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _type(slot: Mapping[str, Any]) -> str:
    """Return a slot's type; 0 and "" are the editor's old ways to say any."""
    kind = slot.get("type")
    return kind if isinstance(kind, str) and kind else "COMBO" if isinstance(kind, list) else "*"

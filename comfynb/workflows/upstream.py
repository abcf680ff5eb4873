"""Where a value comes from: following links back to the place where somebody typed it in.

A value may be held by a primitive, behind reroutes and switches; a text also behind nodes that put
texts together. Nothing here knows what a value is for: that is `roles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from comfynb.workflows.graph import is_link, links

Graph = Mapping[str, Any]
Kind = type | tuple[type, ...]

NUMBER: Kind = (int, float)

_TEXT_LINKS = ("text", "prompt", "string", "string_a", "string_b", "value", "replace")
"""Links of nodes that make a text of texts; the literal ones beside them frame it."""

_HOPS = 30
"""How far a value is followed; graphs are free of circles, this bounds only the work."""


class Place(NamedTuple):
    """Where a knob's value is: one input, or several of one node that hold the same."""

    node: str
    inputs: tuple[str, ...]


def value_place(graph: Graph, node_id: str, inputs: tuple[str, ...], kind: Kind) -> Place | None:
    """Return where the first of a node's inputs has its value, which another node may hold."""
    own = graph[node_id]["inputs"]
    for name in inputs:
        if _is_a(own.get(name), kind):
            return Place(node_id, (name,))
        if is_link(own.get(name)):
            place = _held(graph, own[name], name, kind, set())
            if place is not None:
                return place
    return None


def _held(graph: Graph, link: list[Any], name: str, kind: Kind, seen: set[str]) -> Place | None:
    """Return where the value is that comes over a link: in a primitive, mostly."""
    source, _ = source_of(graph, link)
    if source in seen or len(seen) == _HOPS:  # the ways through a graph double with every node
        return None
    seen.add(source)
    held = graph[source]["inputs"]
    if kind is str:  # first what is linked: it is the text, and what stands beside it its frame
        for key in _TEXT_LINKS:
            if is_link(held.get(key)):
                place = _held(graph, held[key], key, kind, seen)
                if place is not None:
                    return place
    values = [key for key, value in held.items() if _is_a(value, kind)]
    chosen = _chosen(graph, graph[source])
    for key in (chosen, name, "value", *(_TEXT_LINKS if kind is str else ())):
        if key in values:
            return Place(source, (key,))
    if len(values) == 1 and not any(is_link(value) for value in held.values()):
        return Place(source, (values[0],))
    return None


def source_of(graph: Graph, link: list[Any]) -> tuple[str, int]:
    """Return where a link comes from, behind nodes that only pass on what they get."""
    for _ in range(_HOPS):
        node = graph[link[0]]
        passed = node["inputs"].get(_chosen(graph, node))
        if node["class_type"] == "Reroute":
            passed = next((value for value in node["inputs"].values() if is_link(value)), None)
        if not is_link(passed):
            break
        link = passed
    return link[0], link[1]


def _chosen(graph: Graph, node: Mapping[str, Any]) -> str | None:
    """Return the input that a switch lets through (ComfyUI comfy_extras/nodes_logic.py)."""
    if node["class_type"] != "ComfySwitchNode":
        return None
    switch = node["inputs"].get("switch")
    if is_link(switch):
        switch = graph[switch[0]]["inputs"].get("value")
    return ("on_false", "on_true")[switch] if isinstance(switch, bool) else None


def walk(graph: Graph, start: str, through: tuple[str, ...]) -> Iterator[str]:
    """Yield the nodes behind these links, nearest first, then by the name of the link."""
    seen, level = {start}, [start]
    while level:
        sources = [
            source_of(graph, [source, slot])[0]
            for node_id in level
            for name, source, slot in sorted(links(graph[node_id]))
            if name in through
        ]
        level = [source for source in dict.fromkeys(sources) if source not in seen]
        seen.update(level)
        yield from level


def nearest_place(
    graph: Graph, start: str, inputs: tuple[str, ...], through: tuple[str, ...], kind: Kind
) -> Place | None:
    """Return the nearest place behind these links that has one of the inputs."""
    places = (value_place(graph, node_id, inputs, kind) for node_id in walk(graph, start, through))
    return next((place for place in places if place is not None), None)


def _is_a(value: Any, kind: Kind) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)

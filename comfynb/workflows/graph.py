"""Graphs in ComfyUI's API format: reading them, checking their shape, walking along links.

A graph maps node ids to `{"class_type": ..., "inputs": {...}}`. An input is a value or a link,
`["node id", slot]`. What is checked here is what can be known without a server: that links lead
somewhere and not in circles, and that every value can be sent as JSON. Whether a class exists and
takes a value, its server says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from comfynb.errors import WorkflowError
from comfynb.values import describe, has_lone_surrogate, native, short

Node = dict[str, Any]
Graph = dict[str, Node]


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """Whether an input is a link (ComfyUI comfy_execution/graph_utils.py, is_link)."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
    )


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield (input name, source node id, source slot) of a node's linked inputs."""
    for name, value in node["inputs"].items():
        if is_link(value):
            yield name, value[0], value[1]


def leaf_nodes(graph: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the nodes that no other node links to, in the graph's order."""
    sources = {source for node in graph.values() for _, source, _ in links(node)}
    return tuple(node_id for node_id in graph if node_id not in sources)


def parse_graph(data: Any) -> Graph:
    """Check a graph and return a copy of it that shares nothing with it.

    Args:
        data: API format, as parsed JSON.

    Raises:
        WorkflowError: It is no graph; names the node.
    """
    if not isinstance(data, Mapping):
        raise WorkflowError(
            f"a workflow must be a mapping of nodes, not {describe(data)}. {_EXPORT}"
        )
    if not data:
        raise WorkflowError(f"the workflow has no nodes. {_EXPORT}")
    graph = {_check_id(node_id): _parse_node(node_id, node) for node_id, node in data.items()}
    for node_id, node in graph.items():
        _check_links(graph, node_id, node)
    in_order(graph)
    return graph


_EXPORT = "In ComfyUI choose Workflow > Export (API) and give that file"


def named(graph: Mapping[str, Any], node_id: str) -> str:
    """Name a node for an error."""
    return f"node {short(node_id)} ({graph[node_id]['class_type'][:60]})"


def _check_id(node_id: Any) -> str:
    if not isinstance(node_id, str) or not node_id:
        raise WorkflowError(
            f'a node\'s id must be text, not {describe(node_id)}. Put it in quotes: "4"'
        )
    return node_id


def _parse_node(node_id: str, node: Any) -> Node:
    where = f"node {short(node_id)}"
    if not isinstance(node, Mapping):
        raise WorkflowError(f"{where} must be a mapping, not {describe(node)}. {_EXPORT}")
    class_type = node.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        raise WorkflowError(
            f"{where}: 'class_type' must be the name of a node class, not {describe(class_type)}. "
            f"{_EXPORT}"
        )
    where = f"{where} ({class_type[:60]})"
    inputs = node.get("inputs")
    if not isinstance(inputs, Mapping):
        raise WorkflowError(
            f"{where}: 'inputs' must be a mapping, not {describe(inputs)}. "
            "A node without any has an empty one: {}"
        )
    try:
        return {str(name): plain(value, f"{where}, {name!r}") for name, value in node.items()}
    except RecursionError:
        raise WorkflowError(f"{where} is nested too deeply. {_EXPORT}") from None


def plain(value: Any, where: str) -> Any:
    """Return a copy as what JSON reads back: dicts with text keys, lists, texts, finite numbers.

    Args:
        value: Tuples become lists and numpy's numbers become Python's.
        where: What it belongs to, for the error.

    Raises:
        WorkflowError: It cannot be sent as JSON.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item, where) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    value = native(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise WorkflowError(f"{where}: {value} cannot be sent as JSON. Give a finite number")
    if isinstance(value, str) and has_lone_surrogate(value):
        raise WorkflowError(
            f"{where}: the text holds half a character (a lone surrogate). Write it anew"
        )
    if value is None or isinstance(value, str | int | float):
        return value
    raise WorkflowError(
        f"{where}: {describe(value)} cannot be sent as JSON. Give a text, a number, or a link"
    )


def _check_links(graph: Graph, node_id: str, node: Node) -> None:
    for name, value in node["inputs"].items():
        where = f"{named(graph, node_id)}: the input {short(name)}"
        if is_link(value):
            source, slot = value
            if source not in graph:
                raise WorkflowError(
                    f"{where} links to node {short(source)}, which is not there. {_EXPORT}"
                )
            if slot < 0 or slot != int(slot):
                raise WorkflowError(
                    f"{where} links to output {slot} of node {short(source)}. "
                    "Outputs are counted 0, 1, 2, ..."
                )
            value[1] = int(slot)
        elif (
            isinstance(value, list)
            and len(value) == 2
            and all(type(part) is int for part in value)
            and str(value[0]) in graph
        ):
            raise WorkflowError(
                f"{where} links to node {value[0]} by a number. "
                f'Ids are texts: ["{value[0]}", {value[1]}]'
            )


def in_order(graph: Mapping[str, Any]) -> list[str]:
    """Return the ids so that every node stands behind those it links to.

    Raises:
        WorkflowError: Links go in a circle; names the nodes on it.
    """
    order: list[str] = []
    done: set[str] = set()
    for start in graph:
        if start in done:
            continue
        # Depth first with a path of our own: graphs can be deeper than Python's stack.
        path = {start: links(graph[start])}
        while path:
            here = next(reversed(path))
            source = next((source for _, source, _ in path[here] if source not in done), None)
            if source is None:
                del path[here]
                done.add(here)
                order.append(here)
            elif source in path:
                circle = [named(graph, node) for node in [*path][[*path].index(source) :]]
                if len(circle) > 8:
                    circle[7:] = ["..."]
                raise WorkflowError(
                    f"the links go in a circle: {' <- '.join([*circle, circle[0]])}. "
                    "Remove one of them"
                )
            else:
                path[source] = links(graph[source])
    return order

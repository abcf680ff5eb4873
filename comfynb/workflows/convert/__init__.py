"""From the editor's format to the API format, with what a server says about its node classes.

The editor converts when it sends a graph; this does the same from its file alone. What it does not
do is draw lots: the editor replaces `{red|blue}` in a text by one of them and drops what looks like
a comment. The same file must give the same key here, so texts stay as they are; several texts are
several scenes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from comfynb.errors import WorkflowError
from comfynb.values import nearest, short
from comfynb.workflows.convert.editor import EditorNode, is_editor_format, parse_editor
from comfynb.workflows.convert.widgets import typed_in
from comfynb.workflows.convert.wiring import (
    REROUTES,
    Held,
    HostValues,
    Output,
    Scope,
    source_of,
    unfold,
)
from comfynb.workflows.graph import Graph, is_link, parse_graph
from comfynb.workflows.node_types import NodeType, NodeTypes

logger = logging.getLogger(__name__)

__all__ = ["check_editor", "convert", "is_editor_format"]

EDITOR_ONLY = REROUTES | {
    "Note", "MarkdownNote", "PrimitiveNode", "GetNode", "SetNode", "LoadImageOutput",
}  # fmt: skip
"""Classes of the editor without one on the server, unless the server has one of that name."""


def check_editor(data: Mapping[str, Any]) -> None:
    """Check what can be known without a server.

    Raises:
        WorkflowError: It is malformed, or has no nodes.
    """
    if not parse_editor(data).graph.nodes:
        raise WorkflowError("the workflow has no nodes. Save it again in ComfyUI")


def convert(data: Mapping[str, Any], node_types: NodeTypes) -> Graph:
    """Convert a workflow from the editor's format to the API format.

    Args:
        data: Parsed JSON as the editor saves it.
        node_types: The classes of the server that is to run it.

    Returns:
        A checked graph; nodes inside subgraphs have ids such as "12:3".

    Raises:
        WorkflowError: The server lacks a class, says which and the nearest that it has; nothing
            would run; or it is malformed.
    """
    workflow = parse_editor(data)
    virtual = frozenset(EDITOR_ONLY - node_types.keys())
    top, host_values = unfold(workflow), HostValues(workflow.subgraphs)
    running = [(scope, node) for scope, node in top.walk() if node.type not in virtual]
    known = [(scope, node) for scope, node in running if _is_known(scope, node, node_types)]
    if not known:
        raise WorkflowError(
            "the workflow has no nodes that run: all are muted, bypassed or notes. "
            "Open it in ComfyUI and switch some on"
        )
    graph: dict[str, Any] = {}
    for scope, node in known:
        node_type = node_types[node.type]
        sources = {
            slot.name: source_of(scope, slot, host_values, virtual)
            for slot in node.inputs
            if slot.link is not None
        }
        graph[scope.prefix + node.id] = {
            "class_type": node.type,
            "inputs": _inputs(node, node_type, sources),
            "_meta": {"title": node.title or node_type.display_name},
        }
    for node in graph.values():
        node["inputs"] = {
            name: value
            for name, value in node["inputs"].items()
            if not is_link(value) or value[0] in graph
        }
    return parse_graph(graph)


def _inputs(
    node: EditorNode, node_type: NodeType, sources: Mapping[str, Output | Held | None]
) -> dict[str, Any]:
    inputs = {name: _sendable(value) for name, value in typed_in(node, node_type).items()}
    for name, source in sources.items():
        if isinstance(source, Output):
            inputs[name] = [source.node, source.slot]
        elif isinstance(source, Held):
            inputs[name] = _sendable(source.value)
    return inputs


def _sendable(value: Any) -> Any:
    """Wrap a list, which would look like a link (ComfyUI execution.py unwraps `__value__`)."""
    return {"__value__": value} if isinstance(value, list) else value


def _is_known(scope: Scope, node: EditorNode, node_types: NodeTypes) -> bool:
    """Whether the server has a node's class; a node without links may be the editor's own.

    Raises:
        WorkflowError: It has not, and the node is linked.
    """
    if node.type in node_types:
        return True
    node_id = scope.prefix + node.id
    linked = {end for link in scope.graph.links.values() for end in (link.origin, link.target)}
    if node.id not in linked:
        logger.warning(
            "node %s is left out: no server knows its class %s, and nothing is linked to it",
            node_id, short(node.type),
        )  # fmt: skip
        return False
    titled = f", called {short(node.title)}," if node.title else ""
    raise WorkflowError(
        f"node {node_id}{titled} is of the class {short(node.type)}, {_advice(node, node_types)}"
    )


def _advice(node: EditorNode, node_types: NodeTypes) -> str:
    if node.type.startswith(("workflow>", "workflow/")):
        return (
            "a group node of older editors. Open the workflow in ComfyUI, convert the node to a "
            "subgraph, and save it again"
        )
    similar = nearest(node.type, list(node_types))
    hint = f" Did you mean {' or '.join(map(repr, similar))}?" if similar else ""
    return (
        f"which the server does not have.{hint} Install the custom nodes that it belongs to, "
        "update ComfyUI, or take the node out"
    )

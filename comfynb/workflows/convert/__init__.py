"""From the editor's format to the API format, with what a server says about its node classes.

The editor converts when it sends a graph; this does the same from its file alone. What it does not
do is draw lots: the editor replaces `{red|blue}` in a text by one of them and drops what looks like
a comment. The same file must give the same key here, so texts stay as they are, with a warning;
several texts are several scenes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from comfynb.errors import WorkflowError
from comfynb.values import nearest, short
from comfynb.workflows.convert.editor import EditorNode, is_editor_format, parse_editor
from comfynb.workflows.convert.hosts import Held
from comfynb.workflows.convert.widgets import typed_in
from comfynb.workflows.convert.wiring import REROUTES, Output, Scope, Wires, unfold
from comfynb.workflows.graph import Graph, is_link, parse_graph
from comfynb.workflows.node_types import NodeType, NodeTypes

logger = logging.getLogger(__name__)

__all__ = ["check_editor", "convert", "is_editor_format"]

_LOTS = re.compile(r"\{[^{}|]*\|[^{}]*\}")

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
    top, wires = unfold(workflow), Wires(workflow.subgraphs, virtual)
    running = [(scope, node) for scope, node in top.walk() if node.type not in virtual]
    _check_known(running, node_types)
    known = [(scope, node) for scope, node in running if node.type in node_types]
    if not known:
        raise WorkflowError(
            "the workflow has no nodes that run: all are muted, bypassed or notes. "
            "Open it in ComfyUI and switch some on"
        )
    graph: dict[str, Any] = {}
    for scope, node in known:
        node_type = node_types[node.type]
        sources = {
            slot.name: wires.source_of(scope, slot) for slot in node.inputs if slot.link is not None
        }
        node_id, inputs = scope.prefix + node.id, _inputs(node, node_type, sources)
        _warn_of_lots(node_id, inputs, node_type)
        graph[node_id] = {
            "class_type": node.type,
            "inputs": inputs,
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


def _warn_of_lots(node_id: str, inputs: Mapping[str, Any], node_type: NodeType) -> None:
    for name, value in inputs.items():
        input_ = node_type.inputs.get(name)
        draws = input_ is not None and input_.options.get("dynamicPrompts") is True
        if draws and isinstance(value, str) and _LOTS.search(value):
            logger.warning(
                "node %s: the text %s is sent as it is: only ComfyUI's editor takes one of {a|b}. "
                "Write a scene for each",
                node_id, short(value),
            )  # fmt: skip


def _sendable(value: Any) -> Any:
    """Wrap a list, which would look like a link (ComfyUI execution.py unwraps `__value__`)."""
    return {"__value__": value} if isinstance(value, list) else value


def _check_known(running: Sequence[tuple[Scope, EditorNode]], node_types: NodeTypes) -> None:
    """Check that the server has the class of every node that runs.

    One without any link may be the editor's own, such as a label or a switch for groups: it can
    be left out, and a warning says so.

    Raises:
        WorkflowError: It lacks the class of a node that is linked.
    """
    linked: dict[Scope, set[str]] = {}
    for scope, node in running:
        if node.type in node_types:
            continue
        if scope not in linked:
            ends = scope.graph.links.values()
            linked[scope] = {end for link in ends for end in (link.origin, link.target)}
        node_id = scope.prefix + node.id
        if node.id in linked[scope]:
            titled = f", called {short(node.title)}," if node.title else ""
            raise WorkflowError(
                f"node {node_id}{titled} is of the class {short(node.type)}, "
                f"{_advice(node, node_types)}"
            )
        logger.warning(
            "node %s is left out: the server does not have its class %s, and it has no links",
            node_id, short(node.type),
        )  # fmt: skip


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

"""What a ComfyUI says against a graph: the 400 that refuses it, and the 200 that skips a branch.

Shape (ComfyUI execution.py, validate_prompt, v0.3.75):

    {"error": {type, message, details, extra_info},
     "node_errors": {node id: {"class_type", "dependent_outputs",
                               "errors": [{type, message, details, extra_info}]}}}

`extra_info` holds `input_name`, `received_value` and `input_config` (`[type, options]`; null for
long lists of choices) where they make sense. All of it is a stranger's text: bounded, and anything
malformed is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from comfynb.errors import PromptRejectedError
from comfynb.scrubbing import scrub
from comfynb.values import is_number, short

SHOWN = 300
"""Characters of a server's text that we quote."""
_LISTED = 10
"""Complaints about nodes that we quote."""
_CHOICES = 6
"""Choices that we quote."""

_NODE_ID = re.compile(r"Node ID '#?(.{1,80})'")
"""Where a class is missing, the node is named in the details only."""


class NodeError(NamedTuple):
    """One complaint about a node.

    Attributes:
        node: Its id.
        node_type: Its class; "?" where the server does not say.
        message: What is wrong: the input, the server's words, what it received and what it takes.
        input: Name of the input, or "".
        received: The value in the graph, where the server quotes it.
        allowed: What it takes instead, in words, or "".
    """

    node: str
    node_type: str
    message: str
    input: str = ""
    received: Any = None
    allowed: str = ""


def rejection(data: bytes, label: str) -> PromptRejectedError:
    """Read the answer to a POST /prompt that was refused; every complaint is quoted.

    Args:
        data: The body of the 400.
        label: Of the server.
    """
    body = _mapping(_parse(data))
    error = body.get("error")
    if not isinstance(error, Mapping):
        error = {"message": shorten(data) or "no reason given"}
    complaints = node_errors(body.get("node_errors"))
    text = cut(str(error.get("message") or "the graph was refused"))
    details = cut(str(error.get("details") or ""))
    node, node_type = None, None
    if complaints:
        node, node_type = complaints[0][:2]
        text += f": {_listed(complaints)}"
    elif details:
        text += f" ({details})"
        named = _NODE_ID.search(details)
        extra = _mapping(error.get("extra_info"))
        node = cut(str(extra.get("node_id") or (named and named[1]) or "")) or None
        node_type = cut(str(extra.get("class_type") or "?")) if node else None
    return PromptRejectedError(
        text,
        server=label,
        kind=cut(str(error.get("type") or "rejected")),
        node=node,
        node_type=node_type,
    )


def _listed(complaints: Sequence[NodeError]) -> str:
    """Join complaints; each names its node where they are about several."""
    several = len({complaint.node for complaint in complaints}) > 1
    texts = [
        f"node {c.node} ({c.node_type}), {c.message}" if several else c.message
        for c in complaints[:_LISTED]
    ]
    more = len(complaints) - _LISTED
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def node_errors(answer: object) -> list[NodeError]:
    """Return every complaint in `node_errors`, of a refusal or beside a prompt that was taken."""
    found = []
    for node, entry in _mapping(answer).items():
        node_type = cut(str(_mapping(entry).get("class_type") or "?"))
        errors = _mapping(entry).get("errors")
        found += [
            _node_error(cut(str(node)), node_type, error)
            for error in (errors if isinstance(errors, list) else ())
            if isinstance(error, Mapping)
        ]
    return found


def _node_error(node: str, node_type: str, error: Mapping[str, Any]) -> NodeError:
    extra = _mapping(error.get("extra_info"))
    name = cut(str(extra.get("input_name") or ""))
    received, allowed = extra.get("received_value"), _allowed(extra.get("input_config"))
    text = cut(str(error.get("message") or error.get("type") or "invalid"))
    details = cut(str(error.get("details") or ""))
    if details and details != name:
        text += f" ({details})"
    if name and name not in text:
        text = f"{name}: {text}"
    if received is not None and str(received) not in text:
        text += f", received {scrub(short(received))}"
    if allowed and error.get("type") != "value_not_in_list":  # its details quote the list
        text += f"; it takes {allowed}"
    return NodeError(node, node_type, text, name, received, allowed)


def _allowed(config: object) -> str:
    """Say what an input takes by its `[type, options]`: its range or some choices."""
    if not isinstance(config, list) or not config:
        return ""
    options = _mapping(config[1]) if len(config) > 1 else {}
    choices = config[0] if isinstance(config[0], list) else options.get("options")
    if isinstance(choices, list):
        more = ", ..." if len(choices) > _CHOICES else ""
        return ", ".join(short(choice) for choice in choices[:_CHOICES]) + more
    low, high = options.get("min"), options.get("max")
    if is_number(low) and is_number(high):
        return f"{low} to {high}"
    return ""


def _parse(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def shorten(data: bytes) -> str:
    """Return the beginning of a body as one line of text."""
    return cut(data[: SHOWN * 4].decode("utf-8", "replace"))


def cut(text: str) -> str:
    """Return a text as one line of at most `SHOWN` characters."""
    text = scrub(" ".join(text.split()))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

"""What identifies a picture before it is made: the canonical form of a graph, and its key.

Two graphs have the same canonical form when a server would make the same pictures of them. It is a
Merkle tree: a node is a line of JSON with its class and its inputs, a link names the sha256 of the
line it leads to. So it does not depend on

- node ids, and the order of nodes and inputs;
- `_meta` (titles) and whatever else stands beside `class_type` and `inputs`;
- nodes that no output needs. Without a server nobody knows which classes are outputs, so only
  leaves of the core classes in `NOT_OUTPUTS` count as needless;
- `filename_prefix` of nodes that save: the name of the file is not the picture;
- 4 or 4.0: JSON does not tell them apart, nor does a browser that saved the graph;
- whether two equal nodes are one node used twice.

Everything else counts, also an input that is left out against one that is given as its default:
only a server knows defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from comfynb.workflows.graph import in_order, is_link, leaf_nodes, links

NOT_OUTPUTS = frozenset(
    {
        "CLIPLoader", "CLIPSetLastLayer", "CLIPTextEncode", "CheckpointLoaderSimple",
        "ConditioningAverage", "ConditioningCombine", "ConditioningConcat", "ControlNetApply",
        "ControlNetApplyAdvanced", "ControlNetLoader", "DualCLIPLoader", "EmptyImage",
        "EmptyLatentImage", "EmptySD3LatentImage", "FluxGuidance", "ImageInvert", "ImageScale",
        "ImageScaleBy", "KSampler", "KSamplerAdvanced", "LatentUpscale", "LatentUpscaleBy",
        "LoadImage", "LoadImageMask", "LoraLoader", "LoraLoaderModelOnly", "UNETLoader",
        "UpscaleModelLoader", "VAEDecode", "VAEDecodeTiled", "VAEEncode", "VAEEncodeForInpaint",
        "VAELoader",
    }
)  # fmt: skip
"""Core classes without OUTPUT_NODE (ComfyUI nodes.py): as leaves they are not even executed."""

_NONE: Mapping[str, str] = MappingProxyType({})
_VERSION = b"comfynb key 1\n"
"""Raised whenever the canonical form changes: old keys then simply match nothing."""


class Canonicaliser:
    """Canonical forms of graphs that are one template with other values in it.

    Nodes that a graph shares with the template (the same objects), and behind which nothing
    changed, are not written and hashed again: with most of a graph unchanged, that is most of
    the work.

    Args:
        template: A checked graph in API format, not changed while this is in use.
    """

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._template = template
        self._roots, needed = _needed(template)
        self._order = [node_id for node_id in in_order(template) if node_id in needed]
        self._sources = {
            node_id: [source for _, source, _ in links(template[node_id])]
            for node_id in self._order
        }
        self._lines: dict[str, str] = {}
        self._hashes: dict[str, str] = {}
        for node_id in self._order:
            _write(template[node_id], node_id, self._lines, self._hashes)

    def canonical(self, graph: Mapping[str, Any]) -> bytes:
        """Return the canonical form of a graph whose links are the template's."""
        lines, hashes = dict(self._lines), dict(self._hashes)
        changed: set[str] = set()
        for node_id in self._order:
            node = graph[node_id]
            if node is not self._template[node_id] or not changed.isdisjoint(
                self._sources[node_id]
            ):
                changed.add(node_id)
                _write(node, node_id, lines, hashes)
        roots = sorted(hashes[root] for root in self._roots)
        return "\n".join([*sorted(set(lines.values())), json.dumps(roots)]).encode()


def canonical(graph: Mapping[str, Any]) -> bytes:
    """Return a graph's canonical form: equal for graphs that make the same pictures.

    Args:
        graph: A checked graph in API format.

    Returns:
        UTF-8 text: one line for each node, sorted, and one with the output nodes.
    """
    return Canonicaliser(graph).canonical(graph)


def content_key(
    graph: Mapping[str, Any],
    *,
    kind: str,
    inputs: Mapping[str, str] = _NONE,
    server: str | None = None,
) -> str:
    """Return what identifies the pictures of a graph, without asking a server.

    Args:
        graph: A checked graph in API format.
        kind: What renders, such as "comfyui" or "engine" with the version of its weights.
        inputs: sha256 of input files, by the name that the graph calls them.
        server: Label of the server where that is an axis, else None: which server renders does
            not matter.

    Returns:
        A sha256: 64 hex digits.
    """
    return key_of(canonical(graph), kind=kind, inputs=inputs, server=server)


def key_of(
    form: bytes, *, kind: str, inputs: Mapping[str, str] = _NONE, server: str | None = None
) -> str:
    """Return the content key that belongs to a canonical form; see `content_key`."""
    head = json.dumps([kind, sorted(inputs.items()), server])
    return hashlib.sha256(b"%b%b\n%b" % (_VERSION, head.encode(), form)).hexdigest()


def _needed(graph: Mapping[str, Any]) -> tuple[list[str], set[str]]:
    """Return the output nodes, as far as can be known, and every node that they need."""
    roots = [leaf for leaf in leaf_nodes(graph) if graph[leaf]["class_type"] not in NOT_OUTPUTS]
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        node_id = waiting.pop()
        if node_id not in needed:
            needed.add(node_id)
            waiting.extend(source for _, source, _ in links(graph[node_id]))
    return roots, needed


def _write(
    node: Mapping[str, Any], node_id: str, lines: dict[str, str], hashes: dict[str, str]
) -> None:
    """Add a node's line and its hash; those of the nodes it links to are there already."""
    class_type, inputs = node["class_type"], {}
    for name, value in node["inputs"].items():
        if is_link(value):
            inputs[name] = [hashes[value[0]], value[1]]
        elif name != "filename_prefix" or not class_type.startswith("Save"):
            inputs[name] = _number(value)
    # Text stays ASCII and so independent of encodings; keys are sorted at every level.
    line = json.dumps([class_type, inputs], sort_keys=True, separators=(",", ":"))
    lines[node_id] = line
    hashes[node_id] = hashlib.sha256(line.encode()).hexdigest()


def _number(value: Any) -> Any:
    """Write whole floats as integers, at every level."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {name: _number(item) for name, item in value.items()}
    return value

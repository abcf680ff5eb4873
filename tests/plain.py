"""Graphs that any ComfyUI runs with the test nodes alone, without a model, and their scenes.

Words and Noise give a picture at once, another for every seed; Guard passes it on after a while,
or fails. Titles make knobs of them, so that scenes are written as for any workflow.
"""

from __future__ import annotations

import itertools
from typing import Any

import support

from comfynb.workflows import Workflow

Graph = dict[str, dict[str, Any]]
_first = itertools.count(10_000, 1000)


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    made = {"class_type": class_type, "inputs": inputs}
    return {**made, "_meta": {"title": title}} if title else made


def picture(seed: int = 0, *, seconds: float = 0.0, message: str = "", side: int = 64) -> Graph:
    """A picture, after a while; with a message it fails instead, at that time."""
    return {
        "words": node("Words", "positive", text="a fox"),
        "noise": node("Noise", "seed", side=side, batch=1, seed=seed, text=["words", 0]),
        "guard": node("Guard", image=["noise", 0], seconds=seconds, message=message),
        "save": node("SaveImage", images=["guard", 0], filename_prefix="plain"),
    }


def several(seed: int = 0) -> Graph:
    """Three pictures of two output nodes: two are saved, one is only shown."""
    graph = picture(seed)
    graph["noise"]["inputs"]["batch"] = 2
    graph["empty"] = node("EmptyImage", width=32, height=32, batch_size=1, color=255)
    graph["inverted"] = node("ImageInvert", image=["empty", 0])
    graph["show"] = node("PreviewImage", images=["inverted", 0])
    return graph


def by_socket(seed: int = 0) -> Graph:
    """A picture that comes over the socket and is no file on the server."""
    return {**picture(seed), "save": node("SaveImageWebsocket", images=["guard", 0])}


def blocked(seed: int = 0) -> Graph:
    """Two pictures of which one is blocked: that is told, as an error that ends nothing."""
    graph = picture(seed)
    graph["block"] = node("Block", image=["noise", 0], message="not this one")
    graph["never"] = node("SaveImage", images=["block", 0], filename_prefix="never")
    return graph


def flow(**options: Any) -> Workflow:
    """`picture` as a workflow."""
    return Workflow.load(picture(**options))


def scenes(count: int, **knobs: Any) -> list[dict[str, Any]]:
    """So many scenes that no server has seen in this session; at most 1000."""
    return support.scenes(count, first=next(_first), **knobs)

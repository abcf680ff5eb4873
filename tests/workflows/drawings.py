"""Workflows as ComfyUI's editor saves them, drawn by hand."""

import json
from pathlib import Path
from typing import Any

from comfynb.workflows.node_types import NodeTypes

RECORDED = json.loads(Path(__file__).with_name("object_info.json").read_text("utf-8"))
"""Some classes as ComfyUI 0.3.75 answers them."""


def types(**classes: dict[str, Any]) -> NodeTypes:
    """The recorded classes, and some of one's own: {"required": {...}, "optional": {...}}."""
    own = {
        name: {"input": inputs, "output": ["IMAGE"], "display_name": f"My {name}"}
        for name, inputs in classes.items()
    }
    return NodeTypes.of({**RECORDED, **own})


class Drawing:
    """A graph of the editor: the one on top, or a subgraph's inside.

    Sources of inputs are (node id, slot); -10 is a subgraph's border where things come in.
    """

    def __init__(self, *, links_are_objects: bool = False) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[Any] = []
        self._objects = links_are_objects

    def node(
        self,
        node_id: int | str,
        kind: str,
        values: Any = None,
        *,
        outputs: str = "",
        links: dict[str, tuple[str, int | str, int]] | None = None,
        open_inputs: dict[str, str] | None = None,
        widgets: tuple[str, ...] = (),
        **more: Any,
    ) -> "Drawing":
        """Draw a node.

        Args:
            node_id: Its id.
            kind: Its class, or a subgraph's id.
            values: `widgets_values`.
            outputs: Types, parted by spaces.
            links: Linked inputs: name -> (type, source id, source slot).
            open_inputs: Inputs without a link: name -> type.
            widgets: Which of the inputs are converted widgets.
            **more: `mode`, `title`, `properties`, ...
        """
        slots = []
        for name, (type_, source, slot) in (links or {}).items():
            slots.append(
                {
                    "name": name,
                    "type": type_,
                    "link": self.link(source, slot, node_id, len(slots), type_),
                }
            )
        slots += [{"name": n, "type": t, "link": None} for n, t in (open_inputs or {}).items()]
        for slot in slots:
            if slot["name"] in widgets:
                slot["widget"] = {"name": slot["name"]}
        drawn = {
            "id": node_id,
            "type": kind,
            "pos": [0, 0],
            "mode": 0,
            "inputs": slots,
            "outputs": [{"name": t, "type": t} for t in outputs.split()],
        }
        if values is not None:
            drawn["widgets_values"] = values
        self.nodes.append({**drawn, **more})
        return self

    def link(self, source: Any, slot: int, target: Any, target_slot: int, kind: str) -> int:
        link_id = len(self.links) + 1
        if self._objects:
            self.links.append(
                {
                    "id": link_id,
                    "origin_id": source,
                    "origin_slot": slot,
                    "target_id": target,
                    "target_slot": target_slot,
                    "type": kind,
                }
            )
        else:
            self.links.append([link_id, source, slot, target, target_slot, kind])
        return link_id

    def saved(self, *subgraphs: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The file's content."""
        return {
            "nodes": self.nodes,
            "links": self.links,
            "version": 0.4,
            "definitions": {"subgraphs": list(subgraphs)},
            **more,
        }

    def as_subgraph(
        self, subgraph_id: str, inputs: dict[str, str], outputs: dict[str, tuple[int, int]]
    ) -> dict[str, Any]:
        """A definition.

        Args:
            subgraph_id: Its id.
            inputs: Name -> type, in the order of the slots of -10.
            outputs: Name -> where it comes from inside.
        """
        leaving = {
            name: self.link(source, slot, -20, place, "*")
            for place, (name, (source, slot)) in enumerate(outputs.items())
        }
        entering: dict[int, list[int]] = {}
        for link in self.links:
            if link["origin_id"] == -10:
                entering.setdefault(link["origin_slot"], []).append(link["id"])
        return {
            "id": subgraph_id,
            "name": "Part",
            "nodes": self.nodes,
            "links": self.links,
            "inputs": [
                {"name": name, "type": type_, "linkIds": entering.get(place, [])}
                for place, (name, type_) in enumerate(inputs.items())
            ],
            "outputs": [{"name": name, "linkIds": [link]} for name, link in leaving.items()],
        }


def inside() -> Drawing:
    """Begin a subgraph's inside."""
    return Drawing(links_are_objects=True)


SAMPLER = [7, "randomize", 20, 8, "euler", "normal", 1]


def sd15(*, links_are_objects: bool = False, mode: int = 0) -> Drawing:
    """ComfyUI's first graph; `mode` is that of a LoraLoader between checkpoint and sampler."""
    return (
        Drawing(links_are_objects=links_are_objects)
        .node(4, "CheckpointLoaderSimple", ["a.safetensors"], outputs="MODEL CLIP VAE")
        .node(10, "LoraLoader", ["ink.safetensors", 0.5, 0.25], outputs="MODEL CLIP", mode=mode,
              links={"model": ("MODEL", 4, 0), "clip": ("CLIP", 4, 1)})
        .node(6, "CLIPTextEncode", ["a fox"], outputs="CONDITIONING", title="Positive",
              links={"clip": ("CLIP", 10, 1)})
        .node(7, "CLIPTextEncode", ["blur"], outputs="CONDITIONING",
              links={"clip": ("CLIP", 10, 1)})
        .node(5, "EmptyLatentImage", [512, 768, 2], outputs="LATENT")
        .node(3, "KSampler", SAMPLER, outputs="LATENT",
              links={"model": ("MODEL", 10, 0), "positive": ("CONDITIONING", 6, 0),
                     "negative": ("CONDITIONING", 7, 0), "latent_image": ("LATENT", 5, 0)})
        .node(8, "VAEDecode", outputs="IMAGE",
              links={"samples": ("LATENT", 3, 0), "vae": ("VAE", 4, 2)})
        .node(9, "SaveImage", ["ComfyUI"], links={"images": ("IMAGE", 8, 0)})
        .node(11, "Note", ["mind the prompt"])
        .node(12, "MarkdownNote", ["# Title"])
    )  # fmt: skip

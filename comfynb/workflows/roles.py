"""Roles: where in a graph the things are that people turn, found by links and not by node ids.

Everything starts at the sampler. Its own values are `seed`, `steps`, `cfg`, `sampler`, `scheduler`
and `denoise`; where one of them is linked instead, as with SamplerCustomAdvanced and its guider,
noise, sampler and sigmas, the link is followed. From there on:

- its conditioning leads to the texts `positive` and `negative` and to `guidance`; an encoder's
  `clip` link to `clip`, `clip_2`, ...;
- its latent leads to `width`, `height`, `length`, `batch_size` and `image`, and where a node works
  the size out, to its `aspect_ratio` and `megapixels`;
- its model leads to `shift`, to `lora`, `lora_strength`, `lora_2`, ... in the order in which they
  are applied, and to `checkpoint`, which may also be called `unet` where it is one;
- the node that decodes leads to `vae`, where that is loaded by itself.

A value may be held by a primitive, behind reroutes and switches; a text also behind nodes that put
texts together. What is not unique is settled so:

- of several samplers the first counts: the one whose latent comes from no other, then by id; those
  that no text steers (some only measure depth) count last;
- of several nodes that would do, the nearest to the sampler counts, then the first by the name
  of the input that leads there;
- a node whose title is the name of a knob, such as "positive", is that knob, whatever links say.

A text that both conditionings reach is `positive` alone. One behind ConditioningZeroOut has no
effect and is no knob. Without any sampler (a node that has a picture made elsewhere), the node
nearest to an output that takes both a prompt and a seed stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from comfynb.workflows.graph import is_link, leaf_nodes, links
from comfynb.workflows.upstream import (
    NUMBER,
    Graph,
    Kind,
    Place,
    nearest_place,
    source_of,
    value_place,
    walk,
)

KNOBS = (
    "positive", "negative", "seed", "steps", "cfg", "guidance", "sampler", "scheduler", "denoise",
    "shift", "width", "height", "aspect_ratio", "megapixels", "length", "batch_size", "checkpoint",
    "image", "vae",
)  # fmt: skip
"""The names of roles, in the order in which they are shown; `clip`, `lora` and their numbered
brothers come after these."""

SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"})

_OF_SAMPLER: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], Kind]] = {
    "seed": (("noise_seed", "seed"), ("noise",), NUMBER),
    "steps": (("steps",), ("sigmas",), NUMBER),
    "cfg": (("cfg", "cfg_conds"), ("guider",), NUMBER),
    "sampler": (("sampler_name",), ("sampler",), str),
    "scheduler": (("scheduler",), ("sigmas",), str),
    "denoise": (("denoise",), ("sigmas",), NUMBER),
}
"""Knob -> its inputs, the sampler's links behind which they may be instead, and their kind."""

_TEXTS = (
    ("text",), ("text_g", "text_l"), ("clip_l", "clip_g", "t5xxl", "llama"), ("bert", "mt5xl"),
    ("prompt",), ("user_prompt",), ("tags",),
)  # fmt: skip
"""Inputs of text encoders; SDXL's, SD3's and Flux's have several that say the same."""

_STARTS = {"positive": ("positive", "conditioning", "cond1", "text_embeds"),
           "negative": ("negative",)}  # fmt: skip
_LATENT_LINKS = (
    "latent_image", "latent", "video_latent", "samples", "pixels", "image", "images",
)  # fmt: skip
_SIZE_LINKS = (*_LATENT_LINKS, "width", "height", "value", "values.a")
_NOT_CONDITIONING = frozenset(
    {"clip", "clip_vision", "clip_vision_output", "control_net", "image", "latent", "mask", "model",
     "pixels", "samples", "style_model", "vae"}
)  # fmt: skip


def title_of(node: Mapping[str, Any]) -> str:
    """Return a node's title, or its class where it has none."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) and title else str(node["class_type"])


def find_knobs(graph: Graph) -> dict[str, Place]:
    """Return where the knobs are, as far as the graph has them, in the order of `KNOBS`."""
    found = {**_by_links(graph), **_by_title(graph)}
    return {name: found[name] for name in (*KNOBS, *found) if name in found}


def find_aliases(graph: Graph) -> dict[str, list[Place]]:
    """Return every other name of a value: "id.input", "Title.input", and "Title" of a single one.

    A name that several nodes share has several places.
    """
    aliases: dict[str, list[Place]] = {}
    for node_id, node in graph.items():
        own = [name for name, value in node["inputs"].items() if not is_link(value)]
        names = [(f"{prefix}.{name}", name) for name in own for prefix in {node_id, title_of(node)}]
        if len(own) == 1:
            names.append((title_of(node), own[0]))
        for alias, name in names:
            aliases.setdefault(alias, []).append(Place(node_id, (name,)))
    model = find_knobs(graph).get("checkpoint")
    if model is not None and model.inputs == ("unet_name",):
        aliases.setdefault("unet", [model])
    return aliases


def _by_title(graph: Graph) -> dict[str, Place]:
    titled: dict[str, list[Place]] = {}
    for node_id, node in graph.items():
        name = title_of(node)
        own = [key for key, value in node["inputs"].items() if not is_link(value)]
        if name in KNOBS and (name in own or len(own) == 1):
            place = Place(node_id, (name if name in own else own[0],))
            titled.setdefault(name, []).append(place)
    return {name: places[0] for name, places in titled.items() if len(places) == 1}


def _by_links(graph: Graph) -> dict[str, Place]:
    sampler = _first_sampler(graph)
    found = _of_sampler(graph, sampler) if sampler else _of_maker(graph)
    if found.get("image") is None:  # a picture that steers in another way, if there is one only
        loaders = [key for key, node in graph.items() if node["class_type"] == "LoadImage"]
        if len(loaders) == 1 and isinstance(graph[loaders[0]]["inputs"].get("image"), str):
            found["image"] = Place(loaders[0], ("image",))
    return {name: place for name, place in found.items() if place is not None}


def _of_sampler(graph: Graph, sampler: str) -> dict[str, Place | None]:
    found: dict[str, Place | None] = {}
    for name, (inputs, through, kind) in _OF_SAMPLER.items():
        found[name] = value_place(graph, sampler, inputs, kind) or nearest_place(
            graph, sampler, inputs, through, kind
        )
    encoder, found["positive"] = _text(graph, sampler, "positive")
    _, negative = _text(graph, sampler, "negative")
    found["negative"] = negative if negative != found["positive"] else None
    found["guidance"] = next(
        (
            place
            for node_id in _conditionings(graph, sampler, "positive")
            if (place := value_place(graph, node_id, ("guidance",), NUMBER))
        ),
        None,
    )
    for name in ("width", "height", "length", "batch_size"):
        found[name] = nearest_place(graph, sampler, (name,), _LATENT_LINKS, NUMBER)
    found["aspect_ratio"] = nearest_place(graph, sampler, ("aspect_ratio",), _SIZE_LINKS, str)
    found["megapixels"] = nearest_place(graph, sampler, ("megapixels",), _SIZE_LINKS, NUMBER)
    found["image"] = nearest_place(graph, sampler, ("image",), _LATENT_LINKS, str)
    model = ("model", "guider")
    found["shift"] = nearest_place(graph, sampler, ("shift",), model, NUMBER)
    found["checkpoint"] = nearest_place(graph, sampler, ("ckpt_name", "unet_name"), model, str)
    found["vae"] = _vae(graph)
    found.update(_loras(graph, sampler))
    if encoder is not None:
        found.update(_clips(graph, encoder))
    return found


# -- the parts


def _first_sampler(graph: Graph) -> str | None:
    leaves = set(leaf_nodes(graph))  # a sampler that nothing follows draws nothing
    for is_sampler in (_is_core_sampler, _looks_like_sampler):
        samplers = {node_id for node_id, node in graph.items() if is_sampler(node)}
        samplers = samplers - leaves or samplers
        steered = {node_id for node_id in samplers if _text(graph, node_id, "positive")[1]}
        samplers = steered or samplers
        first = [
            node_id
            for node_id in samplers
            if samplers.isdisjoint(walk(graph, node_id, _LATENT_LINKS))
        ]
        if first:
            return min(first, key=_natural)
    return None


def _is_core_sampler(node: Mapping[str, Any]) -> bool:
    return node["class_type"] in SAMPLERS


def _looks_like_sampler(node: Mapping[str, Any]) -> bool:
    """Whether it is a sampler of somebody's own: it takes what a sampler takes."""
    inputs = node["inputs"]
    steered = any(is_link(inputs.get(name)) for name in _STARTS["positive"])
    return steered and "steps" in inputs and "cfg" in inputs


def _of_maker(graph: Graph) -> dict[str, Place | None]:
    """Return the knobs of a node that makes a picture of a prompt by itself."""
    level = list(leaf_nodes(graph))
    seen = set(level)
    while level:
        for node_id in sorted(level, key=_natural):
            own = graph[node_id]["inputs"]
            if "seed" not in own or not {"prompt", "text"} & own.keys():
                continue
            found = {
                name: value_place(graph, node_id, (name,), NUMBER)
                for name in ("seed", "steps", "guidance", "width", "height")
            }
            found["positive"] = _text_in(graph, node_id, "positive")
            found["negative"] = value_place(graph, node_id, ("negative_prompt",), str)
            return found
        sources = (source for node_id in level for _, source, _ in sorted(links(graph[node_id])))
        level = [source for source in dict.fromkeys(sources) if source not in seen]
        seen.update(level)
    return {}


def _loras(graph: Graph, sampler: str) -> dict[str, Place]:
    """Return the LoRAs that the model passes, in the order in which they are applied."""
    passed = [
        node_id
        for node_id in walk(graph, sampler, ("model", "guider"))
        if isinstance(graph[node_id]["inputs"].get("lora_name"), str)
    ]
    found = {}
    for number, node_id in enumerate(reversed(passed), 1):
        name = "lora" if number == 1 else f"lora_{number}"
        found[name] = Place(node_id, ("lora_name",))
        own = graph[node_id]["inputs"]
        strength = value_place(graph, node_id, ("strength_model", "strength"), NUMBER)
        if strength is not None:
            both = strength.inputs == ("strength_model",) and (
                own["strength_model"] == own.get("strength_clip")
            )
            found[f"{name}_strength"] = (
                Place(node_id, ("strength_model", "strength_clip")) if both else strength
            )
    return found


def _clips(graph: Graph, encoder: str) -> dict[str, Place]:
    """Return the text encoders that are loaded by themselves, for a node that encodes text."""
    for node_id in walk(graph, encoder, ("clip",)):
        own = graph[node_id]["inputs"]
        names = sorted(
            name
            for name, value in own.items()
            if name.startswith("clip_name") and isinstance(value, str)
        )
        if names:
            return {
                "clip" if number == 1 else f"clip_{number}": Place(node_id, (name,))
                for number, name in enumerate(names, 1)
            }
    return {}


def _vae(graph: Graph) -> Place | None:
    """Return the VAE that is loaded by itself, if there is one only."""
    loaders = {
        source_of(graph, value)[0]
        for node in graph.values()
        for name, value in node["inputs"].items()
        if name == "vae" and is_link(value)
    }
    named = [i for i in loaders if isinstance(graph[i]["inputs"].get("vae_name"), str)]
    return Place(named[0], ("vae_name",)) if len(named) == 1 else None


# -- texts


def _text(graph: Graph, sampler: str, role: str) -> tuple[str | None, Place | None]:
    """Return the node that encodes a sampler's positive or negative text, and the text's place."""
    for node_id in _conditionings(graph, sampler, role):
        place = _text_in(graph, node_id, role)
        if place is not None:
            return node_id, place
    return None, None


def _conditionings(graph: Graph, sampler: str, role: str) -> Iterator[str]:
    """Yield the nodes that a sampler's conditioning is made of, nearest first."""
    inputs = graph[sampler]["inputs"]
    if is_link(inputs.get("guider")):
        inputs = graph[source_of(graph, inputs["guider"])[0]]["inputs"]
    start = next((inputs[name] for name in _STARTS[role] if is_link(inputs.get(name))), None)
    level = [source_of(graph, start)[0]] if start else []
    seen: set[str] = set()
    while level:
        yield from level
        seen.update(level)
        further = [source for node_id in level for source in _parts(graph, node_id, role)]
        level = [source for source in dict.fromkeys(further) if source not in seen]


def _parts(graph: Graph, node_id: str, role: str) -> Iterator[str]:
    """Yield the nodes of which a node makes its conditioning."""
    node = graph[node_id]
    if node["class_type"] == "ConditioningZeroOut":
        return
    found = {name: source_of(graph, [source, out])[0] for name, source, out in links(node)}
    if "positive" in found and "negative" in found:  # as ControlNetApplyAdvanced: two in, two out
        yield found[role]
        return
    for name in sorted(found):
        if name not in _NOT_CONDITIONING:
            yield found[name]


def _text_in(graph: Graph, node_id: str, role: str) -> Place | None:
    own = graph[node_id]["inputs"]
    for name in (role, f"{role}_prompt"):  # a loader of somebody's own that encodes both
        if isinstance(own.get(name), str):
            return Place(node_id, (name,))
    for group in _TEXTS:
        held = tuple(name for name in group if isinstance(own.get(name), str))
        if held:
            return Place(node_id, held)
        linked = value_place(graph, node_id, group, str)
        if linked is not None:
            return linked
    return None


def _natural(node_id: str) -> tuple[bool, int, str]:
    """Order ids as people do: 9 before 10, numbers before words."""
    return (False, len(node_id), node_id) if node_id.isdecimal() else (True, 0, node_id)

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
from typing import Any, NamedTuple

from comfynb.workflows.graph import is_link, leaf_nodes, links

Graph = Mapping[str, Any]
Kind = type | tuple[type, ...]

NUMBER: Kind = (int, float)

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
_TEXT_LINKS = ("text", "prompt", "string", "string_a", "string_b", "value", "replace")
"""Links of nodes that make a text of texts; the literal ones beside them frame it."""

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

_HOPS = 30
"""How far a value is followed; graphs are free of circles, this bounds only the work."""


class Place(NamedTuple):
    """Where a knob's value is: one input, or several of one node that hold the same."""

    node: str
    inputs: tuple[str, ...]


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
        found[name] = _value(graph, sampler, inputs, kind) or _upstream(
            graph, sampler, inputs, through, kind
        )
    encoder, found["positive"] = _text(graph, sampler, "positive")
    _, negative = _text(graph, sampler, "negative")
    found["negative"] = negative if negative != found["positive"] else None
    found["guidance"] = next(
        (
            place
            for node_id in _conditionings(graph, sampler, "positive")
            if (place := _value(graph, node_id, ("guidance",), NUMBER))
        ),
        None,
    )
    for name in ("width", "height", "length", "batch_size"):
        found[name] = _upstream(graph, sampler, (name,), _LATENT_LINKS, NUMBER)
    found["aspect_ratio"] = _upstream(graph, sampler, ("aspect_ratio",), _SIZE_LINKS, str)
    found["megapixels"] = _upstream(graph, sampler, ("megapixels",), _SIZE_LINKS, NUMBER)
    found["image"] = _upstream(graph, sampler, ("image",), _LATENT_LINKS, str)
    model = ("model", "guider")
    found["shift"] = _upstream(graph, sampler, ("shift",), model, NUMBER)
    found["checkpoint"] = _upstream(graph, sampler, ("ckpt_name", "unet_name"), model, str)
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
            if samplers.isdisjoint(_walk(graph, node_id, _LATENT_LINKS))
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
                name: _value(graph, node_id, (name,), NUMBER)
                for name in ("seed", "steps", "guidance", "width", "height")
            }
            found["positive"] = _text_in(graph, node_id, "positive")
            found["negative"] = _value(graph, node_id, ("negative_prompt",), str)
            return found
        sources = (source for node_id in level for _, source, _ in sorted(links(graph[node_id])))
        level = [source for source in dict.fromkeys(sources) if source not in seen]
        seen.update(level)
    return {}


def _loras(graph: Graph, sampler: str) -> dict[str, Place]:
    """Return the LoRAs that the model passes, in the order in which they are applied."""
    passed = [
        node_id
        for node_id in _walk(graph, sampler, ("model", "guider"))
        if isinstance(graph[node_id]["inputs"].get("lora_name"), str)
    ]
    found = {}
    for number, node_id in enumerate(reversed(passed), 1):
        name = "lora" if number == 1 else f"lora_{number}"
        found[name] = Place(node_id, ("lora_name",))
        own = graph[node_id]["inputs"]
        strength = _value(graph, node_id, ("strength_model", "strength"), NUMBER)
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
    for node_id in _walk(graph, encoder, ("clip",)):
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
        _source(graph, value)[0]
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
        inputs = graph[_source(graph, inputs["guider"])[0]]["inputs"]
    start = next((inputs[name] for name in _STARTS[role] if is_link(inputs.get(name))), None)
    level = [_source(graph, start)[0]] if start else []
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
    found = {name: _source(graph, [source, out])[0] for name, source, out in links(node)}
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
        linked = _value(graph, node_id, group, str)
        if linked is not None:
            return linked
    return None


# -- values and links


def _value(graph: Graph, node_id: str, inputs: tuple[str, ...], kind: Kind) -> Place | None:
    """Return where the first of a node's inputs has its value, which another node may hold."""
    own = graph[node_id]["inputs"]
    for name in inputs:
        if _is_a(own.get(name), kind):
            return Place(node_id, (name,))
        if is_link(own.get(name)):
            place = _held(graph, own[name], name, kind, _HOPS)
            if place is not None:
                return place
    return None


def _held(graph: Graph, link: list[Any], name: str, kind: Kind, hops: int) -> Place | None:
    """Return where the value is that comes over a link: in a primitive, mostly."""
    source, _ = _source(graph, link)
    held = graph[source]["inputs"]
    if hops == 0:
        return None
    if kind is str:  # first what is linked: it is the text, and what stands beside it its frame
        for key in _TEXT_LINKS:
            if is_link(held.get(key)):
                place = _held(graph, held[key], key, kind, hops - 1)
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


def _source(graph: Graph, link: list[Any]) -> tuple[str, int]:
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


def _walk(graph: Graph, start: str, through: tuple[str, ...]) -> Iterator[str]:
    """Yield the nodes behind these links, nearest first, then by the name of the link."""
    seen, level = {start}, [start]
    while level:
        sources = [
            _source(graph, [source, slot])[0]
            for node_id in level
            for name, source, slot in sorted(links(graph[node_id]))
            if name in through
        ]
        level = [source for source in dict.fromkeys(sources) if source not in seen]
        seen.update(level)
        yield from level


def _upstream(
    graph: Graph, start: str, inputs: tuple[str, ...], through: tuple[str, ...], kind: Kind
) -> Place | None:
    """Return the nearest place behind these links that has one of the inputs."""
    places = (_value(graph, node_id, inputs, kind) for node_id in _walk(graph, start, through))
    return next((place for place in places if place is not None), None)


def _is_a(value: Any, kind: Kind) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _natural(node_id: str) -> tuple[bool, int, str]:
    """Order ids as people do: 9 before 10, numbers before words."""
    return (False, len(node_id), node_id) if node_id.isdecimal() else (True, 0, node_id)

"""Graphs of many shapes, as people save them."""

from copy import deepcopy
from typing import Any


def node(class_type: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"class_type": class_type, "inputs": inputs}
    return made if title is None else {**made, "_meta": {"title": title}}


def sd15() -> dict[str, Any]:
    """ComfyUI's own first graph, with its own ids and order."""
    return {
        "3": node("KSampler", "KSampler", seed=156680208700286, steps=20, cfg=8,
                  sampler_name="euler", scheduler="normal", denoise=1, model=["4", 0],
                  positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
        "4": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="v1-5.safetensors"),
        "5": node("EmptyLatentImage", "Empty Latent Image", width=512, height=768, batch_size=2),
        "6": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="a bottle", clip=["4", 1]),
        "7": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="text", clip=["4", 1]),
        "8": node("VAEDecode", "VAE Decode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", "Save Image", filename_prefix="ComfyUI", images=["8", 0]),
    }  # fmt: skip


def advanced() -> dict[str, Any]:
    """Two stages: the second goes on from the first's latent; ids are words."""
    common = {"steps": 25, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal"}
    return {
        "ein Speicher": node("SaveImage", images=["bild", 0], filename_prefix="x"),
        "bild": node("VAEDecode", samples=["a second", 0], vae=["base", 2]),
        "a second": node("KSamplerAdvanced", noise_seed=1, add_noise="disable", start_at_step=20,
                         end_at_step=10000, model=["refiner", 0], positive=["p2", 0],
                         negative=["n2", 0], latent_image=["z first", 0], **common),
        "z first": node("KSamplerAdvanced", noise_seed=99, add_noise="enable", start_at_step=0,
                        end_at_step=20, model=["lora", 0], positive=["p1", 0], negative=["n1", 0],
                        latent_image=["leer", 0], **common),
        "lora": node("LoraLoader", "Style", lora_name="ink.safetensors", strength_model=1,
                     strength_clip=1, model=["base", 0], clip=["base", 1]),
        "base": node("CheckpointLoaderSimple", ckpt_name="base.safetensors"),
        "refiner": node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors"),
        "leer": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
        "p1": node("CLIPTextEncodeSDXL", text_g="a fox", text_l="a fox", width=1024, height=1024,
                   crop_w=0, crop_h=0, target_width=1024, target_height=1024, clip=["lora", 1]),
        "n1": node("CLIPTextEncode", text="blur", clip=["lora", 1]),
        "p2": node("CLIPTextEncode", text="a fox, refined", clip=["refiner", 1]),
        "n2": node("CLIPTextEncode", text="blur, refined", clip=["refiner", 1]),
    }  # fmt: skip


def conditioned() -> dict[str, Any]:
    """Both conditionings pass one ControlNet; the positive is combined of two before."""
    graph = sd15()
    graph["3"]["inputs"] |= {"positive": ["12", 0], "negative": ["12", 1]}
    graph["10"] = node("CLIPTextEncode", "Second", text="in rain", clip=["4", 1])
    graph["11"] = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["10", 0])
    graph["12"] = node("ControlNetApplyAdvanced", strength=1, start_percent=0, end_percent=1,
                       positive=["11", 0], negative=["7", 0], control_net=["13", 0],
                       image=["14", 0])  # fmt: skip
    graph["13"] = node("ControlNetLoader", control_net_name="canny.safetensors")
    graph["14"] = node("LoadImage", image="edges.png")
    return graph


def img2img() -> dict[str, Any]:
    graph = sd15()
    graph["5"] = node("VAEEncode", pixels=["10", 0], vae=["4", 2])
    graph["10"] = node("LoadImage", "Picture", image="example.png", upload="image")
    graph["3"]["inputs"]["denoise"] = 0.6
    return graph


def one_text() -> dict[str, Any]:
    """The same node is positive and negative."""
    graph = sd15()
    graph["3"]["inputs"]["negative"] = ["6", 0]
    del graph["7"]
    return graph


def zeroed() -> dict[str, Any]:
    """The negative is the positive text, zeroed out."""
    graph = one_text()
    graph["10"] = node("ConditioningZeroOut", conditioning=["6", 0])
    graph["3"]["inputs"]["negative"] = ["10", 0]
    return graph


def custom_advanced() -> dict[str, Any]:
    """Flux as ComfyUI's template has it: everything of the sampler is a node of its own."""
    return {
        "1": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "2": node("DualCLIPLoader", clip_name1="l", clip_name2="t5", type="flux"),
        "3": node("CLIPTextEncodeFlux", clip_l="a fox", t5xxl="a fox", guidance=3.5, clip=["2", 0]),
        "4": node("FluxGuidance", "Guidance", guidance=3.5, conditioning=["3", 0]),
        "5": node("BasicGuider", model=["1", 0], conditioning=["4", 0]),
        "6": node("PrimitiveInt", value=7, control_after_generate="fixed"),
        "7": node("RandomNoise", noise_seed=["6", 0]),
        "8": node("KSamplerSelect", sampler_name="euler"),
        "9": node("BasicScheduler", scheduler="simple", steps=20, denoise=1, model=["1", 0]),
        "10": node("EmptySD3LatentImage", width=["16", 0], height=1024, batch_size=1),
        "11": node("SamplerCustomAdvanced", noise=["7", 0], guider=["5", 0], sampler=["8", 0],
                   sigmas=["9", 0], latent_image=["10", 0]),
        "12": node("VAEDecode", samples=["11", 0], vae=["13", 0]),
        "13": node("VAELoader", vae_name="ae.safetensors"),
        "14": node("SaveImage", images=["12", 0], filename_prefix="flux"),
        "16": node("PrimitiveInt", value=768),
    }  # fmt: skip


def linked_text() -> dict[str, Any]:
    graph = sd15()
    graph["10"] = node("PrimitiveStringMultiline", "The text", value="from a primitive")
    graph["6"]["inputs"]["text"] = ["10", 0]
    return graph


def foreign_sampler() -> dict[str, Any]:
    graph = sd15()
    graph["3"]["class_type"] = "KSampler (Efficient)"
    return graph


def no_sampler() -> dict[str, Any]:
    return {
        "a": node("EmptyImage", "Colour", width=64, height=64, batch_size=1, color=0),
        "b": node("SaveImage", images=["a", 0], filename_prefix="x"),
    }


def changed(graph: dict[str, Any], node_id: str, **inputs: Any) -> dict[str, Any]:
    graph = deepcopy(graph)
    graph[node_id]["inputs"] |= inputs
    return graph

"""Roles are found in graphs of the shapes that ComfyUI's own templates have."""

from copy import deepcopy

import pytest

from comfynb.errors import UnknownKnobError
from comfynb.workflows import Workflow

from . import graphs
from .graphs import node


def places(graph):
    return {name: f"{k.node}.{k.input}" for name, k in Workflow.load(graph).knobs.items()}


def flux2():
    """CFGGuider, RandomNoise, Flux2Scheduler; the size is held by primitives for two nodes."""
    return {
        "1": node("UNETLoader", unet_name="flux2.safetensors", weight_dtype="default"),
        "2": node("CLIPLoader", clip_name="mistral.safetensors", type="flux2"),
        "3": node("CLIPTextEncode", text="a fox", clip=["2", 0]),
        "4": node("CLIPTextEncode", text="blur", clip=["2", 0]),
        "5": node("CFGGuider", model=["1", 0], positive=["3", 0], negative=["4", 0], cfg=4),
        "6": node("RandomNoise", noise_seed=7),
        "7": node("KSamplerSelect", sampler_name="euler"),
        "8": node("Flux2Scheduler", steps=20, width=["12", 0], height=["13", 0]),
        "9": node("EmptyFlux2LatentImage", width=["12", 0], height=["13", 0], batch_size=1),
        "10": node("SamplerCustomAdvanced", noise=["6", 0], guider=["5", 0], sampler=["7", 0],
                   sigmas=["8", 0], latent_image=["9", 0]),
        "11": node("VAEDecode", samples=["10", 0], vae=["14", 0]),
        "12": node("PrimitiveInt", value=1024),
        "13": node("PrimitiveInt", value=768),
        "14": node("VAELoader", vae_name="flux2-vae.safetensors"),
        "15": node("SaveImage", images=["11", 0], filename_prefix="x"),
    }  # fmt: skip


def test_a_flux_style_graph_has_every_knob_though_each_is_another_node():
    assert places(flux2()) == {
        "positive": "3.text",
        "negative": "4.text",
        "seed": "6.noise_seed",
        "steps": "8.steps",
        "cfg": "5.cfg",
        "sampler": "7.sampler_name",
        "width": "12.value",
        "height": "13.value",
        "batch_size": "9.batch_size",
        "checkpoint": "1.unet_name",
        "vae": "14.vae_name",
        "clip": "2.clip_name",
    }


def test_a_size_that_two_nodes_take_from_one_primitive_is_set_for_both():
    graph = Workflow.load(flux2()).with_knobs({"width": 512}).graph
    assert graph["12"]["inputs"]["value"] == 512
    assert graph["8"]["inputs"]["width"] == graph["9"]["inputs"]["width"] == ["12", 0]


def test_a_plain_custom_sampler_has_its_own_seed_and_cfg():
    graph = flux2()
    graph["10"] = node("SamplerCustom", model=["1", 0], add_noise=True, noise_seed=3, cfg=8,
                       positive=["3", 0], negative=["4", 0], sampler=["7", 0],
                       sigmas=["16", 0], latent_image=["9", 0])  # fmt: skip
    graph["16"] = node("SplitSigmas", sigmas=["17", 0], step=3)
    graph["17"] = node("BasicScheduler", scheduler="beta", steps=9, denoise=0.8, model=["1", 0])
    found = places(graph)
    assert (found["seed"], found["cfg"]) == ("10.noise_seed", "10.cfg")
    assert [found[name] for name in ("steps", "scheduler", "denoise")] == [
        "17.steps",
        "17.scheduler",
        "17.denoise",
    ]


def test_guidance_is_found_between_text_and_guider():
    assert places(graphs.custom_advanced())["guidance"] == "4.guidance"
    graph = graphs.custom_advanced()
    graph["5"]["inputs"]["conditioning"] = ["3", 0]
    assert places(graph)["guidance"] == "3.guidance"


@pytest.mark.parametrize(
    "texts",
    [
        {"text_g": "a", "text_l": "b"},
        {"clip_l": "a", "t5xxl": "b"},
        {"clip_l": "a", "clip_g": "b", "t5xxl": "c"},
        {"clip_l": "a", "clip_g": "b", "t5xxl": "c", "llama": "d"},
        {"prompt": "a"},
        {"user_prompt": "a", "system_prompt": ["99", 0]},
    ],
    ids="+".join,
)
def test_every_text_of_an_encoder_is_set(texts):
    graph = graphs.sd15()
    graph["6"] = node("SomeTextEncode", clip=["4", 1], **texts)
    graph["99"] = node("PrimitiveString", value="be kind")
    made = Workflow.load(graph).with_knobs({"positive": "a mill"}).graph["6"]["inputs"]
    own = [name for name, value in texts.items() if isinstance(value, str)]
    assert {made[name] for name in own} == {"a mill"}


def test_a_node_that_encodes_both_texts_is_positive_and_negative():
    graph = graphs.sd15()
    graph["6"] = node("Efficient Loader", positive="a fox", negative="blur", ckpt_name="x")
    graph["3"]["inputs"] |= {"positive": ["6", 1], "negative": ["6", 2]}
    found = places(graph)
    assert (found["positive"], found["negative"]) == ("6.positive", "6.negative")


def test_a_stack_of_loras_is_numbered_in_the_order_of_applying():
    graph = graphs.sd15()
    graph["a"] = node("LoraLoader", lora_name="one", strength_model=1, strength_clip=1,
                      model=["4", 0], clip=["4", 1])  # fmt: skip
    graph["b"] = node("LoraLoaderModelOnly", lora_name="two", strength_model=0.5, model=["a", 0])
    graph["c"] = node("LoraLoader", lora_name="three", strength_model=1, strength_clip=0.2,
                      model=["b", 0], clip=["a", 1])  # fmt: skip
    graph["3"]["inputs"]["model"] = ["c", 0]
    flow = Workflow.load(graph)
    assert [flow.knobs[name].value for name in ("lora", "lora_2", "lora_3")] == [
        "one",
        "two",
        "three",
    ]
    made = flow.with_knobs({"lora_strength": 0.7, "lora_2_strength": 0.6, "lora_3_strength": 0.9})
    assert (made.graph["a"]["inputs"]["strength_model"]) == 0.7
    assert (made.graph["a"]["inputs"]["strength_clip"]) == 0.7
    assert made.graph["b"]["inputs"]["strength_model"] == 0.6
    assert made.graph["c"]["inputs"]["strength_clip"] == 0.2, "they differed before: one is turned"
    assert flow.knobs["checkpoint"].node == "4"


def test_loaders_have_their_names_and_a_unet_is_also_called_so():
    flow = Workflow.load(graphs.custom_advanced())
    assert [flow.knob(name).input for name in ("unet", "vae", "clip", "clip_2")] == [
        "unet_name",
        "vae_name",
        "clip_name1",
        "clip_name2",
    ]
    assert flow.knob("unet").node == flow.knobs["checkpoint"].node
    with pytest.raises(UnknownKnobError):
        Workflow.load(graphs.sd15()).knob("unet")


def test_a_refiner_is_reached_by_its_node():
    graph = Workflow.load(graphs.advanced()).with_knobs({"a second.steps": 30, "steps": 10}).graph
    assert graph["a second"]["inputs"]["steps"] == 30
    assert graph["z first"]["inputs"]["steps"] == 10


class TestWhatStandsBetween:
    def test_reroutes_and_switches_are_passed_through(self):
        graph = graphs.sd15()
        graph["r"] = node("Reroute", value=["5", 0])
        graph["3"]["inputs"] |= {"latent_image": ["r", 0], "model": ["s", 0], "steps": ["n", 0]}
        graph["s"] = node("ComfySwitchNode", switch=["b", 0], on_false=["4", 0], on_true=["u", 0])
        graph["u"] = node("UNETLoader", unet_name="turbo", weight_dtype="default")
        graph["n"] = node("ComfySwitchNode", switch=["b", 0], on_false=20, on_true=4)
        graph["b"] = node("PrimitiveBoolean", value=True)
        found = places(graph)
        assert [found[name] for name in ("width", "checkpoint", "steps")] == [
            "5.width",
            "u.unet_name",
            "n.on_true",
        ]
        graph["b"]["inputs"]["value"] = False
        assert [places(graph)[name] for name in ("checkpoint", "steps")] == [
            "4.ckpt_name",
            "n.on_false",
        ]

    def test_a_text_is_found_behind_what_frames_it(self):
        graph = graphs.sd15()
        graph["6"]["inputs"]["text"] = ["j", 0]
        graph["j"] = node("StringConcatenate", string_a="4k, ", string_b=["t", 0], delimiter="")
        graph["t"] = node("PrimitiveStringMultiline", value="a fox")
        assert places(graph)["positive"] == "t.value"

    def test_a_zeroed_negative_behind_a_controlnet_is_none(self):
        graph = graphs.conditioned()
        graph["zero"] = node("ConditioningZeroOut", conditioning=["6", 0])
        graph["12"]["inputs"]["negative"] = ["zero", 0]
        assert "negative" not in places(graph)

    def test_a_long_chain_of_texts_ends(self):
        graph = graphs.sd15()
        graph["6"]["inputs"]["text"] = ["0t", 0]
        for number in range(500):
            graph[f"{number}t"] = node("StringTrim", string=[f"{number + 1}t", 0])
        graph["500t"] = node("PrimitiveString", value="a fox")
        assert places(graph)["seed"] == "3.seed"

    def test_texts_that_are_joined_again_and_again_cost_no_more_than_their_nodes(self):
        graph = graphs.sd15()
        graph["6"]["inputs"]["text"] = ["0t", 0]
        for number in range(25):  # as many ways as 2**25
            link = [f"{number + 1}t", 0]
            graph[f"{number}t"] = node("StringConcatenate", string_a=link, string_b=link)
        graph["25t"] = node("SomethingElse", number=3)
        assert "positive" not in places(graph)


def test_a_sampler_that_no_text_steers_counts_last():
    """As where a depth map is measured first and drawn after."""
    graph = graphs.sd15()
    graph["2"] = deepcopy(graph["3"])
    graph["2"]["inputs"] |= {"positive": ["d", 0], "negative": ["d", 0], "seed": 1}
    graph["d"] = node("LotusConditioning")
    graph["e"] = node("VAEEncode", pixels=["f", 0], vae=["4", 2])
    graph["f"] = node("VAEDecode", samples=["2", 0], vae=["4", 2])
    graph["3"]["inputs"]["latent_image"] = ["e", 0]
    found = places(graph)
    assert (found["seed"], found["positive"]) == ("3.seed", "6.text")


def test_a_sampler_that_nothing_follows_is_not_the_first():
    graph = graphs.sd15()
    graph["1"] = deepcopy(graph["3"])
    assert places(graph)["seed"] == "3.seed"


def test_a_node_that_makes_pictures_by_itself_has_prompt_seed_and_size():
    graph = {
        "a": node("SomeApiNode", prompt=["p", 0], seed=3, width=512, height=256, model="x"),
        "p": node("PrimitiveString", value="a fox"),
        "s": node("SaveImage", images=["a", 0], filename_prefix="x"),
    }
    assert places(graph) == {
        "positive": "p.value",
        "seed": "a.seed",
        "width": "a.width",
        "height": "a.height",
    }


def test_a_video_has_a_length():
    graph = graphs.sd15()
    graph["5"] = node("EmptyHunyuanLatentVideo", width=848, height=480, length=25, batch_size=1)
    graph["m"] = node("ModelSamplingSD3", shift=5, model=["4", 0])
    graph["3"]["inputs"]["model"] = ["m", 0]
    found = places(graph)
    assert (found["length"], found["shift"]) == ("5.length", "m.shift")


def test_a_size_that_is_worked_out_has_aspect_ratio_and_megapixels():
    graph = graphs.sd15()
    graph["5"] = node("EmptyLatentImage", width=["m", 1], height=["r", 1], batch_size=1)
    graph["m"] = node("ComfyMathExpression", expression="a // 2", **{"values.a": ["r", 0]})
    graph["r"] = node("ResolutionSelector", aspect_ratio="1:1 (Square)", megapixels=1.0, multiple=8)
    found = places(graph)
    assert (found["aspect_ratio"], found["megapixels"]) == ("r.aspect_ratio", "r.megapixels")
    assert "width" not in found


def test_a_node_that_passes_model_and_conditionings_keeps_them_apart():
    graph = graphs.sd15()
    graph["w"] = node("WanInfiniteTalkToVideo", model=["4", 0], positive=["6", 0],
                      negative=["7", 0], width=832, height=480, length=81)  # fmt: skip
    graph["3"]["inputs"] |= {"model": ["w", 0], "positive": ["w", 1], "negative": ["w", 2],
                             "latent_image": ["w", 3]}  # fmt: skip
    found = places(graph)
    assert (found["positive"], found["negative"]) == ("6.text", "7.text")
    assert (found["width"], found["length"]) == ("w.width", "w.length")

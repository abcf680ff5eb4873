"""The editor's format becomes the graph that the editor itself would send."""

import logging

import pytest

from comfynb.errors import WorkflowError
from comfynb.workflows.convert import convert

from .drawings import SAMPLER, Drawing, inside, sd15, types

INT = ["INT", {"default": 4}]
TEXT = ["STRING", {}]
SEED = ["INT", {"control_after_generate": True}]


def inputs_of(drawing, node_id, **classes):
    return convert(drawing.saved(), types(**classes))[str(node_id)]["inputs"]


def values_of(values, required, optional=None, **more):
    """The inputs of one node with these values and these declared inputs."""
    spec = {"required": required, "optional": optional or {}}
    return inputs_of(Drawing().node(1, "Mine", values, **more), 1, Mine=spec)


# -- the whole


@pytest.mark.parametrize("links_are_objects", [False, True])
def test_a_plain_graph_becomes_what_the_editor_would_send(links_are_objects):
    graph = convert(sd15(links_are_objects=links_are_objects).saved(), types())
    assert list(graph) == ["4", "10", "6", "7", "5", "3", "8", "9"]
    assert graph["3"] == {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
        "_meta": {"title": "KSampler"},
    }  # fmt: skip
    assert graph["6"]["inputs"] == {"text": "a fox", "clip": ["10", 1]}
    assert graph["6"]["_meta"] == {"title": "Positive"}
    assert graph["7"]["_meta"] == {"title": "CLIP Text Encode (Prompt)"}
    assert graph["8"]["inputs"] == {"samples": ["3", 0], "vae": ["4", 2]}


def test_notes_and_groups_are_only_drawn():
    graph = convert(sd15().saved(groups=[{"title": "G", "bounding": [0, 0, 9, 9]}]), types())
    assert not {"11", "12"} & set(graph)


def test_ids_may_be_texts():
    drawing = Drawing().node("a", "Mine", outputs="IMAGE")
    drawing.node("b", "SaveImage", ["x"], links={"images": ("IMAGE", "a", 0)})
    assert inputs_of(drawing, "b", Mine={})["images"] == ["a", 0]


# -- values


def test_values_are_paired_in_the_order_of_the_class_and_not_of_its_json():
    info = types(Mine={"required": {"b": INT, "a": TEXT}}).object_info
    info["Mine"]["input_order"] = {"required": ["a", "b"]}
    graph = convert(Drawing().node(1, "Mine", ["text", 7]).saved(), types().of(info))
    assert graph["1"]["inputs"] == {"a": "text", "b": 7}


def test_a_control_after_generate_is_passed_over_behind_every_seed():
    flagged = {"noise": SEED, "steps": INT}
    assert values_of([7, "fixed", 20], flagged) == {"noise": 7, "steps": 20}
    unflagged = {"seed": ["INT", {}], "steps": INT}
    assert values_of([7, "increment", 20], unflagged) == {"seed": 7, "steps": 20}
    declined = {"seed": ["INT", {"control_after_generate": False}], "mode": TEXT}
    assert values_of([7, "fixed"], declined) == {"seed": 7, "mode": "fixed"}


def test_files_without_the_control_are_read_too():
    assert values_of([7, 20], {"seed": ["INT", {}], "steps": INT}) == {"seed": 7, "steps": 20}
    mode = [["fixed", "free"], {}]
    required = {"seed": ["INT", {}], "mode": mode, "steps": INT}
    assert values_of([7, "fixed", 20], required) == {"seed": 7, "mode": "fixed", "steps": 20}
    with_control = values_of([7, "randomize", "fixed", 20], required)
    assert with_control == {"seed": 7, "mode": "fixed", "steps": 20}


def test_choices_of_both_encodings_take_a_value():
    required = {"old": [["a", "b"]], "new": ["COMBO", {"options": ["c", "d"]}], "n": INT}
    assert values_of(["b", "d", 3], required) == {"old": "b", "new": "d", "n": 3}


def test_links_unions_and_forced_inputs_take_no_value():
    required = {
        "model": ["MODEL"], "either": ["INT,FLOAT"], "forced": ["INT", {"forceInput": True}],
        "n": INT,
    }  # fmt: skip
    assert values_of([3], required) == {"n": 3}


def test_the_button_of_an_upload_is_no_value():
    required = {"image": [["a.png"], {"image_upload": True}]}
    found = values_of(["a.png", "image", "red"], required, {"channel": [["alpha", "red"]]})
    assert found == {"image": "a.png", "channel": "red"}
    assert inputs_of(Drawing().node(1, "LoadImage", ["a.png", "image"]), 1) == {"image": "a.png"}
    assert inputs_of(Drawing().node(1, "LoadImageMask", ["a.png", "red", "image"]), 1) == {
        "image": "a.png",
        "channel": "red",
    }


def test_the_buttons_of_a_3d_view_are_no_values():
    required = {"model": [["a.glb"]], "view": ["LOAD_3D", {}], "width": INT}
    values = ["a.glb", "upload3dmodel", "clear", "", 512]
    assert values_of(values, required) == {"model": "a.glb", "view": "", "width": 512}
    assert values_of(["a.glb", "", 512], required)["width"] == 512


def test_nothing_is_chosen_where_several_could_be():
    several = {"tags": [["a", "b"], {"multi_select": {"placeholder": "tags"}}]}
    assert values_of([], several) == {}
    assert values_of([], {"tags": ["COMBO", {"options": ["a"], "multiselect": True}]}) == {}


def test_a_widget_without_a_value_has_what_the_editor_shows():
    required = {
        "n": INT, "x": ["FLOAT", {}], "text": TEXT, "on": ["BOOLEAN", {}], "choice": [["a", "b"]],
        "remote": ["COMBO", {"remote": {}}], "view": ["COLORS", {"socketless": True}],
    }  # fmt: skip
    assert values_of([], required) == {
        "n": 4, "x": 0, "text": "", "on": False, "choice": "a", "view": None,
    }  # fmt: skip
    assert values_of([9], required)["n"] == 9


def test_a_choice_that_brings_inputs_has_their_values_behind_its_own():
    sized = {"required": {"width": INT, "ref": ["IMAGE"], "seed": SEED}}
    required = {
        "model": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "auto", "inputs": {}},
                                                       {"key": "sized", "inputs": sized}]}],
        "last": TEXT,
    }  # fmt: skip
    values = ["sized", 64, 7, "fixed", "end"]
    assert values_of(values, required) == {
        "model": "sized", "model.width": 64, "model.seed": 7, "last": "end",
    }  # fmt: skip
    assert values_of(["auto", "end"], required) == {"model": "auto", "last": "end"}
    assert values_of(["sized"], required)["model.width"] == 4


def test_inputs_that_grow_are_linked_by_their_own_names():
    grown = {"images": ["COMFY_AUTOGROW_V3", {"template": {}}]}
    drawing = Drawing().node(2, "LoadImage", ["a.png", "image"], outputs="IMAGE MASK")
    drawing.node(1, "Mine", links={"images.image0": ("IMAGE", 2, 0)},
                 open_inputs={"images.image1": "IMAGE"})  # fmt: skip
    assert inputs_of(drawing, 1, Mine={"required": grown}) == {"images.image0": ["2", 0]}


def test_values_by_name_are_taken_by_name():
    values = {"n": 3, "crf": 19, "videopreview": {"hidden": False}}
    assert values_of(values, {"n": INT}) == {"n": 3, "crf": 19}


def test_names_beside_the_list_hold_where_the_class_has_changed():
    named = {"new": "x", "n": 3, "control_after_generate": "fixed"}
    found = values_of(["x", 3, "fixed"], {"n": INT}, widgets_values_named=named)
    assert found == {"n": 3}


def test_old_names_beside_a_changed_list_do_not_count():
    found = values_of([5], {"n": INT}, widgets_values_named={"n": 3})
    assert found == {"n": 5}


def test_a_list_as_a_value_does_not_look_like_a_link():
    assert values_of([["2", 0]], {"curve": TEXT}) == {"curve": {"__value__": ["2", 0]}}


def test_rows_of_loras_are_numbered():
    row = {"on": True, "lora": "ink.safetensors", "strength": 1}
    found = values_of([{}, {"type": "Header"}, row, {}, ""], {})
    assert found == {"lora_1": row}


def test_no_lots_are_drawn_from_a_text_and_that_is_said(caplog):
    text = "a {red|blue} hat, see https://example.org"
    with caplog.at_level(logging.WARNING):
        assert inputs_of(Drawing().node(1, "CLIPTextEncode", [text]), 1) == {"text": text}
        assert "node 1" in caplog.text
        caplog.clear()
        inputs_of(Drawing().node(1, "CLIPTextEncode", ['{"json": 1} a|b']), 1)
    assert caplog.text == ""


# -- wires


def test_a_converted_widget_keeps_its_place_among_the_values():
    drawing = Drawing().node(2, "Number", [1024], outputs="INT")
    drawing.node(5, "EmptyLatentImage", [512, 768, 2], links={"height": ("INT", 2, 0)},
                 widgets=("height",))  # fmt: skip
    found = inputs_of(drawing, 5, Number={"required": {"value": INT}})
    assert found == {"width": 512, "height": ["2", 0], "batch_size": 2}


def test_a_primitive_gives_its_value():
    drawing = Drawing().node(2, "PrimitiveNode", [99, "fixed"], outputs="INT")
    drawing.node(13, "Reroute", links={"": ("*", 2, 0)}, outputs="INT")
    drawing.node(5, "EmptyLatentImage", [512, 768, 2],
                 links={"width": ("INT", 2, 0), "height": ("INT", 13, 0)})  # fmt: skip
    graph = convert(drawing.saved(), types())
    assert graph.keys() == {"5"}
    assert graph["5"]["inputs"] == {"width": 99, "height": 99, "batch_size": 2}


def test_reroutes_are_followed_however_many():
    drawing = Drawing().node(0, "LoadImage", ["a.png", "image"], outputs="IMAGE MASK")
    for number in range(1, 3000):
        drawing.node(number, "Reroute", links={"": ("*", number - 1, 0)}, outputs="*")
    drawing.node("end", "SaveImage", ["x"], links={"images": ("IMAGE", 2999, 0)})
    graph = convert(drawing.saved(), types())
    assert graph.keys() == {"0", "end"}
    assert graph["end"]["inputs"]["images"] == ["0", 0]


def test_what_is_set_under_a_name_is_got_by_it():
    drawing = Drawing().node(1, "LoadImage", ["a.png", "image"], outputs="IMAGE MASK")
    drawing.node(2, "SetNode", ["pic"], links={"IMAGE": ("IMAGE", 1, 0)}, outputs="*")
    drawing.node(3, "GetNode", ["pic"], outputs="IMAGE")
    drawing.node(4, "SaveImage", ["x"], links={"images": ("IMAGE", 3, 0)})
    drawing.node(5, "GetNode", ["never set"], outputs="IMAGE")
    drawing.node(6, "SaveImage", ["x"], links={"images": ("IMAGE", 5, 0)})
    graph = convert(drawing.saved(), types())
    assert graph["4"]["inputs"]["images"] == ["1", 0]
    assert "images" not in graph["6"]["inputs"]


def test_what_is_set_outside_is_got_in_a_subgraph():
    getting = inside().node(3, "GetNode", ["pic"], outputs="IMAGE")
    getting.node(4, "SaveImage", ["x"], links={"images": ("IMAGE", 3, 0)})
    drawing = Drawing().node(1, "LoadImage", ["a.png", "image"], outputs="IMAGE MASK")
    drawing.node(2, "SetNode", ["pic"], links={"IMAGE": ("IMAGE", 1, 0)}, outputs="*")
    saved = drawing.node(12, "getting").saved(getting.as_subgraph("getting", {}, {}))
    assert convert(saved, types())["12:4"]["inputs"]["images"] == ["1", 0]


def test_an_editors_class_that_the_server_has_too_is_a_node():
    drawing = Drawing().node(1, "Reroute", outputs="IMAGE")
    drawing.node(2, "SaveImage", ["x"], links={"images": ("IMAGE", 1, 0)})
    graph = convert(drawing.saved(), types(Reroute={}))
    assert graph["2"]["inputs"]["images"] == ["1", 0]


def test_a_muted_node_and_the_links_from_it_are_gone():
    graph = convert(sd15(mode=2).saved(), types())
    assert "10" not in graph
    assert "model" not in graph["3"]["inputs"]
    assert graph["6"]["inputs"] == {"text": "a fox"}


def test_a_link_from_a_muted_node_leaves_a_widget_its_value():
    drawing = Drawing().node(2, "Number", [1024], outputs="INT", mode=2)
    drawing.node(5, "EmptyLatentImage", [512, 768, 2], links={"height": ("INT", 2, 0)})
    found = inputs_of(drawing, 5, Number={"required": {"value": INT}})
    assert found["height"] == 768


def test_a_bypassed_node_hands_on_what_comes_in():
    graph = convert(sd15(mode=4).saved(), types())
    assert "10" not in graph
    assert graph["3"]["inputs"]["model"] == ["4", 0]
    assert graph["6"]["inputs"]["clip"] == ["4", 1]


def bypassed(outputs, links, wanted, slot):
    """What an input of type `wanted` gets through a bypassed node from its output `slot`."""
    drawing = Drawing()
    for number in range(8):
        drawing.node(number, "Mine", outputs="*")
    drawing.node("by", "Mine", mode=4, outputs=outputs,
                 links={name: (kind, source, 0) for name, kind, source in links})  # fmt: skip
    drawing.node("end", "Mine", links={"it": (wanted, "by", slot)})
    return inputs_of(drawing, "end", Mine={}).get("it")


def test_a_bypassed_node_prefers_the_input_in_the_outputs_place():
    links = [("a", "CONDITIONING", 0), ("b", "CONDITIONING", 1)]
    assert bypassed("CONDITIONING CONDITIONING", links, "CONDITIONING", 1) == ["1", 0]


def test_a_bypassed_node_takes_the_first_of_the_right_type_next():
    links = [("a", "VAE", 0), ("b", "INT", 1), ("c", "IMAGE", 2), ("d", "IMAGE", 3)]
    assert bypassed("IMAGE", links, "IMAGE", 0) == ["2", 0]


def test_a_bypassed_node_takes_one_that_fits_last():
    links = [("a", "VAE", 0), ("b", "FLOAT,INT", 1)]
    assert bypassed("INT", links, "INT", 0) == ["1", 0]


def test_a_bypassed_node_takes_the_right_type_before_one_that_fits():
    links = [("a", "VAE", 0), ("b", "FLOAT,INT", 1), ("c", "INT", 2)]
    assert bypassed("INT", links, "INT", 0) == ["2", 0]


def test_a_bypassed_node_hands_on_nothing_of_another_type():
    links = [("a", "CLIP_VISION", 0), ("b", "IMAGE", 1)]
    assert bypassed("CLIP_VISION_OUTPUT", links, "CLIP_VISION_OUTPUT", 0) is None
    assert bypassed("*", links, "CLIP_VISION_OUTPUT", 0) is None


def test_an_input_that_takes_anything_gets_the_place_or_the_first():
    links = [("a", "VAE", 0), ("b", "IMAGE", 1)]
    assert bypassed("INT INT INT", links, "*", 1) == ["1", 0]
    assert bypassed("INT INT INT", links, "*", 2) == ["0", 0]


def test_links_to_nothing_are_none():
    drawing = Drawing().node(9, "SaveImage", ["x"], links={"images": ("IMAGE", 77, 0)})
    drawing.links += [None, [1], {"id": 4}, "x", [[], 1, 0, 9, 0, "IMAGE"]]
    drawing.node(10, "SaveImage", ["y"], inputs=[{"name": "images", "type": 0, "link": [5]}])
    graph = convert(drawing.saved(), types())
    assert [graph[node_id]["inputs"] for node_id in ("9", "10")] == [
        {"filename_prefix": "x"},
        {"filename_prefix": "y"},
    ]


def test_a_circle_of_reroutes_is_refused():
    drawing = Drawing().node(1, "Reroute", links={"": ("*", 2, 0)}, outputs="*")
    drawing.node(2, "Reroute", links={"": ("*", 1, 0)}, outputs="*")
    drawing.node(9, "SaveImage", ["x"], links={"images": ("IMAGE", 1, 0)})
    with pytest.raises(WorkflowError, match="links of 'images' go in a circle"):
        convert(drawing.saved(), types())


# -- subgraphs


def part(**more):
    """A subgraph: a text in, or typed; a conditioning out; its own encoder inside."""
    return (
        inside()
        .node(3, "CLIPTextEncode", ["inner"], outputs="CONDITIONING", widgets=("text",),
              links={"clip": ("CLIP", -10, 0), "text": ("STRING", -10, 1)}, **more)
        .as_subgraph("part", {"clip": "CLIP", "text": "STRING"}, {"COND": (3, 0)})
    )  # fmt: skip


def using(kind, *, values=None, links=None, **more):
    """A graph with a checkpoint, a node of a subgraph (12), and a node that takes its output."""
    drawing = Drawing().node(4, "CheckpointLoaderSimple", ["a"], outputs="MODEL CLIP VAE")
    drawing.node(5, "Text", ["outer"], outputs="STRING")
    drawing.node(12, kind, values, outputs="CONDITIONING",
                 links={"clip": ("CLIP", 4, 1), **(links or {})}, **more)  # fmt: skip
    return drawing.node(9, "Take", links={"it": ("CONDITIONING", 12, 0)})


TAKE = {"required": {"it": ["CONDITIONING"]}}
WITH_TAKE = types(Take=TAKE, Text={"required": {"value": TEXT}})


def test_a_subgraph_is_unfolded_with_ids_of_the_way_to_it():
    graph = convert(using("part").saved(part()), WITH_TAKE)
    assert graph.keys() == {"4", "5", "12:3", "9"}
    assert graph["12:3"]["inputs"] == {"text": "inner", "clip": ["4", 1]}
    assert graph["9"]["inputs"] == {"it": ["12:3", 0]}


def test_what_is_typed_in_on_a_subgraph_counts_more_than_what_is_inside():
    graph = convert(using("part", values=["host"]).saved(part()), WITH_TAKE)
    assert graph["12:3"]["inputs"]["text"] == "host"


def test_what_is_linked_to_a_subgraph_counts_most():
    drawing = using("part", values=["host"], links={"text": ("STRING", 5, 0)}, widgets=("text",))
    assert convert(drawing.saved(part()), WITH_TAKE)["12:3"]["inputs"]["text"] == ["5", 0]


def test_a_link_from_a_muted_node_leaves_a_subgraph_what_is_inside():
    drawing = using("part", values=["host"], links={"text": ("STRING", 5, 0)}, widgets=("text",))
    drawing.nodes[1]["mode"] = 2
    assert convert(drawing.saved(part()), WITH_TAKE)["12:3"]["inputs"]["text"] == "inner"


def test_two_uses_of_a_subgraph_have_their_own_values():
    drawing = using("part", values=["one"])
    drawing.node(13, "part", ["two"], links={"clip": ("CLIP", 4, 1)}, outputs="CONDITIONING")
    graph = convert(drawing.saved(part()), WITH_TAKE)
    assert [graph[key]["inputs"]["text"] for key in ("12:3", "13:3")] == ["one", "two"]


def test_values_of_older_files_stand_inside():
    drawing = using("part", values=[], properties={"proxyWidgets": [["3", "text"]]})
    assert convert(drawing.saved(part()), WITH_TAKE)["12:3"]["inputs"]["text"] == "inner"


def nested():
    """A subgraph that holds `part` and hands both of its inputs on."""
    return (
        inside()
        .node(8, "part", ["middle"], outputs="CONDITIONING", widgets=("text",),
              links={"clip": ("CLIP", -10, 0), "text": ("STRING", -10, 1)})
        .as_subgraph("nest", {"clip": "CLIP", "text": "STRING"}, {"COND": (8, 0)})
    )  # fmt: skip


@pytest.mark.parametrize(("values", "text"), [(["top"], "top"), ([], "middle")])
def test_subgraphs_lie_in_subgraphs(values, text):
    graph = convert(using("nest", values=values).saved(part(), nested()), WITH_TAKE)
    assert graph.keys() == {"4", "5", "12:8:3", "9"}
    assert graph["12:8:3"]["inputs"] == {"text": text, "clip": ["4", 1]}
    assert graph["9"]["inputs"] == {"it": ["12:8:3", 0]}


def test_a_muted_subgraph_is_not_there():
    graph = convert(using("part", mode=2).saved(part()), WITH_TAKE)
    assert graph.keys() == {"4", "5", "9"}
    assert graph["9"]["inputs"] == {}


def test_a_bypassed_subgraph_hands_on_its_own_inputs():
    drawing = Drawing().node(6, "Cond", outputs="CONDITIONING")
    drawing.node(12, "part", mode=4, outputs="CONDITIONING",
                 links={"cond": ("CONDITIONING", 6, 0)})  # fmt: skip
    drawing.node(9, "Take", links={"it": ("CONDITIONING", 12, 0)})
    graph = convert(drawing.saved(part()), types(Take=TAKE, Cond={}))
    assert graph.keys() == {"6", "9"}
    assert graph["9"]["inputs"] == {"it": ["6", 0]}


def test_a_muted_node_inside_is_not_there():
    graph = convert(using("part").saved(part(mode=2)), WITH_TAKE)
    assert graph.keys() == {"4", "5", "9"}


def test_a_subgraph_that_only_passes_on_is_followed():
    passing = inside().as_subgraph("pass", {"clip": "CLIP"}, {"CLIP": (-10, 0)})
    drawing = using("pass")
    graph = convert(drawing.saved(passing), WITH_TAKE)
    assert graph["9"]["inputs"] == {"it": ["4", 1]}


def test_a_subgraph_in_itself_is_refused():
    endless = inside().node(3, "endless").as_subgraph("endless", {}, {})
    with pytest.raises(WorkflowError, match="too deep in one another, or one in itself"):
        convert(Drawing().node(1, "endless").saved(endless), types())


def test_definitions_that_lie_too_deep_in_one_another_do_no_harm_unused():
    definitions = []
    for level in range(2000):
        drawing = inside().node(1, f"level{level + 1}", mode=2, widgets=("it",),
                                links={"it": ("STRING", -10, 0)})  # fmt: skip
        drawing.node(2, "Take", links={"it": ("STRING", -10, 0)})
        definitions.append(drawing.as_subgraph(f"level{level}", {"it": "STRING"}, {}))
    saved = Drawing().node(12, "level0", ["x"], open_inputs={"it": "STRING"}).saved(*definitions)
    assert convert(saved, WITH_TAKE).keys() == {"12:2"}


def test_subgraphs_that_multiply_are_refused():
    definitions = []
    for level in range(12):
        drawing = inside()
        for number in range(10):
            drawing.node(number, f"level{level + 1}")
        definitions.append(drawing.as_subgraph(f"level{level}", {}, {}))
    with pytest.raises(WorkflowError, match="20000 nodes"):
        convert(Drawing().node(1, "level0").saved(*definitions), types())


# -- what a server does not know


def test_an_unknown_class_is_named_with_node_title_and_the_nearest():
    drawing = sd15().node(20, "KSampler2", title="Mine", links={"model": ("MODEL", 4, 0)})
    says = r"^node 20, called 'Mine', is of the class 'KSampler2', .*Did you mean 'KSampler'"
    with pytest.raises(WorkflowError, match=says):
        convert(drawing.saved(), types())


def test_an_unknown_class_in_a_subgraph_is_named_by_the_way_to_it():
    inner = inside().node(3, "Nope", links={"x": ("CLIP", -10, 0)})
    saved = using("part").saved(inner.as_subgraph("part", {"clip": "CLIP"}, {"COND": (3, 0)}))
    with pytest.raises(WorkflowError, match="node 12:3 is of the class 'Nope'"):
        convert(saved, WITH_TAKE)


def test_an_unknown_class_that_does_not_run_does_no_harm():
    drawing = sd15().node(20, "Nope", mode=4, links={"model": ("MODEL", 4, 0)})
    assert "20" not in convert(drawing.saved(), types())


def test_an_unknown_class_without_links_is_left_out_with_a_warning(caplog):
    drawing = sd15().node(20, "Label (rgthree)", title="Chapter 1")
    with caplog.at_level(logging.WARNING):
        assert "20" not in convert(drawing.saved(), types())
    assert "Label (rgthree)" in caplog.text


def test_an_old_group_node_says_what_to_do():
    drawing = sd15().node(20, "workflow>My group", links={"model": ("MODEL", 4, 0)})
    with pytest.raises(WorkflowError, match="convert the node to a subgraph"):
        convert(drawing.saved(), types())


def test_nothing_that_runs_is_refused():
    drawing = Drawing().node(3, "KSampler", SAMPLER, mode=2).node(11, "Note", ["x"])
    with pytest.raises(WorkflowError, match="no nodes that run"):
        convert(drawing.saved(), types())


MALFORMED = {
    "no node": [5],
    "no id": [{"type": "KSampler"}],
    "no type": [{"id": 3}],
    "id no id": [{"id": [1], "type": "KSampler"}],
}


@pytest.mark.parametrize("nodes", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_node_is_refused(nodes):
    with pytest.raises(WorkflowError, match="must have an id and a type"):
        convert({"nodes": nodes}, types())


def test_other_malformed_parts_are_taken_as_empty():
    node = {"id": 3, "type": "VAEDecode", "mode": "x", "inputs": [4, {}], "outputs": "x",
            "title": 7, "widgets_values": "x", "widgets_values_named": 5}  # fmt: skip
    data = {"nodes": [node], "links": "x", "definitions": {"subgraphs": [4, {"id": None}]}}
    assert convert(data, types())["3"]["inputs"] == {}


def test_what_is_followed_again_keeps_the_value_on_its_subgraph():
    inner = inside()
    for number in (3, 4):
        inner.node(number, "Text", ["inner"], outputs="STRING", widgets=("value",),
                   links={"value": ("STRING", -10, 0)})  # fmt: skip
    twice = inner.as_subgraph("twice", {"value": "STRING"}, {})
    drawing = Drawing().node(1, "twice", ["one"]).node(2, "twice", ["two"])
    graph = convert(drawing.saved(twice), types(Text={"required": {"value": TEXT}}))
    found = {key: node["inputs"]["value"] for key, node in graph.items()}
    assert found == {"1:3": "one", "1:4": "one", "2:3": "two", "2:4": "two"}

"""The content key: what it does not depend on, and what it does."""

import subprocess
import sys
from copy import deepcopy

import pytest

from comfynb.workflows import Workflow, canonical, content_key
from comfynb.workflows.key import Canonicaliser

from . import graphs
from .graphs import changed, node

ALL = [
    graphs.sd15, graphs.advanced, graphs.conditioned, graphs.img2img, graphs.one_text,
    graphs.custom_advanced, graphs.no_sampler,
]  # fmt: skip


def key(graph, **more):
    return content_key(graph, **{"kind": "comfyui", **more})


def renamed(graph):
    """Every node under another id, in the other order, inputs in the other order too."""
    names = {node_id: f"node {n}" for n, node_id in enumerate(sorted(graph))}

    def follow(value):
        return [names[value[0]], value[1]] if isinstance(value, list) else value

    return {
        names[node_id]: {
            "inputs": {k: follow(v) for k, v in reversed(graph[node_id]["inputs"].items())},
            "class_type": graph[node_id]["class_type"],
        }
        for node_id in reversed(graph)
    }


@pytest.mark.parametrize("make", ALL)
def test_ids_titles_and_order_do_not_matter(make):
    assert canonical(renamed(make())) == canonical(make())
    assert key(renamed(make())) == key(make())


def test_it_is_a_sha256():
    assert len(bytes.fromhex(key(graphs.sd15()))) == 32


def test_it_is_the_same_in_another_process():
    code = (
        "from comfynb.workflows import Workflow, content_key; "
        "print(content_key(Workflow.load('txt2img').graph, kind='engine'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == content_key(Workflow.load("txt2img").graph, kind="engine")


def test_it_stays_what_it_was_in_logs_that_exist():
    """If this fails, every log's pictures are made anew: raise the version in key.py."""
    wanted = "f5d6d52e3e338f017b105d99bc28a255bec75fc71d9ff1c24b5f1e413dc9246c"
    assert content_key(Workflow.load("txt2img").graph, kind="engine") == wanted


@pytest.mark.parametrize(
    "same",
    [
        changed(graphs.sd15(), "9", filename_prefix="elsewhere"),
        changed(graphs.sd15(), "3", cfg=8.0, denoise=1.0),
        graphs.sd15() | {"99": node("CLIPTextEncode", text="unused", clip=["4", 1])},
        graphs.sd15()
        | {"98": node("LoadImage", image="a.png"), "99": node("ImageInvert", image=["98", 0])},
        graphs.sd15() | {"99": {**node("LoadImage", image="x"), "is_changed": [1]}},
    ],
    ids=["file name", "8 and 8.0", "unused text", "unused chain", "other keys"],
)
def test_what_makes_the_same_picture_has_the_same_key(same):
    assert key(same) == key(graphs.sd15())


def test_two_equal_nodes_are_one():
    graph = graphs.changed(graphs.one_text(), "3", negative=["7", 0])
    graph["7"] = deepcopy(graph["6"])
    assert key(graph) == key(graphs.one_text())


DIFFERENT = {
    "prompt": changed(graphs.sd15(), "6", text="a bottle "),
    "negative": changed(graphs.sd15(), "7", text=""),
    "seed": changed(graphs.sd15(), "3", seed=1),
    "seed beyond a double": changed(graphs.sd15(), "3", seed=156680208700287),
    "steps": changed(graphs.sd15(), "3", steps=21),
    "cfg": changed(graphs.sd15(), "3", cfg=8.01),
    "sampler": changed(graphs.sd15(), "3", sampler_name="heun"),
    "denoise": changed(graphs.sd15(), "3", denoise=0.99),
    "width": changed(graphs.sd15(), "5", width=520),
    "sides swapped": changed(graphs.sd15(), "5", width=768, height=512),
    "checkpoint": changed(graphs.sd15(), "4", ckpt_name="other"),
    "texts swapped": changed(graphs.sd15(), "3", positive=["7", 0], negative=["6", 0]),
    "another slot": changed(graphs.sd15(), "8", vae=["4", 1]),
    "another input": changed(graphs.sd15(), "3", extra=1),
    "text for number": changed(graphs.sd15(), "3", steps="20"),
    "true for 1": changed(graphs.sd15(), "3", denoise=True),
    "another class": graphs.sd15() | {"9": node("PreviewImage", images=["8", 0])},
    "second output": graphs.sd15() | {"99": node("PreviewImage", images=["8", 0])},
    "same output twice": graphs.sd15() | {"99": node("SaveImage", images=["8", 0])},
    "unknown output": graphs.sd15() | {"99": node("SomeOutput", latent=["3", 0])},
    "node between": changed(graphs.sd15(), "9", images=["99", 0])
    | {"99": node("ImageInvert", image=["8", 0])},
    "list": changed(graphs.sd15(), "3", extra=[1, 2]),
    "list turned": changed(graphs.sd15(), "3", extra=[2, 1]),
    "prefix of a class that does not save": changed(graphs.sd15(), "8", filename_prefix="x"),
}


def test_whatever_may_change_the_picture_changes_the_key():
    keys = {name: key(graph) for name, graph in {"": graphs.sd15(), **DIFFERENT}.items()}
    assert len(set(keys.values())) == len(keys), keys


def test_what_renders_and_the_input_files_count():
    graph = graphs.img2img()
    keys = [
        key(graph),
        key(graph, kind="engine"),
        key(graph, server="a:8188"),
        key(graph, server="b:8188"),
        key(graph, server=""),
        key(graph, inputs={"example.png": "0" * 64}),
        key(graph, inputs={"example.png": "1" * 64}),
        key(graph, inputs={"other.png": "1" * 64}),
    ]
    assert len(set(keys)) == len(keys)


def test_the_order_of_input_files_does_not_matter():
    files = {"a.png": "0" * 64, "b.png": "1" * 64}
    assert key(graphs.img2img(), inputs=files) == key(
        graphs.img2img(), inputs=dict(reversed(files.items()))
    )


@pytest.mark.parametrize("make", ALL)
def test_a_template_gives_what_each_graph_gives_alone(make):
    workflow = Workflow.load(make())
    canonicaliser = Canonicaliser(workflow.graph)
    assert canonicaliser.canonical(workflow.graph) == canonical(workflow.graph)
    for name, knob in workflow.knobs.items():
        value = f"{knob.value}!" if isinstance(knob.value, str) else knob.value + 1
        graph = workflow.with_knobs({name: value}).graph
        assert canonicaliser.canonical(graph) == canonical(graph) == canonical(deepcopy(graph))
        assert canonical(graph) != canonical(workflow.graph)


def test_a_graph_without_any_output_still_has_a_key():
    assert key({"a": node("EmptyImage", width=1)})


def test_a_deep_graph_takes_linear_time():
    # Each node uses the one before twice: 2**2000 paths, 2001 nodes.
    graph = {"0": node("X", n=0)}
    for n in range(1, 2000):
        graph[str(n)] = node("Mix", a=[str(n - 1), 0], b=[str(n - 1), 0])
    assert key(graph) != key(changed(graph, "0", n=1))

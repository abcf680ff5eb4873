"""What is checked of a graph without a server."""

import numpy as np
import pytest

from comfynb.errors import WorkflowError
from comfynb.workflows import leaf_nodes
from comfynb.workflows.graph import in_order, links, parse_graph

from . import graphs
from .graphs import node

ALL = [
    graphs.sd15, graphs.advanced, graphs.conditioned, graphs.img2img, graphs.one_text,
    graphs.zeroed, graphs.custom_advanced, graphs.linked_text, graphs.no_sampler,
]  # fmt: skip


@pytest.mark.parametrize("make", ALL)
def test_a_sound_graph_is_kept_as_it_is(make):
    assert parse_graph(make()) == make()


@pytest.mark.parametrize("make", ALL)
def test_in_order_every_node_stands_behind_its_sources(make):
    graph = make()
    order = in_order(graph)
    assert sorted(order) == sorted(graph)
    for node_id in graph:
        for _, source, _ in links(graph[node_id]):
            assert order.index(source) < order.index(node_id)


def test_leaves_are_the_nodes_that_no_other_links_to():
    assert leaf_nodes(graphs.sd15()) == ("9",)
    graph = graphs.sd15() | {"x": node("PreviewImage", images=["8", 0])}
    assert leaf_nodes(graph) == ("9", "x")


def test_pythons_own_kinds_become_what_json_reads_back():
    graph = parse_graph({"a": node("X"), "b": node("Y", link=("a", 0), n=np.int64(3), t=(1, 2))})
    assert graph["b"]["inputs"] == {"link": ["a", 0], "n": 3, "t": [1, 2]}
    assert type(graph["b"]["inputs"]["n"]) is int


def test_a_slot_saved_as_a_float_is_a_whole_number():
    slot = parse_graph({"a": node("X"), "b": node("Y", link=["a", 1.0])})["b"]["inputs"]["link"][1]
    assert type(slot) is int


def test_a_list_that_is_no_link_is_a_value():
    inputs = {"size": [512, 512], "three": ["a", 0, 1], "texts": ["a", "b"]}
    assert parse_graph({"a": node("X", **inputs)})["a"]["inputs"] == inputs


def test_a_deep_chain_is_no_problem():
    graph = {"0": node("X")} | {str(n): node("X", a=[str(n - 1), 0]) for n in range(1, 5000)}
    assert in_order(dict(reversed(graph.items()))) == list(graph)


A = node("X")
BAD = {
    "no mapping": ([A], r"must be a mapping of nodes, not .* \(list\)"),
    "nothing": (None, r"must be a mapping of nodes, not nothing"),
    "empty": ({}, "the workflow has no nodes"),
    "id of a wrong type": ({4: A}, r"a node's id must be text, not 4 \(int\). Put it in quotes"),
    "id empty": ({"": A}, "a node's id must be text"),
    "node no mapping": ({"a": [1]}, r"node 'a' must be a mapping, not \[1\]"),
    "version number": ({"a": A, "version": 0.4}, "node 'version' must be a mapping, not 0.4"),
    "body of a POST": ({"prompt": {"a": A}}, "node 'prompt': 'class_type' must be the name"),
    "no class": ({"a": {"inputs": {}}}, "node 'a': 'class_type' must be .* not nothing"),
    "class of a wrong type": ({"a": {"class_type": 3, "inputs": {}}}, r"not 3 \(int\)"),
    "no inputs": ({"a": {"class_type": "X"}}, r"node 'a' \(X\): 'inputs' must be .* empty one: {}"),
    "inputs in a list": ({"a": {"class_type": "X", "inputs": []}}, "'inputs' must be a mapping"),
    "missing source": (
        {"b": node("Y", image=["a", 0])},
        r"node 'b' \(Y\): the input 'image' links to node 'a', which is not there",
    ),
    "negative slot": ({"a": A, "b": node("Y", i=["a", -1])}, "links to output -1 of node 'a'"),
    "half slot": ({"a": A, "b": node("Y", i=["a", 0.5])}, "links to output 0.5 of node 'a'"),
    "link by number": ({"1": A, "b": node("Y", i=[1, 0])}, r'number. Ids are texts: \["1", 0\]'),
    "itself": ({"a": node("X", i=["a", 0])}, r"in a circle: node 'a' \(X\) <- node 'a' \(X\)\."),
    "circle": (
        {"s": A, "a": node("X", i=["b", 0]), "b": node("Y", i=["c", 0]),
         "c": node("Z", i=["a", 0], s=["s", 0])},
        r"circle: node 'a' \(X\) <- node 'b' \(Y\) <- node 'c' \(Z\) <- node 'a' \(X\). Remove",
    ),
    "infinity": ({"a": node("X", cfg=float("inf"))}, r"node 'a' \(X\).*: inf cannot be sent"),
    "half a character": ({"a": node("X", text="\ud83d")}, "half a character"),
    "an object": ({"a": node("X", o=object())}, r"<object object .* cannot be sent as JSON"),
    "an array": ({"a": node("X", o=np.zeros(3))}, "cannot be sent as JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("graph", "message"), BAD.values(), ids=BAD)
def test_what_is_no_graph_is_refused_with_the_node(graph, message):
    with pytest.raises(WorkflowError, match=message):
        parse_graph(graph)


def test_a_value_that_holds_itself_is_refused():
    value: list = []
    value.append(value)
    with pytest.raises(WorkflowError, match=r"node 'a' \(X\) is nested too deeply"):
        parse_graph({"a": node("X", v=value)})


def test_a_large_circle_is_named_in_part():
    graph = {str(n): node("X", i=[str((n + 1) % 5000), 0]) for n in range(5000)}
    with pytest.raises(WorkflowError, match=r"node '0' .* <- \.\.\. <- node '0'") as caught:
        parse_graph(graph)
    assert len(str(caught.value)) < 400


def test_messages_stay_short_whatever_was_given():
    with pytest.raises(WorkflowError) as caught:
        parse_graph(
            {"x" * 100_000: {"class_type": "y" * 100_000, "inputs": {"z" * 100_000: ["q", 0]}}}
        )
    assert len(str(caught.value)) < 1000

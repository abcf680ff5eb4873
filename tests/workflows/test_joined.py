"""The node types of several servers: what any of them takes."""

import pytest

from comfynb.workflows.joined import joined
from comfynb.workflows.node_types import NodeTypes


def server(**classes):
    return NodeTypes.of({n: {"input": {"required": given}} for n, given in classes.items()})


def one_input(*specs):
    return joined([server(Node={"x": spec}) for spec in specs])["Node"].inputs["x"]


def test_every_class_of_any_is_there_as_the_first_that_has_it_says():
    both = joined([server(A={"x": ["INT", {}]}), server(A={"y": ["INT", {}]}, B={})])
    assert set(both) == {"A", "B"}
    assert set(both["A"].inputs) == {"x"}
    assert both["B"].name == "B"
    with pytest.raises(KeyError):
        both["C"]


def test_ranges_are_the_widest_and_open_where_one_is_open():
    narrow, wide = ["INT", {"min": 1, "max": 8}], ["INT", {"min": 2, "max": 9}]
    assert (one_input(narrow, wide).minimum, one_input(narrow, wide).maximum) == (1, 9)
    assert one_input(narrow, ["INT", {"min": 0}]).maximum is None


def test_choices_are_those_of_any_once_each_and_open_where_one_does_not_list_them():
    assert one_input([["a", "b"], {}], [["c", "b"], {}]).choices == ("a", "b", "c")
    assert one_input([["a"], {}], ["COMBO", {"remote": {}}]).choices is None
    assert one_input(["COMBO", {"remote": {}}], [["a"], {}]).choices is None


def test_an_input_of_another_type_is_left_to_the_first():
    assert one_input([["a"], {}], ["INT", {}]).choices == ("a",)


def test_one_server_alone_is_as_it_is():
    alone = server(A={})
    assert joined([alone]) is alone

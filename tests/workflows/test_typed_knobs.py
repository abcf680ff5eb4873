"""Knobs whose server's node types are known: types, ranges, choices, and a table of them."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from comfynb.errors import KnobValueError, UnknownKnobError
from comfynb.workflows import NodeTypes, Workflow

from . import graphs
from .graphs import node

RECORDED = json.loads(Path(__file__).with_name("object_info.json").read_text("utf-8"))
TYPES = NodeTypes.of(RECORDED)
SD15 = Workflow.load(graphs.sd15()).with_types(TYPES)


def of_class(*inputs, **info):
    """A workflow of one node X, whose server says this of its inputs."""
    values = {name: value for name, value, _ in inputs}
    spec = {"input": {"required": {name: spec for name, _, spec in inputs}}, **info}
    return Workflow.load({"x": node("X", **values)}).with_types(NodeTypes.of({"X": spec}))


def test_a_knob_says_what_its_server_says():
    steps, sampler = SD15.knobs["steps"], SD15.knobs["sampler"]
    assert (steps.type, steps.minimum, steps.maximum, steps.default) == ("INT", 1, 10000, 20)
    assert "steps" in (steps.tooltip or "")
    assert sampler.type == "COMBO"
    assert {"euler", "dpmpp_2m"} <= set(sampler.choices or ())
    assert (SD15.knobs["cfg"].type, SD15.knobs["cfg"].step) == ("FLOAT", 0.1)
    assert SD15.knobs["positive"].type == "STRING"


def test_without_node_types_a_knob_says_none_of_it():
    knob = Workflow.load(graphs.sd15()).knobs["steps"]
    assert {knob.type, knob.minimum, knob.maximum, knob.choices, knob.tooltip} == {None}


def test_types_stay_when_knobs_are_set_and_are_no_part_of_what_a_workflow_is():
    assert SD15.with_knobs({"steps": 8}).knobs["steps"].maximum == 10000
    assert Workflow.load(graphs.sd15()) == SD15
    assert SD15.with_types(None).knobs["steps"].type is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, r"'steps' \(node 3, KSampler.steps\) takes 1 to 10000, not 0 \(int\)"),
        ("steps", 33.9, r"takes a whole number, not 33.9 \(float\)"),
        ("cfg", 101, r"KSampler.cfg\) takes 0 to 100, not 101"),
        ("cfg", "7", "takes a number, not the text '7'"),
        ("denoise", 1.01, "takes 0 to 1, not 1.01"),
        ("sampler", "eulr", r"sampler_name\) cannot be 'eulr'; did you mean 'euler'"),
        ("sampler", "Euler", "cannot be 'Euler'; did you mean 'euler'"),
        ("scheduler", "zzz", r"cannot be 'zzz'\. It can be '\w+', .* and \d+ more"),
        ("width", 100_000, "takes 16 to 16384, not 100000"),
        ("3.seed", -1, "Seeds go from 0"),
    ],
)
def test_what_a_knob_does_not_take_is_refused_with_what_it_takes(name, value, message):
    with pytest.raises(KnobValueError, match=message):
        SD15.with_knobs({name: value})


def test_a_refusal_carries_what_a_program_needs():
    with pytest.raises(KnobValueError) as caught:
        SD15.with_knobs({"sampler": "eulr"})
    error = caught.value
    assert (error.knob, error.node, error.node_type) == ("sampler", "3", "KSampler")
    assert (error.input, error.value, error.nearest[0]) == ("sampler_name", "eulr", "euler")


def test_the_limits_themselves_are_taken():
    made = SD15.with_knobs({"steps": 10000, "cfg": 0, "denoise": 1, "width": 16})
    assert made.knobs["steps"].value == 10000


def test_a_whole_number_that_no_name_betrays_is_known_by_its_type():
    flow = of_class(("color", 3, ["INT", {"min": 0, "max": 255}]))
    for value in (33.9, 256, "7"):
        with pytest.raises(KnobValueError):
            flow.with_knobs({"x.color": value})
    assert flow.with_knobs({"x.color": 4.0}).graph["x"]["inputs"]["color"] == 4


def test_choices_may_be_numbers():
    flow = of_class(("bits", 8, [[8, 16], {}]))
    assert flow.with_knobs({"x.bits": 16}).graph["x"]["inputs"]["bits"] == 16
    with pytest.raises(KnobValueError, match="cannot be 12"):
        flow.with_knobs({"x.bits": 12})


def test_a_name_in_another_folder_or_case_is_suggested():
    choices = [["sd15/Fox.safetensors", "owl.safetensors"], {}]
    flow = of_class(("ckpt_name", "owl.safetensors", choices))
    with pytest.raises(KnobValueError, match=r"did you mean 'sd15/Fox.safetensors'"):
        flow.with_knobs({"x.ckpt_name": "fox.safetensors"})


def test_ranges_can_be_left_to_whoever_sends_it_but_types_never():
    assert SD15.with_knobs({"steps": 0}, ranges=False).knobs["steps"].value == 0
    with pytest.raises(KnobValueError):
        SD15.with_knobs({"steps": 33.9}, ranges=False)


class TestAsking:
    """What an old list refuses is refused only after a fresh one did."""

    OLD = NodeTypes.of({"X": {"input": {"required": {"model": [["a"], {}]}}}})
    NEW = NodeTypes.of({"X": {"input": {"required": {"model": [["a", "b"], {}]}}}})
    flow = Workflow.load({"x": node("X", model="a")})

    def test_a_choice_that_is_new_is_taken(self):
        flow = self.flow.with_types(self.OLD, ask=lambda: self.NEW)
        assert flow.with_knobs({"x.model": "b"}).graph["x"]["inputs"]["model"] == "b"

    def test_one_that_is_not_is_refused_and_good_ones_ask_nobody(self):
        asked = []
        flow = self.flow.with_types(self.OLD, ask=lambda: asked.append(1) or self.NEW)
        flow.with_knobs({"x.model": "a"})
        assert not asked
        with pytest.raises(KnobValueError, match=r"It can be 'a', 'b'|did you mean"):
            flow.with_knobs({"x.model": "c"})

    def test_while_nobody_answers_an_old_list_refuses_nothing(self):
        flow = self.flow.with_types(self.OLD, ask=lambda: None)
        assert flow.with_knobs({"x.model": "c"}).graph["x"]["inputs"]["model"] == "c"


class Table(HTMLParser):
    """What a page shows: rows of cells, and every tag."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


class TestTable:
    def test_it_shows_each_knob_with_value_range_choices_and_place(self):
        table = Table(SD15.knobs._repr_html_())
        rows = {row[0]: row for row in table.rows[1:]}
        assert set(rows) == set(SD15.knobs)
        assert rows["steps"][1] == "20"
        assert "1 to 10000" in rows["steps"][2]
        assert "KSampler.steps" in rows["steps"][3]
        assert "euler" in rows["sampler"][2]
        assert f"{len(SD15.knobs['sampler'].choices) - 4} more" in rows["sampler"][2]

    def test_in_a_terminal_it_is_aligned_and_narrow(self):
        lines = repr(SD15.knobs).splitlines()
        assert lines[0] == "workflow: 12 knobs"
        assert max(map(len, lines)) <= 150
        assert [line.split()[0] for line in lines[2:]] == list(SD15.knobs)
        assert lines[1].index("takes") == lines[5].index("whole number, 1 to 10000")

    def test_what_files_and_servers_say_is_escaped_and_bounded(self):
        evil = "<script>alert(1)</script>" + "x" * 100_000
        spec = [[evil, "b"], {"tooltip": evil, "default": evil}]
        graph = graphs.sd15()
        graph["4"]["inputs"]["ckpt_name"] = evil
        graph["4"]["_meta"]["title"] = evil
        types = NodeTypes.of(
            {"CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": spec}}}}
        )
        html = Workflow.load(graph).with_types(types).knobs._repr_html_()
        assert "script" not in Table(html).tags
        assert len(html) < 30_000

    def test_thousands_of_choices_are_counted_and_not_all_shown(self):
        choices = [f"model-{number}" for number in range(5000)]
        graph = graphs.sd15()
        info = {"CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [choices, {}]}}}}
        knobs = Workflow.load(graph).with_types(NodeTypes.of(info)).knobs
        table = Table(knobs._repr_html_())
        assert "4996 more" in table.text
        assert len(knobs._repr_html_()) < 30_000
        assert "(5000)" in repr(knobs)

    def test_it_asks_for_types_once_and_only_when_it_is_shown(self):
        asked = []
        flow = Workflow.load(graphs.sd15()).with_types(None, ask=lambda: asked.append(1) or TYPES)
        knobs = flow.knobs
        assert knobs["steps"].value == 20
        assert not asked
        assert "1 to 10000" in repr(knobs)
        assert "1 to 10000" in knobs._repr_html_()
        assert asked == [1]

    def test_without_types_it_says_when_they_come(self):
        assert "with the first picture" in Workflow.load(graphs.sd15()).knobs._repr_html_()

    def test_without_knobs_it_says_how_to_name_one(self):
        knobs = Workflow.load(graphs.no_sampler()).knobs
        assert "Title.input" in repr(knobs)
        assert "Title.input" in knobs._repr_html_()

    def test_a_name_that_is_no_knob_is_a_key_error_that_knows_the_nearest(self):
        with pytest.raises(KeyError) as caught:
            SD15.knobs["stepz"]
        assert isinstance(caught.value, UnknownKnobError)
        assert "did you mean 'steps'" in str(caught.value)
        assert SD15.knobs.get("stepz") is None

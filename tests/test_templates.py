"""ComfyUI's official templates: converted as another converter does, and as a server takes them.

The judge is comfy-cli's converter (tests/real_comfyui/judge), and where it differs, the real
server. Most templates use classes that ComfyUI 0.3.75 lacks: newer ones, paid APIs. Of those the
wires are compared, which need no server; the values need one.
"""

import json
import os
import subprocess
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from real_comfyui import install
from real_server import FOLDER, HERE

from comfynb.errors import WorkflowError
from comfynb.workflows.check import check_graphs
from comfynb.workflows.convert import EDITOR_ONLY, convert
from comfynb.workflows.convert.editor import parse_editor
from comfynb.workflows.convert.widgets import typed_in
from comfynb.workflows.graph import is_link
from comfynb.workflows.node_types import NodeTypes
from comfynb.workflows.roles import find_knobs

pytestmark = pytest.mark.comfyui

JUDGE = FOLDER / "judge"

BYPASS = (
    "a bypassed node has no input of the type of its output: the editor links nothing, the judge "
    "whatever is linked first"
)
EXPLAINED = {
    "3d_hunyuan3d_multiview_to_model.json": {("65", "left"): BYPASS, ("65", "right"): BYPASS},
    "3d_hunyuan3d_multiview_to_model_turbo.json": {("65", "left"): BYPASS, ("65", "right"): BYPASS},
    "video_wan_vace_14B_ref2v.json": {("109", "control_masks"): BYPASS},
}
"""Template -> (node, input) in which we are right and the judge is not, and why."""

NOT_HERE = {"value_not_in_list", "custom_validation_failed"}
"""What the server says of a model or a picture that this machine lacks."""


@pytest.fixture(scope="module")
def judge():
    """The Python of the judge's environment."""
    if not install.JUDGE.is_in(JUDGE):
        missing = "there is no judge of conversions: make test-comfyui installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return JUDGE / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def object_info(shared_comfyui):
    return shared_comfyui.get("/object_info")


@pytest.fixture(scope="module")
def judged(judge, object_info, tmp_path_factory):
    """Ask the judge: file name -> what the editor saved, and its graph."""

    def ask(known):
        folder = tmp_path_factory.mktemp("judged")
        (folder / "info.json").write_text(json.dumps(known))
        script = HERE / "judge" / "convert.py"
        subprocess.run([judge, script, folder / "info.json", folder / "out.json"], check=True)
        return json.loads((folder / "out.json").read_text())

    return ask


@pytest.fixture(scope="module")
def templates(judged, object_info):
    """The templates, and the judge's graphs with the server's classes."""
    return judged(object_info)


@pytest.fixture(scope="module")
def compared(templates, object_info):
    """Each template's outcome, and the graphs that the server's classes gave."""
    node_types, outcomes, graphs = NodeTypes.of(object_info), {}, {}
    for name, template in templates.items():
        try:
            graphs[name] = plain(convert(template["saved"], node_types))
        except WorkflowError as error:
            outcomes[name] = str(error)
            continue
        outcomes[name] = differences(graphs[name], plain(template["graph"]))
    return outcomes, graphs


def plain(graph):
    return {key: {"class_type": n["class_type"], "inputs": n["inputs"]} for key, n in graph.items()}


def differences(ours, theirs):
    """The (node, input) in which two graphs differ; a node that only one has differs as a whole."""
    found = {(key, "") for key in ours.keys() ^ theirs.keys()}
    for key in ours.keys() & theirs.keys():
        mine, its = ours[key]["inputs"], theirs[key]["inputs"]
        missing = object()
        found |= {
            (key, name)
            for name in mine.keys() | its.keys()
            if mine.get(name, missing) != its.get(name, missing)
        }
    return found


def classes_of(saved):
    """The classes that a template uses, wherever; notes and the like are among them."""
    workflow = parse_editor(saved)
    graphs = [workflow.graph, *workflow.subgraphs.values()]
    return {node.type for graph in graphs for node in graph.nodes.values()} - {*workflow.subgraphs}


def test_templates_of_known_classes_convert_as_the_judges_do(compared, capsys):
    outcomes, graphs = compared
    unknown = {name for name, outcome in outcomes.items() if isinstance(outcome, str)}
    same = {name for name in graphs if not outcomes[name]}
    explained = {name for name in graphs if outcomes[name] and name in EXPLAINED}
    rows = {
        "templates": len(outcomes),
        "with a class that the server lacks": len(unknown),
        "converted": len(graphs),
        "the same as the judge's": len(same),
        "other, and explained": len(explained),
    }
    with capsys.disabled():
        print("\n" + "\n".join(f"  {count:4}  {what}" for what, count in rows.items()))
    assert all("which the server does not have" in outcomes[name] for name in unknown)
    differing = {name: outcomes[name] for name in graphs if outcomes[name]}
    assert differing == {name: set(explained) for name, explained in EXPLAINED.items()}
    assert len(same) >= 80


def test_the_server_takes_every_converted_template(compared, comfyui):
    _, graphs = compared
    said = Counter()
    for graph in graphs.values():
        said.update(errors_of(comfyui, graph))
    assert said.keys() <= NOT_HERE, said


def test_what_the_judge_does_otherwise_is_of_a_wrong_type(templates, object_info, comfyui):
    node_types = NodeTypes.of(object_info)
    for name, places in EXPLAINED.items():
        graph = plain(templates[name]["graph"])
        for node, input_ in places:
            if is_link(graph[node]["inputs"][input_]):
                assert "return_type_mismatch" in errors_of(comfyui, graph, node)
            else:  # a number, which the server takes and the node breaks on
                assert not node_types[graph[node]["class_type"]].inputs[input_].is_widget


def test_values_are_paired_as_the_editor_itself_named_them(templates, object_info):
    """Newer files have the names beside the list, which are left out here and compared."""
    node_types, same, other = NodeTypes.of(object_info), 0, set()
    for template in templates.values():
        workflow = parse_editor(template["saved"])
        for graph in (workflow.graph, *workflow.subgraphs.values()):
            for node in graph.nodes.values():
                if node.named and node.type in node_types:
                    node_type = node_types[node.type]
                    paired = typed_in(replace(node, named=None), node_type)
                    named = {n: v for n, v in node.named.items() if n in node_type.inputs}
                    if {name: paired.get(name) for name in named} == named:
                        same += 1
                    else:
                        other.add(node.type)
    assert same > 1000
    assert other == {"SaveVideo"}  # has got a widget since, before its last: there names help


def test_the_wires_of_all_templates_are_the_judges(templates, judged, object_info):
    """Classes that the server lacks are taken as classes without widgets: only links count."""
    known = dict(object_info)
    for template in templates.values():
        for name in classes_of(template["saved"]) - EDITOR_ONLY:
            known.setdefault(name, {"input": {}})
    node_types, differing = NodeTypes.of(known), {}
    for name, template in judged(known).items():
        ours = convert(template["saved"], node_types)
        if found := differences(wires(ours), wires(template["graph"])):
            differing[name] = found
    assert {name: places for name, places in differing.items() if name not in EXPLAINED} == {}
    assert all(places <= EXPLAINED[name].keys() for name, places in differing.items())
    assert len(templates) > 600


def wires(graph):
    """A graph without its values."""
    return {
        key: {"inputs": {name: v for name, v in node["inputs"].items() if is_link(v)}}
        for key, node in graph.items()
    }


def errors_of(server, graph, node=None):
    """The kinds of errors that a server finds in a graph, or in one of its nodes."""
    answer = httpx.post(f"{server.url}/prompt", json={"prompt": graph}, trust_env=False)
    told = answer.json()
    if answer.is_success:
        server.post("/interrupt", {"prompt_id": told["prompt_id"]})
        server.post("/queue", {"delete": [told["prompt_id"]]})
    errors = told.get("node_errors") or {}
    if not answer.is_success and not errors:
        return [told["error"]["type"]]
    return [e["type"] for key, it in errors.items() if node in (None, key) for e in it["errors"]]


def test_the_knobs_of_every_text_to_image_template_are_found(compared):
    _, graphs = compared
    drawing = {name: graph for name, graph in graphs.items() if draws_from_text(graph)}
    needed = {"positive", "seed", "steps", "sampler", "width", "height", "checkpoint"}
    lacking = {name: needed - find_knobs(graph).keys() for name, graph in drawing.items()}
    assert {name: knobs for name, knobs in lacking.items() if knobs} == {}
    assert len(drawing) > 20


def draws_from_text(graph):
    """Whether a graph samples pictures, and starts from none."""
    classes = {node["class_type"] for node in graph.values()}
    moving = any("Video" in name or "Audio" in name for name in classes)
    loads = any(name.startswith(("LoadImage", "Load3D")) for name in classes)
    return "SaveImage" in classes and any("Sampler" in n for n in classes) and not (moving or loads)


def test_what_a_check_finds_in_a_template_is_what_the_server_refuses(
    compared, object_info, comfyui
):
    """Both name the same inputs; the server keeps quiet about branches that it has seen fail."""
    node_types, differing = NodeTypes.of(object_info), {}
    for name, graph in compared[1].items():
        report = check_graphs([(name, graph)], node_types, server="")
        ours = {(problem.node, problem.input) for problem in report.errors}
        theirs = refused_inputs(comfyui, graph)
        if ours != theirs:
            differing[name] = ours ^ theirs
    assert differing == {}


def refused_inputs(server, graph):
    """The (node, input) that a server refuses; none where it takes the graph."""
    answer = httpx.post(f"{server.url}/prompt", json={"prompt": graph}, trust_env=False)
    told = answer.json()
    if answer.is_success:
        server.post("/interrupt", {"prompt_id": told["prompt_id"]})
        server.post("/queue", {"delete": [told["prompt_id"]]})
        return set()
    return {
        (node, error["extra_info"].get("input_name", ""))
        for node, entry in told["node_errors"].items()
        for error in entry["errors"]
    }

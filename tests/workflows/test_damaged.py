"""Whatever a file or a server holds: a sound graph comes out, or an error that says why."""

import json

from hostile import effort
from hypothesis import given
from hypothesis import strategies as st

from comfynb.errors import WorkflowError
from comfynb.workflows import Workflow
from comfynb.workflows.node_types import NodeTypes

from .drawings import RECORDED, inside, sd15

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["KSampler", "Reroute", "part", "PrimitiveNode", "GetNode", -10, -20, 4]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def whole():
    """A graph with most of what the editor knows."""
    drawing = sd15(mode=4)
    drawing.node(20, "PrimitiveNode", [99], outputs="INT")
    drawing.node(21, "Reroute", links={"": ("*", 3, 0)}, outputs="*")
    drawing.node(12, "part", ["host"], links={"clip": ("CLIP", 4, 1)}, outputs="CONDITIONING")
    inner = inside().node(3, "CLIPTextEncode", ["inner"], outputs="CONDITIONING",
                          links={"clip": ("CLIP", -10, 0), "text": ("STRING", -10, 1)},
                          widgets=("text",))  # fmt: skip
    part = inner.as_subgraph("part", {"clip": "CLIP", "text": "STRING"}, {"COND": (3, 0)})
    return json.loads(json.dumps(drawing.saved(part)))


def places(data, path=()):
    """Every place in a JSON document."""
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


SAVED = list(places(whole()))
INFO = list(places(RECORDED))


def damaged(data, wounds):
    """A copy with other things in some of its places, or nothing there any more."""
    data = json.loads(json.dumps(data))
    for path, value in wounds:
        target = data
        try:
            for key in path[:-1]:
                target = target[key]
            if value == "gone":
                del target[path[-1]]
            else:
                target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier wound took it away
    return data


def wounds(where):
    return st.lists(st.tuples(st.sampled_from(where), JSON | st.just("gone")), max_size=4)


@effort(100)
@given(wounds(SAVED), wounds(INFO))
def test_damaged_files_and_servers_give_a_sound_graph_or_say_why(file_wounds, info_wounds):
    node_types = NodeTypes.of(damaged(RECORDED, info_wounds))
    try:
        workflow = Workflow.load(damaged(whole(), file_wounds), node_types)
    except WorkflowError:
        return
    assert workflow.graph
    json.dumps(workflow.graph, allow_nan=False)
    repr(workflow.knobs)

"""A workflow that the editor saved is drawn; its picture, its keyframe give the graph back."""

import pytest
from workflows.drawings import Drawing, inside

import comfynb
from comfynb.workflows import Workflow


@pytest.fixture
def saved():
    """Words through a reroute, a size from a primitive, a guard in a subgraph, a note."""
    guarded = inside().node(5, "Guard", [0, ""], outputs="IMAGE", title="Guard",
                            links={"image": ("IMAGE", -10, 0)})  # fmt: skip
    return (
        Drawing()
        .node(1, "Words", ["a fox"], outputs="STRING", title="positive")
        .node(2, "Reroute", links={"": ("*", 1, 0)}, outputs="STRING")
        .node(3, "PrimitiveNode", [48, "fixed"], outputs="INT")
        .node(4, "Noise", [64, 1, 7, "randomize", ""], outputs="IMAGE", title="seed",
              links={"side": ("INT", 3, 0), "text": ("STRING", 2, 0)}, widgets=("side", "text"))
        .node(12, "guarded", outputs="IMAGE", links={"image": ("IMAGE", 4, 0)})
        .node(9, "SaveImage", ["forms"], links={"images": ("IMAGE", 12, 0)})
        .node(10, "Note", ["a fox in the snow"])
        .saved(guarded.as_subgraph("guarded", {"image": "IMAGE"}, {"IMAGE": (5, 0)}))
    )  # fmt: skip


async def test_the_editors_workflow_is_drawn_and_its_picture_is_a_workflow(server, saved, tmp_path):
    async with comfynb.connect(server.url, workflow=saved, log=tmp_path / "log") as studio:
        assert studio.workflow.form == "UI"
        (made,) = await studio.run([{"prompt": "an owl", "seed": 5}])
    assert made.status == "done", str(made.error)
    assert made.image.size == (48, 48)
    assert made.workflow["4"]["inputs"] == {"side": 48, "batch": 1, "seed": 5, "text": ["1", 0]}
    assert made.workflow["9"]["inputs"]["images"] == ["12:5", 0]

    picture = Workflow.load(made.path)
    assert picture.form == "PNG, API inside"
    assert picture.graph == made.workflow == Workflow.load(made).graph
    async with comfynb.connect(server.url, workflow=made.path, log=tmp_path / "log") as studio:
        (again,) = await studio.run([{"prompt": "an owl", "seed": 5}])
    assert (again.status, again.key) == ("cached", made.key)

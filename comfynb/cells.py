"""Cells: each scene of a storyboard resolved to one graph with its content key.

This is where words become something to send: the workflow is taken, the storyboard's knobs are
set on it, then the scene's, then its texts and seed. Nothing here asks a server.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfynb.errors import SceneError, WorkflowError
from comfynb.inputs import InputFile
from comfynb.scenes import LEFT_OUT, Scene, Storyboard
from comfynb.workflows.key import Canonicaliser, key_of
from comfynb.workflows.roles import SAMPLERS
from comfynb.workflows.workflow import Workflow

RANDOM_SEEDS = 2**32
"""Random seeds are below this: short enough to be typed, and exact in a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One place to fill with a picture.

    Attributes:
        index: Position among the cells, from 0.
        scene: What is to be drawn.
        axes: Label of this cell on each axis of its sweep.
        prompt: The positive text as it is sent.
        negative: The negative text as it is sent.
        seed: As it is sent; 0 to 2**64 - 1.
        knobs: Every other knob's value as it is sent.
        graph: API format, read-only: cells share the nodes in which they do not differ.
        key: Content key, 64 hex digits: equal keys mean equal pictures.
        inputs: Files that the graph names and a server must have first.
    """

    index: int
    scene: Scene
    axes: Mapping[str, str] = field(default_factory=dict)
    prompt: str
    negative: str
    seed: int
    knobs: Mapping[str, Any]
    graph: Mapping[str, Any] = field(repr=False)
    key: str
    inputs: tuple[InputFile, ...] = ()


def make_cells(
    storyboard: Storyboard,
    workflow: Workflow,
    *,
    kind: str,
    checkpoint: str | None = None,
) -> tuple[Cell, ...]:
    """Resolve a storyboard to cells, one for each scene, in its order.

    The negative text of the workflow stays where neither scene nor storyboard has one.
    A storyboard's "random" seed is drawn here, once for all its scenes.

    Args:
        storyboard: What to draw.
        workflow: How.
        kind: What renders; part of the key (see `workflows.content_key`).
        checkpoint: Name of the checkpoint where the workflow needs one and no knob says which;
            None leaves it open.

    Raises:
        SceneError: A scene comes out of a log that left its prompt out.
        UnknownKnobError: The storyboard sets a knob that the workflow does not have.
        WorkflowError: A value is of the wrong kind, or the workflow has no place for a prompt,
            negative or seed that is asked for; names the scene.
    """
    base = workflow.with_knobs(storyboard.knobs)
    if base.needs_checkpoint and checkpoint is not None:
        base = base.with_knobs({"checkpoint": checkpoint}, ranges=False)
    seed = secrets.randbelow(RANDOM_SEEDS) if storyboard.seed == "random" else storyboard.seed
    canonicaliser = Canonicaliser(base.graph)
    cells = []
    for index, scene in enumerate(storyboard):
        if scene.prompt == LEFT_OUT:
            raise SceneError(
                "its prompt was left out of the log that it comes from",
                row=f"scene {scene.id!r}",
                hint="Give the scene anew, with its prompt",
            )
        try:
            values = _values(base, storyboard, scene, seed)
            # A single scene that is out of range fails later, by itself (law 2).
            cell_workflow = base.with_knobs(values, ranges=False)
        except WorkflowError as error:
            raise WorkflowError(f"scene {scene.id!r}: {error}") from error
        values = cell_workflow.values
        files = _files(cell_workflow.graph, storyboard.knobs_of(scene))
        prompt = values.pop("positive", storyboard.prompt_of(scene))
        cells.append(
            Cell(
                index=index,
                scene=scene,
                prompt=prompt,
                negative=values.pop("negative", ""),
                seed=values.pop("seed", seed if scene.seed is None else scene.seed),
                knobs={**_named(storyboard.knobs_of(scene)), **values},
                graph=cell_workflow.graph,
                key=key_of(
                    canonicaliser.canonical(cell_workflow.graph),
                    kind=kind,
                    inputs={file.name: file.sha256 for file in files},
                ),
                inputs=files,
            )
        )
    return tuple(cells)


def _values(workflow: Workflow, storyboard: Storyboard, scene: Scene, seed: int) -> dict[str, Any]:
    """Return the knobs to set for a scene."""
    values: dict[str, Any] = {}
    if "positive" in workflow.knobs:
        values["positive"] = storyboard.prompt_of(scene)
    elif _takes_text(workflow):
        raise _no_place("positive", "prompt")
    negative = storyboard.negative_of(scene)
    if negative:
        if "negative" not in workflow.knobs:
            raise _no_place("negative", "negative prompt")
        values["negative"] = negative
    if "seed" in workflow.knobs:
        values["seed"] = seed if scene.seed is None else scene.seed
    elif scene.seed is not None:
        raise _no_place("seed", "seed")
    return {**values, **scene.knobs}


def _files(graph: Mapping[str, Any], knobs: Mapping[str, Any]) -> tuple[InputFile, ...]:
    """Return the input files that a graph names."""
    given = {file.name: file for file in knobs.values() if isinstance(file, InputFile)}
    if not given:
        return ()
    values = (value for node in graph.values() for value in node["inputs"].values())
    named = dict.fromkeys(v for v in values if isinstance(v, str) and v in given)
    return tuple(given[name] for name in named)


def _named(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return knob values as the graph has them: of an input file its name."""
    return {name: v.name if isinstance(v, InputFile) else v for name, v in knobs.items()}


def _takes_text(workflow: Workflow) -> bool:
    """Whether a prompt should have a place: a graph without texts and samplers needs none."""
    return any(
        node["class_type"] in SAMPLERS or isinstance(node["inputs"].get("text"), str)
        for node in workflow.graph.values()
    )


def _no_place(knob: str, what: str) -> WorkflowError:
    return WorkflowError(
        f"the workflow has no place for a {what}: no knob {knob!r} was found from its sampler. "
        f"Give the node that takes it the title {knob!r}"
    )

"""What a run is to do: a storyboard through a workflow, as cells with keys."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfynb.cells import RANDOM_SEEDS, Cell, make_cells
from comfynb.errors import SceneError, WorkflowError
from comfynb.inputs import InputFile, local_file
from comfynb.keyframes import EMPTY
from comfynb.scenes import Scene, Storyboard
from comfynb.workflows import Workflow


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells to make and where they come from.

    Attributes:
        storyboard: The scenes; a random seed is drawn already.
        workflow: What renders them.
        kind: Of the backend, as it stands in the keys.
        checkpoint: Chosen for a workflow that leaves it open, else None.
        axes: Labels of each axis of a sweep.
        cells: In order.
    """

    storyboard: Storyboard
    workflow: Workflow
    kind: str
    checkpoint: str | None = None
    axes: Mapping[str, Any] = EMPTY
    cells: tuple[Cell, ...] = field(default=(), repr=False)

    @classmethod
    def make(
        cls, storyboard: Storyboard, workflow: Workflow, *, kind: str, checkpoint: str | None = None
    ) -> Plan:
        """Resolve every scene to a cell.

        Raises:
            SceneError: A scene asks for something impossible.
            WorkflowError: The workflow cannot take what a scene gives.
        """
        storyboard = with_local_files(storyboard, workflow)
        if storyboard.seed == "random":
            # Drawn before the cells, so that settling the checkpoint later keeps it.
            storyboard = replace(storyboard, seed=secrets.randbelow(RANDOM_SEEDS))
        cells = make_cells(storyboard, workflow, kind=kind, checkpoint=checkpoint)
        return cls(storyboard, workflow, kind, checkpoint, EMPTY, cells)

    @property
    def settled(self) -> bool:
        """Whether the keys are final: a workflow may still wait for its checkpoint."""
        return not self.workflow.needs_checkpoint or self.checkpoint is not None

    def settle(self, checkpoint: str) -> Plan:
        """Return this plan with the checkpoint chosen; the same cells with final keys."""
        kept = {cell.index for cell in self.cells}
        settled = Plan.make(self.storyboard, self.workflow, kind=self.kind, checkpoint=checkpoint)
        return settled.only(kept)

    def with_next_seeds(self, indices: Collection[int]) -> Plan:
        """Return this plan with some cells moved on to their next seed.

        Raises:
            WorkflowError: The workflow has no place for a seed.
        """
        seeds = {c.scene.id: (c.seed + 1) % 2**64 for c in self.cells if c.index in indices}
        scenes = tuple(
            replace(scene, seed=seeds.get(scene.id, scene.seed)) for scene in self.storyboard
        )
        storyboard = replace(self.storyboard, scenes=scenes)
        return Plan.make(storyboard, self.workflow, kind=self.kind, checkpoint=self.checkpoint)

    def only(self, indices: Collection[int]) -> Plan:
        """Return this plan with some of its cells; their indices stay."""
        return replace(self, cells=tuple(c for c in self.cells if c.index in indices))


def with_local_files(storyboard: Storyboard, workflow: Workflow) -> Storyboard:
    """Return a storyboard in which the paths of local files have become those files.

    Only texts for knobs that take an upload are looked at. One that is no local file stays the
    name of a file on the server.

    Raises:
        SceneError: A text can only be a path, and there is no such file or it cannot be used;
            names the scene.
    """
    files: dict[str, InputFile | None] = {}
    uploads: dict[str, bool] = {}

    def is_upload(name: str) -> bool:
        if name not in uploads:
            try:
                uploads[name] = workflow.knob(name).upload is not None
            except WorkflowError:  # make_cells says what is wrong with it
                uploads[name] = False
        return uploads[name]

    def with_files(owner: Scene | Storyboard, row: str | None) -> dict[str, InputFile]:
        found = {}
        for name, value in owner.knobs.items():
            if isinstance(value, str) and is_upload(name):
                try:
                    if value not in files:
                        files[value] = local_file(value)
                except SceneError as error:
                    problem = f"the knob {name!r}: {error.problem}"
                    raise SceneError(problem, row=row, hint=error.hint) from error.__cause__
                if (file := files[value]) is not None:
                    found[name] = file
        return found

    shared = with_files(storyboard, None)
    own = [with_files(scene, f"scene {scene.id!r}") for scene in storyboard]
    if not shared and not any(own):
        return storyboard
    scenes = tuple(
        replace(scene, knobs={**scene.knobs, **found}) if found else scene
        for scene, found in zip(storyboard, own, strict=True)
    )
    return replace(storyboard, scenes=scenes, knobs={**storyboard.knobs, **shared})

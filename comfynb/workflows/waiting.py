"""A workflow that waits: what the editor saved, until a server says what its nodes are."""

from __future__ import annotations

from dataclasses import dataclass

from comfynb.workflows.forms import Source
from comfynb.workflows.node_types import NodeTypes
from comfynb.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class WaitingWorkflow:
    """A workflow in the editor's format, and what is to be set in it once it is understood.

    Attributes:
        source: What the editor saved.
        checkpoint: Instead of its own, or None.
    """

    source: Source
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """The file's name without its suffix, or "workflow"."""
        return self.source.name

    def convert(self, node_types: NodeTypes) -> Workflow:
        """Return the workflow.

        Raises:
            WorkflowError: The server lacks one of its classes, or it is no sound graph.
        """
        return with_checkpoint(Workflow.of(self.source, node_types), self.checkpoint)


def with_checkpoint(workflow: Workflow, checkpoint: str | None) -> Workflow:
    """Set a chosen checkpoint, but not where the workflow leaves it open for each run to settle.

    Raises:
        UnknownKnobError: The workflow loads none.
    """
    if checkpoint is None or workflow.needs_checkpoint:
        return workflow
    return workflow.with_knobs(
        {"checkpoint": checkpoint}, ranges=False
    )  # runs look whether it is there

"""Workflows: ComfyUI graphs in any form, what can be turned in them, and what identifies them."""

from comfynb.workflows.check import check_graphs
from comfynb.workflows.forms import LIBRARY, Source, read_source
from comfynb.workflows.graph import leaf_nodes
from comfynb.workflows.joined import joined
from comfynb.workflows.key import canonical, content_key
from comfynb.workflows.knobs import Knob
from comfynb.workflows.node_types import NodeTypes
from comfynb.workflows.report import Problem, Report, together
from comfynb.workflows.waiting import WaitingWorkflow, with_checkpoint
from comfynb.workflows.workflow import Workflow

__all__ = [
    "LIBRARY",
    "Knob",
    "NodeTypes",
    "Problem",
    "Report",
    "Source",
    "WaitingWorkflow",
    "Workflow",
    "canonical",
    "check_graphs",
    "content_key",
    "joined",
    "leaf_nodes",
    "read_source",
    "together",
    "with_checkpoint",
]

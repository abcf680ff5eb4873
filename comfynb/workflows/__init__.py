"""Workflows: ComfyUI graphs in API format, what can be turned in them, and what identifies them."""

from comfynb.workflows.check import Problem, Report, check_graphs
from comfynb.workflows.forms import LIBRARY, Source, read_source
from comfynb.workflows.graph import leaf_nodes
from comfynb.workflows.key import canonical, content_key
from comfynb.workflows.knobs import Knob
from comfynb.workflows.node_types import NodeTypes
from comfynb.workflows.workflow import Workflow

__all__ = [
    "LIBRARY",
    "Knob",
    "NodeTypes",
    "Problem",
    "Report",
    "Source",
    "Workflow",
    "canonical",
    "check_graphs",
    "content_key",
    "leaf_nodes",
    "read_source",
]

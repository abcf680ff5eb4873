"""Workflows: ComfyUI graphs in API format, what can be turned in them, and what identifies them."""

from comfynb.workflows.graph import leaf_nodes
from comfynb.workflows.key import canonical, content_key
from comfynb.workflows.knobs import Knob
from comfynb.workflows.workflow import LIBRARY, Workflow

__all__ = ["LIBRARY", "Knob", "Workflow", "canonical", "content_key", "leaf_nodes"]

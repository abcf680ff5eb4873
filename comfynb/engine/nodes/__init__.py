"""The nodes that every engine has: names and inputs as ComfyUI's, so ordinary graphs run."""

from comfynb.engine.nodes import images, model, outputs
from comfynb.engine.registry import Registry


def builtin() -> Registry:
    """Return a new registry with all nodes of the engine."""
    registry = Registry()
    for module in (model, images, outputs):
        module.register(registry)
    return registry

"""A stand-in for torchvision, which ComfyUI imports and these tests never reach.

PyPI's build fits only one torch, and the matching pair with GPU libraries takes 5.5 GB.
"""

from . import transforms

__all__ = ["transforms"]

"""What the server says about itself and its machine."""

from __future__ import annotations

import os
import sys
from typing import Any

from comfynb._version import __version__

COMFYUI_VERSION = "0.3.75"
"""The version whose protocol this is."""


def system_stats() -> dict[str, Any]:
    """Return the answer of /system_stats; `comfynb_engine` tells the engine from a ComfyUI."""
    total, free = _memory()
    system = {
        "os": os.name,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": COMFYUI_VERSION,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "python_version": sys.version,
        "pytorch_version": "none",
        "embedded_python": False,
        "argv": ["comfynb.engine"],  # not the real ones: they may hold the token
        "comfynb_engine": __version__,
    }
    device = {
        "name": "cpu",
        "type": "cpu",
        "index": None,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total,
        "torch_vram_free": free,
    }
    return {"system": system, "devices": [device]}


def _memory() -> tuple[int, int]:
    """Return total and free bytes of memory, 0 where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0, 0

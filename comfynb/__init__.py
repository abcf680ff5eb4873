"""comfynb: a scene grid for ComfyUI in Jupyter. Pictures arrive one by one; every one is kept.

    import comfynb

    studio = comfynb.connect()
    async with contextlib.aclosing(studio.keyframes(["a fox", "a lighthouse at dawn"])) as made:
        async for keyframe in made:
            print(keyframe.scene.label, keyframe.status, keyframe.path)

The names below are loaded when they are first used: importing comfynb costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from comfynb._version import __version__

if TYPE_CHECKING:
    from comfynb.boards.board import Board
    from comfynb.connecting import OpenLog, connect, open_log
    from comfynb.diagnosis import Diagnosis, diagnose
    from comfynb.errors import ComfynbError
    from comfynb.keyframes import Failure, Keyframe, Output, Status, Timings, raise_for_failed
    from comfynb.log import Log
    from comfynb.runs.run import Run
    from comfynb.scenes import Scene, Storyboard
    from comfynb.showing.sheet import contact_sheet
    from comfynb.studio import Studio
    from comfynb.widgets import SceneGrid
    from comfynb.workflows import Knob, Workflow

_HOMES = {
    "Board": "boards.board",
    "ComfynbError": "errors",
    "Diagnosis": "diagnosis",
    "Failure": "keyframes",
    "Keyframe": "keyframes",
    "Knob": "workflows",
    "Log": "log",
    "OpenLog": "connecting",
    "Output": "keyframes",
    "Run": "runs.run",
    "Scene": "scenes",
    "SceneGrid": "widgets",
    "Status": "keyframes",
    "Storyboard": "scenes",
    "Studio": "studio",
    "Timings": "keyframes",
    "Workflow": "workflows",
    "connect": "connecting",
    "contact_sheet": "showing.sheet",
    "diagnose": "diagnosis",
    "open_log": "connecting",
    "raise_for_failed": "keyframes",
}

__all__ = [
    "Board",
    "ComfynbError",
    "Diagnosis",
    "Failure",
    "Keyframe",
    "Knob",
    "Log",
    "OpenLog",
    "Output",
    "Run",
    "Scene",
    "SceneGrid",
    "Status",
    "Storyboard",
    "Studio",
    "Timings",
    "Workflow",
    "__version__",
    "connect",
    "contact_sheet",
    "diagnose",
    "open_log",
    "raise_for_failed",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'comfynb' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"comfynb.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

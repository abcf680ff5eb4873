"""Convert every official template as comfy-cli does: `python convert.py OBJECT_INFO OUT`.

Run with the Python of the judge's own environment. OUT gets JSON: file name -> {"saved": what the
editor saved, "graph": the API format}. Only the module that converts is imported, and nothing is
sent anywhere: comfy-cli's tracking lives in its command line.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["COMFY_NO_TRACKING"] = "1"  # should the module ever import more than it does
logging.disable(logging.CRITICAL)


def main(object_info: Path, out: Path) -> None:
    """Convert them all; a template that is no workflow (an index) is left out."""
    to_api = importlib.import_module("comfy_cli.workflow_to_api").convert_ui_to_api
    spec = find_spec("comfyui_workflow_templates_json")
    assert spec is not None
    assert spec.origin is not None
    info = json.loads(object_info.read_text("utf-8"))
    converted = {}
    for file in sorted((Path(spec.origin).parent / "templates").glob("*.json")):
        saved = json.loads(file.read_text("utf-8"))
        if isinstance(saved, dict) and "nodes" in saved:
            converted[file.name] = {"saved": saved, "graph": to_api(saved, info)}
    out.write_text(json.dumps(converted), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

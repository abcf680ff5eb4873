"""What servers said of their node types, kept so that knobs and keys work while they are away.

    servers/<sha256 of the label>.json      what GET /object_info answered, last

A file is written whole and replaced as a whole; it may be deleted, and is then asked for again.
Labels are host and port, so nothing of a token can be in a name or a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfynb.log import folder as files

logger = logging.getLogger(__name__)

LARGEST = 64 * 2**20
"""Bytes. The core alone has 0.34 MB; with hundreds of custom nodes 10 MB and more were seen."""

_FOLDER = "servers"


def keep(root: Path, server: str, object_info: Mapping[str, Any]) -> None:
    """Keep what a server said, in place of what it said before.

    Args:
        root: The log folder, which exists.
        server: Label of the server.
        object_info: As it came; more than `LARGEST` is not kept.

    Raises:
        OSError: It could not be written; what was kept before is still there.
    """
    data = json.dumps(object_info, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )
    if len(data) > LARGEST:
        logger.info("%s: %d bytes of node types are not kept", server, len(data))
        return
    path = root / _FOLDER / _name(server)
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return
    files.make_inner(root, _FOLDER, sync=False)
    files.write_file(path, data, sync=False)


def find(root: Path, server: str) -> Mapping[str, Any] | None:
    """Return what a server said last; None where nothing sound is kept."""
    name = _name(server)
    status = files.regular_file(root, _FOLDER, name)
    if status is None or status.st_size > LARGEST:
        return None
    try:
        found = json.loads((root / _FOLDER / name).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _name(server: str) -> str:
    return f"{hashlib.sha256(server.encode('utf-8', 'replace')).hexdigest()}.json"

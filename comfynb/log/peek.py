"""A look into segments without DuckDB: can they have a row of some key at all?

A run asks for its cells before it begins, and mostly the log has none of them. To say so, DuckDB
takes 50 ms a run, and its import 100 ms before the first; looking at the bytes takes 1 ms a MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from comfynb.log.listing import list_segments
from comfynb.log.records import json_text

# Possessive: a stranger's bytes cannot make it go back and try again.
_KEY = re.compile(rb'"key": ?("(?:[^"\\\n]++|\\.)*+")')


def may_have(root: Path, keys: Iterable[str]) -> bool:
    """Whether the reader might find rows of these keys; False is certain.

    Args:
        root: The log folder; need not exist.
        keys: Content keys.
    """
    wanted = {json_text(key).encode() for key in keys}
    try:
        listing = list_segments(root)
        if listing.sealed or listing.damaged:  # the one is no text, the other is to be told
            return True
        return any(
            not wanted.isdisjoint(_KEY.findall(path.read_bytes())) for path in listing.active
        )
    except OSError:  # the folder has just moved on, or cannot be read: the reader says which
        return True

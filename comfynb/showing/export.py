"""Boards as files to give away: a page that needs nothing but itself.

The page is one HTML file with its pictures, style and script inside: it opens from a disk, an
attachment or a web server, asks nobody for anything, and says so by a content security policy
that allows its own style and script (by their hashes) and pictures in it, and nothing else.
Whatever a user or a server wrote is text there, never markup.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from comfynb.keyframes import Keyframe
from comfynb.showing.page.render import Pictures, render

if TYPE_CHECKING:
    from comfynb.cells import Cell


def write_page(
    cells: Iterable[Keyframe | Cell],
    path: str | Path,
    *,
    title: str = "",
    note: str | None = None,
    side_px: int = 768,
    quality: int = 88,
) -> Path:
    """Write a page with every cell in order; a click opens a viewer.

    Args:
        cells: Keyframes, or cells that have none yet, in the order of the board.
        path: The file; its folder is made where it is missing, an older file is replaced in one
            step.
        title: On top; "": "Scenes".
        note: Below it; None: how many pictures there are, "": nothing.
        side_px: Longer side of the pictures in it, in pixels; smaller ones keep their size.
        quality: Of their WebP encoding, 1 to 100.

    Returns:
        The path.

    Raises:
        ValueError: If there is no cell, or an option is out of range.
        OSError: If it cannot be written.
    """
    board = list(cells)
    if not board:
        raise ValueError("a page needs at least one cell")
    if side_px < 16 or not 1 <= quality <= 100:
        raise ValueError("side_px must be at least 16, quality 1 to 100")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(side_px, quality)
    # Piece by piece: of a thousand pictures one at a time is in memory.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(render(board, title or "Scenes", note, pictures))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path

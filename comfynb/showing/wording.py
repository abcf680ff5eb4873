"""What is said of a keyframe in place of a picture: on sheets, on pages, in notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfynb.keyframes import Keyframe, Status

LONGEST_EXCERPT = 600
"""Characters of a text that stand for all of it."""

WITHOUT: dict[Status, str] = {
    "failed": "failed",
    "queued": "not made yet",
    "submitted": "on the server",
    "running": "being made",
    "cancelled": "cancelled",
    "lost": "lost by the server",
    "unknown": "its server is not connected",
}
"""What is said of a cell without picture when nothing better is known."""


def words_for(keyframe: Keyframe) -> tuple[str, str]:
    """Say in place of a picture what a keyframe without one gave: which kind, and more.

    Of a text the second one is its beginning, of anything else its type and size.

    Raises:
        LogError: A text's file is gone.
    """
    output = keyframe.outputs[0]
    if output.kind == "text":
        return "text", keyframe.text[:LONGEST_EXCERPT]
    return output.kind, f"{output.mime}, {output.bytes / 1000:,.0f} kB, in the log"

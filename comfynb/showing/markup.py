"""What the HTML that notebooks show has in common: texts, pictures and the colours of statuses.

Notebooks are lent and mailed: what they hold is small, needs no file beside it, and is a stranger's
text until it is escaped. JupyterLab strips <style> from a notebook that its reader has not run, and
leaves `style` attributes.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

from comfynb.showing.shrink import squeeze

GREEN, RED, AMBER, GREY = "#2f9e5b", "#d9413b", "#c98a04", "#8a8f98"
"""They can be read on white and on black."""

_COLOURS = {"done": GREEN, "cached": GREEN, "failed": RED, "lost": AMBER}


def colour(status: str | None) -> str:
    """Return the colour of a status, whatever a row calls it."""
    return _COLOURS.get(status or "", GREY)


def text(value: str, length: int = 60) -> str:
    """Return a text as HTML: no longer than so many characters, every sign escaped."""
    cut = value if len(value) <= length else value[: length - 1] + "…"
    shown = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in cut)
    return html.escape(shown, quote=True)


def stars(rating: int | None) -> str:
    """Return a rating as stars; "" for none."""
    return "★" * min(rating or 0, 5)


def img(
    source: bytes | Path, alt: str, *, sides_px: tuple[int, ...], most_bytes: int, style: str = ""
) -> str:
    """Return a picture as an element that needs no file.

    Args:
        source: PNG, JPEG, WebP or GIF: the bytes, or a file.
        alt: What it shows; not yet escaped.
        sides_px: Longer sides, tried in this order until it fits.
        most_bytes: Into which it shall fit; base64 adds a third.
        style: Its `style` attribute, of ours.

    Raises:
        BadPictureError: It cannot be decoded; says why.
    """
    data = base64.b64encode(squeeze(source, sides_px, most_bytes)).decode("ascii")
    looks = f' style="{style}"' if style else ""
    return f'<img alt="{text(alt, 200)}"{looks} src="data:image/webp;base64,{data}">'

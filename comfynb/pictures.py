"""Looking at bytes that a server sent: what are they really, and can they be opened?

The type comes from the bytes, never from a name or a header, and must be one we know. The
picture is decoded to its end, so that a truncated file is found before it counts as safe.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import NamedTuple

MAX_PIXELS = 200_000_000
"""About 14,000 x 14,000: beyond it a small file may be a decompression bomb."""

_MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


class BadPictureError(ValueError):
    """Bytes that are no picture we can keep; the text says why."""


class Looked(NamedTuple):
    """What the bytes are.

    Attributes:
        sha256: 64 hex digits.
        mime: Such as "image/png".
        width_px: Width in pixels.
        height_px: Height in pixels.
    """

    sha256: str
    mime: str
    width_px: int
    height_px: int


def look(data: bytes) -> Looked:
    """Decode a picture and say what it is.

    Args:
        data: PNG, JPEG, WebP or GIF.

    Raises:
        BadPictureError: It is none, is damaged, or is larger than `MAX_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - 60 ms, for makers only

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=tuple(_MIMES))
    except UnidentifiedImageError:
        head = data[:16].hex(" ")
        text = f"{len(data)} bytes that are no PNG, JPEG, WebP or GIF (they begin {head})"
        raise BadPictureError(text) from None
    except Exception as exc:  # noqa: BLE001 - decoders raise whatever damaged bytes make them
        raise BadPictureError(f"it is damaged: {exc}") from None
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise BadPictureError(f"it claims {width} x {height} pixels")
        try:
            image.load()
        except Exception as exc:  # noqa: BLE001 - as above
            raise BadPictureError(f"it is damaged: {exc}") from None
        kind = image.format or ""
    return Looked(hashlib.sha256(data).hexdigest(), _MIMES[kind], width, height)

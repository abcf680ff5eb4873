"""Looking at bytes that a server sent: what are they really, and can they be opened?

The type comes from the bytes, never from a name or a header, and must be one we know. The
picture is decoded to its end, so that a truncated file is found before it counts as safe.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 200_000_000
"""About 14,000 x 14,000: beyond it a small file may be a decompression bomb."""


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
    image, mime = open_picture(data)
    with image:
        width, height = image.size
        try:
            image.load()
        except Exception as exc:  # noqa: BLE001 - decoders raise whatever damaged bytes make them
            raise BadPictureError(f"it is damaged: {exc}") from None
    return Looked(hashlib.sha256(data).hexdigest(), mime, width, height)


def open_picture(data: bytes) -> tuple[ImageFile, str]:
    """Open a picture, not yet decoded, and return it with its type.

    Pillow's own `open` warns of large pictures in a way that can be muted for a whole process
    only (`warnings.catch_warnings` in a worker changes the filters of every thread), and takes
    some JPEGs for another format. So the classes are chosen here.

    Args:
        data: PNG, JPEG, WebP or GIF.

    Raises:
        BadPictureError: As `look`; but damage behind the header is not found here.
    """
    # 60 ms, for makers only.
    from PIL.GifImagePlugin import GifImageFile  # noqa: PLC0415
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415
    from PIL.WebPImagePlugin import WebPImageFile  # noqa: PLC0415

    opener: type[ImageFile]
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        opener, mime = PngImageFile, "image/png"
    elif data.startswith(b"\xff\xd8\xff"):
        opener, mime = JpegImageFile, "image/jpeg"
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        opener, mime = WebPImageFile, "image/webp"
    elif data.startswith((b"GIF87a", b"GIF89a")):
        opener, mime = GifImageFile, "image/gif"
    else:
        text = f"{len(data)} bytes that are no PNG, JPEG, WebP or GIF"
        raise BadPictureError(f"{text} (they begin {data[:16].hex(' ')})")
    try:
        image = opener(io.BytesIO(data))
    except Exception as exc:  # noqa: BLE001 - as above
        raise BadPictureError(f"it is damaged: {exc}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BadPictureError(f"it claims {image.width} x {image.height} pixels")
    return image, mime

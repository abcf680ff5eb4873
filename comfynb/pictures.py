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


LOOKED_PIXELS = 60_000_000
"""Of an animation so many are decoded, about a second's work; the rest is taken on trust."""


class BadPictureError(ValueError):
    """Bytes that are no picture we can keep; the text says why."""


class Looked(NamedTuple):
    """What the bytes are.

    Attributes:
        sha256: 64 hex digits.
        mime: Such as "image/png".
        width_px: Width in pixels.
        height_px: Height in pixels.
        frames: How many could be decoded: 1 for a picture that stands still. Of a long
            animation only the first are looked at.
    """

    sha256: str
    mime: str
    width_px: int = 0
    height_px: int = 0
    frames: int = 1


def look(data: bytes) -> Looked:
    """Decode a picture and say what it is.

    Args:
        data: PNG, JPEG, WebP, GIF or AVIF.

    Raises:
        BadPictureError: It is none, is damaged, or is larger than `MAX_PIXELS`.
    """
    image, mime = open_picture(data)
    with image:
        width, height = image.size
        try:
            image.load()
            frames = _frames(image, LOOKED_PIXELS // (width * height))
        except Exception as exc:  # noqa: BLE001 - decoders raise whatever damaged bytes make them
            raise BadPictureError(f"it is damaged: {exc}") from None
    return Looked(hashlib.sha256(data).hexdigest(), mime, width, height, frames)


def _frames(image: ImageFile, most: int) -> int:
    """Decode the frames behind the first, so many in all but at least two; return how many."""
    if not getattr(image, "is_animated", False):
        return 1
    frames = 1
    while frames < max(2, most):
        try:
            image.seek(frames)
        except EOFError:
            break
        image.load()
        frames += 1
    return frames


def open_picture(data: bytes) -> tuple[ImageFile, str]:
    """Open a picture, not yet decoded, and return it with its type.

    Pillow's own `open` warns of large pictures in a way that can be muted for a whole process
    only (`warnings.catch_warnings` in a worker changes the filters of every thread), and takes
    some JPEGs for another format. So the classes are chosen here.

    Args:
        data: PNG, JPEG, WebP, GIF or AVIF.

    Raises:
        BadPictureError: As `look`; but damage behind the header is not found here.
    """
    mime = picture_type(data)
    if mime is None:
        text = f"{len(data)} bytes that are no PNG, JPEG, WebP, GIF or AVIF"
        raise BadPictureError(f"{text} (they begin {data[:16].hex(' ')})")
    opener = _opener(mime)
    try:
        image = opener(io.BytesIO(data))
    except Exception as exc:  # noqa: BLE001 - as above
        raise BadPictureError(f"it is damaged: {exc}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BadPictureError(f"it claims {image.width} x {image.height} pixels")
    return image, mime


def picture_type(data: bytes) -> str | None:
    """Return the type of a picture by its first bytes; None: it is none that we know."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "image/avif"
    return None


def _opener(mime: str) -> type[ImageFile]:
    # 60 ms, for makers only.
    from PIL.GifImagePlugin import GifImageFile  # noqa: PLC0415
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415
    from PIL.WebPImagePlugin import WebPImageFile  # noqa: PLC0415

    if mime == "image/avif":
        try:
            from PIL.AvifImagePlugin import AvifImageFile  # noqa: PLC0415
        except ImportError:
            raise BadPictureError("an AVIF picture needs Pillow 11.3 or newer") from None
        return AvifImageFile
    openers: dict[str, type[ImageFile]] = {
        "image/png": PngImageFile,
        "image/jpeg": JpegImageFile,
        "image/webp": WebPImageFile,
        "image/gif": GifImageFile,
    }
    return openers[mime]

"""Pictures made to fit: decoded with care, flattened, scaled; for sheets and pages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from comfynb.errors import LogError
from comfynb.keyframes import THUMBNAIL_PX
from comfynb.pictures import BadPictureError, open_picture

if TYPE_CHECKING:
    from comfynb.keyframes import Keyframe


def smallest(keyframe: Keyframe, side_px: int = THUMBNAIL_PX) -> bytes | Path:
    """Return the smallest copy there is of a keyframe's first picture that is large enough.

    That is the log's thumbnail, made where it is missing, else the picture itself.

    Args:
        keyframe: One that has a picture.
        side_px: The longer side that is wanted, in pixels.

    Raises:
        LogError: It is not there, or cannot be decoded.
    """
    make = getattr(keyframe.pictures, "thumbnail", None)
    if make is None or side_px > THUMBNAIL_PX:
        return keyframe.read()
    assert keyframe.picture is not None, "the caller has looked"
    small: bytes | Path = make(keyframe.picture.sha256)
    return small


def shrink(
    source: bytes | Path, box: tuple[int, int], *, enlarge: bool = False, paper: str | None = None
) -> Image.Image:
    """Return a picture as large as a box holds, in its own aspect ratio.

    Of an animation it takes the first frame. Nothing of the file but its pixels and its colour
    profile is kept, so no prompt or graph that a server wrote into it.

    Args:
        source: PNG, JPEG, WebP or GIF: the bytes, or a file.
        box: Width and height in pixels.
        enlarge: Whether a smaller picture grows to fill the box.
        paper: Colour behind a transparent picture; None: it stays transparent.

    Returns:
        An RGB image, or RGBA where it is transparent and `paper` is None.

    Raises:
        BadPictureError: It cannot be decoded; says why.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as exc:
        raise BadPictureError(f"it cannot be read: {exc}") from exc
    image, _ = open_picture(data)
    with image:
        try:
            return _fit(image, box, enlarge=enlarge, paper=paper)
        except Exception as exc:  # decoders raise whatever damaged bytes make them
            raise BadPictureError(f"it cannot be decoded: {exc}") from exc


def thumbnail(keyframe: Keyframe) -> Image.Image:
    """Return a keyframe's first picture at the size of thumbnails.

    Args:
        keyframe: One that has a picture.

    Raises:
        LogError: It is not there, or cannot be decoded.
    """
    try:
        return shrink(smallest(keyframe), (THUMBNAIL_PX, THUMBNAIL_PX))
    except BadPictureError as exc:
        raise LogError(f"no thumbnail of {keyframe.scene.label}: {exc}") from exc


def squeeze(source: bytes | Path, sides_px: tuple[int, ...], most_bytes: int) -> bytes:
    """Return a picture as WebP: the first of these sizes that fits, else the last one.

    Args:
        source: As for `shrink`.
        sides_px: Longer sides, largest first; a smaller picture does not grow.
        most_bytes: Into which it shall fit.

    Raises:
        BadPictureError: It cannot be decoded; says why.
    """
    for side in sides_px:
        small = io.BytesIO()
        shrink(source, (side, side)).save(small, "WEBP", quality=74, method=4)
        if small.tell() <= most_bytes:
            break
    return small.getvalue()


def _fit(
    image: Image.Image, box: tuple[int, int], *, enlarge: bool, paper: str | None
) -> Image.Image:
    scale = min(box[0] / image.width, box[1] / image.height)
    if not enlarge:
        scale = min(scale, 1.0)
    size = (
        max(1, min(box[0], round(image.width * scale))),
        max(1, min(box[1], round(image.height * scale))),
    )
    image.draft("RGB", (2 * size[0], 2 * size[1]))  # a JPEG decodes to a smaller size itself
    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        picture = image.convert("RGB")
    else:
        picture = image.convert("RGBA")
        if paper is not None:
            behind = Image.new("RGBA", picture.size, paper)
            picture = Image.alpha_composite(behind, picture).convert("RGB")
    picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture.info = {"icc_profile": profile} if profile else {}
    return picture

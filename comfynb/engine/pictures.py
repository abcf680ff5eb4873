"""Arrays to picture files and back.

IMAGE values are (batch, height, width, 3) float32 from 0 to 1; MASK values (batch, height, width).
Pillow is imported at first use: a server that only lists its nodes never needs it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comfynb.engine.messages import EncodedImage

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

PREVIEW_QUALITY = 75  # a preview is looked at for a fraction of a second


def to_pixels(image: Floats) -> Pixels:
    """Turn 0..1 into 0..255, cut off (not rounded) as ComfyUI's SaveImage does."""
    pixels: Pixels = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels


def png(
    pixels: Pixels, texts: Mapping[str, Any] | None = None, *, compress_level: int = 4
) -> bytes:
    """Encode a PNG.

    Args:
        pixels: (height, width, 3) uint8.
        texts: Written as JSON into one tEXt or iTXt chunk per key, as ComfyUI writes `prompt`
            and `workflow`.
        compress_level: 0 to 9.
    """
    from PIL import Image  # noqa: PLC0415 - at first use, see above
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    info = PngInfo()
    for key, value in (texts or {}).items():
        info.add_text(key, json.dumps(value))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info, compress_level=compress_level)
    return file.getvalue()


def preview_jpeg(pixels: Pixels, size: tuple[int, int]) -> EncodedImage:
    """Encode a small picture as a JPEG of `size` (width, height) pixels."""
    from PIL import Image  # noqa: PLC0415

    file = io.BytesIO()
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=PREVIEW_QUALITY)
    return EncodedImage("JPEG", file.getvalue())


def load(path: Path) -> tuple[Floats, Floats]:
    """Read a picture file into an IMAGE and a MASK.

    Turned as its EXIF says. The mask is 1 where the picture is transparent; without
    transparency it is 64 x 64 zeros, as ComfyUI's LoadImage has it.

    Raises:
        PIL.UnidentifiedImageError: It is not a picture.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415

    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if "A" in picture.getbands() or "transparency" in picture.info:
            alpha = np.asarray(picture.convert("RGBA").getchannel("A"), np.float32)
            mask = 1 - alpha / np.float32(255)
        else:
            mask = np.zeros((64, 64), np.float32)
        pixels = np.asarray(picture.convert("RGB"), np.float32) / np.float32(255)
    return pixels[None], mask[None]


def scale(image: Floats, size: tuple[int, int], method: str) -> Floats:
    """Resize every picture of a batch to (width, height) with a method of `SCALE_METHODS`."""
    from PIL import Image  # noqa: PLC0415

    resampling = {
        "nearest-exact": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "area": Image.Resampling.BOX,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }[method]
    batch = [Image.fromarray(to_pixels(picture)).resize(size, resampling) for picture in image]
    return np.stack([np.asarray(picture, np.float32) / 255 for picture in batch])


SCALE_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


def converted(path: Path, *, preview: str | None, channel: str) -> tuple[bytes, str]:
    """Return a picture file as /view?preview= and ?channel= want it, and its media type.

    Args:
        path: The file.
        preview: `webp;90`, `jpeg;50`; anything else means webp, quality 90 unless the last
            part is a number. None: no preview, a PNG of the channel.
        channel: `rgb`, `a`; anything else means all of the picture.

    Raises:
        PIL.UnidentifiedImageError: It is not a picture.
    """
    from PIL import Image  # noqa: PLC0415

    file = io.BytesIO()
    with Image.open(path) as picture:
        if preview is not None:
            kind, _, _ = preview.partition(";")
            last = preview.rpartition(";")[2]
            if kind not in ("webp", "jpeg") or "a" in channel:  # a JPEG has no alpha
                kind = "webp"
            shown = picture.convert("RGB") if kind == "jpeg" else picture
            shown.save(file, kind, quality=int(last) if last.isdigit() else 90)
            return file.getvalue(), f"image/{kind}"
        if channel == "rgb":
            picture.convert("RGB").save(file, "PNG")
        elif channel == "a":
            alpha = picture.convert("RGBA").getchannel("A")
            only = Image.new("RGBA", picture.size)
            only.putalpha(alpha)
            only.save(file, "PNG")
        else:
            picture.save(file, "PNG")
        return file.getvalue(), "image/png"

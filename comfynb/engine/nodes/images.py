"""Nodes that make and change pictures without a model.

An IMAGE is (batch, height, width, 3) float32 from 0 to 1. Values are shared with the output cache:
no node may change its inputs in place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from comfynb.engine import pictures
from comfynb.engine.execute import Call
from comfynb.engine.files import Files
from comfynb.engine.pictures import Floats
from comfynb.engine.registry import Input, Node, Registry

LARGEST_PX = 16384  # ComfyUI's MAX_RESOLUTION


def empty_image(_call: Call, width: int, height: int, batch_size: int, color: int) -> tuple[Floats]:
    """Fill a picture with one colour, 0xRRGGBB."""
    rgb = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], np.float32)
    return (np.broadcast_to(rgb / np.float32(255), (batch_size, height, width, 3)).copy(),)


def image_scale(
    _call: Call, image: Floats, upscale_method: str, width: int, height: int, crop: str
) -> tuple[Floats]:
    """Resize; a side of 0 keeps the proportions, "center" cuts off what does not fit."""
    old_height, old_width = image.shape[1:3]
    if width == 0 and height == 0:
        return (image,)
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    if crop == "center":
        image = _cropped(image, width / height)
    return (pictures.scale(image, (width, height), upscale_method),)


def _cropped(image: Floats, aspect: float) -> Floats:
    height, width = image.shape[1:3]
    x = max(0, round((width - height * aspect) / 2))
    y = max(0, round((height - width / aspect) / 2))
    return image[:, y : height - y, x : width - x]


def image_invert(_call: Call, image: Floats) -> tuple[Floats]:
    """Turn light to dark."""
    return (1 - image,)


def load_image(call: Call, image: str) -> tuple[Floats, Floats]:
    """Read a file from the input folder."""
    return pictures.load(call.files.input_path(image))


def _image_hash(files: Files, inputs: Mapping[str, Any]) -> str:
    return hashlib.sha256(files.input_path(inputs["image"]).read_bytes()).hexdigest()


def _image_check(files: Files, inputs: Mapping[str, Any]) -> tuple[str, str] | None:
    name = inputs.get("image")
    if name is None:
        return None
    try:
        found = files.input_path(str(name)).is_file()
    except ValueError:
        found = False
    return None if found else ("image", f"Invalid image file: {name}")


def register(registry: Registry) -> None:
    """Add these nodes."""
    side: dict[str, Any] = {"default": 512, "min": 1, "max": LARGEST_PX, "step": 1}
    registry.add(
        Node(
            "EmptyImage",
            empty_image,
            category="image",
            outputs=("IMAGE",),
            inputs=(
                Input("width", "INT", **side),
                Input("height", "INT", **side),
                Input("batch_size", "INT", default=1, min=1, max=4096),
                Input("color", "INT", default=0, min=0, max=0xFFFFFF, step=1, display="color"),
            ),
        )
    )
    registry.add(
        Node(
            "ImageScale",
            image_scale,
            category="image/upscaling",
            display_name="Upscale Image",
            outputs=("IMAGE",),
            inputs=(
                Input("image", "IMAGE"),
                Input("upscale_method", choices=pictures.SCALE_METHODS),
                Input("width", "INT", **{**side, "min": 0}),
                Input("height", "INT", **{**side, "min": 0}),
                Input("crop", choices=("disabled", "center")),
            ),
        )
    )
    registry.add(
        Node(
            "ImageInvert",
            image_invert,
            category="image",
            display_name="Invert Image",
            outputs=("IMAGE",),
            inputs=(Input("image", "IMAGE"),),
        )
    )
    registry.add(
        Node(
            "LoadImage",
            load_image,
            category="image",
            display_name="Load Image",
            outputs=("IMAGE", "MASK"),
            inputs=(Input("image", choices=Files.inputs, image_upload=True),),
            changed=_image_hash,
            check=_image_check,
            checked=frozenset({"image"}),
        )
    )

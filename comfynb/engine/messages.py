"""The frames of /ws.

Text frames are `{"type": T, "data": D}`. Binary frames start with a big-endian uint32 that says
what follows (ComfyUI 0.3.75, BinaryEventTypes; 2 is never on the wire).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal

PREVIEW_IMAGE = 1
TEXT = 3
PREVIEW_IMAGE_WITH_METADATA = 4

ImageFormat = Literal["JPEG", "PNG"]
_FORMAT_NUMBER: dict[ImageFormat, int] = {"JPEG": 1, "PNG": 2}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture as a file's bytes."""

    format: ImageFormat
    data: bytes


def event(kind: str, data: Any) -> str:
    """Return a text frame. NaN and infinity stay bare tokens, as ComfyUI sends them."""
    return json.dumps({"type": kind, "data": data})


def preview(image: EncodedImage) -> bytes:
    """Return a type 1 frame: it belongs to the node last named by `executing`."""
    return struct.pack(">II", PREVIEW_IMAGE, _FORMAT_NUMBER[image.format]) + image.data


def preview_with_metadata(image: EncodedImage, metadata: dict[str, Any]) -> bytes:
    """Return a type 4 frame, for sockets that negotiated `supports_preview_metadata`."""
    head = json.dumps({**metadata, "image_type": f"image/{image.format.lower()}"}).encode()
    return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(head)) + head + image.data


def node_text(node_id: str, text: str) -> bytes:
    """Return a type 3 frame: a line of text from a node, without a prompt id."""
    head = node_id.encode()
    return struct.pack(">II", TEXT, len(head)) + head + text.encode()

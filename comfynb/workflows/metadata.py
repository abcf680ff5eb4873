"""The workflow that ComfyUI writes into the pictures that it saves.

Source: ComfyUI nodes.py SaveImage and comfy_api/latest/_ui.py ImageSaveHelper, v0.3.75:

- PNG: text chunks `prompt` (API format) and `workflow` (editor format), JSON in ASCII;
- animated PNG: the same in chunks of type `comf`, behind the frames;
- WebP: EXIF texts, `prompt:{...}` in the tag Model (0x0110), `workflow:{...}` in Make (0x010F) or
  a tag below it. Nodes of others write JPEG in the same way.

PNG is read chunk by chunk: Pillow would have to decode every frame to reach what stands behind
them. No pixel is looked at, and what is compressed is unpacked up to a limit only.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from comfynb.errors import WorkflowError

MAX_TEXT_BYTES = 10_000_000
"""Of one text in a picture, unpacked. Large workflows have about 1 MB."""

_PNG = b"\x89PNG\r\n\x1a\n"
_NAMES = ("prompt", "workflow")
_EXIF_TEXTS = range(0x0100, 0x0111)
"""ComfyUI counts down from Make for each further text."""


def picture_kind(data: bytes) -> str | None:
    """Return "PNG", "JPEG" or "WebP" by what the bytes begin with, else None."""
    if data.startswith(_PNG):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def texts_of(data: bytes, kind: str) -> dict[str, str]:
    """Return the texts that a picture carries, by name; of those in EXIF only ComfyUI's.

    Args:
        data: The picture.
        kind: As `picture_kind` says.

    Raises:
        WorkflowError: A text is damaged, or longer than `MAX_TEXT_BYTES`.
    """
    return dict(_png_texts(data) if kind == "PNG" else _exif_texts(data))


def _png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    position = len(_PNG)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        position += length + 12
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"comf"):
            name, _, rest = content.partition(b"\0")
            yield name.decode("latin-1"), _text(kind, rest)


def _text(kind: bytes, rest: bytes) -> str:
    """Return the text of a chunk behind its name (PNG specification, 11.3.3)."""
    if kind == b"zTXt":
        return _decoded(_unpacked(rest[1:]), "latin-1")
    if kind == b"iTXt":
        compressed, (_, _, text) = rest[:1] == b"\1", _split(rest[2:])
        return _decoded(_unpacked(text) if compressed else text, "utf-8")
    return _decoded(rest, "latin-1")


def _split(rest: bytes) -> tuple[bytes, bytes, bytes]:
    language, _, rest = rest.partition(b"\0")
    translated, _, text = rest.partition(b"\0")
    return language, translated, text


def _unpacked(packed: bytes) -> bytes:
    try:
        text = zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1)
    except zlib.error as error:
        raise WorkflowError(f"a text in the picture is damaged ({error})") from error
    return text


def _decoded(text: bytes, encoding: str) -> str:
    if len(text) > MAX_TEXT_BYTES:
        raise WorkflowError(
            f"a text in the picture is longer than {MAX_TEXT_BYTES // 1_000_000} MB. "
            "A workflow is not: is it the right file?"
        )
    return text.decode(encoding, errors="replace")


def _exif_texts(data: bytes) -> Iterator[tuple[str, str]]:
    from PIL import Image  # noqa: PLC0415 - not needed for most workflows

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "WEBP")) as image:
            exif = dict(image.getexif())
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise WorkflowError(f"the picture is damaged ({error})") from error
    for tag in _EXIF_TEXTS:
        value = exif.get(tag)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        name, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon and name.lower() in _NAMES:
            yield name.lower(), _decoded(text.rstrip("\0").encode(), "utf-8")

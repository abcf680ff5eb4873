"""Taking what a server wrote into a picture out of it again; the pixels stay as they are.

ComfyUI writes the prompt and the whole workflow into what it saves: PNG as text chunks (SaveImage,
nodes.py; animated ones as a `comf` chunk, nodes_images.py), WebP and JPEG as EXIF; others use
chunks of their own. What the picture needs is kept, and nothing else: whole chunks are dropped, and
nothing is decoded or encoded anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_PNG = b"\x89PNG\r\n\x1a\n"
# PNG (third edition) without texts, EXIF, times and palettes that are only proposed; APNG's too.
_PNG_KEPT = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB",
     b"cICP", b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs", b"acTL", b"fcTL", b"fdAT"}
)  # fmt: skip
_WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_WEBP_FLAGS = 0x08 | 0x04  # of the chunk VP8X: it has EXIF, it has XMP
# Of the application's segments and comments only APP0 (JFIF), APP2 (colour profile) and APP14
# (colour space) say what the pixels mean.
_JPEG_DROPPED = frozenset({*range(0xE0, 0xF0), 0xFE}) - {0xE0, 0xE2, 0xEE}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_NEXT = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # what ends the data of a scan


def strip(data: bytes, mime: str) -> bytes | None:
    """Return a picture without what was written into it.

    Args:
        data: Its bytes.
        mime: Its type.

    Returns:
        None where this is not known to be possible: other types than PNG, WebP and JPEG.

    Raises:
        ValueError: It is not whole.
    """
    stripper = _STRIPPERS.get(mime)
    return None if stripper is None else stripper(data)


def _strip_png(data: bytes) -> bytes:
    if not data.startswith(_PNG):
        raise ValueError("it is no PNG")
    kept, at = [_PNG], len(_PNG)
    while True:
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind, content, CRC
        if len(kind) < 4 or end > len(data):
            raise ValueError("the PNG is cut off")
        if kind in _PNG_KEPT:
            kept.append(data[at:end])
        if kind == b"IEND":  # what stands behind it is no part of the picture
            return b"".join(kept)
        at = end


def _strip_webp(data: bytes) -> bytes:
    end = int.from_bytes(data[4:8], "little") + 8
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or end > len(data):
        raise ValueError("the WebP is cut off")
    kept, at = [b"WEBP"], 12
    while at < end:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        after = at + 8 + size + size % 2
        if at + 8 + size > end:
            raise ValueError("the WebP is cut off")
        chunk = data[at:after]
        if kind == b"VP8X" and size:
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:]
        if kind in _WEBP_KEPT:
            kept.append(chunk)
        at = after
    content = b"".join(kept)
    return b"RIFF" + len(content).to_bytes(4, "little") + content


def _strip_jpeg(data: bytes) -> bytes:
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("it is no JPEG")
    kept, at = [b"\xff\xd8"], 2
    while True:
        marker = data[at + 1] if data[at : at + 1] == b"\xff" and at + 2 <= len(data) else None
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == _JPEG_END:  # what stands behind it is no part of the picture
            return b"".join([*kept, data[at : at + 2]])
        if marker is None or at + 4 > len(data):
            raise ValueError("the JPEG is damaged")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _JPEG_SCAN:
            following = _JPEG_NEXT.search(data, end)
            if following is None:  # decoders do without the last marker
                return b"".join([*kept, data[at:]])
            end = following.start()
        if marker not in _JPEG_DROPPED:
            kept.append(data[at:end])
        at = end


_STRIPPERS: dict[str, Callable[[bytes], bytes]] = {
    "image/png": _strip_png,
    "image/webp": _strip_webp,
    "image/jpeg": _strip_jpeg,
}

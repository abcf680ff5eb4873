"""What a node gave besides pictures: which type is it really, and may it be kept?

A type is found from the first bytes and must stand on the list below; the name that a server
gives a file only says what was to be expected of it. So a `.png` that holds a web page is refused,
a `.png` that holds a JPEG is kept as the JPEG that it is, with a warning, and a file of a kind that
comfynb knows nothing of (a 3D model, a document) is kept as plain bytes, which nothing ever shows.

Seven formats do not make a dependency: the libraries that guess types know hundreds, active ones
such as SVG and HTML among them, and would need this list as well.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import NamedTuple

from comfynb.pictures import BadPictureError, Looked, look, picture_type
from comfynb.values import short

TEXT, UNKNOWN = "text/plain", "application/octet-stream"

SUFFIXES = {
    ".png": "image/png",
    ".apng": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
}
"""The type that a file of that name should hold."""

_MP4 = {
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    **dict.fromkeys(
        (b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"avc1", b"dash",
         b"mp41", b"mp42", b"M4V "),
        "video/mp4",
    ),
}  # fmt: skip
"""Major brands of the ISO base media format (bytes 8 to 11) that browsers play."""


class Seen(NamedTuple):
    """What bytes turned out to be.

    Attributes:
        looked: Type and size.
        warning: What is odd about it, or "".
    """

    looked: Looked
    warning: str = ""


def type_of(data: bytes) -> str | None:
    """Return the type of a picture, video or sound by its first bytes; None: not known."""
    return picture_type(data) or _video_type(data) or _sound_type(data)


def _video_type(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return _MP4.get(data[8:12])
    if data.startswith(b"\x1a\x45\xdf\xa3"):  # EBML; its DocType stands in the first element
        head = data[:128]
        if b"webm" in head:
            return "video/webm"
        return "video/x-matroska" if b"matroska" in head else None
    return None


def _sound_type(data: bytes) -> str | None:
    if data.startswith(b"fLaC"):
        return "audio/flac"
    if data.startswith(b"OggS"):
        return "audio/ogg"
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "audio/wav"
    # MP3: a tag, or a frame header: 11 bits set, layer III, a bit rate and a sample rate.
    if data.startswith(b"ID3"):
        return "audio/mpeg"
    if len(data) > 3 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:
        return "audio/mpeg" if data[2] >> 4 not in (0, 15) and data[2] & 12 != 12 else None
    return None


def look_at(data: bytes, name: str = "", *, is_text: bool = False) -> Seen:
    """Say what the bytes of a file are; pictures are decoded to their end.

    Args:
        data: The file.
        name: What the server calls it; only its suffix is looked at. "": it is a picture that
            came without a name.
        is_text: It is a text, whatever it looks like.

    Raises:
        BadPictureError: It should be a picture, video or sound, and is none or is damaged.
    """
    if is_text:
        return Seen(Looked(_sha256(data), TEXT))
    expected = SUFFIXES.get(PurePosixPath(name).suffix.lower())
    found = type_of(data)
    if found is None and name and expected is None:
        return Seen(Looked(_sha256(data), UNKNOWN))
    if found is None and expected is not None and not expected.startswith("image/"):
        text = f"{len(data)} bytes that are not {expected}, nor any other video, sound or picture"
        raise BadPictureError(f"{text} (they begin {data[:16].hex(' ')})")
    if found is None or found.startswith("image/"):
        looked = look(data)
    else:
        looked = Looked(_sha256(data), found)
    if expected is None or _alike(expected, looked.mime):
        return Seen(looked)
    return Seen(looked, f"the file {short(name)} is not {expected}: it holds {looked.mime}")


def _alike(expected: str, found: str) -> bool:
    """Whether a suffix stands for a type; the containers of MP4 and Matroska are shared."""
    families = ({"video/mp4", "audio/mp4", "video/quicktime"}, {"video/webm", "video/x-matroska"})
    return expected == found or any({expected, found} <= family for family in families)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

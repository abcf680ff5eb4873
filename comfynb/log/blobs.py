"""Pictures, and whatever else came out, as files named by the sha256 of their bytes.

A file is complete and durable before it has its name, and is never written again. So a row that
names a picture, written after it, never points at half of one; what a crash leaves behind is at
most a picture that no row names.
"""

from __future__ import annotations

import re
from pathlib import Path

from comfynb.keyframes import Output
from comfynb.log.folder import make_inner, regular_file, sync_folder, write_file

EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/avif": "avif",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "text/plain": "txt",
}
"""File name extension of each type; any other type gets "bin"."""

_ALL_EXTENSIONS = (*EXTENSIONS.values(), "bin")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(name: object) -> bool:
    """Whether this could name a picture; anything else never becomes part of a path."""
    return isinstance(name, str) and _SHA256.fullmatch(name) is not None


class Blobs:
    """The `blobs` folder of a log.

    Args:
        root: The log folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[str] = set()

    def put(self, data: bytes, output: Output) -> None:
        """Make bytes durable under their sha256; quick where they are already.

        Args:
            data: The picture.
            output: Describes it; its sha256 was found to be that of `data`.

        Raises:
            OSError: They could not be made durable.
        """
        sha256 = output.sha256
        name = _name(sha256, output.mime)
        folder = self.root / "blobs" / sha256[:2]
        if sha256[:2] not in self._made:
            make_inner(self.root / "blobs", sha256[:2])
            self._made.add(sha256[:2])
        there = regular_file(folder, name)
        if there is not None and there.st_size == len(data):
            sync_folder(folder)  # another process may be between its rename and its sync
            return
        try:
            write_file(folder / name, data, sync=True)
        except FileNotFoundError:  # somebody removed the folder
            self._made.clear()
            raise

    def find(self, sha256: str, mime: str | None = None) -> Path | None:
        """Return the file of a picture, or None where it is not there.

        Args:
            sha256: 64 hex digits; anything else is not there.
            mime: Its type, where known: looked for first.
        """
        if not is_sha256(sha256):
            return None
        first = EXTENSIONS.get(mime or "", "png")
        for extension in dict.fromkeys((first, *_ALL_EXTENSIONS)):
            name = f"{sha256}.{extension}"
            if regular_file(self.root, "blobs", sha256[:2], name) is not None:
                return self.root / "blobs" / sha256[:2] / name
        return None

    def has(self, output: Output) -> bool:
        """Whether a picture is there with its whole size."""
        if not is_sha256(output.sha256):
            return False
        name = _name(output.sha256, output.mime)
        status = regular_file(self.root, "blobs", output.sha256[:2], name)
        return status is not None and status.st_size == output.bytes


def _name(sha256: str, mime: str) -> str:
    return f"{sha256}.{EXTENSIONS.get(mime, 'bin')}"

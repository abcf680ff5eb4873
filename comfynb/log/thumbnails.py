"""Small copies of pictures for grids: WebP, at most 384 px on the longer side.

They are derived: not synced to disk, made again where they are missing or not whole, and free to
be deleted at any time.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from comfynb.errors import LogError
from comfynb.keyframes import THUMBNAIL_PX
from comfynb.log.folder import make_inner, regular_file, write_file
from comfynb.pictures import open_picture

if TYPE_CHECKING:
    from PIL import Image

LARGEST_PX = 2**26
"""Pixels of the largest picture that is decoded (8192 x 8192; 256 MB as RGBA): a small file may
claim any size."""


def make(data: bytes) -> bytes:
    """Return a picture as a small WebP.

    Args:
        data: PNG, JPEG, WebP or GIF; of an animation, the first frame is taken.

    Raises:
        LogError: It cannot be decoded, or has more than `LARGEST_PX` pixels.
    """
    from PIL import Image  # noqa: PLC0415 - those that are made already need no Pillow

    small = io.BytesIO()
    try:
        opened, _ = open_picture(data)
        with opened:
            _check_size(opened)
            opened.draft(
                "RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX)
            )  # JPEG decodes to a smaller size itself
            picture: Image.Image = opened
            if opened.mode.startswith("I"):  # 16 bits, which convert() would clip to white
                picture = opened.convert("I").point(lambda value: value / 256)
            has_alpha = "A" in picture.getbands() or "transparency" in picture.info
            picture = picture.convert("RGBA" if has_alpha else "RGB")
            picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
            picture.save(small, "WEBP", quality=80, method=2)
    # Decoders meet strangers' bytes and fail in as many ways as there are formats.
    except Exception as exc:
        raise LogError(f"no thumbnail, the picture cannot be decoded: {exc}") from exc
    return small.getvalue()


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > LARGEST_PX:
        raise ValueError(
            f"it claims {image.width} x {image.height} pixels, at most {LARGEST_PX} are decoded"
        )


class Thumbnails:
    """The `thumbs` folder of a log; a temporary one where that cannot be written. Thread-safe.

    Args:
        root: The log folder.
        read_only: Never write into it.
    """

    def __init__(self, root: Path, *, read_only: bool) -> None:
        self.root = root
        self.read_only = read_only
        self._lock = threading.Lock()
        # Whoever asks while another thread makes the same one waits for it; 16 go at once.
        self._making = tuple(threading.Lock() for _ in range(16))
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def get(self, sha256: str, read: Callable[[str], bytes]) -> Path:
        """Return the thumbnail of a picture, made where it is missing.

        Args:
            sha256: Of the picture, 64 hex digits.
            read: Gives the picture's bytes.

        Raises:
            LogError: `read` or `make` raised it.
        """
        with self._making[int(sha256[0], 16)]:
            return self._found_or_made(sha256, read)

    def _found_or_made(self, sha256: str, read: Callable[[str], bytes]) -> Path:
        folder, name = sha256[:2], f"{sha256}.webp"
        kept = self.root / "thumbs" / folder / name
        if regular_file(self.root, "thumbs", folder, name) is not None and _is_whole(kept):
            return kept
        spare = None if self._temporary is None else Path(self._temporary.name, name)
        if spare is not None and _is_whole(spare):
            return spare
        small = make(read(sha256))
        if not self.read_only:
            with contextlib.suppress(OSError):
                make_inner(self.root, "thumbs", folder, sync=False)
                _put(kept, small)
                return kept
        with self._lock:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="comfynb-thumbs-")
            spare = Path(self._temporary.name, name)
        _put(spare, small)
        return spare

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        with self._lock:
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None


def _put(path: Path, data: bytes) -> None:
    try:
        write_file(path, data, sync=False)
    except PermissionError:
        # Windows: another thread made the same thumbnail and somebody is just reading it.
        if not _is_whole(path):
            raise


def _is_whole(path: Path) -> bool:
    """Whether the file is there and as long as it says (a power cut may leave zeros or less)."""
    try:
        with path.open("rb") as file:
            header = file.read(12)  # "RIFF", size of the rest, "WEBP"
            size = file.seek(0, io.SEEK_END)
    except OSError:
        return False
    return (
        header[:4] == b"RIFF"
        and header[8:] == b"WEBP"
        and int.from_bytes(header[4:8], "little") + 8 == size
    )

"""Files that a workflow starts from: an image to change, a mask, a sound, a video.

A knob such as `image` takes what people have at hand (a path, bytes, a PIL image, an array, a
keyframe). All of it becomes an `InputFile` at once, named by its content: the same picture has
the same name and the same key everywhere, is sent to a server once, and a changed file is another
one. Files keep their own bytes; pictures that are none yet become PNG.

An `InputFile` is a mapping of its name and sha256, which is what JSON, and so a storyboard in the
log or in a file, keeps of it; the bytes stand in the log beside the pictures.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfynb.errors import SceneError
from comfynb.media import SUFFIXES, type_of
from comfynb.pictures import BadPictureError, look
from comfynb.values import describe, short

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 100 * 2**20 - 4096
"""Bytes; a ComfyUI takes 100 MiB by default (--max-upload-size, 0.3.75), the form around it
included."""

_NAME = re.compile(r"comfynb-([0-9a-f]{32})(\.[a-z0-9]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIX_OF = {mime: suffix for suffix, mime in reversed(SUFFIXES.items())}  # the first one wins

_TAKEN = "Give a path, bytes, a PIL image, an array (height, width, 3 or 4), or a keyframe"


@dataclass(frozen=True)
class InputFile(Mapping[str, str]):
    """A file to be uploaded before a prompt that names it.

    Attributes:
        name: `comfynb-<first 32 digits of the sha256>.<suffix>`, as the graph calls it.
        sha256: Of the bytes; 64 hex digits.
        data: The bytes; None: the log has them, under that sha256.
    """

    name: str
    sha256: str
    data: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_bytes(cls, data: bytes) -> InputFile:
        """Name bytes after what they are.

        Raises:
            SceneError: They are no picture, video or sound that is known, or too large.
        """
        if len(data) > LARGEST:
            raise SceneError(
                f"it has {len(data):,} bytes, and servers take {LARGEST:,} at most",
                hint="Make it smaller",
            )
        mime = type_of(data)
        try:
            if mime is None or mime.startswith("image/"):
                look(data)  # whole, and no larger than it may be
        except BadPictureError as exc:
            raise SceneError(f"it is no picture: {exc}", hint=_TAKEN) from None
        assert mime is not None, "look refuses what has no type"
        sha256 = hashlib.sha256(data).hexdigest()
        return cls(f"comfynb-{sha256[:32]}{_SUFFIX_OF[mime]}", sha256, data)

    @classmethod
    def of_path(cls, path: str | os.PathLike[str]) -> InputFile:
        """Read a file.

        Raises:
            SceneError: It is not there, cannot be read, or is not what is needed.
        """
        found = Path(os.path.expanduser(path))  # noqa: PTH111 - which leaves "~nobody" as it is
        data = None
        try:
            if found.is_file():
                with found.open("rb") as file:
                    data = file.read(LARGEST + 1)
        except (OSError, ValueError) as exc:  # ValueError: a null byte
            hint = "Look at its name and permissions"
            raise SceneError(f"{short(str(path))} cannot be read: {exc}", hint=hint) from exc
        if data is None:
            hint = f"Look at the name; the current folder is {Path.cwd()}"
            raise SceneError(f"there is no file {short(str(path))}", hint=hint)
        try:
            return cls.of_bytes(data)
        except SceneError as error:
            problem = f"{short(str(path))} cannot be used: {error.problem}"
            raise SceneError(problem, hint=error.hint) from None

    @classmethod
    def of_kept(cls, kept: Mapping[Any, Any]) -> InputFile | None:
        """Read back what JSON keeps of one; None: it is something else."""
        name, sha256 = kept.get("name"), kept.get("sha256")
        if len(kept) != 2 or not isinstance(name, str) or not isinstance(sha256, str):
            return None
        match = _NAME.fullmatch(name)
        if match is None or match[2] not in SUFFIXES or _SHA256.fullmatch(sha256) is None:
            return None
        return cls(name, sha256) if sha256.startswith(match[1]) else None

    @property
    def mime(self) -> str:
        """Its type, such as "image/png"."""
        return SUFFIXES[Path(self.name).suffix]

    def __getitem__(self, key: str) -> str:
        if key in ("name", "sha256"):
            return str(getattr(self, key))
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("name", "sha256"))

    def __len__(self) -> int:
        return 2


def as_input(value: Any) -> InputFile | None:
    """Return a value as an input file; None: it is none, such as a number or a text.

    A text is never one here: which knobs take a path is for the workflow to say (`local_file`).

    Raises:
        SceneError: It is one that cannot be used; says why and what to give instead.
    """
    from comfynb.keyframes import Keyframe  # noqa: PLC0415 - which imports scenes, and they us

    if isinstance(value, InputFile):
        return value
    if isinstance(value, Mapping):
        return InputFile.of_kept(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return InputFile.of_bytes(bytes(value))
    if isinstance(value, os.PathLike):
        return InputFile.of_path(value)
    if isinstance(value, Keyframe):
        if value.picture is None:
            problem = f"the keyframe {short(value.scene.label)} has no picture ({value.status})"
            raise SceneError(problem, hint="Give one that has")
        return InputFile.of_bytes(value.read())
    numpy, pillow = sys.modules.get("numpy"), sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(value, pillow.Image):
        return InputFile.of_bytes(_png(value))
    if numpy is not None and isinstance(value, numpy.ndarray) and value.ndim:
        return InputFile.of_bytes(_png(_of_array(value)))
    if hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape):  # torch's
        hint = "Give a numpy array (height, width, 3 or 4), such as image.cpu().numpy()"
        raise SceneError(f"{describe(value)} is no picture", hint=hint)
    return None


def local_file(text: str) -> InputFile | None:
    """Return the file that a text names; None: it is the name of a file on the server.

    Raises:
        SceneError: It can only be a path, and there is no such file; or it cannot be used.
    """
    is_path = text.startswith(("~/", "./", "../", ".\\", "..\\")) or Path(text).is_absolute()
    try:
        there = Path(text).is_file()
    except (OSError, ValueError):  # too long, a null byte
        there = False
    return InputFile.of_path(text) if there or is_path else None


def _of_array(array: Any) -> Image.Image:
    """Return an array as a picture.

    Raises:
        SceneError: It is no (height, width, 3 or 4) of uint8, or of floats from 0 to 1.
    """
    import numpy as np  # noqa: PLC0415 - whoever has an array has it
    from PIL import Image  # noqa: PLC0415 - only those who send pictures need Pillow

    shape = "(" + ", ".join(map(str, array.shape)) + ")"
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        hint = "A picture is (height, width, 3) or, with transparency, (height, width, 4)"
        if array.ndim == 4:
            hint += "; of a batch, take one: array[0]"
        raise SceneError(f"the array has the shape {shape}", hint=hint)
    if array.dtype.kind == "f":
        hint = "Floats go from 0 to 1: divide by 255, or give uint8"
        if np.isnan(array).any():
            raise SceneError("the array has NaN in it", hint=hint)
        if array.min() < 0 or array.max() > 1:
            raise SceneError(f"the array goes from {array.min():g} to {array.max():g}", hint=hint)
        array = (array * 255 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        hint = "Give uint8 from 0 to 255, or floats from 0 to 1"
        raise SceneError(f"the array has the type {array.dtype}", hint=hint)
    return Image.fromarray(np.ascontiguousarray(array))


def _png(image: Image.Image) -> bytes:
    """Encode a picture without loss, turned as its EXIF says and without its metadata.

    Raises:
        SceneError: It cannot be decoded.
    """
    from PIL import ImageOps  # noqa: PLC0415

    file = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            upright = upright.convert("RGBA" if "A" in upright.getbands() else "RGB")
        upright.save(file, "PNG", compress_level=4)
    except Exception as exc:  # noqa: BLE001 - decoders raise whatever damaged bytes make them
        hint = "Look at it with image.show()"
        raise SceneError(f"the picture cannot be decoded: {exc}", hint=hint) from None
    return file.getvalue()

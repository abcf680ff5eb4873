"""Folders, names and paths: what clients may read and write, and nothing else.

Every name that comes from a client passes through here; no path leaves the three folders.
"""

from __future__ import annotations

import os
import re
import string
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import choices
from threading import Lock

FOLDERS = ("output", "input", "temp")
_ANNOTATED = re.compile(r"^(?P<name>.*) \[(?P<folder>output|input|temp)\]$", re.DOTALL)


class OutsideFolderError(ValueError):
    """A name would leave the folder it belongs to."""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file as clients name it; the three keys of `images` entries and uploads."""

    filename: str
    subfolder: str
    type: str

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


@dataclass
class Files:
    """The three folders of a server.

    Attributes:
        output: Pictures that SaveImage writes.
        input: Uploads, what LoadImage reads.
        temp: Pictures that PreviewImage writes.
    """

    output: Path
    input: Path
    temp: Path
    temp_prefix: str = field(
        # A new server must not write over names that an old one told its clients.
        default_factory=lambda: "ComfyUI_temp_" + "".join(choices(string.ascii_lowercase, k=5))  # noqa: S311
    )
    _counters: dict[tuple[Path, str], int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        for folder in FOLDERS:
            self.root(folder).mkdir(parents=True, exist_ok=True)

    def root(self, folder: str) -> Path:
        """Return the folder named "output", "input" or "temp".

        Raises:
            KeyError: There is no such folder.
        """
        if folder not in FOLDERS:
            raise KeyError(folder)
        path: Path = getattr(self, folder)
        return path

    def resolve(self, folder: str, *parts: str) -> Path:
        """Return the path of `parts` below a folder.

        Raises:
            KeyError: There is no such folder.
            OutsideFolderError: The path would leave it.
        """
        root = self.root(folder).resolve()
        path = Path(os.path.normpath(root.joinpath(*parts)))
        if not path.is_relative_to(root) or not path.resolve().is_relative_to(root):
            raise OutsideFolderError(f"{'/'.join(parts)!r} is outside the {folder} folder")
        return path

    def inputs(self) -> list[str]:
        """Return the names of the files in the input folder, sorted."""
        return sorted(entry.name for entry in os.scandir(self.input) if entry.is_file())

    def input_path(self, name: str) -> Path:
        """Return the path of a LoadImage name: `x.png`, `sub/x.png` or `x.png [output]`.

        Raises:
            OutsideFolderError: The name would leave its folder.
        """
        name, folder = split_annotation(name)
        return self.resolve(folder or "input", name)

    def reserve(self, folder: str, prefix: str, count: int, size: tuple[int, int]) -> list[Path]:
        """Return `count` new file paths `prefix_00001_.png` and on.

        Args:
            folder: "output" or "temp".
            prefix: May hold a subfolder and %year%, %month%, %day%, %hour%, %minute%,
                %second%, %width%, %height%.
            count: How many.
            size: Width and height in pixels, for the placeholders.

        Raises:
            OutsideFolderError: The prefix would leave the folder.
        """
        target = self.resolve(folder, _fill(prefix, size))
        directory, stem = target.parent, target.name
        with self._lock:
            directory.mkdir(parents=True, exist_ok=True)
            key = directory, stem
            first = self._counters.get(key) or _highest(directory, stem) + 1
            paths: list[Path] = []
            while len(paths) < count:
                path = directory / f"{stem}_{first:05}_.png"
                if not path.exists():  # another process may write into the same folder
                    paths.append(path)
                first += 1
            self._counters[key] = first
        return paths

    def named(self, folder: str, path: Path) -> SavedFile:
        """Return how clients name a path below a folder."""
        subfolder = path.parent.relative_to(self.root(folder).resolve()).as_posix()
        return SavedFile(path.name, "" if subfolder == "." else subfolder, folder)


def split_annotation(name: str) -> tuple[str, str | None]:
    """Split `x.png [input]` into its name and its folder; None: no folder was named."""
    match = _ANNOTATED.match(name)
    return (match["name"], match["folder"]) if match else (name, None)


def _fill(prefix: str, size: tuple[int, int]) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {"width": size[0], "height": size[1], "year": now.tm_year}
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", str(value))
    for name, code in {"month": "m", "day": "d", "hour": "H", "minute": "M", "second": "S"}.items():
        prefix = prefix.replace(f"%{name}%", time.strftime(f"%{code}", now))
    return prefix


def _highest(directory: Path, stem: str) -> int:
    pattern = re.compile(re.escape(stem) + r"_(\d+)_")
    found = (pattern.match(entry.name) for entry in os.scandir(directory))
    return max((int(match[1]) for match in found if match), default=0)

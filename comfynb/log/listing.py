"""Which files of `seg/` hold the rows that count now.

    1795349433039-a30489cb.jsonl         rows of one process, still growing or left behind
    1795349433039-a30489cb.claimed.jsonl the same, being sealed by another process
    1795349433039-a30489cb.parquet       the same, sealed: a whole one hides the JSON lines
    m1795349457242-e35bae18.parquet      several sealed segments merged ...
    m1795349457242-e35bae18.replaces     ... and the JSON list of the stems it hides

A replacement always appears, whole, before what it replaces goes. Reading a folder is no atomic
step, so it is read until two listings in a row are equal: those are consistent. A file that is
gone when it is opened means that the folder has moved on, and the listing is made again.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from comfynb.errors import LogError
from comfynb.log.folder import regular_file

_SEGMENT = re.compile(r"(m?\d{13}-[0-9a-f]{8})\.(jsonl|claimed\.jsonl|parquet)")
_MAGIC = b"PAR1"
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Listing:
    """The files to read, each a regular file of the `seg` folder.

    Attributes:
        sealed: Parquet files, vetted.
        active: Files of JSON lines that are not empty.
        damaged: Names of files that are left out: not whole, or links.
        replaced: Files that another has taken the place of.
    """

    sealed: tuple[Path, ...] = ()
    active: tuple[Path, ...] = ()
    damaged: tuple[str, ...] = ()
    replaced: tuple[Path, ...] = ()


def list_segments(root: Path) -> Listing:
    """Return the visible segments of a log folder; none where it does not exist.

    Args:
        root: The log folder.
    """
    for attempt in range(_ATTEMPTS):
        listing = _visible(root, _names(root), patient=attempt < _ATTEMPTS - 1)
        if listing is not None:
            return listing
        time.sleep(0.001 * attempt)
    raise AssertionError  # the last attempt gives a listing


def extent(root: Path) -> dict[str, int]:
    """Return the files that count, by name, with their sizes; -1 where one has just gone.

    While it stays the same, nothing was appended.

    Raises:
        LogError: The folder cannot be read.
    """
    try:
        listing = list_segments(root)
        return {path.name: _size(path) for path in (*listing.sealed, *listing.active)}
    except OSError as exc:
        raise LogError(f"cannot read the log at {root}: {exc}", folder=str(root)) from exc


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _names(root: Path) -> frozenset[str]:
    before = None
    while True:
        try:
            now = frozenset(os.listdir(root / "seg"))  # noqa: PTH208 - names, not paths
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        if now == before:
            return now
        before = now


def _visible(root: Path, names: frozenset[str], *, patient: bool) -> Listing | None:
    """Return what counts of these names; None where a file went meanwhile and we are patient."""
    lines: dict[str, str] = {}
    parquet: dict[str, str] = {}
    damaged = []
    for name in sorted(names):
        found = _SEGMENT.fullmatch(name)
        if found is None:
            continue
        status = regular_file(root, "seg", name)
        whole = status is not None and (
            found[2] != "parquet" or _is_whole_parquet(root / "seg" / name, status.st_size)
        )
        if status is None or not whole:
            if os.path.lexists(root / "seg" / name):
                damaged.append(name)
            elif patient:
                return None
        elif found[2] == "parquet":
            parquet[name] = found[1]
        elif status.st_size:
            lines[name] = found[1]
    hidden: set[str] = set()
    for name, stem in parquet.items():
        if stem.startswith("m"):
            replaced = _replaces(root, stem)
            # The list goes after its Parquet file: where that is still there, the list was
            # never copied along. Then rows may be there twice, and are seen once by their ids.
            if replaced is None and patient and not os.path.lexists(root / "seg" / name):
                return None
            hidden |= replaced or set()
    sealed = [name for name, stem in parquet.items() if stem not in hidden]
    # A merge hides what went into it in either form; a sealed file hides its own lines.
    hidden |= set(parquet.values())
    active = [name for name, stem in lines.items() if stem not in hidden]
    others = sorted((parquet.keys() | lines.keys()) - {*sealed, *active})
    return Listing(
        tuple(root / "seg" / name for name in sealed),
        tuple(root / "seg" / name for name in active),
        tuple(damaged),
        tuple(root / "seg" / name for name in others),
    )


def _replaces(root: Path, stem: str) -> set[str] | None:
    """Return the stems that a merge hides; None where its list cannot be read."""
    name = f"{stem}.replaces"
    if regular_file(root, "seg", name) is None:
        return None
    try:
        stems = json.loads((root / "seg" / name).read_bytes())
    except (OSError, ValueError):
        return None
    return {s for s in stems if isinstance(s, str)} if isinstance(stems, list) else None


def _is_whole_parquet(path: Path, size: int) -> bool:
    """Whether it begins and ends as a Parquet file; one that does not would fail every query."""
    try:
        with path.open("rb") as file:
            if size < 12 or file.read(4) != _MAGIC:
                return False
            file.seek(-8, os.SEEK_END)
            footer = int.from_bytes(file.read(4), "little")
            return file.read(4) == _MAGIC and footer + 12 <= size
    except OSError:
        return False

"""Removing the pictures that no row names.

They come from crashes (a picture is kept before its row) and from deleting. Three things keep a
picture that is about to be named: what is young stays; whoever keeps bytes that are there already
makes their file young again (blobs.py); and a file is looked at once more, under a name that no
writer finds, in the moment in which it goes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfynb.log.folder import TEMPORARY, is_left_behind, temporary_name, write_error
from comfynb.log.inventory import Found, named, pictures, thumbnails
from comfynb.log.reader import Reader

YOUNGEST = 3600.0
"""Seconds. No run takes that long between a picture and its row."""


@dataclass(frozen=True, slots=True, repr=False)
class Collected:
    """What `log.gc()` removed, or would remove.

    Attributes:
        dry_run: Nothing was removed.
        pictures: Files that no row names.
        thumbnails: Small copies of these, and of pictures that had gone before.
        temporary: Files that nobody has finished for an hour.
        bytes: Size of all.
    """

    dry_run: bool
    pictures: tuple[Path, ...]
    thumbnails: tuple[Path, ...]
    temporary: tuple[Path, ...]
    bytes: int

    def __len__(self) -> int:
        return len(self.pictures) + len(self.thumbnails) + len(self.temporary)

    def __repr__(self) -> str:
        if not len(self):
            return "nothing to remove"
        text = (
            f"{len(self.pictures):,} pictures, {len(self.thumbnails):,} thumbnails, "
            f"{len(self.temporary):,} unfinished files: {self.bytes / 1e6:,.1f} MB"
        )
        if self.dry_run:
            return f"would remove {text}; log.gc(dry_run=False) does"
        return f"removed {text}"


def collect(root: Path, *, dry_run: bool, older_than: float) -> Collected:
    """Remove what no row names; see `Log.gc`.

    Raises:
        ValueError: `older_than` is less than an hour.
        LogError: Not every row can be read; nothing is removed.
        LogWriteError: Something cannot be removed; what came before it is.
    """
    if not older_than >= YOUNGEST:
        raise ValueError(
            f"older_than={older_than!r}: a picture is kept before its row, so that nothing younger "
            f"than {YOUNGEST:g} seconds is removed"
        )
    before = time.time() - older_than
    reader = Reader(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters here is raised
            kept = named(reader)
    finally:
        reader.close()
    # Rows are read before pictures are looked for: one whose row comes later is young.
    all_pictures = list(pictures(root))
    doomed = [f for f in all_pictures if f.sha256 and f.sha256 not in kept and _is_old(f, before)]
    there = {found.sha256 for found in all_pictures} - {found.sha256 for found in doomed}
    small = [f for f in thumbnails(root) if f.sha256 and f.sha256 not in there]
    small = [f for f in small if _is_old(f, before) or f.sha256 in {d.sha256 for d in doomed}]
    litter = list(_litter(root, all_pictures))
    if not dry_run:
        doomed = [found for found in doomed if _remove(found, root, before)]
        gone = {found.sha256 for found in doomed}
        small = [f for f in small if f.sha256 in gone or _is_old(f, before)]
        for found in (*small, *litter):
            with _told(root), contextlib.suppress(FileNotFoundError):
                found.path.unlink()
    return Collected(
        dry_run,
        tuple(found.path for found in doomed),
        tuple(found.path for found in small),
        tuple(found.path for found in litter),
        sum(found.status.st_size for found in (*doomed, *small, *litter)),
    )


def _is_old(found: Found, before: float) -> bool:
    return found.status.st_mtime < before


def _litter(root: Path, blobs: list[Found]) -> Iterator[Found]:
    """Give the files that nobody has finished, and nobody will."""
    entries = [*blobs, *thumbnails(root)]
    for name in ("seg", "servers"):
        folder = root / name
        if not folder.is_symlink() and folder.is_dir():
            for entry in sorted(folder.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    entries.append(Found(entry, entry.lstat(), None))
    for found in entries:
        if (
            found.path.name.startswith(TEMPORARY)
            and stat.S_ISREG(found.status.st_mode)
            and is_left_behind(found.status)
        ):
            yield found


def _remove(found: Found, root: Path, before: float) -> bool:
    """Remove a picture, unless somebody has just made it young again."""
    aside = temporary_name(found.path.parent)
    with _told(root):
        try:
            os.rename(found.path, aside)  # noqa: PTH104 - never onto another: the name is ours
            # Who keeps the same bytes makes the file young first and then looks whether it still
            # has its name: either we see the one, or they see the other and write it anew.
            if aside.lstat().st_mtime >= before:
                aside.replace(found.path)
                return False
            aside.unlink()
        except FileNotFoundError:  # another collector was quicker
            return False
        return True


@contextlib.contextmanager
def _told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise write_error(exc, root, "what garbage collection changes") from exc

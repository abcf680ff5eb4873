"""Another log into this one, by copying its files.

Names never collide, so it is a plain copy of what is not here yet; pictures first, as a row must
never be there before its pictures. But the other log may be a stranger's, and the other way round
too: no file of it may take the place of one that is here. So only what counts there now is taken
(no merged-away segments, and no lists of what a merge hides), a segment whose stem is known here
in another form gets a stem of its own, and every picture is hashed on its way. Rows that come
twice are read once, by their ids; its marks count, deletions too, where they are about a keyframe
that both have.

What a living session of the other log still appends to is copied up to its last whole line, under
a stem made from its content; the next import brings the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from comfynb.errors import LogError
from comfynb.log import folder as files
from comfynb.log import locks, views
from comfynb.log.inventory import pictures
from comfynb.log.listing import Listing, list_segments
from comfynb.log.segments import FORMS

LARGEST = 4 * 2**30
"""Bytes of the largest file that is taken."""

_ATTEMPTS = 10
_PIECE = 2**20
_LARGEST_MARKER = 2**16
_BLOB = re.compile(r"blobs/([0-9a-f]{2})/((\1[0-9a-f]{62})\.[a-z0-9]{2,4})")
_SEGMENT = re.compile(r"seg/(m?\d{13}-[0-9a-f]{8}\.(?:jsonl|claimed\.jsonl|parquet|replaces))")


@dataclass(frozen=True, slots=True)
class Imported:
    """What `log.import_()` did.

    Attributes:
        pictures: How many files were copied.
        segments: How many files of rows were copied.
        bytes: Their size.
        known: How many of both were here already.
        refused: Names of files that are not what they should be, and stayed out.
    """

    pictures: int
    segments: int
    bytes: int
    known: int
    refused: tuple[str, ...]


class _Tally:
    """Counts what is done."""

    def __init__(self) -> None:
        self.pictures = self.segments = self.bytes = self.known = 0
        self.refused: list[str] = []

    def result(self) -> Imported:
        return Imported(
            self.pictures, self.segments, self.bytes, self.known, tuple(sorted(self.refused))
        )


def bring_in(root: Path, other: Path, leaves_out: Collection[str] = ()) -> Imported:
    """Copy what another log has and this one has not; see `Log.import_`.

    Args:
        root: The log folder, which exists.
        other: A log folder, or a zip of one.
        leaves_out: What shall not come into this one.

    Raises:
        LogError: The other is no log, cannot be read, or may have what this one leaves out.
        OSError: This one cannot be written; what was copied before is sound.
    """
    if other.is_dir():
        if not (other / files.MARKER).is_file():
            raise _no_log(other)
        _check(other, root, leaves_out)
        if other.resolve() == root.resolve():
            raise LogError(f"the log at {root} is this one", folder=str(other))
        return _from_folder(root, other)
    try:
        with zipfile.ZipFile(other) as archive:
            return _from_zip(root, archive, other, leaves_out)
    except (zipfile.BadZipFile, FileNotFoundError, EOFError, NotImplementedError) as exc:
        raise _no_log(other) from exc


def _check(other: Path, root: Path, leaves_out: Collection[str]) -> None:
    """Refuse a log that a newer comfynb wrote, or that keeps what this one does not."""
    files.check_version(other)
    if more := sorted(set(leaves_out) - files.left_out(other)):
        raise LogError(
            f"the log at {root} leaves out {' and '.join(more)}, and that to be imported does not: "
            "import both into a third one, or make its pictures again in this one",
            folder=str(root),
        )


def _no_log(other: Path) -> LogError:
    return LogError(
        f"{other} is no log, and no zip of one: give a folder with a {files.MARKER}, or what "
        "log.export('x.zip') wrote",
        folder=str(other),
    )


def _from_folder(root: Path, other: Path) -> Imported:
    for attempt in range(1, _ATTEMPTS + 1):
        tally = _Tally()
        # Segments are listed before pictures: those of their rows were there by then.
        listing = list_segments(other)
        alive = _living(other / "seg")
        taken = list(_vetted(listing, tally))
        sizes = {path: path.stat().st_size for path in taken if path.exists()}
        try:
            for found in pictures(other):
                if found.sha256 is not None:
                    name = found.path.name
                    _picture(root, name, found.status.st_size, _opener(found.path), tally)
            for path in taken:
                active = locks.SEGMENT.fullmatch(path.name)
                living = active is not None and (alive is None or active[1] in alive)
                _segment(root, path, sizes[path], tally, snapshot=living)
        except (FileNotFoundError, KeyError):  # sealed or collected meanwhile
            if attempt == _ATTEMPTS:
                raise
            continue
        break
    return tally.result()


def _living(segments: Path) -> frozenset[str] | None:
    try:
        return locks.living(segments) if segments.is_dir() else frozenset()
    except OSError:
        return None


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb")

    return opened


def _from_zip(
    root: Path, archive: zipfile.ZipFile, other: Path, leaves_out: Collection[str]
) -> Imported:
    tally = _Tally()
    start = _start(archive, other)
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removeprefix(start)
        if info.filename.startswith(start) and not stat.S_ISLNK(info.external_attr >> 16):
            entries.setdefault(name, info)
    with tempfile.TemporaryDirectory(prefix="comfynb-import-") as scratch:
        (Path(scratch, "seg")).mkdir()
        _extract(archive, entries, Path(scratch), tally)
        _check(Path(scratch), root, leaves_out)
        taken = list(_vetted(list_segments(Path(scratch)), tally))
        for name, info in entries.items():
            found = _BLOB.fullmatch(name)
            if found is not None:
                _picture(root, found[2], info.file_size, _zip_opener(archive, info), tally)
        for path in taken:
            _segment(root, path, path.stat().st_size, tally, snapshot=False)
    return tally.result()


def _start(archive: zipfile.ZipFile, other: Path) -> str:
    """Return where in a zip the log begins: "", or the one folder that it is in, with "/"."""
    markers = [
        name
        for name in archive.namelist()
        if re.fullmatch(rf"([^/]+/)?{re.escape(files.MARKER)}", name)
    ]
    if len(markers) != 1:
        raise _no_log(other)
    return markers[0].removesuffix(files.MARKER)


def _extract(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], scratch: Path, tally: _Tally
) -> None:
    """Take marker and segments out of a zip; only names that we could have written."""
    for name, info in entries.items():
        found = _SEGMENT.fullmatch(name)
        if found is None and name != files.MARKER:
            continue
        limit = LARGEST if found else _LARGEST_MARKER
        target = scratch / "seg" / found[1] if found else scratch / files.MARKER
        try:
            with archive.open(info) as source, target.open("xb") as file:
                for piece in _pieces(source, limit):
                    file.write(piece)
        except (zipfile.BadZipFile, _TooLargeError, RuntimeError):  # RuntimeError: encrypted
            target.unlink(missing_ok=True)
            tally.refused.append(name)


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


def _vetted(listing: Listing, tally: _Tally) -> Iterator[Path]:
    """Give the segments of a listing that can be read whole, older rows first.

    A merge has older ones than what its sessions wrote since: who follows this log meanwhile
    would take what comes after greater numbers for seen.
    """
    tally.refused += [f"seg/{name}" for name in listing.damaged]
    unsound = set(views.unsound(listing))
    tally.refused += [f"seg/{path.name}" for path in unsound if path.exists()]
    merged_first = sorted(listing.sealed, key=lambda path: not path.name.startswith("m"))
    yield from (path for path in (*merged_first, *listing.active) if path not in unsound)


class _TooLargeError(Exception):
    """A file is larger than it may be, or than it was said to be."""


def _pieces(source: IO[bytes], limit: int) -> Iterator[bytes]:
    while piece := source.read(min(_PIECE, limit + 1)):
        limit -= len(piece)
        if limit < 0:
            raise _TooLargeError
        yield piece


def _picture(
    root: Path, name: str, size: int, opened: Callable[[], IO[bytes]], tally: _Tally
) -> None:
    folder = root / "blobs" / name[:2]
    there = files.regular_file(root, "blobs", name[:2], name)
    if there is not None and there.st_size == size:
        with contextlib.suppress(OSError):
            os.utime(folder / name)  # its rows are yet to come: too young to be collected
            tally.known += 1
            return
    files.make_inner(root / "blobs", name[:2])
    try:
        with opened() as source:
            copied = _copy(source, folder / name, min(size, LARGEST), sha256=name.partition(".")[0])
    except (zipfile.BadZipFile, _TooLargeError, RuntimeError):
        copied = None
    if copied is None:
        tally.refused.append(f"blobs/{name[:2]}/{name}")
        return
    tally.pictures, tally.bytes = tally.pictures + 1, tally.bytes + copied


def _copy(source: IO[bytes], target: Path, limit: int, *, sha256: str) -> int | None:
    """Copy a file that appears whole and durable; None where its content is another."""
    temporary = files.temporary_name(target.parent)
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            for piece in _pieces(source, limit):
                digest.update(piece)
                size += file.write(piece)
            if digest.hexdigest() != sha256:
                return None
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    files.sync_folder(target.parent)
    return size


def _segment(root: Path, path: Path, size: int, tally: _Tally, *, snapshot: bool) -> None:
    """Copy a segment, under a stem of its own where its name says something else here."""
    if size > LARGEST:
        tally.refused.append(f"seg/{path.name}")
        return
    stem, end = path.name.split(".", 1)
    temporary = files.temporary_name(root / "seg")
    try:
        with _opener(path)() as source, temporary.open("xb") as copy:
            shutil.copyfileobj(source, copy, _PIECE)
            if snapshot:
                copy.flush()
                copy.truncate(_whole_lines(temporary))
            copy.flush()
            os.fsync(copy.fileno())
        with temporary.open("rb") as file:
            digits = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        end = "parquet" if end == "parquet" else "jsonl"
        name = f"{stem}.{end}"
        forms = [f"{stem}{form}" for form in FORMS]
        here = [form for form in forms if os.path.lexists(root / "seg" / form)]
        if snapshot or (here and not _same(temporary, root / "seg" / name)):
            stem = f"{stem[: stem.rindex('-')]}-{digits}"
            name = f"{stem}.{end}"
            here = [f for f in FORMS if os.path.lexists(root / "seg" / f"{stem}{f}")]
        if here:
            tally.known += 1
            return
        copied = temporary.stat().st_size
        temporary.rename(root / "seg" / name)
    finally:
        temporary.unlink(missing_ok=True)
    files.sync_folder(root / "seg")
    tally.segments, tally.bytes = tally.segments + 1, tally.bytes + copied


def _whole_lines(path: Path) -> int:
    """Return how many bytes of a file of lines are whole ones."""
    whole = 0
    with path.open("rb") as file:
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
    return whole


def _same(ours: Path, theirs: Path) -> bool:
    """Whether two files have the same content; False where one is not there."""
    try:
        with ours.open("rb") as first, theirs.open("rb") as second:
            one, other = (hashlib.file_digest(file, "sha256").digest() for file in (first, second))
    except FileNotFoundError:
        return False
    return one == other

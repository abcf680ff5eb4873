"""The log folder: its marker, its sub-folders, and the calls that make files durable.

    comfynb-log.json       {"format": "comfynb-log", "version": 1, "created": ...}, and what is
                           never to be kept here: "leaves_out": ["prompts", "workflows"]
    .gitignore             "*", where the folder was made for the log
    seg/                   rows: segments.py writes them, listing.py finds them
    blobs/ab/abcd...png    pictures, named by their sha256
    thumbs/ab/abcd...webp  small copies of them; may be deleted
    servers/<sha256>.json  what servers said of their node types; may be deleted (servers.py)

Whatever is inside may come from a stranger (a log opened from a download): links are not
followed, and only names that we could have written are looked at.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comfynb.errors import LogError, LogVersionError, LogWriteError

FORMAT = "comfynb-log"
VERSION = 1
"""Of the folder; a reader refuses a greater one."""

MARKER = "comfynb-log.json"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a write to a full disk, a full quota or past a limit of the process fails with."""

TEMPORARY = ".tmp-"
"""How names of files begin that nobody has finished."""
LITTER_AGE = 3600.0
"""Seconds after which such a file belongs to nobody that still lives."""

# O_BINARY is Windows': without it line feeds would be doubled.
CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


def check_version(folder: Path) -> None:
    """Refuse a folder that a newer comfynb wrote, or that is something else.

    Raises:
        LogVersionError: Its version is greater than ours.
        LogError: Its marker is not one.
    """
    marker = _marker(folder)
    if marker is not None and int(marker["version"]) > VERSION:
        raise LogVersionError(
            f"the log at {folder} has format {int(marker['version'])}, written by a newer comfynb; "
            f"this one knows formats up to {VERSION}. Upgrade: pip install -U comfynb",
            folder=str(folder),
        )


def left_out(folder: Path) -> frozenset[str]:
    """Return what a log is never to keep, as its marker says; words of others among them.

    Raises:
        LogError: Its marker is not one.
    """
    listed = (_marker(folder) or {}).get("leaves_out")
    if listed is None:
        return frozenset()
    words = listed if isinstance(listed, list) else [listed]
    # What is no word is one that nobody knows.
    return frozenset(w if isinstance(w, str) else type(w).__name__ for w in words)


def new_marker(leaves_out: Iterable[str] = ()) -> bytes:
    """Return the content of the marker of a new log."""
    marker: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    marker["created"] = datetime.now(UTC).isoformat()
    if listed := sorted(leaves_out):
        marker["leaves_out"] = listed
    return json.dumps(marker).encode() + b"\n"


def _marker(folder: Path) -> dict[str, Any] | None:
    """Read the marker; None where there is none.

    Raises:
        LogError: It is something else, or cannot be read.
    """
    try:
        text = (folder / MARKER).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise LogError(f"cannot read the log at {folder}: {exc}", folder=str(folder)) from exc
    if not text:
        return None  # its creator is just writing it, or was killed there
    try:
        marker: dict[str, Any] = json.loads(text)
        is_log = marker["format"] == FORMAT
        int(marker["version"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        is_log = False
    if not is_log:
        raise LogError(
            f"{folder / MARKER} is not the marker of a log: give another folder, "
            "or delete that file if it is damaged",
            folder=str(folder),
        )
    return marker


def create(folder: Path, leaves_out: Iterable[str] = ()) -> None:
    """Make the folder and its marker, durably, unless they are there.

    Args:
        folder: Where.
        leaves_out: What the marker says is never to be kept there, if it is made.

    Raises:
        OSError: It cannot be made.
    """
    ours = not folder.exists() or not any(folder.iterdir())
    make_folder(folder)
    for name in ("seg", "blobs"):
        make_inner(folder, name)
    if ours:
        # A `*` in a folder that has other things in it would hide them from git.
        with contextlib.suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")
    if not os.path.lexists(folder / MARKER):
        _write_once(folder / MARKER, new_marker(leaves_out))
    sync_folder(folder)


def _write_once(path: Path, data: bytes) -> None:
    """Write a durable file unless it is there; where there are hard links, nobody finds it empty.

    Raises:
        OSError: It could not be written.
    """
    temporary = temporary_name(path.parent)
    try:
        _write_new(temporary, data, sync=True)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # no hard links there
            with contextlib.suppress(FileExistsError):
                _write_new(path, data, sync=True)
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes, *, sync: bool) -> None:
    descriptor = os.open(path, CREATE, 0o666)
    try:
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably.

    Raises:
        OSError: It cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    sync_folder(path.parent)


def make_inner(root: Path, *parts: str, sync: bool = True) -> None:
    """Make a folder below the log folder; it may be there.

    Args:
        root: The log folder.
        parts: Names from there.
        sync: Make its name durable; those of the folders above it are so already.

    Raises:
        OSError: It cannot be made, or something else, such as a link, stands in its place.
    """
    path = root
    for part in parts:
        path = path / part
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "is a link or a file", str(path))
    if sync:  # also where it was there: its maker may not have come to this line yet
        sync_folder(path.parent)


def regular_file(root: Path, *parts: str) -> os.stat_result | None:
    """Return the status of a file below a folder, or None.

    Args:
        root: The log folder, itself taken as it is.
        parts: Names from there to the file.

    Returns:
        None where it does not exist, is no regular file, or a link is on the way to it.
    """
    path = os.fspath(root)
    try:
        for part in parts[:-1]:
            path = os.path.join(path, part)  # noqa: PTH118 - called a thousand times in a row
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return None
        status = os.lstat(os.path.join(path, parts[-1]))  # noqa: PTH118
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, in one call where the system takes it in one."""
    view = memoryview(data)
    while view:
        # A second call after a short one finishes the work, or says why it was short.
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write a whole file that appears under its name at once and complete.

    Args:
        path: Replaced if it exists.
        data: Its content.
        sync: Also make it durable, before it gets its name.

    Raises:
        OSError: It could not be written; nothing is left behind.
    """
    temporary = temporary_name(path.parent)
    try:
        _write_new(temporary, data, sync=sync)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def temporary_name(folder: Path) -> Path:
    """Return a name in a folder that no other has and no reader looks at."""
    return folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"


def is_left_behind(status: os.stat_result) -> bool:
    """Whether nobody that still lives can be about to finish an unfinished file."""
    return time.time() - status.st_mtime > LITTER_AGE


def sync_data(descriptor: int) -> None:
    """Make a file's content durable (macOS and Windows have no fdatasync)."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":
        return  # a folder cannot be opened there; NTFS journals names
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def write_error(exc: OSError, folder: Path, what: str) -> LogWriteError:
    """Return the error that says what could not be written, where, and how to go on."""
    if exc.errno in FULL:
        hint = "Free some space there, or give another folder with log=..., and retry"
    elif exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "Make the folder writable, or give another one with log=..., and retry"
    else:
        hint = "Give another folder with log=... and retry"
    return LogWriteError(
        f"could not write {what} to the log at {folder}: {exc.strerror or exc}. "
        f"Everything written before is safe. {hint}",
        folder=str(folder),
    )

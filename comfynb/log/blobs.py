"""Pictures, and whatever else came out, as files named by the sha256 of their bytes.

A file is complete before it has its name, durable before `put` returns, and never written again. So
a row that names a picture, written after it, never points at half of one; what a crash leaves
behind is at most a picture that no row names.

Where the system can, the bytes are written to a file without a name, and linked: nothing is left of
it if the process dies. The file, its name and the name of its folder, if that is new, are then made
durable at the same time, from two threads, for which a file system with a journal needs one commit:
on a busy disk that is half of the time or less. Elsewhere: a temporary name, sync, rename, sync.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from comfynb.keyframes import Output
from comfynb.log.folder import FULL, make_inner, regular_file, sync_folder, write_all, write_file

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
_NAMELESS = getattr(os, "O_TMPFILE", 0)  # Linux
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

    def put(
        self, data: bytes, output: Output, *, meanwhile: Callable[[], object] | None = None
    ) -> None:
        """Make bytes durable under their sha256; quick where they are already.

        Args:
            data: The picture.
            output: Describes it; its sha256 was found to be that of `data`.
            meanwhile: May be called by another thread while the disk is at work; must not raise.

        Raises:
            OSError: They could not be made durable.
        """
        sha256 = output.sha256
        name = _name(sha256, output.mime)
        above, prefix = self.root / "blobs", sha256[:2]
        folder = above / prefix
        new_names = [folder]
        if prefix not in self._made:
            make_inner(above, prefix, sync=False)
            new_names.append(above)
        try:
            there = regular_file(folder, name) is not None
            if there or not _add(folder, name, data, new_names, meanwhile):
                if not _sync_same(folder, name, data):
                    write_file(folder / name, data, sync=True)
                _sync_folders(new_names[1:])
        except FileNotFoundError:  # somebody removed the folder
            self._made.clear()
            raise
        self._made.add(prefix)

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


def _add(
    folder: Path,
    name: str,
    data: bytes,
    new_names: Sequence[Path],
    meanwhile: Callable[[], object] | None,
) -> bool:
    """Make a file that appears whole, and is durable on return.

    Args:
        folder: Where.
        name: Of the file.
        data: Its bytes.
        new_names: Folders with names to be made durable, that of the file among them.
        meanwhile: See `Blobs.put`.

    Returns:
        False where the name is taken, or the file system cannot do it so.

    Raises:
        OSError: It could not be written; nothing is left behind.
    """
    if not _NAMELESS:
        return False
    directory = os.open(folder, os.O_RDONLY)
    try:
        try:
            descriptor = os.open(".", _NAMELESS | os.O_WRONLY, 0o666, dir_fd=directory)
        except OSError as exc:
            if exc.errno in FULL:
                raise
            return False
        try:
            write_all(descriptor, data)
            try:
                # With a folder's descriptor Python follows the link of /proc to the file itself.
                os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory)
            except OSError as exc:
                if exc.errno in FULL:
                    raise
                return False
            try:
                syncing = _in_another_thread(partial(_sync_folders, new_names))
                if meanwhile is not None:
                    _in_another_thread(meanwhile)
                try:
                    os.fsync(descriptor)
                finally:
                    syncing.result()
            except OSError:
                # Its pages may be gone while it looks whole: nobody may find it.
                os.unlink(name, dir_fd=directory)
                raise
        finally:
            os.close(descriptor)
    finally:
        os.close(directory)
    return True


def _sync_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        sync_folder(folder)


def _sync_same(folder: Path, name: str, data: bytes) -> bool:
    """Make a file durable that another has made, if it holds the same bytes."""
    if regular_file(folder, name) is None:
        return False
    with (folder / name).open("r+b" if os.name == "nt" else "rb") as file:
        if file.read(len(data) + 1) != data:  # torn by a power cut, or damaged
            return False
        try:
            # Its row is yet to come: whoever collects what no row names leaves fresh ones alone,
            # and has it under another name while it looks how old it is (collecting.py).
            os.utime(folder / name)
        except OSError:
            return False
        os.fsync(file.fileno())
        ours = os.fstat(file.fileno())
    sync_folder(folder)
    there = regular_file(folder, name)
    return there is not None and (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)


def _in_another_thread(work: Callable[[], object]) -> Future[object]:
    global _threads  # noqa: PLW0603 - one for the process, made when it is first needed
    if _threads is None:
        _threads = ThreadPoolExecutor(4, thread_name_prefix="comfynb-work-sync")
    try:
        return _threads.submit(work)
    except RuntimeError:  # Python is ending and starts no threads any more
        done: Future[object] = Future()
        done.set_result(work())
        return done


_threads: ThreadPoolExecutor | None = None


def _forget_after_fork() -> None:
    global _threads  # noqa: PLW0603 - a child has none of its parent's threads
    _threads = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)


def _name(sha256: str, mime: str) -> str:
    return f"{sha256}.{EXTENSIONS.get(mime, 'bin')}"

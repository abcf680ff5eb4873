"""A store that keeps keyframes as long as its process lives: `log=False`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfynb.errors import ClosedError, LogError
from comfynb.inputs import InputFile
from comfynb.keyframes import Keyframe
from comfynb.log.base import Store
from comfynb.log.log import check_images
from comfynb.log.marks import Mark, Marking, id_of, is_about
from comfynb.log.records import RunRecord, SubmittedRecord


class MemoryStore(Store, Marking):
    """Keeps keyframes and pictures in memory; see `Store` for what its calls promise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._done: dict[str, Keyframe] = {}  # the latest, by key
        self._pictures: dict[str, bytes] = {}
        self._thumbnails: dict[str, bytes] = {}
        self._object_infos: dict[str, Mapping[str, Any]] = {}
        self._marks: list[Mark] = []

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._done)} keyframes, {len(self._pictures)} pictures)"

    def add_run(self, run: RunRecord) -> None:  # noqa: ARG002 - as in Store
        """Take note of a run; nothing can be asked of it later."""
        self._check_open()

    def add_input(self, file: InputFile) -> None:
        """Keep the bytes of a file that a prompt starts from."""
        self._check_open()
        assert file.data is not None
        with self._lock:
            self._pictures[file.sha256] = file.data

    def add_submitted(
        self,
        *,
        prompt_id: str,  # noqa: ARG002
        run: str,  # noqa: ARG002
        key: str,  # noqa: ARG002
        scene: str,  # noqa: ARG002
        server: str,  # noqa: ARG002
    ) -> None:
        """Take note of a prompt; nothing can be asked of it later."""
        self._check_open()

    def add_result(self, keyframe: Keyframe, images: Sequence[bytes] = ()) -> Keyframe:
        """Keep a keyframe and its pictures."""
        check_images(keyframe, images)
        self._check_open()
        kept = dataclasses.replace(keyframe, pictures=self)
        with self._lock:
            for output, data in zip(keyframe.outputs, images, strict=True):
                self._pictures[output.sha256] = bytes(data)
            before = self._done.get(keyframe.key)
            newer = before is None or before.created_at <= keyframe.created_at
            if kept.status == "done" and kept.outputs and newer:
                self._done[keyframe.key] = kept
        return kept

    def find(self, keys: Iterable[str]) -> dict[str, Keyframe]:
        """Return the latest `done` keyframe of each key, as `cached`."""
        with self._lock:
            found = {key: self._done[key] for key in keys if key in self._done}
        return {key: dataclasses.replace(k, status="cached") for key, k in found.items()}

    def orphans(
        self,
        run: str | None = None,  # noqa: ARG002
        *,
        keys: Collection[str] | None = None,  # noqa: ARG002
    ) -> list[SubmittedRecord]:
        """Return none: what is in memory dies with its session."""
        return []

    def marks(self, keyframe: Keyframe | str | None = None) -> list[Mark]:
        """Return all that was said about a keyframe, or about all; the keyframes stay as they are.

        Raises:
            MarkError: `keyframe` is no keyframe, and no id of one.
        """
        about = id_of(keyframe)
        with self._lock:
            return [mark for mark in self._marks if about is None or is_about(mark, about)]

    def _keep(self, mark: Mark) -> None:
        self._check_open()
        with self._lock:
            self._marks.append(mark)

    def read(self, sha256: str) -> bytes:
        """Return the bytes of a picture.

        Raises:
            LogError: There is none with that sha256.
        """
        try:
            return self._pictures[sha256]
        except KeyError:
            raise LogError(f"no picture {sha256!r} in memory: it was made elsewhere") from None

    def path(self, sha256: str, mime: str = "") -> Path | None:  # noqa: ARG002
        """Return None: pictures in memory have no file."""
        return None

    def workflow(self, keyframe: str) -> Mapping[str, Any] | None:
        """Return the graph of a keyframe that is the latest of its key, else None."""
        with self._lock:
            kept = (k for k in self._done.values() if k.id == keyframe)
            return next((k.workflow for k in kept), None)

    def thumbnail(self, sha256: str) -> bytes:
        """Return a picture as WebP, at most 384 px on its longer side.

        Raises:
            LogError: There is none, it cannot be decoded, or is too large to decode.
        """
        from comfynb.log import thumbnails  # noqa: PLC0415 - Pillow only where pictures are shown

        if sha256 not in self._thumbnails:
            self._thumbnails[sha256] = thumbnails.make(self.read(sha256))
        return self._thumbnails[sha256]

    def keep_object_info(self, server: str, object_info: Mapping[str, Any]) -> None:
        """Keep what a server said of its node types."""
        self._check_open()
        self._object_infos[server] = object_info

    def object_info(self, server: str) -> Mapping[str, Any] | None:
        """Return what a server last said of its node types, or None."""
        return self._object_infos.get(server)

    def close(self) -> None:
        """Refuse further adding; what is there stays readable."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this store was closed: connect again")

"""What a run asks of the place where keyframes are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from comfynb.inputs import InputFile
from comfynb.keyframes import Keyframe, Pictures
from comfynb.log.records import RunRecord, SubmittedRecord


class Store(Pictures, Protocol):
    """Keeps runs, keyframes and pictures.

    Every call blocks, on disks for milliseconds, and may be made from any thread: a loop calls
    it in workers. `read` and `path` are those of `Pictures`.
    """

    def add_run(self, run: RunRecord) -> None:
        """Keep what a run is about to make; durable on return.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The store was closed.
        """

    def add_input(self, file: InputFile) -> None:
        """Keep the bytes of a file that a prompt starts from; durable on return.

        `read` gives them back by their sha256. A later process uploads them again.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The store was closed.
        """

    def add_submitted(self, *, prompt_id: str, run: str, key: str, scene: str, server: str) -> None:
        """Note that a prompt is about to be sent; survives this process, not a power cut.

        Args:
            prompt_id: Chosen by us.
            run: Id of the run.
            key: Content key of the cell.
            scene: Id of the scene.
            server: Label of the server.

        Raises:
            LogWriteError: It could not be written.
            ClosedError: The store was closed.
        """

    def add_result(self, keyframe: Keyframe, images: Sequence[bytes] = ()) -> Keyframe:
        """Keep a keyframe and its pictures; durable on return, pictures first.

        Args:
            keyframe: Its `outputs[i]` describes `images[i]`; sha256 and type are believed.
            images: Bytes as the server sent them.

        Returns:
            The keyframe with this store as its `pictures`, and with outputs as they are kept: a
            log that leaves prompts or workflows out takes them out of pictures too.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The store was closed.
            ValueError: `images` are not those that `outputs` describes.
        """

    def find(self, keys: Iterable[str]) -> dict[str, Keyframe]:
        """Return what is already made: the latest `done` keyframe of each key, as `cached`.

        Keys without a keyframe, or with one whose pictures are gone, are left out.
        """

    def orphans(
        self, run: str | None = None, *, keys: Collection[str] | None = None
    ) -> list[SubmittedRecord]:
        """Return the prompts of sessions that have died, of which no keyframe is here.

        Args:
            run: Id of a run; None: of all.
            keys: Content keys of the cells they were sent for; None: all.

        Returns:
            In the order in which they were sent.

        Raises:
            LogError: The store cannot be read.
        """

    def thumbnail(self, sha256: str) -> Path | bytes:
        """Return a picture as WebP, at most 384 px on its longer side: a file, or its bytes.

        Raises:
            LogError: The picture is not there, cannot be decoded, or is too large to decode.
        """

    def keep_object_info(self, server: str, object_info: Mapping[str, Any]) -> None:
        """Keep what a server said of its node types, in place of what it said before.

        Args:
            server: Its label.
            object_info: What it answered to GET /object_info.

        Raises:
            LogWriteError: It could not be written.
            ClosedError: The store was closed.
        """

    def object_info(self, server: str) -> Mapping[str, Any] | None:
        """Return what a server last said of its node types, or None."""

    def close(self) -> None:
        """Refuse further writing; what was written stays readable. Safe to call twice."""

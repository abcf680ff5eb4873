"""What a run asks of the place where keyframes are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

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
            keyframe: Its `outputs[i]` describes `images[i]`.
            images: Bytes as the server sent them.

        Returns:
            The keyframe with this store as its `pictures`.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The store was closed.
            ValueError: `images` are not those that `outputs` describes.
        """

    def find(self, keys: Iterable[str]) -> dict[str, Keyframe]:
        """Return what is already made: the latest `done` keyframe of each key, as `cached`.

        Keys without a keyframe, or with one whose pictures are gone, are left out.
        """

    def orphans(self, run: str | None = None) -> list[SubmittedRecord]:
        """Return the prompts of sessions that have died, of which no keyframe is here.

        Args:
            run: Id of a run; None: of all.

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

    def close(self) -> None:
        """Refuse further writing; what was written stays readable. Safe to call twice."""

"""Care of a log: check it, tidy it, take things out of it, carry it elsewhere.

Each call is one question or one deed of a module of its own, which is loaded when it is asked for.
Whatever could cost something says first what it would do (`dry_run`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfynb.errors import LogWriteError
from comfynb.keyframes import Keyframe
from comfynb.log import folder as files
from comfynb.log.opened import Opened

if TYPE_CHECKING:
    from comfynb.log.collecting import Collected
    from comfynb.log.importing import Imported
    from comfynb.log.verifying import Verification


class Care(Opened, ABC):
    """The calls that look after a log."""

    @abstractmethod
    def _keyframes(self, condition: str, params: Mapping[str, Any]) -> list[Keyframe]: ...

    def compact(self, *, force: bool = False) -> None:
        """Seal what dead sessions left behind, and merge small segments; nobody has to ask.

        A process that appends does it by itself, in a thread. Safe beside any number of others;
        the segments of living sessions are left alone.

        Args:
            force: Merge also a few, and where the file system has no locks.

        Raises:
            LogWriteError: The folder cannot be written; nothing is lost.
        """
        import duckdb  # noqa: PLC0415 - DuckDB takes 0.1 s

        from comfynb.log import merging, sealing  # noqa: PLC0415

        if not (self.folder / "seg").is_dir():
            return
        try:
            with sealing.database() as connection:
                sealing.adopt(self.folder / "seg", connection)
                merging.merge(self.folder, connection, force=force)
        except OSError as exc:
            raise files.write_error(exc, self.folder, "sealed segments") from exc
        except duckdb.Error as exc:
            raise LogWriteError(
                f"the log at {self.folder} could not be compacted: {exc}. Nothing is lost",
                folder=str(self.folder),
            ) from exc

    def verify(self) -> Verification:
        """Read every row and hash every picture, and say what is wrong; changes nothing.

        Takes as long as to read the whole folder.

        Raises:
            LogError: The log cannot be read at all.
        """
        from comfynb.log.verifying import verify  # noqa: PLC0415 - DuckDB takes 0.1 s

        return verify(self.folder)

    def gc(self, *, dry_run: bool = True, older_than: float = 86_400.0) -> Collected:
        """Remove the pictures that no row names any more, and what killed processes left behind.

        Args:
            dry_run: Only say what would go.
            older_than: Seconds; pictures that are younger stay, as one is kept before its row is.
                At least 3600. Of what killed processes left behind, all goes after an hour.

        Raises:
            ValueError: `older_than` is less than an hour.
            LogError: Not every row can be read; nothing is removed.
            LogWriteError: The log is not to be written, or something cannot be removed.
            ClosedError: The log was closed.
        """
        from comfynb.log.collecting import collect  # noqa: PLC0415 - DuckDB takes 0.1 s

        if not dry_run:
            self._check_writable()
        return collect(self.folder, dry_run=dry_run, older_than=older_than)

    def delete(
        self,
        *,
        run: str | None = None,
        scene: str | None = None,
        keyframes: Iterable[Keyframe | str] | None = None,
        dry_run: bool = True,
    ) -> list[Keyframe]:
        """Hide keyframes from every reader; `gc` removes their pictures later.

        Until it does, `restore` brings them back.

        Args:
            run: Id of a run, which goes with all that it made.
            scene: Id of a scene, of which every take goes.
            keyframes: Or these, or their ids.
            dry_run: Only return what would be deleted.

        Returns:
            What is deleted, or would be.

        Raises:
            ValueError: Not exactly one of the three is given.
            LogError: The log cannot be read.
            LogWriteError: The marks could not be made durable.
            ClosedError: The log was closed.

        Example:
            >>> Log("comfynb-log").delete(scene="the-fox")
            []
        """
        from comfynb.log.deleting import chosen  # noqa: PLC0415 - few need it

        found = self._keyframes(*chosen(run=run, scene=scene, keyframes=keyframes))
        if not dry_run:
            runs = self._reader.rows("SELECT id FROM runs WHERE id = $run", {"run": run})
            ids = [*(keyframe.id for keyframe in found), *(row["id"] for row in runs)]
            self._mark_deleted(ids, deleted=True)
        return found

    def restore(self, keyframes: Iterable[Keyframe | str]) -> None:
        """Take deletions back; pictures that `gc` has removed meanwhile stay away.

        Args:
            keyframes: What `delete` returned, or ids, also of a run.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The log was closed.
        """
        ids = [keyframe if isinstance(keyframe, str) else keyframe.id for keyframe in keyframes]
        self._mark_deleted(ids, deleted=False)

    def _mark_deleted(self, targets: Sequence[str], *, deleted: bool) -> None:
        from comfynb.log.deleting import rows  # noqa: PLC0415 - few need it

        self._check_writable()
        if not targets:
            return
        marks = list(rows(self._reader, targets, deleted=deleted, session=self._segment.session))
        for number, row in enumerate(marks, start=1):  # the last sync is that of all
            self._append(row, what="the deletion", sync=number == len(marks))

    def export(self, path: str | os.PathLike[str], *, strip_metadata: bool = False) -> Path:
        """Write the log, without what was deleted, to one file; an older one is replaced.

        Args:
            path: `x.parquet`: the keyframes; `x.duckdb`: tables of keyframes, runs and marks;
                `x.zip`: a whole log, to be unzipped and opened, or imported.
            strip_metadata: Of a zip: take out of PNG, WebP and JPEG what a server wrote into
                them (ComfyUI: prompt and workflow). The rows still tell of both.

        Returns:
            The path.

        Raises:
            ValueError: The name ends otherwise, or there are no pictures to strip.
            LogError: The log cannot be read, or the file cannot be written.
        """
        from comfynb.log.exporting import export  # noqa: PLC0415 - DuckDB takes 0.1 s

        return export(self.folder, Path(path).expanduser(), strip_metadata=strip_metadata)

    def import_(self, other: str | os.PathLike[str]) -> Imported:
        """Copy what another log has and this one has not; the other stays as it is.

        Every picture is hashed on its way. Once more brings what came since.

        Args:
            other: Its folder, or a zip of it, also one that a stranger made.

        Raises:
            LogError: It is no log, cannot be read, or has what this one leaves out.
            LogVersionError: A newer comfynb wrote it.
            LogWriteError: This one cannot be written; what was copied before is sound.
            ClosedError: This log was closed.
        """
        from comfynb.log.importing import bring_in  # noqa: PLC0415 - DuckDB takes 0.1 s

        found: list[Imported] = []
        theirs = Path(other).expanduser().absolute()
        self._write(
            lambda: found.append(bring_in(self.folder, theirs, self.leaves_out)),
            what=f"what {other} has",
        )
        return found[0]

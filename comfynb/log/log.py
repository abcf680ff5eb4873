"""The log folder as one object: append, find, ask.

How a picture gets in: its bytes become a file named by their sha256 (blobs.py; file and name are
durable), then one line with everything about it is appended to this process's own segment
and synced; only then `add_result` returns. So a crash at any moment loses at most what was never
acknowledged, and a row never names a picture that is not there.

How it gets out: the segments that count now are listed, and DuckDB asks them. Its database is kept
for as long as the listing stays the same (reader.py), and locks nothing: any number of processes
may append and ask at the same time.

What is said about keyframes later is in marks.py, what looks after a log in care.py, and what all
of it stands on in opened.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from comfynb import loop
from comfynb.errors import LogError, SceneError
from comfynb.inputs import InputFile
from comfynb.keyframes import EMPTY, Keyframe, Output, Status
from comfynb.log import leaving, records, servers
from comfynb.log.ahead import Ahead
from comfynb.log.base import Store
from comfynb.log.blobs import is_sha256
from comfynb.log.care import Care
from comfynb.log.following import Follower
from comfynb.log.lookout import LOOK_SECONDS, Lookout
from comfynb.log.marks import Mark, Marking, id_of, mark_of
from comfynb.log.news import Cursor, News
from comfynb.log.peek import may_have
from comfynb.log.records import RunRecord, SubmittedRecord
from comfynb.scenes import LEFT_OUT, Storyboard

if TYPE_CHECKING:
    from pandas import DataFrame

    from comfynb.log.thumbnails import Thumbnails


class Log(Marking, Care, Store):
    """A folder that keeps every keyframe and its pictures.

    It is made at the first append; one that does not exist is an empty log. Every call but
    `follow` blocks, and may be made from any thread.

    Args:
        folder: Where it is, or shall be.
        read_only: Refuse to append. A folder that cannot be written is readable without it too.
        leave_out: What is never written into it: "workflows", or "prompts", which hold those too;
            leaving.py says what exactly. A folder that is made with it says so itself, and every
            process leaves that out, whatever it was told. Such a log finds what was made, but
            `resume` needs what it does not have, and files that are no PNG, WebP or JPEG are kept
            with what the server wrote into them.

    Raises:
        ValueError: `leave_out` has another word.
        LogVersionError: A newer comfynb wrote it.
        LogError: The folder is something else, or cannot be read.

    Example:
        >>> log = Log("comfynb-log")
        >>> log.sql("select scene, count(*) as takes from keyframes group by scene")
        Empty DataFrame
        Columns: [scene, takes]
        Index: []
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        read_only: bool = False,
        leave_out: str | Iterable[str] = (),
    ) -> None:
        self._open(folder, read_only=read_only, leave_out=leave_out)
        self._thumbnails: Thumbnails | None = None

    def __repr__(self) -> str:
        return f"Log({self.shown!r})"

    def _repr_html_(self) -> str:
        from comfynb.log import card  # noqa: PLC0415 - only notebooks show it

        return card.html(self, self._reader)

    # Append

    def add_run(self, run: RunRecord) -> None:
        """Keep what a run is about to make; durable on return.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The log was closed.
        """
        kept = leaving.run_without(run, self._begin("the run"))
        self._append(records.run_row(kept, session=self._segment.session), what="the run")

    def add_input(self, file: InputFile) -> None:
        """Keep the bytes of a file that a prompt starts from; durable on return.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The log was closed.
        """
        assert file.data is not None
        described = Output("", 0, file.sha256, file.mime, len(file.data))
        put = functools.partial(self._blobs.put, file.data, described)
        self._write(put, what=f"the input {file.name}")

    def add_submitted(self, *, prompt_id: str, run: str, key: str, scene: str, server: str) -> None:
        """Note that a prompt is about to be sent; survives this process, not a power cut.

        Raises:
            LogWriteError: It could not be written.
            ClosedError: The log was closed.
        """
        row = records.submitted_row(
            prompt_id=prompt_id,
            run=run,
            key=key,
            scene=scene,
            server=server,
            session=self._segment.session,
        )
        self._append(row, what=f"the submission of {scene}", sync=False)

    def add_result(self, keyframe: Keyframe, images: Sequence[bytes] = ()) -> Keyframe:
        """Keep a keyframe and its pictures; durable on return, pictures first.

        Raises:
            LogWriteError: It could not be made durable.
            ClosedError: The log was closed.
            ValueError: `images` are not those that `keyframe.outputs` describes.
        """
        check_images(keyframe, images)
        name = f"the picture of {keyframe.scene.id}"
        left_out = self._begin(f"the row of {keyframe.scene.id}")
        keyframe, images = leaving.outputs_without(keyframe, images, left_out)
        kept = leaving.keyframe_without(keyframe, left_out)
        session = self._segment.session
        line = Ahead(lambda: records.line(records.keyframe_row(kept, session=session)))
        put = functools.partial(self._blobs.put, meanwhile=line.prepare)
        for output, data in zip(keyframe.outputs, images, strict=True):
            self._write(functools.partial(put, data, output), what=name)
        self._append_line(line.get(), what=f"the row of {keyframe.scene.id}")
        return dataclasses.replace(keyframe, pictures=self)

    def _keep(self, mark: Mark) -> None:
        row = records.mark_row(mark, session=self._segment.session)
        self._append(row, what=f"the {mark.field.partition(':')[0]} of keyframe {mark.keyframe}")

    def keep_object_info(self, server: str, object_info: Mapping[str, Any]) -> None:
        """Keep what a server said of its node types, in place of what it said before.

        Raises:
            LogWriteError: It could not be written.
            ClosedError: The log was closed.
        """
        self._write(
            lambda: servers.keep(self.folder, server, object_info),
            what=f"the node types of {server}",
        )

    def object_info(self, server: str) -> Mapping[str, Any] | None:
        """Return what a server last said of its node types, or None."""
        return servers.find(self.folder, server)

    def close(self) -> None:
        """Refuse further appending; what was written stays readable. Safe to call twice.

        A segment of many rows is sealed first, which may take a second.
        """
        self._closed = True
        self._upkeep.close()
        with self._lock:
            if self._thumbnails is not None:
                self._thumbnails.close()
            if self._opened_reader is not None:
                self._opened_reader.close()

    # Keyframes and runs

    def find(self, keys: Iterable[str]) -> dict[str, Keyframe]:
        """Return what is already made: the latest `done` keyframe of each key, as `cached`.

        Keys without a keyframe, or with one whose pictures are gone, are left out. The keyframes
        have no `workflow` and no `take`.

        Raises:
            LogError: The log cannot be read.
        """
        found: dict[str, Keyframe] = {}
        for keyframe in self.current("key", list(keys)):  # the latest comes last
            if keyframe.status == "done" and self._has_pictures(keyframe):
                found[keyframe.key] = dataclasses.replace(keyframe, status="cached")
        return found

    def keyframes(
        self,
        *,
        run: str | None = None,
        scene: str | None = None,
        status: Status | None = None,
        where: str = "true",
        params: Mapping[str, Any] = EMPTY,
    ) -> list[Keyframe]:
        """Return keyframes in the order in which they were made, without their workflows.

        Args:
            run: Id of a run; None: of all.
            scene: Id of a scene; None: of all.
            status: One status; None: any.
            where: A condition in SQL on the columns of the view `keyframes`, as "rating >= 4".
            params: Values for `$name` in it.

        Raises:
            QueryError: `where` is no such condition.
            LogError: The log cannot be read.

        Example:
            >>> Log("comfynb-log").keyframes(where="cfg > $cfg and list_contains(warnings, 'x')",
            ...     params={"cfg": 5})
            []
        """
        given = {"run": run, "scene": scene, "status": status}
        wanted = {f"_{name}": value for name, value in given.items() if value is not None}
        narrowed = [f"{name[1:]} = ${name}" for name in wanted]
        condition = " AND ".join([*narrowed, f"({where}\n)"])
        return self._keyframes(condition, {**wanted, **params})

    def takes(self, scene: str) -> list[Keyframe]:
        """Return every keyframe of a scene, in the order in which they were made.

        `keyframe.take` counts those of one place: the same scene, axes and seed.

        Raises:
            LogError: The log cannot be read.
        """
        return self.keyframes(scene=scene)

    def latest(self) -> list[Keyframe]:
        """Return of each place (scene, axes, seed) the keyframe made last, in order of making.

        Raises:
            LogError: The log cannot be read.
        """
        return self._keyframes("newest")

    def workflow(self, keyframe: str) -> Mapping[str, Any] | None:
        """Return the graph of the keyframe with that id, or None where there is none.

        Raises:
            LogError: The log cannot be read.
        """
        query = "SELECT workflow FROM results WHERE id = $id"
        for row in self._reader.rows(query, {"id": keyframe}):
            return records.workflow_of(row)
        return None

    def runs(self) -> list[RunRecord]:
        """Return the runs in the order in which they began.

        Raises:
            LogError: The log cannot be read.
        """
        rows = self._reader.rows("SELECT * FROM runs ORDER BY created_at, id")
        runs = []
        for row in rows:
            with contextlib.suppress(TypeError):  # not a row of ours
                runs.append(records.run_of(row))
        return runs

    def storyboard(self, run: str) -> Storyboard:
        """Return what a run was to draw.

        Args:
            run: Its id.

        Raises:
            LogError: There is no such run, its prompts were left out, or the log cannot be read.
        """
        for record in self.runs():
            if record.id == run:
                storyboard = Storyboard.from_dict(record.storyboard)
                if any(scene.prompt == LEFT_OUT for scene in storyboard):
                    raise LogError(
                        f"the log at {self.folder} leaves out prompts, so it has no storyboard of "
                        f"the run {run}; log.keyframes(run=...) has what was made",
                        folder=str(self.folder),
                    )
                return storyboard
        raise LogError(
            f"the log at {self.folder} has no run {run!r}; log.runs() lists those it has",
            folder=str(self.folder),
        )

    def orphans(
        self, run: str | None = None, *, keys: Collection[str] | None = None
    ) -> list[SubmittedRecord]:
        """Return the prompts of sessions that have died, of which no keyframe is here.

        A session lives as long as its log is open, in this process or another of this machine.
        Where the file system has no locks nobody can be told dead: there it is none.

        Args:
            run: Id of a run; None: of all.
            keys: Content keys of the cells they were sent for; None: all.

        Returns:
            In the order in which they were sent.

        Raises:
            LogError: The log cannot be read.
        """
        if keys is not None and not may_have(self.folder, keys):
            return []
        from comfynb.log.orphans import find  # noqa: PLC0415 - DuckDB takes 0.1 s

        return find(self._reader, run, keys)

    def under_way(self, keys: Collection[str]) -> frozenset[str]:
        """Return those of some content keys that living sessions have sent, and nothing came since.

        Where nobody can be told dead, every session counts as living.

        Raises:
            LogError: The log cannot be read.
        """
        if not may_have(self.folder, keys):
            return frozenset()
        from comfynb.log.orphans import under_way  # noqa: PLC0415 - DuckDB takes 0.1 s

        return under_way(self._reader, keys)

    def marks(self, keyframe: Keyframe | str | None = None) -> list[Mark]:
        """Return all that was said, what does not count any more too, in the order of saying.

        Args:
            keyframe: What was said about this one, its comparisons included; None: about all.

        Raises:
            MarkError: `keyframe` is no keyframe, and no id of one.
            LogError: The log cannot be read.
        """
        query = (
            "SELECT * FROM marks WHERE $id IS NULL OR target = $id OR field = 'versus:' || $id "
            "ORDER BY created_at, id"
        )
        return [mark_of(row) for row in self._reader.rows(query, {"id": id_of(keyframe)})]

    def current(self, column: Literal["id", "key"], values: Collection[str]) -> list[Keyframe]:
        """Return the keyframes with these ids or content keys, in order of making.

        With their marks, without workflows and takes: so it looks at no others.

        Raises:
            LogError: The log cannot be read.
        """
        if not values or (column == "key" and not may_have(self.folder, values)):
            return []
        from comfynb.log import views  # noqa: PLC0415 - DuckDB takes 0.1 s

        return self._read(views.with_marks(column), {"values": list(values)})

    # Following

    async def follow(self, cursor: Cursor | None = None) -> AsyncGenerator[News, None]:
        """Yield what any process appends, this one too, about a second after it did; for ever.

        Nothing is looked at while nobody asks for the next one.

        Args:
            cursor: The `News.cursor` to go on from, of this or an earlier process; {}: from the
                very beginning; None: from when the first one is asked for.

        Raises:
            LogError: The log cannot be read.

        Example:
            async with contextlib.aclosing(log.follow()) as follow:
                async for news in follow:
                    for keyframe in news.keyframes:
                        display(keyframe.image)
        """
        follower = Follower(self.folder, self, cursor)
        while True:
            news = await loop.across(loop.in_worker(follower.look))
            if news is not None:
                yield news
            else:
                await loop.pause(LOOK_SECONDS)

    @functools.cached_property
    def lookout(self) -> Lookout:
        """Tells the boards of this process what others append, and what anybody says."""
        return Lookout(lambda: Follower(self.folder, self, ours=self._segment.session))

    # Frames

    def df(self) -> DataFrame:
        """Return all keyframes as a frame, in order of making, without their workflows.

        Common knobs are columns of their own (`steps`, `cfg`, ...), times are UTC without a zone.

        Raises:
            LogError: The log cannot be read.
        """
        from comfynb.log.frames import keyframes  # noqa: PLC0415 - pandas takes 0.3 s

        return keyframes(self._reader)

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> DataFrame:
        """Ask the log a question in DuckDB's SQL.

        Args:
            query: One SELECT over the views `keyframes`, `latest`, `runs`, `submitted` and
                `marks`. It can read nothing else and write nothing.
            params: Values for `?` (a sequence) or `$name` (a mapping).

        Raises:
            QueryError: It is something else, or cannot be answered.

        Example:
            >>> log = Log("comfynb-log")
            >>> log.sql("select scene from keyframes where cfg > ?", [5])
            Empty DataFrame
            Columns: [scene]
            Index: []
        """
        return self._reader.frame(query, params)

    @property
    def skipped_lines(self) -> dict[str, int]:
        """Damaged lines that the last reading passed over, by name of the segment."""
        return self._reader.skipped_lines

    # Pictures

    def read(self, sha256: str) -> bytes:
        """Return the bytes of a picture, as the server sent them but for what is left out.

        Raises:
            LogError: It is not in the log, or its file cannot be read.
        """
        path = self._blobs.find(sha256)
        try:
            if path is not None:
                return path.read_bytes()
        except OSError as exc:
            raise LogError(f"cannot read {path}: {exc.strerror}", folder=str(self.folder)) from exc
        raise self._no_picture(sha256)

    def path(self, sha256: str, mime: str = "") -> Path | None:
        """Return the file of a picture, or None where it is not there."""
        return self._blobs.find(sha256, mime)

    def thumbnail(self, sha256: str) -> Path:
        """Return a WebP file of a picture, at most 384 px on its longer side; made when missing.

        In a folder that cannot be written the file is a temporary one, gone with `close`.

        Raises:
            LogError: The picture is not there, cannot be decoded, or is too large to decode.
        """
        if not is_sha256(sha256):
            raise self._no_picture(sha256)
        with self._lock:
            if self._thumbnails is None:
                from comfynb.log.thumbnails import Thumbnails  # noqa: PLC0415 - few need it

                self._thumbnails = Thumbnails(self.folder, read_only=self.read_only)
        return self._thumbnails.get(sha256, self.read)

    # Behind the scenes

    def _no_picture(self, sha256: str) -> LogError:
        return LogError(
            f"the log at {self.folder} has no picture {sha256!r}: its file was deleted or never "
            "copied along. Render the scene again to make it anew",
            folder=str(self.folder),
        )

    def _keyframes(self, condition: str, params: Mapping[str, Any] = EMPTY) -> list[Keyframe]:
        from comfynb.log import views  # noqa: PLC0415 - DuckDB takes 0.1 s

        return self._read(views.keyframes(condition), params)

    def _read(self, query: str, params: Mapping[str, Any]) -> list[Keyframe]:
        keyframes = []
        for row in self._reader.rows(query, params or None):
            with contextlib.suppress(SceneError):  # not a row of ours
                keyframes.append(records.keyframe_of(row, self))
        return keyframes

    def _has_pictures(self, keyframe: Keyframe) -> bool:
        return bool(keyframe.outputs) and all(map(self._blobs.has, keyframe.outputs))


def check_images(keyframe: Keyframe, images: Sequence[bytes]) -> None:
    """Refuse pictures that are not those that the keyframe's outputs describe.

    By number and size: whoever looked at them has just hashed them, and to do so again takes as
    long as to make them durable. `verify` hashes what is in the log.

    Raises:
        ValueError: Their number, or the size of one, is another.
    """
    if [output.bytes for output in keyframe.outputs] != list(map(len, images)):
        raise ValueError(
            f"the outputs of keyframe {keyframe.id} do not describe its {len(images)} images"
        )

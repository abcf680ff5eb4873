"""What a cell came to: a cell and what its server gave become a keyframe, checked and kept."""

from __future__ import annotations

import logging
import platform
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from comfynb._version import __version__
from comfynb.backends.base import Outcome
from comfynb.cells import Cell
from comfynb.errors import LogWriteError
from comfynb.keyframes import Failure, Keyframe, Output, Status, Timings
from comfynb.log import CellRecord, RunRecord, Store
from comfynb.log.records import result_id
from comfynb.media import look_at
from comfynb.pictures import BadPictureError
from comfynb.plan import Plan
from comfynb.runs import failures

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Results:
    """Makes the keyframes of one run.

    Attributes:
        run: Its id.
        store: Where they are kept.
        server: Label of the server.
        server_version: What it calls its version; "" before it was reached.
    """

    run: str
    store: Store
    server: str
    server_version: str = ""

    def record(self, plan: Plan) -> RunRecord:
        """Return the row that says what the run is about to make."""
        return RunRecord(
            id=self.run,
            storyboard=plan.storyboard.to_dict(),
            axes=dict(plan.axes),
            cells=tuple(
                CellRecord(
                    index=cell.index,
                    scene=cell.scene.id,
                    key=cell.key,
                    prompt=cell.prompt,
                    negative=cell.negative,
                    seed=cell.seed,
                    knobs=cell.knobs,
                    axes=cell.axes,
                )
                for cell in plan.cells
            ),
            workflow=plan.workflow.graph,
            checkpoint=plan.checkpoint,
            server=self.server,
            versions={
                "comfynb": __version__,
                "server": self.server_version,
                "python": platform.python_version(),
            },
        )

    def keep_inputs(self, plan: Plan) -> None:
        """Make the files that the cells start from durable; blocks, in a worker.

        Raises:
            LogWriteError: One could not be made durable.
        """
        for file in dict.fromkeys(file for cell in plan.cells for file in cell.inputs):
            if file.data is not None:
                self.store.add_input(file)

    def keep(
        self,
        cell: Cell,
        prompt_id: str,
        outcome: Outcome,
        warned: Sequence[str],
        begun: float | None = None,
    ) -> Keyframe:
        """Check what came and make the keyframe durable; blocks, in a worker.

        Args:
            cell: What was asked.
            prompt_id: Under which it was sent.
            outcome: What came.
            warned: What the server said meanwhile.
            begun: When it was begun; seconds, monotonic. None: by a session that died.

        Raises:
            LogWriteError: It could not be made durable.
        """
        outputs, files, failure = [], [], outcome.failure
        status: Status = outcome.status
        warnings = list(warned)
        for given in outcome.given:
            which = f"output {given.index} of node {given.node}"
            try:
                seen = look_at(given.data, given.name, is_text=given.is_text)
            except BadPictureError as exc:
                warnings.append(f"{which}: {exc}")
                continue
            if seen.warning:
                warnings.append(f"{which}: {seen.warning}")
            looked = seen.looked
            outputs.append(
                Output(
                    given.node,
                    given.index,
                    looked.sha256,
                    looked.mime,
                    len(given.data),
                    looked.width_px,
                    looked.height_px,
                    looked.frames,
                )
            )
            files.append(given.data)
        if status == "done" and not outputs:
            hint = "retry asks the server again; if it repeats, look at the file it wrote"
            status, failure = "failed", Failure("bad_picture", "; ".join(warnings), hint=hint)
        total_ms = None if begun is None else (time.monotonic() - begun) * 1000
        keyframe = replace(
            self.unmade(cell, status, failure),
            id=result_id(prompt_id),
            outputs=tuple(outputs),
            warnings=tuple(warnings),
            unknown_words=outcome.unknown_words,
            server_cached=outcome.server_cached,
            timings=Timings(
                outcome.queued_ms,
                outcome.executing_ms,
                outcome.fetch_ms,
                total_ms if outputs else None,
            ),
        )
        return self.store.add_result(keyframe, files)

    def unmade(self, cell: Cell, status: Status, failure: Failure | None) -> Keyframe:
        """Return the keyframe of a cell without what a server would add."""
        return Keyframe(
            id=str(uuid.uuid4()),
            run=self.run,
            key=cell.key,
            scene=cell.scene,
            status=status,
            prompt=cell.prompt,
            negative=cell.negative,
            seed=cell.seed,
            knobs=cell.knobs,
            workflow=cell.graph,
            axes=cell.axes,
            error=failure,
            server=self.server,
            server_version=self.server_version,
        )

    def keep_failures(self, keyframes: list[Keyframe]) -> list[Keyframe]:
        """Keep keyframes without outputs as well as the log lets us; blocks, in a worker."""
        try:
            return [self.store.add_result(keyframe) for keyframe in keyframes]
        except LogWriteError:
            logger.exception("the failures could not be written to the log")
            return keyframes


def shared(cell: Cell, keyframe: Keyframe) -> Keyframe:
    """Return somebody else's keyframe as this cell's: the scene is not part of a key."""
    status: Status = "cached" if keyframe.ok else keyframe.status
    return replace(
        keyframe,
        scene=cell.scene,
        prompt=cell.prompt,  # the log may have left it out
        negative=cell.negative,
        knobs=cell.knobs,
        axes=cell.axes,
        status=status,
    )


def deleted(keyframe: Keyframe) -> Keyframe:
    """Return what stands for a keyframe that somebody deleted; by its id it can be restored."""
    return replace(
        keyframe,
        status="cancelled",
        outputs=(),
        error=failures.DELETED,
        rating=None,
        tags=(),
        picked=False,
        note="",
    )

"""The facade on top: a server, a workflow and a log, ready to draw.

Nothing is sent before there is something to make. So a studio costs nothing to have, shows its
log while its server is away, and an embedded engine that is not needed is never started.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from comfynb import loop, stores
from comfynb.boards.board import Board
from comfynb.boards.laying_out import run_record
from comfynb.errors import (
    CheckpointError,
    ClosedError,
    LogError,
    ServerGoneError,
    ServerUnreachableError,
    WorkflowError,
)
from comfynb.keyframes import Keyframe
from comfynb.log import Log, Store
from comfynb.plan import Plan
from comfynb.runs.run import Run
from comfynb.scenes import Storyboard
from comfynb.servers import lanes
from comfynb.servers.lanes import Lane
from comfynb.servers.server_types import FleetTypes
from comfynb.workflows import Report, WaitingWorkflow, Workflow

if TYPE_CHECKING:
    from comfynb.widgets import SceneGrid

SHARED = ("style", "negative", "seed", "knobs")
"""What `run`, `grid` and the others take for all scenes; see `Studio.plan`."""


class Studio:
    """A server, a workflow and a log. Made by `connect`.

    Attributes:
        checkpoint: The checkpoint for a workflow that leaves it open, or None.
    """

    def __init__(
        self,
        servers: Sequence[Lane],
        store: Store,
        *,
        kind: str,
        workflow: Workflow | WaitingWorkflow,
        checkpoint: str | None = None,
    ) -> None:
        """Put one together; `connect` is the usual way.

        Args:
            servers: The servers, held for this studio already; at least one.
            store: Where results are kept, held for it likewise.
            kind: Of the backend, as it stands in content keys.
            workflow: What renders the scenes.
            checkpoint: For a workflow that leaves it open; None: the server's only one.
        """
        self._workflow: Workflow | WaitingWorkflow = workflow
        self.checkpoint = checkpoint
        self._lanes, self._store, self._kind = tuple(servers), store, kind
        self._types = FleetTypes(self._lanes, store)
        # Runs when the studio is closed, forgotten, or the interpreter ends.
        self._release = weakref.finalize(self, _let_go, self._lanes, store)

    # -- drawing

    @property
    def workflow(self) -> Workflow:
        """What renders the scenes; `workflow.knobs` is a table of what can be turned.

        Types, ranges and choices are what the server said last. A table asks it for them where
        it never did.

        What ComfyUI's editor saved is converted when this is first read, with the node classes
        that the server has; where it does not answer, with those that the log kept.

        Raises:
            WorkflowError: The server lacks one of the workflow's classes.
            ServerUnreachableError: Nobody answers, and the log knows no classes (retryable).
        """
        if isinstance(self._workflow, WaitingWorkflow):
            self._workflow = self._convert(self._workflow)
        return self._workflow.with_types(self._types.known, ask=self._types.ask)

    @workflow.setter
    def workflow(self, workflow: Workflow) -> None:
        """Take another workflow from now on."""
        self._workflow = workflow

    def _convert(self, waiting: WaitingWorkflow) -> Workflow:
        # Asked anew where it answers: by an old list, values could go to the wrong inputs.
        node_types = self._types.ask() or self._types.known
        if node_types is None:
            node_types = loop.wait(self._types.need())
        return waiting.convert(node_types)

    def check(self, scenes: Any, **shared: Any) -> Report:
        """Say what is in the way of drawing scenes, without drawing any; blocks for a moment.

        A run does this by itself before it sends anything.

        Args:
            scenes: As for `plan`.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`.

        Returns:
            What the server lacks or would refuse: a table in a notebook, `ok` in a script. Of
            several servers, those that lack more than others are left out: what they lack is a
            warning that names them.

        Raises:
            ServerUnreachableError: Nobody answers, and nothing is known of the server (retryable).
            ComfynbError: As for `run`.

        Example:
            studio.check(["a fox"], knobs={"steps": 30}).raise_for_errors()
        """
        plan = self.plan(scenes, **shared)
        self._check_open()
        return loop.wait(self._checked(plan))

    async def _checked(self, plan: Plan) -> Report:
        if not plan.settled:
            plan = await self._choose(self._lanes, plan)
        return await self._types.check(plan.cells, of=len(plan.cells))

    def plan(
        self,
        scenes: Any,
        *,
        style: str | None = None,
        negative: str | None = None,
        seed: int | Literal["random"] | None = None,
        knobs: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Resolve scenes to cells without making anything.

        Args:
            scenes: A storyboard, or anything that `Storyboard.of` takes: prompts, dicts, a
                DataFrame, a file.
            style: Joined to every prompt; None: the storyboard's.
            negative: Joined to every negative; None: the storyboard's.
            seed: For scenes without their own; None: the storyboard's.
            knobs: Values for every scene that does not say otherwise; they win over the
                storyboard's.

        Raises:
            SceneError: A scene cannot be understood.
            WorkflowError: The workflow cannot take what a scene gives.
        """
        storyboard = Storyboard.of(scenes)
        given = {"style": style, "negative": negative, "seed": seed}
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if knobs:
            changes["knobs"] = {**storyboard.knobs, **knobs}
        if changes:
            storyboard = replace(storyboard, **changes)
        return Plan.make(storyboard, self.workflow, kind=self._kind, checkpoint=self.checkpoint)

    def run(
        self, scenes: Any, *, force: bool = False, resubmit_lost: bool = True, **shared: Any
    ) -> Run:
        """Start a run and return its handle at once.

        What the log has is not made again; nor is what a session that died had sent, where its
        server still has it.

        Args:
            scenes: As for `plan`.
            force: Make cells although the log, or a server, has them.
            resubmit_lost: Send anew what a session that died had sent and its server forgot;
                False leaves those cells `lost`.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`.

        Raises:
            SceneError: A scene cannot be understood.
            WorkflowError: The workflow cannot take what a scene gives.
            ClosedError: The studio was closed.
        """
        plan = self.plan(scenes, **shared)
        return self._start(plan, force=force, resubmit_lost=resubmit_lost)

    def resume(self, run: str | None = None, *, resubmit_lost: bool = True) -> Run:
        """Go on with a run that the log has, and that was broken off; `grid(resume=...)` shows it.

        What it had sent is fetched from its server, and every cell without a picture is made,
        failed ones too. Once all have one, another call makes nothing.

        Args:
            run: Its id, as `log.runs()` lists it; None: the latest.
            resubmit_lost: As for `run`.

        Raises:
            LogError: There is no such run, this studio keeps no log, or the log leaves out what
                a run is made of again.
            WorkflowError: It was made by another kind of server, which draws other pictures.
            ClosedError: The studio was closed.
        """
        return self._start(self._recall(run), resubmit_lost=resubmit_lost)

    def _recall(self, run: str | None) -> Plan:
        """Return the plan of a run out of the log."""
        record = run_record(self.log, run)
        if not record.workflow:
            left_out = " and ".join(self.log.leaves_out) or "workflows"
            raise LogError(
                f"the run {record.id} cannot be resumed: the log at {self.log.folder} leaves out "
                f"{left_out}. Call grid(scenes) with the same scenes: what is made is found, what "
                "was sent is fetched, and only the rest is made",
                folder=str(self.log.folder),
            )
        storyboard = Storyboard.from_dict(record.storyboard)
        flow = Workflow.load(record.workflow)
        plan = Plan.make(storyboard, flow, kind=self._kind, checkpoint=record.checkpoint)
        plan = plan.only({cell.index for cell in record.cells})
        if not {cell.key for cell in plan.cells} & {cell.key for cell in record.cells}:
            raise WorkflowError(
                f"the run {record.id} was made on {record.server}, and {self.server} would draw "
                "other pictures: connect to a server of the same kind, or give the scenes to grid()"
            )
        return plan

    def board(
        self, scenes: Any, *, force: bool = False, resubmit_lost: bool = True, **shared: Any
    ) -> Board:
        """Start a run on a board of its own, which outlives it; arguments as for `run`."""
        board = self._lay_out(self.plan(scenes, **shared))
        board.begin(force=force, resubmit_lost=resubmit_lost)
        return board

    def _lay_out(self, plan: Plan) -> Board:
        def start(
            indices: Collection[int], *, force: bool, next_seed: bool, resubmit_lost: bool
        ) -> Run:
            nonlocal plan
            if next_seed:
                plan = plan.with_next_seeds(indices)
            return self._start(plan.only(indices), force=force, resubmit_lost=resubmit_lost)

        return Board(plan.cells, start=start, title=plan.storyboard.title, store=self._store)

    def grid(
        self,
        scenes: Any = None,
        *,
        resume: str | bool = False,
        force: bool = False,
        resubmit_lost: bool = True,
        title: str | None = None,
        static_twin: bool | Literal["auto"] = "auto",
        **shared: Any,
    ) -> SceneGrid:
        """Start a run, show it as a grid of tiles that fill in, and return at once.

        Running the same cell again replaces its grid, and joins what is being made.

        Args:
            scenes: As for `plan`; None where a run is resumed.
            resume: Id of a run to go on with, or True for the latest; see `resume`.
            force: As for `run`.
            resubmit_lost: As for `run`.
            title: Stands above the tiles; None: the storyboard's.
            static_twin: Whether a contact sheet is saved beside the live grid, for when there is
                no kernel; "auto": where the live grid can hide it.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`.

        Returns:
            A handle: `await grid` for the keyframes, `async for keyframe in grid` to observe.

        Raises:
            TypeError: A keyword that is not known, or both scenes and a run, or neither.
            ComfynbError: As for `run`.

        Example:
            grid = studio.grid(["a lighthouse at dawn", "a fox in a snowy forest"])
            keyframes = await grid
        """
        from comfynb.widgets import SceneGrid  # noqa: PLC0415 - ipywidgets takes 0.2 s

        for name in shared.keys() - SHARED:
            turn = f"knobs={{{name!r}: ...}}" if name in self.workflow.knobs else ", ".join(SHARED)
            raise TypeError(f"grid() has no keyword {name!r}; did you mean {turn}?")
        if (scenes is None) is (resume is False):
            raise TypeError("grid() takes scenes, or resume=True or a run's id to go on with")
        if resume is False:
            plan = self.plan(scenes, **shared)
        else:
            plan = self._recall(None if resume is True else resume)
        board = self._lay_out(plan)
        grid = SceneGrid(board, title=title, static_twin=static_twin)
        try:
            board.begin(force=force, resubmit_lost=resubmit_lost)
        except ClosedError:
            grid.close()
            raise
        grid.show()
        return grid

    async def keyframes(
        self, scenes: Any, *, force: bool = False, **shared: Any
    ) -> AsyncGenerator[Keyframe, None]:
        """Yield each keyframe as soon as it is safe on disk, in order of completion.

        The run belongs to the generator: leaving it, by `aclose`, cancellation or an interrupt,
        takes our prompts off the server. A `break` closes a generator only when it is
        garbage-collected, so wrap it in `contextlib.aclosing`.

        Args:
            scenes: As for `plan`.
            force: Make cells although the log has them.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`; `resubmit_lost`: as
                for `run`.

        Yields:
            Keyframes; a cell that failed is one with `status` "failed" and an `error`.

        Raises:
            ServerUnreachableError: There is something to make and nobody answers (retryable).
            ComfynbError: As for `run`.

        Example:
            async with contextlib.aclosing(studio.keyframes(["a fox", "a whale"])) as keyframes:
                async for keyframe in keyframes:
                    print(keyframe.scene.label, keyframe.status)
        """
        run = self.run(scenes, force=force, **shared)
        try:
            async for keyframe in run.keyframes():
                yield keyframe
        finally:
            await run.cancel()

    def render(self, scenes: Any, *, force: bool = False, **shared: Any) -> list[Keyframe]:
        """Block until all is made; for scripts, and for those who want it in a notebook.

        Args:
            scenes: As for `plan`.
            force: Make cells although the log has them.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`; `resubmit_lost`: as
                for `run`.

        Returns:
            The keyframes in the order of the storyboard; failed ones among them.

        Raises:
            ServerUnreachableError: There is something to make and nobody answers (retryable).
            ComfynbError: As for `run`.
        """
        run = self.run(scenes, force=force, **shared)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        try:
            if running is None:
                return run.wait()
            # Blocking a running loop (a notebook cell) would stop the caller's other tasks.
            import nest_asyncio2  # noqa: PLC0415 - it patches asyncio: only here, and only now

            nest_asyncio2.apply(running)
            return running.run_until_complete(_result(run, asyncio.current_task()))
        except BaseException:
            if not run.ended:
                loop.wait(run.cancel())
            raise

    def _check_open(self) -> None:
        if not self._release.alive:
            raise ClosedError("this studio was closed; connect again")

    def _start(self, plan: Plan, *, force: bool = False, resubmit_lost: bool = True) -> Run:
        self._check_open()
        return Run(
            plan, self._lanes, self._store, self._choose, force=force, resubmit_lost=resubmit_lost
        )

    async def _choose(self, lanes: Sequence[Lane], plan: Plan) -> Plan:
        """Settle the checkpoint: the only one that all servers have which answer."""
        asked = await asyncio.gather(
            *(lane.backend.checkpoints() for lane in lanes), return_exceptions=True
        )
        errors = [answer for answer in asked if isinstance(answer, BaseException)]
        answers = [answer for answer in asked if not isinstance(answer, BaseException)]
        if not answers:
            if not isinstance(errors[0], ServerUnreachableError | ServerGoneError):
                raise errors[0]
            remembered = await loop.in_worker(self._remembered)
            if remembered is None:
                raise errors[0]
            return plan.settle(remembered)  # enough to show what the log has
        names = sorted(set(answers[0]).intersection(*answers[1:]))
        if len(names) != 1:
            raise CheckpointError(self.server, names)
        return plan.settle(names[0])

    def _remembered(self) -> str | None:
        """The checkpoint that the log's last run on this server took."""
        runs = self._store.runs() if isinstance(self._store, Log) else []
        taken = [run.checkpoint for run in runs if run.server == self.server]
        return taken[-1] if taken else None

    # -- what was made

    @property
    def log(self) -> Log:
        """The log.

        Raises:
            LogError: The studio was connected with `log=False`.
        """
        if not isinstance(self._store, Log):
            raise LogError("this studio keeps no log: it was connected with log=False")
        return self._store

    @property
    def server(self) -> str:
        """Name of the server: host and port, or "embedded engine"; of several, all of them."""
        return ", ".join(lane.label for lane in self._lanes)

    def __repr__(self) -> str:
        kept = f"log {self._store.shown}" if isinstance(self._store, Log) else "no log"
        closed = "" if self._release.alive else ", closed"
        return f"<comfynb.Studio on {self.server}, workflow {self._workflow.name}, {kept}{closed}>"

    # -- closing

    def close(self) -> None:
        """Let go of the server and the log, and wait until what is unused is closed.

        A run that is still active keeps its server until it ends. Safe to call twice.
        """
        self._release()
        if not loop.inside():
            lanes.wait_closed()

    async def aclose(self) -> None:
        """Do as `close` without blocking the caller's loop."""
        self._release()
        await asyncio.get_running_loop().run_in_executor(None, lanes.wait_closed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _result(run: Run, caller: asyncio.Task[Any] | None) -> list[Keyframe]:
    """Wait in a nested run of the caller's loop.

    The caller's own task blocks meanwhile: its cancellation (a timeout, the first Ctrl-C in
    `asyncio.run`) would reach it only afterwards. So it is looked for.
    """
    waiting = asyncio.ensure_future(_awaited(run))
    while not waiting.done():
        await asyncio.wait({waiting}, timeout=loop.WAKE_SECONDS)
        if caller is not None and caller.cancelling() and waiting.cancel():
            await asyncio.wait({waiting})
            return run.result()  # the caller's next await raises
    return waiting.result()


async def _awaited(run: Run) -> list[Keyframe]:
    return await run


def _let_go(servers: Sequence[Lane], store: Store) -> None:
    for lane in servers:
        lane.let_go()
    stores.let_go(store)

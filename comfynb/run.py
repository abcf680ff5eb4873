"""One pass over cells: a handle to observe, pause, cancel and await. It starts, ends, stays ended.

What is in the log already comes at once (`cached`). The rest stands in a queue of the run's own,
from which its lane takes a cell whenever a slot is free. Each is made, checked, made durable,
and only then given to whoever watches; a cell that fails is a value like any other.

Everything below the public part happens on comfynb's own loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
)
from dataclasses import replace
from typing import Any

from comfynb import loop, stores
from comfynb.backends.base import Event, Line, Preview, Progress, Released, Started, Warned
from comfynb.cells import Cell
from comfynb.errors import (
    AccessDeniedError,
    ComfynbError,
    LogWriteError,
    NotComfyUIError,
    ServerGoneError,
    WorkerDeadError,
    WorkflowCheckError,
)
from comfynb.keyframes import ENDED, Failure, Keyframe, Status
from comfynb.lanes import Lane, Slot, Work
from comfynb.log import Store
from comfynb.making import making
from comfynb.plan import Plan
from comfynb.results import Results, shared
from comfynb.server_types import ServerTypes, invalid, place
from comfynb.states import Changes, Snapshot, States
from comfynb.uploading import uploaded
from comfynb.workflows import Report

logger = logging.getLogger(__name__)

ATTEMPTS = 2
"""How often a cell that its server lost is sent in all."""

CANCEL_GRACE = 2.0
"""Seconds that pictures which came in spite of a cancel have to become safe."""

Choose = Callable[[Lane, Plan], Awaitable[Plan]]


class Run:
    """One pass over cells.

    Awaiting it waits for the end and returns the keyframes in the order of the storyboard;
    being cancelled meanwhile cancels the run. Iterating over it only observes: leaving the loop
    leaves the run going.

    Attributes:
        id: Of the run, as the log has it.
        plan: What it makes.
        error: What stopped it before its cells could be tried, or None.
    """

    def __init__(
        self, plan: Plan, lane: Lane, store: Store, choose: Choose, *, force: bool = False
    ) -> None:
        """Begin at once; called by `Studio.run`.

        Args:
            plan: What to make.
            lane: Where.
            store: Where results are kept.
            choose: Settles a plan whose checkpoint is open.
            force: Make cells although the log has them.
        """
        self.id = str(uuid.uuid4())
        self.plan = plan
        self.error: ComfynbError | None = None
        self._lane, self._store, self._choose, self._force = lane, store, choose, force
        self._states = States(plan.cells)
        self._todo: deque[Cell] = deque()
        self._lost: dict[int, int] = {}
        self._sent: dict[str, int] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._joins: dict[int, asyncio.Task[None]] = {}
        self._results = Results(self.id, store, lane.label)
        self._types = ServerTypes(lane, store)
        self._open = {cell.index for cell in plan.cells}
        self._unwanted: set[int] = set()
        self._paused = self._feeding = False
        self._all_ended = asyncio.Event()
        self._began, self._over = time.monotonic(), 0.0
        stores.hold_again(store)
        try:
            lane.hold()
        except BaseException:
            stores.let_go(store)
            raise
        self._work_task = loop.start(self._work())

    # -- public: observing

    @property
    def state(self) -> Snapshot:
        """Every cell at this moment."""
        return self._states.snapshot()

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self._states.ended

    @property
    def seconds(self) -> float:
        """Seconds since it began; once ended, what it took."""
        return (self._over or time.monotonic()) - self._began

    @property
    def server(self) -> str:
        """Name of the server."""
        return self._lane.label

    @property
    def line(self) -> Line:
        """How the line to the server stands."""
        return self._lane.backend.line

    def subscribe(self, since: int = 0) -> AsyncGenerator[Changes, None]:
        """Yield what changes, from any loop, until the end; see `States.subscribe`."""
        return self._states.subscribe(since)

    async def keyframes(self) -> AsyncGenerator[Keyframe, None]:
        """Yield each keyframe as soon as it is durable, in order of completion.

        Raises:
            ComfynbError: What stopped the run before its cells could be tried.
        """
        async for keyframe in self._states.finished():
            yield keyframe
        if self.error is not None:
            raise self.error

    def __aiter__(self) -> AsyncIterator[Keyframe]:
        """Observe; leaving does not cancel."""
        return self.keyframes()

    def __await__(self) -> Generator[Any, None, list[Keyframe]]:
        """Wait for the end; cancelled meanwhile, cancel the run."""
        return self._wait_or_cancel().__await__()

    async def _wait_or_cancel(self) -> list[Keyframe]:
        try:
            await self._states.until_ended()
        except asyncio.CancelledError:
            await self.cancel()
            raise
        return self.result()

    def wait(self) -> list[Keyframe]:
        """Block until the end; interrupted, the run goes on.

        Returns:
            The keyframes in the order of the storyboard.

        Raises:
            ComfynbError: What stopped the run before its cells could be tried.
        """
        self._states.block_until_ended()
        return self.result()

    def result(self) -> list[Keyframe]:
        """Return the keyframes so far, in the order of the storyboard; see `wait`."""
        if self.error is not None:
            raise self.error
        return self._states.keyframes()

    def __repr__(self) -> str:
        state = self.state
        counts = ", ".join(f"{count} {status}" for status, count in state.counts.items())
        return f"<Run of {len(state.cells)} cells on {self._lane.label}: {counts or 'none'}>"

    # -- public: steering

    def pause(self) -> None:
        """Begin nothing new; what is on the server comes to its end."""
        self._on_loop(self._pause, True)

    def resume(self) -> None:
        """Go on."""
        self._on_loop(self._pause, False)

    async def cancel(self, scenes: Collection[str] | None = None) -> None:
        """Cancel, and return when our prompts are gone from the server.

        What is made already stays; so does what the server finishes before it hears of this.

        Args:
            scenes: Ids of the scenes to give up; None: all.
        """
        await loop.across(self._cancel(None if scenes is None else set(scenes)))

    def retry(self, statuses: Iterable[Status] = ("failed", "cancelled", "lost")) -> Run:
        """Start a new run over the cells that have no picture.

        Args:
            statuses: Of the cells to try again.

        Raises:
            ClosedError: If the studio was closed.
        """
        wanted = set(statuses)
        indices = {state.cell.index for state in self.state.cells if state.status in wanted}
        return Run(self.plan.only(indices), self._lane, self._store, self._choose)

    def _on_loop(self, function: Callable[..., None], *args: object) -> None:
        loop.get().call_soon_threadsafe(function, *args)

    def _pause(self, paused: bool) -> None:  # noqa: FBT001
        if not self.ended:
            self._paused = paused
            self._states.set_paused(paused)
            self._lane.wake()

    # -- the whole

    async def _work(self) -> None:
        share = making(self._store)
        share.enter()
        try:
            if not self.plan.settled:
                self.plan = await self._choose(self._lane, self.plan)
                for cell in self.plan.cells:
                    self._states.refresh(cell)
            await self._from_log()
            if self._todo:
                info = await self._lane.open()
                self._results = replace(self._results, server_version=info.version)
                report = await self._types.check(self._todo, of=len(self.plan.cells))
                report.raise_for_shared()
                await loop.in_worker(self._results.keep_inputs, self.plan)
                await loop.in_worker(self._store.add_run, self._results.record(self.plan))
                await self._refuse(report)
                self._feeding = True
                self._lane.add(self)
                await self._all_ended.wait()
        except ComfynbError as exc:
            self.error = exc
            self._end_open("failed", _failure(exc))
        except asyncio.CancelledError:
            self._end_open("cancelled", Failure("cancelled", "cancelled before it was begun"))
        except Exception as exc:
            logger.exception("a run stopped on an error of comfynb's own")
            self.error = ComfynbError(f"an error of comfynb's own: {exc!r}; please report it")
            self.error.__cause__ = exc
            self._end_open("failed", Failure("internal", repr(exc)))
        finally:
            self._lane.remove(self)
            self._lane.let_go()
            stores.let_go(self._store)
            share.leave()
            self._over = time.monotonic()
            self._states.end()

    async def _from_log(self) -> None:
        """Give what is there already; the rest becomes the queue."""
        found: dict[str, Keyframe] = {}
        if not self._force:
            found = await loop.in_worker(self._store.find, {cell.key for cell in self.plan.cells})
        for cell in self.plan.cells:
            if cell.key in found:
                self._give(cell, shared(cell, found[cell.key]))
            elif cell.index in self._unwanted:
                self._give(cell, self._results.unmade(cell, "cancelled", _CANCELLED))
            else:
                self._todo.append(cell)

    async def _refuse(self, report: Report) -> None:
        """Fail the cells that their server is certain to refuse; the others go on."""
        if report.ok:
            return
        cells, self._todo = self._todo, deque()
        refused: list[tuple[Cell, Failure]] = []
        for cell in cells:
            errors = [problem for problem in report.of(place(cell)) if problem.is_error]
            if errors:
                refused.append((cell, invalid(errors)))
            else:
                self._todo.append(cell)
        made = [self._results.unmade(cell, "failed", failure) for cell, failure in refused]
        made = await loop.in_worker(self._results.keep_failures, made)
        for (cell, _), keyframe in zip(refused, made, strict=True):
            self._give(cell, keyframe)

    # -- one cell

    def take(self) -> Work | None:
        """Give the lane the next cell; see `lanes.Feed`."""
        while self._todo and not self._paused:
            cell = self._todo.popleft()
            share = making(self._store)
            made = None if self._force else share.made(cell.key)
            if made is not None:
                self._give(cell, shared(cell, made))
            elif share.in_flight(cell.key) is not None:
                self._joins[cell.index] = asyncio.create_task(self._join(cell))
            else:
                share.begin(cell.key)
                return lambda slot: self._make(cell, slot)
        return None

    async def _join(self, cell: Cell) -> None:
        """Wait for a cell that another run, or an equal cell, is making."""
        future = making(self._store).in_flight(cell.key)
        try:
            keyframe = None if future is None else await asyncio.shield(future)
            if keyframe is not None and keyframe.status in ("done", "failed"):
                self._give(cell, shared(cell, keyframe))
            else:
                self._put_back(cell)
        except asyncio.CancelledError:
            self._give(cell, self._results.unmade(cell, "cancelled", _CANCELLED))
        except Exception as exc:  # noqa: BLE001 - the top of a task
            self._give(cell, self._broken(cell, exc))
        finally:
            self._joins.pop(cell.index, None)
            self._lane.wake()

    def _put_back(self, cell: Cell) -> None:
        """It is to be made after all: next, unless it was cancelled meanwhile."""
        if cell.index in self._unwanted:
            self._give(cell, self._results.unmade(cell, "cancelled", _CANCELLED))
        else:
            self._todo.appendleft(cell)

    async def _make(self, cell: Cell, slot: Slot) -> None:
        """Make one cell; whatever happens, it ends or goes back to the queue."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[cell.index] = task
        keyframe: Keyframe | None = None
        try:
            keyframe = await self._attempt(cell, slot)
            if keyframe is None:
                self._put_back(cell)
            else:
                self._give(cell, keyframe)
        except asyncio.CancelledError:
            keyframe = self._results.unmade(cell, "cancelled", _CANCELLED)
            self._give(cell, keyframe)
        except (ServerGoneError, LogWriteError) as exc:
            await self._give_up(cell, _failure(exc))
        except ComfynbError as exc:
            self._give(cell, self._results.unmade(cell, "failed", _failure(exc)))
        except Exception as exc:  # noqa: BLE001 - the top of a task
            keyframe = self._broken(cell, exc)
            self._give(cell, keyframe)
        finally:
            self._tasks.pop(cell.index, None)
            making(self._store).end(cell.key, keyframe)
            slot.free()
            self._lane.wake()

    def _broken(self, cell: Cell, exc: Exception) -> Keyframe:
        logger.error("a cell stopped on an error of comfynb's own", exc_info=exc)
        return self._results.unmade(cell, "failed", Failure("internal", repr(exc)))

    async def _attempt(self, cell: Cell, slot: Slot) -> Keyframe | None:
        """Send a cell and keep what comes; None: its server lost it, once more."""
        prompt_id = str(uuid.uuid4())
        warned: list[str] = []
        begun = time.monotonic()
        graph = await uploaded(cell, self._lane.backend, self._store)
        await loop.in_worker(
            self._store.add_submitted,
            prompt_id=prompt_id,
            run=self.id,
            key=cell.key,
            scene=cell.scene.id,
            server=self._lane.label,
        )
        if cell.index in self._unwanted:
            return self._results.unmade(cell, "cancelled", _CANCELLED)
        self._states.change(cell.index, status="submitted")
        self._sent[prompt_id] = cell.index
        try:
            outcome = await self._lane.backend.render(
                prompt_id, graph, lambda event: self._hear(cell, slot, warned, event)
            )
        finally:
            self._sent.pop(prompt_id, None)
        if cell.index in self._unwanted and outcome.status in ("cancelled", "lost"):
            outcome = replace(outcome, status="cancelled", failure=_CANCELLED)  # by us
        attempts = self._lost[cell.index] = self._lost.get(cell.index, 0) + 1
        if outcome.status == "lost" and attempts < ATTEMPTS:
            self._states.change(cell.index, status="queued", preview=None, step=None)
            return None
        return await loop.in_worker(self._results.keep, cell, prompt_id, outcome, warned, begun)

    def _hear(self, cell: Cell, slot: Slot, warned: list[str], event: Event) -> None:
        match event:
            case Started():
                self._states.change(cell.index, status="running")
            case Progress(node, value, maximum):
                self._states.change(
                    cell.index, status="running", node=node, step=value, steps=maximum
                )
            case Preview(node, data, _):
                self._states.change(cell.index, node=node, preview=data)
            case Warned(message):
                logger.warning("%s: %s", cell.scene.label, message)
                warned.append(message)
            case Released():
                slot.free()

    # -- ending

    def _give(self, cell: Cell, keyframe: Keyframe, *, listed: bool = True) -> None:
        """The keyframe is durable (or there is nothing to keep): tell everybody."""
        self._states.finish(cell.index, keyframe, listed=listed)
        self._open.discard(cell.index)
        if not self._open:
            self._all_ended.set()
        if keyframe.status == "done":
            for output in keyframe.outputs:
                if output.is_picture:
                    loop.later(_make_thumbnail, self._store, output.sha256)

    async def _give_up(self, cell: Cell, failure: Failure) -> None:
        """Nothing more can be made: this cell and all that wait fail at once."""
        rest, self._todo = [cell, *self._todo], deque()
        made = [self._results.unmade(left, "failed", failure) for left in rest]
        try:
            if failure.kind != "log_write":
                made = await loop.in_worker(self._results.keep_failures, made)
        finally:  # they end, though nobody waits for their rows any more
            for left, keyframe in zip(rest, made, strict=True):
                if self._states.of(left.index).status not in ENDED:
                    self._give(left, keyframe)

    def _end_open(self, status: Status, failure: Failure) -> None:
        """End what was never begun; the run's own error or its cancel says why."""
        self._todo.clear()
        for state in self._states.snapshot().cells:
            if state.status not in ENDED:
                cell = state.cell
                self._give(cell, self._results.unmade(cell, status, failure), listed=False)

    async def _cancel(self, scenes: set[str] | None) -> None:
        if self.ended:
            return
        wanted = {
            cell.index for cell in self.plan.cells if scenes is None or cell.scene.id in scenes
        }
        self._unwanted |= wanted  # also those that are on their way from one place to the next
        if scenes is None and not self._feeding:
            self._work_task.cancel()
            await self._states.until_ended()
            return
        for cell in [cell for cell in self._todo if cell.index in wanted]:
            self._todo.remove(cell)
            self._give(cell, self._results.unmade(cell, "cancelled", _CANCELLED))
        joins = [task for index, task in self._joins.items() if index in wanted]
        for task in joins:
            task.cancel()
        await self._lane.backend.cancel(
            [prompt_id for prompt_id, index in self._sent.items() if index in wanted]
        )
        tasks = [task for index, task in self._tasks.items() if index in wanted]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *joins, return_exceptions=True)
        if scenes is None:
            await self._states.until_ended()


_CANCELLED = Failure("cancelled", "cancelled before it was made")

_KINDS: Mapping[type[ComfynbError], tuple[str, str]] = {
    ServerGoneError: ("server_gone", "start it again, then retry"),
    WorkerDeadError: ("worker_dead", "restart ComfyUI, then retry"),
    LogWriteError: (
        "log_write",
        "mend that, then retry; what was drawn meanwhile is still on the server",
    ),
    AccessDeniedError: ("access_denied", "connect again with what the server wants"),
    NotComfyUIError: ("not_comfyui", "look at what answers there, then retry"),
}
"""Kind and hint of the failures that errors become."""


def _failure(error: ComfynbError) -> Failure:
    if isinstance(error, WorkflowCheckError):
        return invalid(error.problems)
    kind, hint = _KINDS.get(type(error), ("not_started", ""))
    return Failure(kind, str(error), hint=hint)


def _make_thumbnail(store: Store, sha256: str) -> None:
    try:
        store.thumbnail(sha256)
    except ComfynbError as exc:
        logger.warning("no thumbnail: %s", exc)  # made again when somebody looks

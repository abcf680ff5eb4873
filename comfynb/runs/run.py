"""One pass over cells: a handle to observe, pause, cancel and await. It starts, ends, stays ended.

What is in the log already comes at once (`cached`). The rest stands in a queue of the run's own,
from which a lane takes a cell whenever it has a free slot. Each is made, checked, made durable,
and only then given to whoever watches; a cell that fails is a value like any other.

Here stand the queue and the end of each cell. How one is made is in sending.py, or in adopting.py
where a dead session has sent it; which servers take part is in fleet.py and vetting.py, how a run
is watched in watching.py, and how a cell goes from one status to the next in lifecycle.py. All but
the public part happens on our own loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from comfynb import loop, stores
from comfynb.backends.base import Line
from comfynb.cells import Cell
from comfynb.errors import ComfynbError, LogWriteError, ServerGoneError
from comfynb.keyframes import ENDED, Failure, Keyframe, Status
from comfynb.log import RunRecord, Store, SubmittedRecord
from comfynb.plan import Plan
from comfynb.runs import failures
from comfynb.runs.adopting import Adopting
from comfynb.runs.attempts import Attempts
from comfynb.runs.making import making
from comfynb.runs.results import Results, shared
from comfynb.runs.sending import Sending
from comfynb.runs.states import States
from comfynb.runs.watching import Watched
from comfynb.servers import lanes
from comfynb.servers.fleet import Fleet
from comfynb.servers.lanes import Lane, Work
from comfynb.servers.server_types import invalid, place
from comfynb.servers.vetting import Vetting
from comfynb.workflows import Report

logger = logging.getLogger(__name__)

CANCEL_GRACE = 2.0
"""Seconds that pictures which came in spite of a cancel have to become safe."""

Choose = Callable[[Sequence[Lane], Plan], Awaitable[Plan]]


class Run(Watched):
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
        self,
        plan: Plan,
        servers: Sequence[Lane],
        store: Store,
        choose: Choose,
        *,
        force: bool = False,
        resubmit_lost: bool = True,
    ) -> None:
        """Begin at once; called by `Studio.run`.

        Args:
            plan: What to make.
            servers: Where.
            store: Where results are kept.
            choose: Settles a plan whose checkpoint is open.
            force: Make cells although the log has them, or a dead session has sent them.
            resubmit_lost: Send anew what a dead session sent and its server forgot.
        """
        super().__init__(States(plan.cells))
        self.id = str(uuid.uuid4())
        self.plan = plan
        self._fleet = Fleet(servers, self._look_over)
        self._vetting = Vetting(store)
        self._store, self._choose = store, choose
        self._force, self._resubmit_lost = force, resubmit_lost
        self._results = Results(self.id, store, self._fleet.label)
        self._attempts = Attempts(self._results, store, self._states)
        self._sending = Sending(self._attempts, self._fleet.drop)
        self._adopting = Adopting(self._attempts)
        self._todo: deque[Cell] = deque()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._joins: dict[int, asyncio.Task[None]] = {}
        self._open = {cell.index for cell in plan.cells}
        self._unwanted = self._attempts.unwanted
        self._paused = self._feeding = False
        self._started, self._all_ended = asyncio.Event(), asyncio.Event()
        self._began, self._over = time.monotonic(), 0.0
        stores.hold_again(store)
        try:
            lanes.hold_all(servers)
        except BaseException:
            stores.let_go(store)
            raise
        self._working: asyncio.Task[None] | None = None
        loop.start(self._work())

    # -- public: observing (see `Watched`)

    @property
    def seconds(self) -> float:
        """Seconds since it began; once ended, what it took."""
        return (self._over or time.monotonic()) - self._began

    @property
    def server(self) -> str:
        """Name of the server; of several, all of them."""
        return self._fleet.label

    @property
    def line(self) -> Line:
        """How the line to the server stands; of several, the best one."""
        return self._fleet.line

    @property
    def lines(self) -> Mapping[str, Line]:
        """How the line to each server stands, by its name."""
        return self._fleet.lines

    def __repr__(self) -> str:
        state = self.state
        counts = ", ".join(f"{count} {status}" for status, count in state.counts.items())
        return f"<Run of {len(state.cells)} cells on {self.server}: {counts or 'none'}>"

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
        return Run(self.plan.only(indices), self._fleet.lanes, self._store, self._choose)

    def _on_loop(self, function: Callable[..., None], *args: object) -> None:
        loop.get().call_soon_threadsafe(function, *args)

    def _pause(self, paused: bool) -> None:  # noqa: FBT001
        if not self.ended:
            self._paused = paused
            self._states.set_paused(paused)
            self._fleet.wake()

    # -- the whole

    async def _work(self) -> None:
        self._working = asyncio.current_task()
        self._started.set()
        share = making(self._store)
        share.enter()
        try:
            if not self.plan.settled:
                self.plan = await self._choose(self._fleet.lanes, self.plan)
                for cell in self.plan.cells:
                    self._states.refresh(cell)
            await self._from_log()
            if self._todo:
                await self._fleet.open()
                report = self._vetting.choose(self._fleet)
                await loop.in_worker(self._results.keep_inputs, self.plan)
                await loop.in_worker(self._store.add_run, self._record())
                await self._refuse(report)
                orphans = await self._find_orphans()
                self._feeding = True
                self._adopt(orphans)
                self._fleet.feed(self)
                await self._all_ended.wait()
        except ComfynbError as exc:
            self.error = exc
            self._end_open("failed", failures.failure_of(exc))
        except asyncio.CancelledError:
            self._end_open("cancelled", failures.NOT_BEGUN)
        except Exception as exc:
            logger.exception("a run stopped on an error of comfynb's own")
            self.error = ComfynbError(f"an error of comfynb's own: {exc!r}; please report it")
            self.error.__cause__ = exc
            self._end_open("failed", Failure("internal", repr(exc)))
        finally:
            await self._fleet.aclose()
            for lane in self._fleet.lanes:
                lane.let_go()
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
                self._give(cell, self._results.unmade(cell, "cancelled", failures.CANCELLED))
            else:
                self._todo.append(cell)

    async def _look_over(self, lane: Lane) -> None:
        await self._vetting.look(lane, list(self._todo), of=len(self.plan.cells))

    def _record(self) -> RunRecord:
        version = ", ".join(filter(None, self._fleet.versions.values()))
        return replace(self._results, server_version=version).record(self.plan)

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

    # -- what dead sessions left

    async def _find_orphans(self) -> dict[str, list[SubmittedRecord]]:
        """Return what was sent for our cells and never came to an end, by key."""
        if self._force:
            return {}
        keys = {cell.key for cell in self._todo}
        left = await loop.in_worker(partial(self._store.orphans, keys=keys))
        by_key: dict[str, list[SubmittedRecord]] = {}
        for record in (*left, *making(self._store).abandoned(keys)):
            by_key.setdefault(record.key, []).append(record)
        return by_key

    def _adopt(self, orphans: Mapping[str, Sequence[SubmittedRecord]]) -> None:
        """Follow them; they are on their servers already and need no slot."""
        share = making(self._store)
        live = self._fleet.live
        others = [lane for lane in lanes.connected() if lane not in live]
        for cell in [cell for cell in self._todo if cell.key in orphans]:
            if share.in_flight(cell.key) is None:  # else `take` joins who does
                self._todo.remove(cell)
                share.begin(cell.key)
                adopt = partial(
                    self._adopting.adopt,
                    cell,
                    orphans[cell.key],
                    [*live, *others],
                    resubmit_lost=self._resubmit_lost,
                )
                doing = self._do(cell, adopt, None)
                self._tasks[cell.index] = asyncio.create_task(doing, name="comfynb-adopt")

    def meet(self, keyframe: Keyframe) -> None:
        """Take a picture that another process has just made, where it still waits to be made."""
        if not self._force and keyframe.ok:
            for cell in [cell for cell in self._todo if cell.key == keyframe.key]:
                self._todo.remove(cell)
                self._give(cell, shared(cell, keyframe))

    # -- one cell

    def take(self, lane: Lane) -> Work | None:
        """Give a lane the next cell; see `lanes.Feed`."""
        if not self._paused and lane.backend.line == "connected":
            work = self._sending.stand_in(lane, self._fleet.down)
            if work is not None:
                return work
        while self._todo and not self._paused and self._fleet.may_take(lane):
            cell = self._todo.popleft()
            share = making(self._store)
            made = None if self._force else share.made(cell.key)
            if made is not None:
                self._give(cell, shared(cell, made))
            elif share.in_flight(cell.key) is not None:
                self._joins[cell.index] = asyncio.create_task(self._join(cell))
            else:
                share.begin(cell.key)
                return lambda slot: self._do(
                    cell, partial(self._sending.make, cell, lane, slot), lane
                )
        return None

    async def _join(self, cell: Cell) -> None:
        """Wait for a cell that another run, or an equal cell, is making."""
        future = making(self._store).in_flight(cell.key)
        try:
            keyframe = None if future is None else await asyncio.shield(future)
            if keyframe is not None and keyframe.status != "cancelled":
                self._give(cell, shared(cell, keyframe))
            else:
                self._put_back(cell)
        except asyncio.CancelledError:
            self._give(cell, self._results.unmade(cell, "cancelled", failures.CANCELLED))
        except Exception as exc:  # noqa: BLE001 - the top of a task
            self._give(cell, self._broken(cell, exc))
        finally:
            self._joins.pop(cell.index, None)
            self._fleet.wake()

    def _put_back(self, cell: Cell) -> None:
        """It is to be made after all: next, unless it was cancelled meanwhile."""
        if cell.index in self._unwanted:
            self._give(cell, self._results.unmade(cell, "cancelled", failures.CANCELLED))
        else:
            self._todo.appendleft(cell)

    async def _do(
        self, cell: Cell, work: Callable[[], Awaitable[Keyframe | None]], lane: Lane | None
    ) -> None:
        """Make one cell; whatever happens, it ends or goes back to the queue.

        Args:
            cell: Which.
            work: Makes it; where it gives None, it is to be made once more.
            lane: Where; None: wherever it is.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks[cell.index] = task
        keyframe: Keyframe | None = None
        try:
            keyframe = await work()
            if keyframe is None:
                self._put_back(cell)
            else:
                self._give(cell, keyframe)
        except asyncio.CancelledError:
            running = self._states.of(cell.index).status == "running"
            failure = failures.CANCELLED
            if running and lane is not None and not lane.backend.can_interrupt:
                failure = failures.goes_on(lane.label)
            keyframe = self._results.unmade(cell, "cancelled", failure)
            self._give(cell, keyframe)
        except (ServerGoneError, LogWriteError) as exc:
            await self._give_up(cell, failures.failure_of(exc))
        except ComfynbError as exc:
            self._give(cell, self._results.unmade(cell, "failed", failures.failure_of(exc)))
        except Exception as exc:  # noqa: BLE001 - the top of a task
            keyframe = self._broken(cell, exc)
            self._give(cell, keyframe)
        finally:
            self._tasks.pop(cell.index, None)
            making(self._store).end(cell.key, keyframe)
            self._fleet.wake()

    def _broken(self, cell: Cell, exc: Exception) -> Keyframe:
        logger.error("a cell stopped on an error of comfynb's own", exc_info=exc)
        return self._results.unmade(cell, "failed", Failure("internal", repr(exc)))

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
            await self._started.wait()
            assert self._working is not None
            # Here and now, and not across threads: a moment later it might be feeding its lanes.
            self._working.cancel()
            await self._states.until_ended()
            return
        for cell in [cell for cell in self._todo if cell.index in wanted]:
            self._todo.remove(cell)
            self._give(cell, self._results.unmade(cell, "cancelled", failures.CANCELLED))
        joins = [task for index, task in self._joins.items() if index in wanted]
        for task in joins:
            task.cancel()
        await self._attempts.cancel(wanted)
        tasks = [task for index, task in self._tasks.items() if index in wanted]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *joins, return_exceptions=True)
        if scenes is None:
            await self._states.until_ended()


def _make_thumbnail(store: Store, sha256: str) -> None:
    try:
        store.thumbnail(sha256)
    except ComfynbError as exc:
        logger.warning("no thumbnail: %s", exc)  # made again when somebody looks

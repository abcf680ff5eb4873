"""The node types of a lane's server: from memory, from the log, or asked of the server itself.

They are asked for once a process and lane, when the first picture is to be made, or when somebody
wants to see them; the log keeps the answer for the next process. So a notebook knows ranges and
choices while its server is away, and what the log has already is shown without asking anybody.

What is kept may be older than what the server has by now. Nothing is refused because of it: for
that, the server is asked anew (`fetch(younger_than=...)`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from comfynb import loop
from comfynb.cells import Cell
from comfynb.errors import ClosedError, ComfynbError, ServerError
from comfynb.keyframes import Failure
from comfynb.log import Store
from comfynb.servers.lanes import Lane, hold_all
from comfynb.workflows import NodeTypes, Problem, Report, check_graphs, joined, together

logger = logging.getLogger(__name__)

FETCH_SECONDS = 15.0
"""How long a run waits for a server to tell its node types, before it goes on without."""
SHOW_SECONDS = 2.0
"""How long a table, or a value that an old list refuses, waits for them."""
_TOLD = 3
"""Problems that a failure names; `Studio.check` has them all."""
FRESH_SECONDS = 2.0
"""How old an answer may be and still count as fresh: a thousand scenes ask once."""


@dataclass(slots=True)
class _Told:
    """What a lane's server told this process."""

    node_types: NodeTypes | None = None
    at: float = -math.inf
    asking: asyncio.Task[NodeTypes | None] | None = None


_by_lane: WeakKeyDictionary[Lane, _Told] = WeakKeyDictionary()


class ServerTypes:
    """What is known of the node types of one lane's server.

    Args:
        lane: The server.
        store: Where answers are kept.
    """

    def __init__(self, lane: Lane, store: Store) -> None:
        self._lane, self._store = lane, store
        self._told = _by_lane.setdefault(lane, _Told())
        self._looked = False
        self._kept: NodeTypes | None = None

    @property
    def known(self) -> NodeTypes | None:
        """What is known without asking: this process's answer, the backend's own, the log's.

        May read a file the first time, for some milliseconds; call it on any thread.
        """
        told = self._told
        if told.node_types is None and not self._looked:
            self._looked = True
            kept = self._lane.backend.shipped_object_info()
            if kept is None:
                kept = self._store.object_info(self._lane.label)
            if kept is not None:
                told.node_types = self._kept = NodeTypes.of(kept)
        return told.node_types

    async def fetch(self, *, younger_than: float = math.inf) -> NodeTypes | None:
        """Ask the server, unless it has answered this process; on our loop.

        Args:
            younger_than: Seconds; an older answer is asked for anew.

        Returns:
            None where it does not answer.
        """
        told = self._told
        if time.monotonic() - told.at < younger_than and told.node_types is not None:
            return told.node_types
        if told.asking is None or told.asking.done():
            told.asking = self._lane.spawn(self._get(), name="comfynb-node-types")
        return await asyncio.shield(told.asking)

    async def need(self) -> NodeTypes:
        """Return what the server says now; on our loop.

        Raises:
            BackendError: It does not answer (retryable), or not this.
        """
        await self._lane.open()
        node_types = await self.fetch(younger_than=FRESH_SECONDS)
        if node_types is None:
            label = self._lane.label
            raise ServerError(f"{label} does not say what node classes it has", server=label)
        return node_types

    async def check(self, cells: Sequence[Cell], of: int) -> Report:
        """Check cells before anything of them is sent; on our loop.

        Args:
            cells: Those that are to be made.
            of: How many cells there are in all.

        Returns:
            What was found with an answer as old as the process at most where nothing is wrong,
            and with a fresh one where something is.
        """
        node_types = await loop.in_worker(lambda: self.known) or await self.fetch()
        report = await loop.in_worker(self._check, cells, node_types, of)
        if report.errors:
            fresh = await self.fetch(younger_than=FRESH_SECONDS)
            if fresh is None:  # the server says no more: let it judge for itself
                return Report(self._lane.label, of, checked=False)
            if fresh is not node_types:
                report = await loop.in_worker(self._check, cells, fresh, of)
        self._refresh()
        return report

    def _check(self, cells: Sequence[Cell], node_types: NodeTypes | None, of: int) -> Report:
        return check_graphs(
            ((place(cell), cell.graph) for cell in cells),
            node_types,
            server=self._lane.label,
            uploads={file.name for cell in cells for file in cell.inputs},
            of=of,
        )

    def _refresh(self) -> None:
        """Have the server asked beside everything else, once a process, and the answer kept."""
        told = self._told
        if told.at < 0:
            if told.asking is None or told.asking.done():
                told.asking = self._lane.spawn(self._get(), name="comfynb-node-types")
        elif told.node_types is not None and told.node_types is not self._kept:
            self._kept = told.node_types
            loop.later(_keep, self._store, self._lane.label, self._kept.object_info)

    async def _get(self) -> NodeTypes | None:
        label = self._lane.label
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                object_info = await self._lane.backend.object_info()
        except (ComfynbError, TimeoutError) as exc:
            logger.info("%s: its node types are not known: %r", label, exc)
            return None
        node_types = await loop.in_worker(NodeTypes.of, object_info)
        self._told.node_types, self._told.at = node_types, time.monotonic()
        self._refresh()
        return node_types


class FleetTypes:
    """What is known of the node types of several servers: what any of them takes.

    Args:
        lanes: The servers; at least one.
        store: Where answers are kept.
    """

    def __init__(self, lanes: Sequence[Lane], store: Store) -> None:
        self._lanes = tuple(lanes)
        self._each = [ServerTypes(lane, store) for lane in lanes]

    @property
    def known(self) -> NodeTypes | None:
        """What is known without asking, as `ServerTypes.known`; None: nothing of any."""
        return _joined([types.known for types in self._each])

    def ask(self) -> NodeTypes | None:
        """Block for a moment and return what the servers say now; None: none answers.

        For one that does not answer stands what is known of it. An embedded engine is not started
        for this: what it has is known.
        """
        if loop.inside():
            return None
        try:
            hold_all(self._lanes)  # a workflow outlives its studio
        except ClosedError:
            return None
        try:
            answers = loop.wait(self._asked())
        finally:
            for lane in self._lanes:
                lane.let_go()
        if _joined(answers) is None:
            return None
        told = zip(answers, self._each, strict=True)
        return _joined([types.known if answer is None else answer for answer, types in told])

    async def _asked(self) -> list[NodeTypes | None]:
        async def ask(types: ServerTypes) -> NodeTypes | None:
            with suppress(TimeoutError):
                async with asyncio.timeout(SHOW_SECONDS):
                    return await types.fetch(younger_than=FRESH_SECONDS)
            return None

        return await asyncio.gather(*(ask(types) for types in self._each))

    async def need(self) -> NodeTypes:
        """Return what those servers say now that answer; on our loop.

        Raises:
            BackendError: None answers (retryable), or not this: what the first one's error was.
        """
        answers = await asyncio.gather(*(t.need() for t in self._each), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        told = _joined([None if isinstance(a, BaseException) else a for a in answers])
        if told is None:
            raise errors[0]
        return told

    async def check(self, cells: Sequence[Cell], of: int) -> Report:
        """Check cells against every server, as a run does; arguments as `ServerTypes.check`."""
        reports = await asyncio.gather(*(types.check(cells, of) for types in self._each))
        return together(reports)


def _joined(several: Sequence[NodeTypes | None]) -> NodeTypes | None:
    told = [node_types for node_types in several if node_types is not None]
    return joined(told) if told else None


def place(cell: Cell) -> str:
    """Name a cell in a report: its scene, and its labels on the axes of a sweep."""
    labels = ", ".join(f"{axis} {label}" for axis, label in cell.axes.items())
    return f"{cell.scene.id} ({labels})" if labels else cell.scene.id


def invalid(errors: Sequence[Problem]) -> Failure:
    """Return why a cell is not sent: its errors, of which there is one at least."""
    first = errors[0]
    told = [first.message, *(str(replace(problem, scenes=())) for problem in errors[1:_TOLD])]
    if len(errors) > _TOLD:
        told.append(f"and {len(errors) - _TOLD} more")
    return Failure(
        "invalid",
        "; ".join(told),
        first.where or None,
        "correct it, then retry; nothing was sent",
    )


def _keep(store: Store, server: str, object_info: Mapping[str, Any]) -> None:
    try:
        store.keep_object_info(server, object_info)
    except ComfynbError as exc:
        logger.info("%s: its node types are not kept: %s", server, exc)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_by_lane.clear)  # its tasks are the parent's

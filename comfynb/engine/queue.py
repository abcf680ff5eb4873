"""Prompts that wait, the one that runs, and the history of those that ran.

Thread-safe: request handlers put, list and delete; one worker takes.
"""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Condition, Event
from typing import Any

MAX_HISTORY = 10_000

_serial = itertools.count()


@dataclass(eq=False, slots=True)
class Job:
    """One accepted prompt.

    Attributes:
        number: Lower runs first.
        prompt_id: Chosen by the client or by us.
        graph: The API-format graph, values coerced.
        extra_data: As sent, plus `client_id` and `create_time` (ms).
        outputs: Ids of the output nodes to run.
        interrupted: Set to stop it at its next step.
    """

    number: float
    prompt_id: str
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]
    interrupted: Event = field(default_factory=Event)
    # The serial keeps two jobs with the same number and id comparable: in ComfyUI 0.3.75 such a
    # pair kills the worker.
    serial: int = field(default_factory=lambda: next(_serial))

    @property
    def client_id(self) -> str | None:
        """Whom to tell; None: nobody in particular."""
        value = self.extra_data.get("client_id")
        return None if value is None else str(value)

    def __lt__(self, other: Job) -> bool:
        mine = self.number, self.prompt_id, self.serial
        return mine < (other.number, other.prompt_id, other.serial)

    def to_item(self) -> list[Any]:
        """Return the five-element list of /queue and /history."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]


@dataclass(slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        success: Without an error and not interrupted.
        outputs: What each output node showed, by node id.
        meta: Where it belongs, by node id.
        messages: execution_start, execution_cached and the final one, as [type, data].
    """

    success: bool = False
    outputs: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def to_history(self, job: Job) -> dict[str, Any]:
        """Return the entry of /history."""
        return {
            "prompt": job.to_item(),
            "outputs": self.outputs,
            "status": {
                "status_str": "success" if self.success else "error",
                "completed": self.success,
                "messages": self.messages,
            },
            "meta": self.meta,
        }


@dataclass(slots=True)
class Chores:
    """What POST /free asked for, done by the worker between two jobs."""

    unload_models: bool = False
    free_memory: bool = False


class PromptQueue:
    """The queue of a server, with its history."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._pending: list[Job] = []
        self._running: Job | None = None
        self._history: dict[str, str] = {}
        self._chores: Chores | None = None
        self._closed = False
        self._counter = 0

    def next_number(self) -> int:
        """Count a request without a number of its own, refused ones included."""
        with self._changed:
            number = self._counter
            self._counter += 1
            return number

    def put(self, job: Job) -> None:
        """Queue a job."""
        with self._changed:
            heapq.heappush(self._pending, job)
            self._changed.notify()

    def take(self) -> Job | Chores | None:
        """Wait for what is to be done next; None: the queue was closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                if self._chores is not None:
                    chores, self._chores = self._chores, None
                    return chores
                if self._pending:
                    self._running = heapq.heappop(self._pending)
                    return self._running
                self._changed.wait()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Move the running job to the history, in one step."""
        # Encoded here, in the worker, so that listing a long history does not hold up the loop.
        text = json.dumps(outcome.to_history(job))
        with self._changed:
            self._running = None
            self._history[job.prompt_id] = text
            if len(self._history) > MAX_HISTORY:
                del self._history[next(iter(self._history))]

    def free(self, chores: Chores) -> None:
        """Ask the worker to give memory back before its next job."""
        with self._changed:
            self._chores = chores
            self._changed.notify()

    def close(self) -> None:
        """Interrupt what runs and let the worker end."""
        with self._changed:
            self._closed = True
            if self._running:
                self._running.interrupted.set()
            self._changed.notify_all()

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running job; with an id only if it is that one."""
        with self._changed:
            if self._running and prompt_id in (None, self._running.prompt_id):
                self._running.interrupted.set()

    def delete(self, prompt_ids: Iterable[object]) -> bool:
        """Remove waiting jobs; say whether there were any."""
        wanted = set(map(_hashable, prompt_ids))
        with self._changed:
            kept = [job for job in self._pending if job.prompt_id not in wanted]
            removed = len(kept) < len(self._pending)
            heapq.heapify(kept)
            self._pending = kept
            return removed

    def clear(self) -> None:
        """Remove all waiting jobs."""
        with self._changed:
            self._pending = []

    def remaining(self) -> int:
        """Return how many wait or run."""
        with self._changed:
            return len(self._pending) + (self._running is not None)

    def listing(self) -> tuple[list[Job], list[Job]]:
        """Return the running and the waiting jobs, the latter in heap order as ComfyUI does."""
        with self._changed:
            return [self._running] if self._running else [], list(self._pending)

    def history(self, *, max_items: int | None = None, offset: int = -1) -> str:
        """Return a part of the history as JSON text, oldest first.

        Args:
            max_items: At most so many; None: all.
            offset: From the oldest; below 0: the newest `max_items`.
        """
        with self._changed:
            entries = list(self._history.items())
        if offset < 0 and max_items is not None:
            offset = len(entries) - max_items
        offset = max(offset, 0)
        end = None if max_items is None else offset + max_items
        chosen = entries[offset:end] if end is None or end > offset else []
        return _join(chosen)

    def history_of(self, prompt_id: str) -> str:
        """Return `{id: entry}` as JSON text, or `{}`."""
        with self._changed:
            text = self._history.get(prompt_id)
        return "{}" if text is None else _join([(prompt_id, text)])

    def forget(self, prompt_ids: Iterable[object] | None) -> None:
        """Remove entries from the history; None: all."""
        with self._changed:
            if prompt_ids is None:
                self._history.clear()
                return
            for prompt_id in prompt_ids:
                self._history.pop(str(prompt_id), None)


def now_ms() -> int:
    """Return the time in milliseconds since 1970, as all timestamps of the protocol are."""
    return time.time_ns() // 1_000_000


def _join(entries: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in entries) + "}"


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else None

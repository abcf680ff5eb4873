"""The one thread that runs prompts."""

from __future__ import annotations

import logging
from threading import Thread

from comfynb.engine import messages
from comfynb.engine.execute import Executor
from comfynb.engine.queue import Chores, Job, Outcome, PromptQueue
from comfynb.engine.report import Report
from comfynb.engine.sockets import EVERYBODY, Frame, Sockets

log = logging.getLogger(__name__)


def status(queue: PromptQueue) -> dict[str, object]:
    """Return the data of a `status` message."""
    return {"status": {"exec_info": {"queue_remaining": queue.remaining()}}}


def tell_status(queue: PromptQueue, sockets: Sockets) -> None:
    """Tell every socket how long the queue is."""
    sockets.send(Frame(messages.event("status", status(queue))), EVERYBODY)


class Worker:
    """Takes prompts from the queue, one after another, until the queue is closed.

    Attributes:
        report: Of the prompt that runs, for sockets that join late; None: nothing runs.
    """

    def __init__(self, queue: PromptQueue, executor: Executor, sockets: Sockets) -> None:
        self.report: Report | None = None
        self._queue = queue
        self._executor = executor
        self._sockets = sockets
        self._thread = Thread(target=self._work, name="engine-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most `timeout` seconds; close the queue before."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while (task := self._queue.take()) is not None:
            try:
                if isinstance(task, Chores):
                    self._tidy(task)
                else:
                    self._run(task)
            except Exception:  # a dead worker would leave a server that accepts and never runs
                log.exception("the worker goes on after")

    def _tidy(self, chores: Chores) -> None:
        if chores.unload_models:
            self._executor.checkpoint.unload()
        # A kept result may hold the model, so unloading clears the results too.
        if chores.unload_models or chores.free_memory:
            self._executor.cache.clear()

    def _run(self, job: Job) -> None:
        report = self.report = Report(self._sockets, job)
        outcome = Outcome()
        try:
            tell_status(self._queue, self._sockets)
            outcome = self._executor.run(job, report)
        finally:
            # History first, then the message: whoever hears executing(null) finds the entry.
            self._queue.finish(job, outcome)
            self.report = None
            tell_status(self._queue, self._sockets)
            report.left()

"""One prompt on one server: a small state machine.

It is fed from two sides that may contradict each other in time but not in fact: messages from
the socket, which come at once but can be lost, and answers to /queue and /history, which come
late but are the truth. Whatever comes first ends it:

    sent -> heard (execution_start, executing, ...) -> complete (every leaf node reported, its
    bytes fetched) -> released (executing null, or gone from the queue)

A leaf is a node that no other node links to. Every other node is an ancestor of a leaf and runs
before it, so when all leaves have reported `executed` nothing more can come: the picture need
not wait for executing(null). A leaf that expands to a graph of its own never reports under its
own id, so that one does wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from comfynb.backends.base import (
    Ending,
    Given,
    Listener,
    Outcome,
    Preview,
    Progress,
    Released,
    Started,
    Warned,
)
from comfynb.backends.comfyui import messages as m
from comfynb.backends.comfyui.collected import (
    SOCKET_RESULT,
    Collected,
    Fetch,
    Said,
    class_of,
    name_of,
)
from comfynb.errors import BackendError, ServerError
from comfynb.keyframes import Failure
from comfynb.workflows import leaf_nodes

logger = logging.getLogger(__name__)

_VERDICTS = (m.ExecutionCached, m.ExecutionSuccess, m.ExecutionFailed, m.ExecutionInterrupted)
"""What a history entry's messages can tell that matters after the end."""


class Prompt:
    """What we know of one prompt.

    Attributes:
        id: Its id on the server.
        chosen_id: The id that we chose; an old server gives it another (see releases.py).
        sent: Whether it was POSTed, or is just now.
        posting: Whether it is not clear yet that the server has it.
        adopted: Whether another process sent it: how long it took was not seen.
        epoch: The connection it was sent under; messages come only while it stands.
        heard_at: When anything was last known of it; seconds, monotonic.
        ask: It has left the worker and only the history knows how.
        asked_at: When the server was last asked about it.
        asks: How often, since anything was heard.
        absent_since: When the server first said that it does not know it.
        released: Whether it has left the worker.
        done: Set when `outcome` may be called.
    """

    def __init__(
        self, prompt_id: str, graph: Mapping[str, Any], listener: Listener, fetch: Fetch
    ) -> None:
        self.id = self.chosen_id = prompt_id
        self.sent = self.posting = self.adopted = False
        self.epoch = -1
        self.ask = False
        self.asked_at = 0.0
        self.asks = 0
        self.absent_since: float | None = None
        self.released = False
        self.done = asyncio.Event()
        self.sent_at = self.heard_at = time.monotonic()
        self._graph, self._listener = graph, listener
        self._collected = Collected(graph, fetch, self.warn)
        self._leaves = set(leaf_nodes(graph))
        self._started_at: float | None = None
        self._reported_at: float | None = None
        self._current: str | None = None
        self._cached: frozenset[str] = frozenset()
        self._unknown_words: tuple[str, ...] = ()
        self._failure: Failure | None = None
        self._complete = False  # every leaf has reported: what comes later changes nothing
        self._status: str | None = None
        self._file_gone = False
        self._error: BackendError | None = None

    def send(self, epoch: int) -> None:
        """It is about to be POSTed under a connection."""
        self.epoch, self.sent, self.posting = epoch, True, True
        self.sent_at = self.heard_at = time.monotonic()

    def adopt(self, server_id: str) -> None:
        """A session that has died sent it: nothing will be heard of it, so it is asked about.

        Args:
            server_id: Its id on the server.
        """
        self.id = server_id
        self.sent = self.adopted = True

    # -- what the socket says

    def hear(self, message: m.Message) -> None:
        """Take a message that is about this prompt."""
        self._alive()
        self.asks = 0
        handler = self._HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message)

    def _on_start(self, _: m.ExecutionStart) -> None:
        self._start()

    def _on_cached(self, message: m.ExecutionCached) -> None:
        self._cached = frozenset(message.nodes)

    def _on_executing(self, message: m.Executing) -> None:
        self._start()
        self._current = message.node
        if message.node is None:
            self._left_worker()

    def _on_progress(self, message: m.NodeProgress) -> None:
        self._current = message.node
        if class_of(self._graph, message.node) == SOCKET_RESULT:
            self._collected.promise(message.node, message.maximum)
        self._listener(Progress(message.node, message.value, message.maximum))

    def _on_image(self, message: m.ImageFrame) -> None:
        node = message.node or self._current or ""
        if class_of(self._graph, node) == SOCKET_RESULT:
            self._collected.take_frame(node, message.data)
        else:
            self._listener(Preview(node, message.data, message.mime))

    def _on_executed(self, message: m.Executed) -> None:
        if message.output:  # null for a node that was cached within its own prompt
            self.collect(message.node, message.output)

    def _on_success(self, _: m.ExecutionSuccess) -> None:
        self._status = self._status or "success"
        if self.done.is_set():
            self.release()  # executing(null) follows; nothing is left to learn from it

    def _on_error(self, message: m.ExecutionFailed) -> None:
        if message.blocked:
            self._listener(Warned(f"node {message.node} was blocked: {message.message}"))
            return
        text = message.message or message.exception or "the node failed"
        failure = Failure(
            "node_error", text, f"{message.node} ({message.node_type})", _hint(message)
        )
        if self._complete:
            self.warn(str(failure))
        else:
            self._fail(failure)

    def _on_interrupted(self, _: m.ExecutionInterrupted) -> None:
        if not self._complete:
            self._status = "interrupted"

    _HANDLERS: Mapping[type, Callable[[Prompt, Any], None]] = {
        m.ExecutionStart: _on_start,
        m.ExecutionCached: _on_cached,
        m.Executing: _on_executing,
        m.NodeProgress: _on_progress,
        m.ImageFrame: _on_image,
        m.Executed: _on_executed,
        m.ExecutionSuccess: _on_success,
        m.ExecutionFailed: _on_error,
        m.ExecutionInterrupted: _on_interrupted,
    }

    # -- what asking says

    def seen_pending(self) -> None:
        """It waits in the server's queue."""
        self._alive()

    def seen_running(self) -> None:
        """It runs."""
        self._alive()
        self._start()

    def settle_from_history(self, entry: Mapping[str, Any]) -> None:
        """It has ended; `entry` is its history entry.

        An interrupt has status_str "error" too: only the messages tell (ComfyUI 0.3.75).
        """
        if self._complete:
            self.release()
            return
        outputs = entry.get("outputs")
        for node, output in outputs.items() if isinstance(outputs, dict) else ():
            if isinstance(output, dict):
                self.collect(str(node), output)
        status = entry.get("status")
        events = status.get("messages") if isinstance(status, dict) else None
        for event in events if isinstance(events, list) else ():
            if isinstance(event, list | tuple) and len(event) == 2:
                try:
                    message = m.parse_event(str(event[0]), event[1])
                except m.MalformedMessageError as exc:
                    logger.warning("prompt %s: its history is malformed: %s", self.id, exc)
                    continue
                if isinstance(message, _VERDICTS):
                    self._HANDLERS[type(message)](self, message)
        self.release()
        self._finish(asked=True)

    def settle_lost(self) -> None:
        """The server knows nothing of it: it was restarted, or somebody deleted it."""
        self.release()
        if not self.done.is_set():
            self._status = "lost"
            self._finish(asked=True)

    def settle_cancelled(self) -> None:
        """It was taken off the server, verified."""
        self.release()
        if not self.done.is_set():
            self._status = "interrupted"
            self._finish(asked=True)

    def settle_gone(self, error: BackendError) -> None:
        """Its server is gone: `outcome` raises."""
        self.release()
        if not self.done.is_set():
            self._error = error
            self.done.set()

    # -- collecting

    def collect(self, node: str, output: Said) -> None:
        """Begin to fetch what a node gave, once."""
        if self.done.is_set():
            return
        self._reported_at = self._reported_at or time.monotonic()
        words = output.get("unknown_words")
        if isinstance(words, list):
            self._unknown_words = tuple(str(word)[:80] for word in words[:100])
        self._collected.take(node, output)
        if self._leaves and self._leaves <= self._collected.reported:
            self._complete = True
            self.done.set()

    def _left_worker(self) -> None:
        self.release()
        self._finish(asked=False)

    def _finish(self, *, asked: bool) -> None:
        """The prompt is over: settle, or ask the history what the socket did not say."""
        if self.done.is_set():
            return
        silent = self._leaves - self._collected.reported - self._collected.sent
        if not asked and silent and self._failure is None and self._status != "interrupted":
            # A leaf that shows nothing, or a message that got lost: only the history knows.
            self.ask = True
            return
        self.done.set()

    async def outcome(self) -> Outcome:
        """Wait for the bytes and tell how it ended.

        Raises:
            BackendError: If its server is gone.
        """
        if self._error is not None:
            raise self._error
        given = await self._collected.given(self._lost)
        return self._judge(given, _between(self._reported_at, time.monotonic()))

    def _lost(self, node: str, error: BackendError) -> None:
        """Note a file that cannot be had."""
        # A server that restarted has no temporary files any more.
        self._file_gone |= isinstance(error, ServerError) and error.status == 404
        hint = "it was made but could not be read; retry makes it again"
        self._fail(Failure("fetch", str(error), name_of(self._graph, node), hint))

    def _judge(self, given: tuple[Given, ...], fetch_ms: float | None) -> Outcome:
        """Tell how it ended; what a prompt gave before it broke off is kept, and is not `done`."""
        status, failure = self._verdict(bool(given))
        return Outcome(
            status,
            given,
            failure=failure,
            unknown_words=self._unknown_words,
            server_cached=bool(self._cached) and self._cached >= self._graph.keys(),
            queued_ms=None if self.adopted else _between(self.sent_at, self._started_at),
            executing_ms=None if self.adopted else _between(self._started_at, self._reported_at),
            fetch_ms=fetch_ms,
        )

    def _verdict(self, anything: bool) -> tuple[Ending, Failure | None]:  # noqa: FBT001
        if self._failure is not None:
            return ("lost" if self._file_gone else "failed"), self._failure
        if self._status == "lost":
            text = "the server does not know this prompt any more"
            hint = "it was restarted, or somebody cleared its queue; retry makes it again"
            return "lost", Failure("lost", text, hint=hint)
        if self._status == "interrupted":
            return "cancelled", Failure("interrupted", "somebody stopped this prompt")
        if anything:
            return "done", None
        text = "the workflow ended well but gave no picture, nor anything else"
        hint = "it needs an output node such as SaveImage whose branch is not muted or blocked"
        for leaf in self._leaves:
            if class_of(self._graph, leaf) == SOCKET_RESULT:
                text = f"the pictures of node {name_of(self._graph, leaf)} did not come"
                hint = (
                    "they travel over the socket only and are lost when it breaks: put SaveImage "
                    "or PreviewImage in its place, then retry"
                )
                if self.adopted:  # they went to the session that died
                    return "lost", Failure("lost", text, hint=hint)
        return "failed", Failure("no_output", text, hint=hint)

    # -- small things

    @property
    def started(self) -> bool:
        """Whether the worker took it."""
        return self._started_at is not None

    def warn(self, text: str) -> None:
        """Tell the listener something that is no failure."""
        self._listener(Warned(text))

    def release(self) -> None:
        """It is off the worker; said once."""
        if not self.released:
            self.released = True
            self._listener(Released())

    async def drop_fetches(self) -> None:
        """Nobody wants its bytes any more, or all are here."""
        await self._collected.drop()

    def _alive(self) -> None:
        self.heard_at, self.absent_since = time.monotonic(), None

    def _start(self) -> None:
        if self._started_at is None:
            self._started_at = time.monotonic()
            self._listener(Started())

    def _fail(self, failure: Failure) -> None:
        self._failure = self._failure or failure


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else max(0.0, end - begin) * 1000


def _hint(message: m.ExecutionFailed) -> str:
    text = f"{message.exception} {message.message}".lower()
    if "out of memory" in text or "outofmemory" in text:
        return "use a smaller size or batch, or free memory on the server, then retry"
    return "look at this node's inputs; the server's log has the full traceback"

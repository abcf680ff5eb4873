"""What the clients of a prompt are told, and in which order.

Who gets what (measured on ComfyUI 0.3.75): messages of a prompt go to the socket registered under
its client id. A prompt without one tells nobody when it starts, executes and ends, but everybody
about its progress, its previews and its being interrupted.
"""

from __future__ import annotations

import traceback
from typing import Any

from comfynb.engine import messages
from comfynb.engine.messages import EncodedImage
from comfynb.engine.queue import Job, now_ms
from comfynb.engine.registry import Blocked
from comfynb.engine.sockets import EVERYBODY, Frame, Sockets

SHOWN_LENGTH = 2000
"""Characters of an input value that an error quotes; an array's text can be endless."""


class Report:
    """The messages of one prompt, sent from the worker thread.

    Attributes:
        history: The messages that its history entry keeps.
        node: Id of the node named last by `executing`, for sockets that join late.
    """

    def __init__(self, sockets: Sockets, job: Job) -> None:
        self.job = job
        self.history: list[tuple[str, dict[str, Any]]] = []
        self.node: str | None = None
        self._sockets = sockets
        self._id = {"prompt_id": job.prompt_id}
        self._states: dict[str, dict[str, Any]] = {}

    @property
    def watched(self) -> bool:
        """Whether a preview would reach anybody."""
        return self._sockets.watched(self.job.client_id)

    def started(self) -> None:
        """The worker took the prompt."""
        self._remember("execution_start", {**self._id, "timestamp": now_ms()})

    def cached(self, node_ids: list[str]) -> None:
        """The results of these nodes are there already."""
        data = {"nodes": node_ids, **self._id, "timestamp": now_ms()}
        self._remember("execution_cached", data)

    def running(self, node_id: str) -> None:
        """A node begins."""
        self._state(node_id, 0.0, 1.0, "running")
        self.node = node_id
        self._private("executing", {"node": node_id, "display_node": node_id, **self._id})

    def progress(self, node_id: str, value: int, total: int, image: EncodedImage | None) -> None:
        """A node did a step, and may have a picture to show of it."""
        self._state(node_id, value, total, "running")
        data = {"value": value, "max": total, **self._id, "node": node_id}
        # The picture comes before `progress` with metadata and after it without (measured).
        if image is not None:
            self._picture(image, node_id, metadata=True)
        self._public(Frame(messages.event("progress", data), lossy=True))
        if image is not None:
            self._picture(image, node_id, metadata=False)

    def text(self, node_id: str, text: str) -> None:
        """A node says something."""
        self._public(Frame(messages.node_text(node_id, text)))

    def executed(self, node_id: str, output: dict[str, Any] | None) -> None:
        """A node has something to show."""
        data = {"node": node_id, "display_node": node_id, "output": output, **self._id}
        self._private("executed", data)

    def finished(self, node_id: str) -> None:
        """A node is done."""
        total = self._states[node_id]["max"]
        self._state(node_id, total, total, "finished")

    def known(self, node_id: str, output: dict[str, Any] | None) -> None:
        """A visited node's result was there already."""
        self.executed(node_id, output)
        self._state(node_id, 1, 1, "finished")

    def blocked(self, node_id: str, executed: list[str], block: Blocked) -> None:
        """A node may not run; the prompt goes on."""
        data = {
            **self._node(node_id, executed),
            "exception_message": f"Execution Blocked: {block.message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self._private("execution_error", data)

    def failed(
        self, node_id: str, executed: list[str], inputs: dict[str, Any], error: Exception
    ) -> None:
        """A node raised; the prompt ends."""
        kind = type(error)
        prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        data = {
            **self._node(node_id, executed),
            "exception_message": f"{error}\n",
            "exception_type": prefix + kind.__qualname__,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_shown(value)] for name, value in inputs.items()},
            "current_outputs": list(self.job.graph),
            "timestamp": now_ms(),
        }
        self._remember("execution_error", data)

    def interrupted(self, node_id: str, executed: list[str]) -> None:
        """A node was interrupted; the prompt ends."""
        data = {**self._node(node_id, executed), "timestamp": now_ms()}
        self.history.append(("execution_interrupted", data))
        self._public(Frame(messages.event("execution_interrupted", data)))

    def succeeded(self) -> None:
        """All nodes are done."""
        self._remember("execution_success", {**self._id, "timestamp": now_ms()})

    def left(self) -> None:
        """The prompt left the worker; its history entry is there."""
        self.node = None
        self._private("executing", {"node": None, **self._id})

    def _node(self, node_id: str, executed: list[str]) -> dict[str, Any]:
        node_type = self.job.graph[node_id]["class_type"]
        return {**self._id, "node_id": node_id, "node_type": node_type, "executed": executed}

    def _remember(self, kind: str, data: dict[str, Any]) -> None:
        self.history.append((kind, data))
        self._private(kind, data)

    def _private(self, kind: str, data: dict[str, Any]) -> None:
        text = messages.event(kind, data)  # also without a client: what cannot be said is an error
        if self.job.client_id is not None:
            self._sockets.send(Frame(text), self.job.client_id)

    def _public(self, frame: Frame) -> None:
        client_id = self.job.client_id
        self._sockets.send(frame, EVERYBODY if client_id is None else client_id)

    def _place(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            **self._id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _picture(self, image: EncodedImage, node_id: str, *, metadata: bool) -> None:
        if metadata:
            data = messages.preview_with_metadata(image, self._place(node_id))
        else:
            data = messages.preview(image)
        # PNG pictures are SaveImageWebsocket's results; JPEG ones are previews.
        self._public(Frame(data, lossy=image.format == "JPEG", metadata=metadata))

    def _state(self, node_id: str, value: float, total: float, state: str) -> None:
        self._states[node_id] = {
            "value": value,
            "max": total,
            "state": state,
            **self._place(node_id),
        }
        data = {**self._id, "nodes": self._states}
        self._public(Frame(messages.event("progress_state", data), lossy=True))


def _shown(value: Any) -> Any:
    """Return an input as an error quotes it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:SHOWN_LENGTH]

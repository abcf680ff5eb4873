"""Why a cell has no picture, where it is this side that says so."""

from __future__ import annotations

from collections.abc import Mapping

from comfynb.errors import (
    AccessDeniedError,
    ComfynbError,
    LogWriteError,
    NotComfyUIError,
    ServerGoneError,
    WorkerDeadError,
    WorkflowCheckError,
)
from comfynb.keyframes import Failure
from comfynb.servers.server_types import invalid

CANCELLED = Failure("cancelled", "cancelled before it was made")
NOT_BEGUN = Failure("cancelled", "cancelled before it was begun")
DELETED = Failure(
    "deleted",
    "its picture was deleted from the log",
    hint="retry makes it anew, log.restore brings it back",
)

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


def failure_of(error: ComfynbError) -> Failure:
    """Return an error as the reason of a cell."""
    if isinstance(error, WorkflowCheckError):
        return invalid(error.problems)
    kind, hint = _KINDS.get(type(error), ("not_started", ""))
    return Failure(kind, str(error), hint=hint)


def goes_on(server: str) -> Failure:
    """Return the reason of a cell that was cancelled while it ran, on a server too old for it."""
    return Failure(
        "cancelled",
        f"cancelled; but {server} is too old to interrupt one prompt alone, so it comes to its end "
        "there",
        hint="retry fetches its picture; ComfyUI 0.3.57 and newer can be interrupted",
    )


def lost_before(server: str) -> Failure:
    """Return the reason of a cell whose prompt a dead session sent, and its server forgot."""
    return Failure(
        "lost",
        f"it was sent to {server} earlier, and {server} does not know it any more",
        hint="the server was restarted, or somebody cleared its queue; retry makes it again",
    )


def unknown(server: str) -> Failure:
    """Return the reason of a cell whose prompt is on a server that cannot be asked."""
    return Failure(
        "unknown",
        f"it was sent to {server} earlier, and {server} is not connected now",
        hint=f"connect to {server} and resume, which fetches its picture; "
        "or make it anew with force=True",
    )

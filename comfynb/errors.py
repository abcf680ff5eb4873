"""Every error that comfynb raises, in one tree.

    ComfynbError
    ├── SceneError            a scene or storyboard that cannot be understood (also a ValueError)
    ├── WorkflowError         a graph that cannot be read or used (also a ValueError)
    │   ├── UnknownKnobError  no such knob; carries the nearest names (also a KeyError)
    │   ├── KnobValueError    a value that a knob does not take
    │   ├── WorkflowCheckError  what a server lacks or would refuse, found before sending
    │   └── CheckpointError   no checkpoint, or several and none chosen
    ├── BackendError          a server that renders
    │   ├── ServerUnreachableError  nobody answers at that address           (retryable)
    │   │   └── CertificateError    its certificate is not trusted
    │   ├── NotComfyUIError         somebody answers, but not a ComfyUI
    │   ├── AccessDeniedError       401 or 403: a token is missing or wrong
    │   ├── ServerGoneError         it was there and is gone                 (retryable)
    │   │   └── WorkerDeadError     it answers, but runs nothing any more
    │   ├── ServerError             it answered with a fault of its own      (retryable)
    │   │   └── RedirectedError     it points to an address that we do not follow to
    │   ├── PromptRejectedError     it refused a graph; becomes a failed keyframe
    │   ├── EngineMissingError      the embedded engine is not installed
    │   └── EngineError             the embedded engine did not start
    ├── LogError              the log folder
    │   ├── LogWriteError     a row or picture could not be made durable (disk full, read-only)
    │   ├── LogVersionError   written by a newer comfynb
    │   ├── MarkError         what cannot be said about a keyframe (also a ValueError)
    │   └── QueryError        an SQL text that is not one SELECT over the log (also a ValueError)
    ├── KeyframeFailedError   raised on request only: `raise_for_failed`
    └── ClosedError           a studio, run or log that was closed before

A failed cell is a value and not an exception (`keyframes.Failure`): these errors are for what
stops a whole call. A message says what happened, to which thing, and what to do next. None
carries a token: addresses are cleaned before they get here.

Those that are a ValueError too are mistakes of the caller. A notebook shows them short
(tracebacks.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ComfynbError(Exception):
    """The root: catch this for anything comfynb raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields, whatever `__init__` takes: errors cross processes."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ComfynbError], args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class _Mistake:
    """A mistake in what the caller gave: a notebook shows the caller's line, and not our frames."""

    def _render_traceback_(self) -> list[str]:
        from comfynb.tracebacks import shown  # noqa: PLC0415 - only where IPython asks

        assert isinstance(self, ComfynbError)
        return shown(self)


class SceneError(_Mistake, ComfynbError, ValueError):
    """A scene or storyboard that cannot be understood.

    Attributes:
        source: Where it came from, such as a file name, or None.
        row: Which entry, such as "row 3" or "line 7", or None for the whole.
    """

    def __init__(
        self, problem: str, *, source: str | None = None, row: str | None = None, hint: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem, self.source, self.row, self.hint = problem, source, row, hint

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.source, self.row) if part)
        text = f"{where}: {self.problem}" if where else self.problem
        return f"{text}. {self.hint}" if self.hint else text


class WorkflowError(_Mistake, ComfynbError, ValueError):
    """A graph that cannot be read or used."""


class UnknownKnobError(WorkflowError, KeyError):
    """A knob that the workflow does not have.

    Attributes:
        knob: The name that was asked for.
        known: The names that exist.
        nearest: The most similar of them, best first.
    """

    def __init__(self, knob: str, known: Sequence[str], nearest: Sequence[str] = ()) -> None:
        super().__init__(knob)
        self.knob, self.known, self.nearest = knob, tuple(known), tuple(nearest)

    def __str__(self) -> str:
        text = f"the workflow has no knob {self.knob!r}"
        if self.nearest:
            text += "; did you mean " + " or ".join(repr(name) for name in self.nearest)
        return f"{text}{'?' if self.nearest else '.'} It has: {', '.join(self.known) or 'none'}"


class KnobValueError(WorkflowError):
    """A value that a knob does not take: of another type, out of range, none of its choices.

    Attributes:
        knob: Name of the knob.
        node: Id of its node.
        node_type: Class of its node.
        input: Name of its input.
        value: What it was to be set to.
        nearest: The most similar choices, best first.
    """

    def __init__(
        self,
        message: str,
        *,
        knob: str,
        node: str,
        node_type: str,
        input: str,  # noqa: A002 - the field's word
        value: Any,
        nearest: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.knob, self.node, self.node_type, self.input = knob, node, node_type, input
        self.value, self.nearest = value, tuple(nearest)


class WorkflowCheckError(WorkflowError):
    """What a server lacks for a workflow, or would refuse in it; found before anything was sent.

    Attributes:
        report: All that was found, a `workflows.Report`: a table in a notebook.
        problems: What is in the way, one `workflows.Problem` each.
    """

    def __init__(self, report: Any) -> None:
        super().__init__(str(report))
        self.report = report
        self.problems = tuple(report.errors)

    def _repr_html_(self) -> str:
        return str(self.report._repr_html_())


class CheckpointError(WorkflowError):
    """The library workflow needs a checkpoint and cannot choose one by itself.

    Attributes:
        server: Label of the server.
        available: The checkpoints it offers.
    """

    def __init__(self, server: str, available: Sequence[str], wanted: str | None = None) -> None:
        super().__init__(server)
        self.server, self.available, self.wanted = server, tuple(available), wanted

    def __str__(self) -> str:
        if not self.available:
            return (
                f"{self.server} has no checkpoint: put one into its models/checkpoints folder, "
                "or give a workflow that loads its model in another way"
            )
        listed = "".join(f"\n  {name}" for name in self.available)
        if self.wanted is not None:
            return f"{self.server} has no checkpoint {self.wanted!r}. It has:{listed}"
        return (
            f"{self.server} has {len(self.available)} checkpoints; choose one with "
            f"connect(checkpoint=...):{listed}"
        )


class BackendError(ComfynbError):
    """Something about a server that renders.

    Attributes:
        server: Its label: host and port, never a token.
    """

    def __init__(self, message: str, *, server: str = "") -> None:
        super().__init__(message)
        self.server = server


class ServerUnreachableError(BackendError):
    """Nobody answers at that address."""


class CertificateError(ServerUnreachableError):
    """The certificate of the server is not trusted, so nothing was sent."""


class NotComfyUIError(BackendError):
    """Somebody answers, but it does not look like a ComfyUI."""


class AccessDeniedError(BackendError):
    """The server, or a proxy before it, answered 401 or 403.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, *, server: str = "", status: int) -> None:
        super().__init__(message, server=server)
        self.status = status


class ServerGoneError(BackendError):
    """The server was there and could not be reached again in time."""


class WorkerDeadError(ServerGoneError):
    """The server takes prompts and runs none: only a restart helps."""


class ServerError(BackendError):
    """The server answered with a fault of its own.

    Attributes:
        status: The HTTP status, or None where the answer itself was unusable.
    """

    def __init__(self, message: str, *, server: str = "", status: int | None = None) -> None:
        super().__init__(message, server=server)
        self.status = status


class RedirectedError(ServerError):
    """The answer points to an address to which our secrets must not follow.

    Attributes:
        target: The address, without query.
    """

    def __init__(self, message: str, *, server: str, status: int, target: str) -> None:
        super().__init__(message, server=server, status=status)
        self.target = target


class PromptRejectedError(BackendError):
    """The server refused a graph before running it (HTTP 400 on POST /prompt).

    Attributes:
        kind: ComfyUI's error type, such as "prompt_outputs_failed_validation".
        node: Id of the first node complained about, or None.
        node_type: Its class, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        server: str = "",
        kind: str,
        node: str | None = None,
        node_type: str | None = None,
    ) -> None:
        super().__init__(message, server=server)
        self.kind, self.node, self.node_type = kind, node, node_type


class EngineMissingError(BackendError):
    """No ComfyUI was found and the embedded engine is not installed."""


class EngineError(BackendError):
    """The embedded engine did not start, or ended unasked."""


class LogError(ComfynbError):
    """Something about a log folder.

    Attributes:
        folder: The folder as the user named it.
    """

    def __init__(self, message: str, *, folder: str = "") -> None:
        super().__init__(message)
        self.folder = folder


class LogWriteError(LogError):
    """A row or picture could not be made durable: disk full, read-only, gone."""


class LogVersionError(LogError):
    """The log was written by a newer comfynb than this one."""


class MarkError(_Mistake, LogError, ValueError):
    """What cannot be said about a keyframe: a rating of 7, a tag of two lines, no keyframe."""


class QueryError(_Mistake, LogError, ValueError):
    """An SQL text that is not exactly one SELECT over the log's own views."""


class KeyframeFailedError(ComfynbError):
    """At least one keyframe failed; raised only where a caller asked for it.

    Attributes:
        failures: (scene id, reason) of each.
    """

    def __init__(self, failures: Sequence[tuple[str, str]]) -> None:
        super().__init__(len(failures))
        self.failures = tuple(failures)

    def __str__(self) -> str:
        lines = "".join(f"\n  {scene}: {reason}" for scene, reason in self.failures)
        return f"{len(self.failures)} of the keyframes failed:{lines}"


class ClosedError(ComfynbError):
    """A studio, run or log that was closed before this call."""

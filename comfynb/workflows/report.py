"""What a check found: problems, and the report that puts them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from comfynb.errors import WorkflowCheckError

Severity = Literal["error", "warning"]

_SHOWN = 30
"""Problems in the text of a report."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a workflow on a server.

    Attributes:
        node: Id of the node, or "" where it concerns the whole graph.
        node_type: Its class, or "".
        input: Name of the input, or "".
        message: What is wrong with it, and what to do.
        scenes: Ids of the scenes that it concerns; () where it is in the graph of all.
        severity: "error": the server refuses the graph; "warning": it runs, but not as asked.
        nearest: What may have been meant, best first.
    """

    node: str
    node_type: str
    input: str
    message: str
    scenes: tuple[str, ...] = ()
    severity: Severity = "error"
    nearest: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether the server refuses the graph for it."""
        return self.severity == "error"

    @property
    def where(self) -> str:
        """The node, as "id (class.input)"; "" for the whole graph."""
        return f"{self.node} ({self.node_type}{self.input and '.'}{self.input})" * bool(self.node)

    def __str__(self) -> str:
        where = f"node {self.where}: " if self.node else ""
        which = ", ".join(self.scenes[:5]) + (", ..." if len(self.scenes) > 5 else "")
        return where + self.message + (f" [{which}]" if which else "")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found: shown as a table in a notebook.

    Attributes:
        server: Label of the server.
        scenes: How many were checked.
        problems: Errors first, then warnings.
        checked: False where the server's node types are not known, so that nothing could be
            checked.
    """

    server: str
    scenes: int
    problems: tuple[Problem, ...] = ()
    checked: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing is in the way; there may be warnings."""
        return not self.errors

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems for which the server would refuse a graph."""
        return tuple(problem for problem in self.problems if problem.is_error)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems with which the server runs nevertheless."""
        return tuple(problem for problem in self.problems if not problem.is_error)

    @property
    def shared(self) -> tuple[Problem, ...]:
        """The errors that are in every scene: nothing at all can be drawn."""
        return tuple(problem for problem in self.errors if not problem.scenes)

    def of(self, scene: str) -> tuple[Problem, ...]:
        """Return the problems that concern a scene."""
        return tuple(p for p in self.problems if not p.scenes or scene in p.scenes)

    def raise_for_errors(self) -> None:
        """Raise if anything is in the way.

        Raises:
            WorkflowCheckError: There is an error; carries this report.
        """
        if self.errors:
            raise WorkflowCheckError(self)

    def raise_for_shared(self) -> None:
        """Raise if nothing at all can be drawn.

        Raises:
            WorkflowCheckError: An error is in every scene; carries this report.
        """
        if self.shared:
            raise WorkflowCheckError(self)

    def headline(self) -> str:
        """Say in one sentence how it stands."""
        which = "the workflow" if self.scenes == 1 else f"the workflow for {self.scenes} scenes"
        if not self.checked:
            return f"{self.server} has not said what nodes it has: {which} could not be checked"
        if not self.problems:
            return f"{self.server} can run {which}"
        count = len(self.errors) or len(self.warnings)
        word = "problem" if self.errors else "warning"
        told = f"{count} {word}{'s'[: count > 1]}"
        if self.shared:
            return f"{self.server} cannot run {which}: {told}; nothing was sent"
        if self.errors:
            failing = len({scene for problem in self.errors for scene in problem.scenes})
            return f"{self.server} cannot run {failing} of {self.scenes} scenes: {told}"
        return f"{self.server} can run {which}, with {told}"

    def __str__(self) -> str:
        shown = self.problems[:_SHOWN]
        lines = [f"\n  {'warning: ' * (not p.is_error)}{p}" for p in shown]
        more = len(self.problems) - len(shown)
        return self.headline() + "".join(lines) + (f"\n  and {more} more" if more else "")

    def __repr__(self) -> str:
        return f"<{self}>"

    def _repr_html_(self) -> str:
        from comfynb.workflows.tables import report_html  # noqa: PLC0415 - only where it is shown

        return report_html(self)

"""What a check found: problems, and the report that puts them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
        server: Which server it is about, where there are several and not all have it; else "".
    """

    node: str
    node_type: str
    input: str
    message: str
    scenes: tuple[str, ...] = ()
    severity: Severity = "error"
    nearest: tuple[str, ...] = ()
    server: str = ""

    @property
    def is_error(self) -> bool:
        """Whether the server refuses the graph for it."""
        return self.severity == "error"

    @property
    def where(self) -> str:
        """The node, as "id (class.input)"; "" for the whole graph."""
        return f"{self.node} ({self.node_type}{self.input and '.'}{self.input})" * bool(self.node)

    def __str__(self) -> str:
        where = f"{self.server}: " if self.server else ""
        where += f"node {self.where}: " if self.node else ""
        which = ", ".join(self.scenes[:5]) + (", ..." if len(self.scenes) > 5 else "")
        return where + self.message + (f" [{which}]" if which else "")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found: shown as a table in a notebook.

    Attributes:
        server: Label of the server; of several, of those that can make most.
        scenes: How many were checked.
        problems: Errors first, then warnings.
        checked: False where the server's node types are not known, so that nothing could be
            checked.
        left_out: Labels of the servers that are given nothing, since others can make more; what
            they lack is among the warnings.
    """

    server: str
    scenes: int
    problems: tuple[Problem, ...] = ()
    checked: bool = True
    left_out: tuple[str, ...] = ()

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
        if not self.left_out:
            return self._verdict()
        verb = "is" if len(self.left_out) == 1 else "are"
        return f"{self._verdict()}; {', '.join(self.left_out)} {verb} left out"

    def _verdict(self) -> str:
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


def together(reports: Sequence[Report]) -> Report:
    """Put the reports of several servers into one, as a run uses them.

    Those that can make most are given the cells. A server that would refuse more is left out: what
    it lacks is a warning. One that has not said what it has is let judge for itself.

    Args:
        reports: Of each server, about the same scenes; at least one.
    """
    if len(reports) == 1:
        return reports[0]
    best = min(reports, key=lambda report: (not report.checked, len(report.errors)))
    refused = _places(best.errors)
    kept = [report for report in reports if _places(report.errors) <= refused]
    left_out = [report for report in reports if report not in kept]
    where = ", ".join(report.server for report in kept)
    everywhere = refused.intersection(*(_places(report.errors) for report in left_out))
    errors = [e if _place(e) in everywhere else replace(e, server=where) for e in best.errors]
    shared = {_place(w): w for w in best.warnings}
    for report in kept:
        shared = {place: w for place, w in shared.items() if place in _places(report.warnings)}
    warnings = list(shared.values())
    checked = any(report.checked for report in reports)
    for report in kept:
        more = [w for w in report.warnings if _place(w) not in shared]
        if checked and not report.checked:
            text = "it has not said what nodes it has, so nothing could be checked"
            more.append(Problem("", "", "", text, severity="warning"))
        warnings += [replace(w, server=report.server) for w in more]
    for report in left_out:
        lacks = [e for e in report.errors if _place(e) not in refused]
        warnings += [replace(e, server=report.server, severity="warning") for e in lacks]
    return Report(
        where,
        best.scenes,
        (*errors, *warnings),
        checked=checked,
        left_out=tuple(report.server for report in left_out),
    )


def _place(problem: Problem) -> tuple[object, ...]:
    """Tell problems apart as servers do: what they say of one may differ in what they offer."""
    return problem.node, problem.input, problem.scenes


def _places(problems: Iterable[Problem]) -> set[tuple[object, ...]]:
    return {_place(problem) for problem in problems}

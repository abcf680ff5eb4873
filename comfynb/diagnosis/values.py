"""What a diagnosis found: plain values, and how a script, a terminal and a notebook see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from comfynb._version import __version__
from comfynb.keyframes import EMPTY

Severity = Literal["note", "warning", "problem"]
"""note: good to know; warning: it works, but look at it; problem: something does not work."""

Status = Literal["good", "warning", "problem", "skipped"]

_ORDER: dict[str, int] = {"problem": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know.

    Attributes:
        part: Name of the part that found it, such as "queue".
        severity: How bad it is.
        what: What was found, in one sentence.
        next_step: What to do about it, or "".
    """

    part: str
    severity: Severity
    what: str
    next_step: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON takes it."""
        return {
            "part": self.part,
            "severity": self.severity,
            "what": self.what,
            "next_step": self.next_step,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was examined.

    Attributes:
        name: For programs, such as "round_trip".
        title: For people.
        status: The worst of its findings; "skipped": it was not examined.
        facts: (label, text) pairs to show.
        data: The same for programs: numbers, seconds as `_ms`, sizes as `_bytes`.
        findings: What a person should know.
        seconds: How long it took.
    """

    name: str
    title: str
    status: Status
    facts: tuple[tuple[str, str], ...] = ()
    data: Mapping[str, Any] = field(default=EMPTY)
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "findings": [finding.to_dict() for finding in self.findings],
            **self.data,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """How a server is, and what to do about it. Made by `comfynb.diagnose`.

    Attributes:
        server: Its label: host, port and base path.
        reached: Whether a ComfyUI answers there.
        parts: What was examined, in order.
        at: When, in local time.
        seconds: How long it took.
    """

    server: str
    reached: bool
    parts: tuple[Part, ...]
    at: datetime
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it works: no problem was found. Warnings do not count."""
        return not any(finding.severity == "problem" for finding in self.findings)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the worst first."""
        every = [finding for part in self.parts for finding in part.findings]
        return tuple(sorted(every, key=lambda finding: _ORDER[finding.severity]))

    @property
    def shown(self) -> tuple[Part, ...]:
        """The parts worth showing: of a server that was not reached, those that were examined."""
        return tuple(part for part in self.parts if self.reached or part.status != "skipped")

    @property
    def exit_status(self) -> int:
        """For scripts: 0 it works, 1 it answers but something does not work, 2 not reached."""
        if not self.reached:
            return 2
        return 0 if self.ok else 1

    @property
    def verdict(self) -> str:
        """Everything in a few words."""
        if not self.reached:
            return "not reached"
        counts = [
            (sum(finding.severity == severity for finding in self.findings), severity)
            for severity in ("problem", "warning")
        ]
        said = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in counts if n]
        return ", ".join(said) or "all is well"

    def __getitem__(self, name: str) -> Part:
        """Return a part by name, such as `diagnosis["queue"]`.

        Raises:
            KeyError: There is none of that name.
        """
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it; what `comfynb doctor --json` prints."""
        return {
            "server": self.server,
            "reached": self.reached,
            "ok": self.ok,
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            "at": self.at.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "comfynb": __version__,
            "findings": [finding.to_dict() for finding in self.findings],
            "parts": {part.name: part.to_dict() for part in self.parts},
        }

    def __repr__(self) -> str:
        return f"<Diagnosis of {self.server}: {self.verdict}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001 - IPython's
        printer.text(str(self))

    def __str__(self) -> str:
        from comfynb.diagnosis.table import as_text  # noqa: PLC0415 - rich takes 0.1 s

        return as_text(self)

    def _repr_html_(self) -> str:
        from comfynb.diagnosis.page import as_html  # noqa: PLC0415 - notebooks only

        return as_html(self)

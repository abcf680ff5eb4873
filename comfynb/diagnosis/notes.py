"""Taking notes while a part is examined. What a server says is cut, cleaned and scrubbed here."""

from __future__ import annotations

import time
from typing import Any

from comfynb.diagnosis.values import Finding, Part, Severity, Status
from comfynb.scrubbing import scrub

LONGEST = 300
"""Characters of one text."""


def clean(text: object, longest: int = LONGEST) -> str:
    """Return a text of a server in one line, without control characters and secrets.

    Args:
        text: Anything JSON may hold.
        longest: Characters that are kept.
    """
    words = scrub(" ".join(str(text)[: longest * 4].split()))
    shown = "".join(letter for letter in words if letter.isprintable())
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def count(number: int, noun: str) -> str:
    """Return "1 image", "2 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(value: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return (
                f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
            )
        value /= 1000
    return f"{value:.1f} TB"


def span(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


class Notes:
    """What is known of one part so far."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self._title = title
        self._facts: list[tuple[str, str]] = []
        self._data: dict[str, Any] = {}
        self._findings: list[Finding] = []
        self._begun = time.monotonic()
        self._skipped = False

    def fact(self, label: str, shown: str, **data: Any) -> None:
        """Note something to show, and the same for programs."""
        self._facts.append((label, clean(shown)))
        self._data.update(data)

    def data(self, **data: Any) -> None:
        """Note something for programs alone."""
        self._data.update(data)

    def note(self, what: str, next_step: str = "") -> None:
        """Note what is good to know."""
        self._find("note", what, next_step)

    def warn(self, what: str, next_step: str) -> None:
        """Note what works and should be looked at."""
        self._find("warning", what, next_step)

    def problem(self, what: str, next_step: str) -> None:
        """Note what does not work."""
        self._find("problem", what, next_step)

    def skip(self, why: str) -> None:
        """Note that it is not examined."""
        self._skipped = True
        self._facts.append(("Not examined", clean(why)))
        self._data["skipped"] = clean(why)

    def _find(self, severity: Severity, what: str, next_step: str) -> None:
        self._findings.append(Finding(self.name, severity, clean(what, 600), clean(next_step, 600)))

    def part(self) -> Part:
        """Return what was noted."""
        found = {finding.severity for finding in self._findings}
        status: Status = "good"
        if "problem" in found:
            status = "problem"
        elif "warning" in found:
            status = "warning"
        elif self._skipped:
            status = "skipped"
        seconds = time.monotonic() - self._begun
        return Part(
            self.name, self._title, status, tuple(self._facts), self._data,
            tuple(self._findings), seconds,
        )  # fmt: skip

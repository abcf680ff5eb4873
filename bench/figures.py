"""A figure beside its yardstick, and the table of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured in turns, a value for each round.

    Attributes:
        what: In words.
        ours: Values of comfynb (or of what is judged), one a round.
        beside: Values of the yardstick, one a round; empty: there is none.
        unit: Of both.
        judged: What the limit is about: the ratio of each round, the difference of the medians,
            or the value itself.
        limit: At most; None: for information.
    """

    what: str
    ours: Sequence[float]
    beside: Sequence[float] = ()
    unit: str = "ms"
    judged: Literal["ratio", "difference", "value"] = "value"
    limit: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [ours / beside for ours, beside in zip(self.ours, self.beside, strict=False)]

    @property
    def difference(self) -> float:
        return statistics.median(self.ours) - statistics.median(self.beside)

    @property
    def judged_value(self) -> float:
        if self.judged == "ratio":
            return statistics.median(self.ratios)
        return self.difference if self.judged == "difference" else statistics.median(self.ours)

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "ok" if self.judged_value <= self.limit else "over"

    def cells(self) -> list[str]:
        """The columns of the table."""
        target = ""
        if self.limit is not None:
            unit = "" if self.judged == "ratio" or not self.unit else f" {self.unit}"
            sign = "+" if self.judged == "difference" else ""
            target = f"<= {sign}{self.limit:g}{unit}"
        return [
            self.what,
            spread(self.beside),
            spread(self.ours),
            spread(self.ratios),
            f"{self.difference:+.1f}" if self.judged == "difference" else "",
            self.unit,
            target,
            self.verdict,
        ]

    def to_dict(self) -> dict[str, object]:
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": list(self.ours),
            "beside": list(self.beside),
            "judged": self.judged,
            "value": self.judged_value,
            "limit": self.limit,
            "verdict": self.verdict or None,
        }


HEADINGS = ["", "yardstick", "comfynb", "ratio", "more", "unit", "target", ""]


def table(rows: Sequence[Row]) -> str:
    """Lay out rows as plain text: medians, and the smallest and largest of the rounds."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def spread(values: Sequence[float]) -> str:
    """Write a median with its smallest and largest value."""
    if not values:
        return ""
    middle, low, high = statistics.median(values), min(values), max(values)
    if low == high:
        return _short(middle)
    return f"{_short(middle)} [{_short(low)}..{_short(high)}]"


def _short(value: float) -> str:
    if value == int(value):
        return str(int(value))
    return f"{value:.{max(0, 2 - int(math.log10(max(abs(value), 1))))}f}"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

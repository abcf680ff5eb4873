"""Values from outside: as Python's own, and in words for error texts.

The words are bounded, whatever a file, a user or a server holds.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Sequence
from typing import Any, TypeGuard

MAX_SEED = 2**64 - 1
"""ComfyUI's range for seeds: nodes.py, KSampler.INPUT_TYPES, 0xffffffffffffffff."""

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother, _repr.maxlong = 2, 60, 60, 60


def native(value: Any) -> Any:
    """Return Python's own number or truth value for one of numpy's; anything else as it is."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite number; true and false are none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def as_whole(value: Any) -> int | None:
    """Return a whole number, which tables may hold as a float; None for anything else."""
    return int(value) if is_number(value) and value % 1 == 0 else None


def short(value: Any) -> str:
    """Return the repr, cut to about 60 characters a part and two levels."""
    try:
        return _repr.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a huge number"


def describe(value: Any) -> str:
    """Name a value and what it is, to stand after "not"."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, str):
        return f"the text {short(value)}"
    return f"{short(value)} ({type(value).__name__})"


def nearest(name: Any, known: Sequence[str]) -> list[str]:
    """Return up to three of the known names that look like this one, best first."""
    return difflib.get_close_matches(str(name)[:60], known, n=3)


def has_lone_surrogate(text: str) -> bool:
    """Whether a text cannot be written as UTF-8, as one that was cut within a character."""
    return any("\ud800" <= character <= "\udfff" for character in text)

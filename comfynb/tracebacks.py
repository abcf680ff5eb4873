"""What a notebook shows of a mistake in what it gave us: its own line, and what is wrong with it.

IPython asks an exception how it looks, where that has `_render_traceback_` (`showtraceback` in its
interactiveshell.py). So frames are left out of what is shown and of nothing else: the exception
keeps them for `%debug`, for loggers and for scripts, and `%tb Verbose` shows them all. Only errors
that stand for a mistake of the caller look so; a bug of ours shows where it is.
"""

from __future__ import annotations

import copy
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_OURS = str(Path(__file__).parent)
_LIBRARIES = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
_MADE = ("<string>", "<frozen ")
"""What code is called that has no file: dataclasses write some."""


def shown(error: Exception) -> list[str]:
    """Return an error as a notebook shows it: the caller's frames, and a line for each cause.

    Args:
        error: What was raised; can be copied.
    """
    from IPython import get_ipython  # noqa: PLC0415 - it is there where this is called

    shell = get_ipython()
    if shell is None:
        return traceback.format_exception(error)
    style = shell.InteractiveTB
    if style.mode == "Verbose":
        everything = style.structured_traceback(
            type(error), error, error.__traceback__, tb_offset=1
        )
        return list(everything)
    alone = copy.copy(error)  # without its causes, whose frames would be shown in full
    lines = style.structured_traceback(
        type(error), alone, _callers(error.__traceback__), tb_offset=1
    )
    for cause in _causes(error):
        lines += ["", f"caused by {''.join(traceback.format_exception_only(cause)).rstrip()}"]
    return list(lines)


def _callers(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without our frames, and those of libraries that we called."""
    kept: list[TracebackType] = []
    inside = False
    each = trace
    while each is not None:
        file = each.tb_frame.f_code.co_filename
        inside = inside or file.startswith(_OURS)
        if not inside or not file.startswith((_OURS, *_LIBRARIES, *_MADE)):
            kept.append(each)
        each = each.tb_next
    following = None
    for each in reversed(kept):
        following = TracebackType(following, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return following


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error was raised from; what is ours is in the error's own words already."""
    cause = error.__cause__
    while cause is not None:
        if not hasattr(cause, "_render_traceback_"):
            yield cause
        cause = cause.__cause__

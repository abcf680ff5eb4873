"""Which log a studio keeps its results in.

One `Log` object a folder, however many studios use it: so one process writes one segment, and
closing one studio does not close the log of another.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Literal

from comfynb.errors import ClosedError
from comfynb.log import Log, MemoryStore, Store

DEFAULT_LOG = Path("comfynb-log")

_lock = threading.RLock()  # re-entrant: a garbage collection may let go while we hold it
_held: dict[Store, int] = {}
_lent: set[Store] = set()
"""Those that a user opened: the user's to close."""


def hold(log: str | Path | Log | Literal[False] | None) -> Store:
    """Return the store for a log, held once for the caller.

    Args:
        log: A folder, or an open log; None: ./comfynb-log; False: in memory only.

    Raises:
        LogError: The log cannot be used.
    """
    if log is False:
        memory = MemoryStore()
        _held[memory] = 1
        return memory
    leaves_out: set[str] = set()
    if isinstance(log, Log):
        folder, leaves_out = Path(log.folder), set(log.leaves_out)
    else:
        folder = default_folder() if log is None else Path(log)
    with _lock:
        for store in _held:
            if (
                isinstance(store, Log)
                and Path(store.folder).resolve() == folder.resolve()
                and leaves_out <= set(store.leaves_out)  # never one that keeps more
            ):
                _held[store] += 1
                return store
        store = log if isinstance(log, Log) else Log(folder)
        if store is log:
            _lent.add(store)
        _held[store] = 1
        return store


def hold_again(store: Store) -> None:
    """Hold a store that somebody holds: it stays open until this is let go of too.

    Raises:
        ClosedError: Its last user has let go of it.
    """
    with _lock:
        if store not in _held:
            raise ClosedError("the log of this studio was closed; connect again")
        _held[store] += 1


def default_folder() -> Path:
    """Return ./comfynb-log, or a temporary folder where that cannot be; say so once."""
    folder = DEFAULT_LOG
    existing = folder if folder.exists() else Path.cwd()
    if os.access(existing, os.W_OK):
        if not folder.exists():
            say(f"results are kept in ./{folder}")
        return folder
    folder = Path(tempfile.mkdtemp(prefix="comfynb-log-"))
    warnings.warn(
        f"{Path.cwd()} is not writable: results are kept in {folder}; choose a folder with "
        "connect(log=...)",
        stacklevel=4,
    )
    return folder


def let_go(store: Store) -> None:
    """Say that the caller needs it no more; the last one closes it, but for a user's own log."""
    with _lock:
        if store not in _held:
            return  # its holder is the parent of this process
        _held[store] -= 1
        if _held[store]:
            return
        del _held[store]
        lent = store in _lent
        _lent.discard(store)
    if not lent:
        store.close()


def _forget_after_fork() -> None:
    """They are the parent's: a child opens its own."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.RLock()
    _held.clear()
    _lent.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)


def say(text: str) -> None:
    """Tell a person at a notebook or a terminal; scripts' output stays their own."""
    # What a kernel writes to stderr stands on red ground, and this is no error.
    in_kernel = type(sys.stdout).__module__.startswith("ipykernel")
    print(f"comfynb: {text}", file=sys.stdout if in_kernel else sys.stderr)

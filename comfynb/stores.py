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

from comfynb.log import Log, MemoryStore, Store

DEFAULT_LOG = Path("comfynb-log")

_lock = threading.RLock()  # re-entrant: a garbage collection may let go while we hold it
_held: dict[Store, int] = {}


def hold(log: str | Path | Log | Literal[False] | None) -> Store:
    """Return the store for a log, held once for the caller.

    Args:
        log: A folder, or an open log; None: ./comfynb-log; False: in memory only.

    Raises:
        LogError: The log cannot be used.
    """
    if log is False:
        return MemoryStore()
    if isinstance(log, Log):
        folder = Path(log.folder)
    else:
        folder = _default_folder() if log is None else Path(log)
    with _lock:
        for store in _held:
            if isinstance(store, Log) and Path(store.folder).resolve() == folder.resolve():
                _held[store] += 1
                return store
        store = log if isinstance(log, Log) else Log(folder)
        # A log that the user opened is the user's to close.
        _held[store] = 2 if isinstance(log, Log) else 1
        return store


def _default_folder() -> Path:
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
    """Say that the caller needs it no more; the last one closes it."""
    with _lock:
        left = _held.get(store, 1) - 1
        if left > 0:
            _held[store] = left
            return
        _held.pop(store, None)
    store.close()


def say(text: str) -> None:
    """Tell a person at a notebook or a terminal; scripts' output stays their own."""
    print(f"comfynb: {text}", file=sys.stderr)  # noqa: T201

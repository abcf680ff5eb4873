"""Which notebook, and which of its cells, is running; nothing of it where there is none.

A notebook is an IPython shell with a kernel behind it. Scripts, and IPython in a terminal, have
no place for a widget.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from comfynb.widgets.scene_grid import SceneGrid


class Execution(NamedTuple):
    """One time that a cell was run.

    Attributes:
        cell: The same when the cell is run again: its id, or its text where the host gives none.
        id: Of this one time.
    """

    cell: str
    id: str


def shell() -> Any | None:
    """Return the shell of the notebook, or None outside of one."""
    ipython = sys.modules.get("IPython")
    found = None if ipython is None else ipython.get_ipython()
    return found if getattr(found, "kernel", None) is not None else None


def execution() -> Execution | None:
    """Return what is being run, or None outside of a notebook."""
    here = shell()
    parent = here.get_parent() if here is not None else {}
    ident = parent.get("header", {}).get("msg_id")
    if not ident:
        return None
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code")
    return Execution(str(cell), str(ident))


def display(bundle: dict[str, Any], *, display_id: str | None = None, update: bool = False) -> None:
    """Add an output to the cell that runs, or renew one; nothing outside of a notebook.

    Args:
        bundle: Representations by media type, as a notebook file holds them.
        display_id: Under which it can be renewed.
        update: Renew it, wherever it is, instead of adding one.
    """
    here = shell()
    if here is not None:
        transient = {} if display_id is None else {"display_id": display_id}
        here.display_pub.publish(bundle, metadata={}, transient=transient, update=update)


def shows_twins_twice() -> bool:
    """Whether this host would show a contact sheet beside the live grid.

    VS Code and Colab keep outputs where the grid's front end cannot reach its neighbour to hide it.
    """
    here = shell()
    return "google.colab" in sys.modules or "__vsc_ipynb_file__" in getattr(here, "user_ns", {})


_made: dict[str, tuple[str, weakref.WeakSet[SceneGrid]]] = {}
"""Open grids by the cell that made them, with the execution that did."""


def replace(grid: SceneGrid, by: Execution) -> list[SceneGrid]:
    """Note the grid that a cell makes, and return those that it made when it was run before.

    ipywidgets keeps every widget until it is closed, and a cell that is run again drops its old
    output: so its old grids are to be closed, or each run would leave one behind.
    """
    before, grids = _made.get(by.cell, ("", weakref.WeakSet()))
    old: list[SceneGrid] = []
    if before != by.id:
        old, grids = list(grids), weakref.WeakSet()
    grids.add(grid)
    _made[by.cell] = (by.id, grids)
    return old


def forget(grid: SceneGrid) -> None:
    """Forget a grid that was closed."""
    for cell, (_, grids) in list(_made.items()):
        grids.discard(grid)
        if not grids:
            _made.pop(cell, None)

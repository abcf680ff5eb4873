"""The scene grid: a board as a widget in a notebook.

scene_grid.py is the widget and the handle that users hold; clients.py tells each browser tab
what it wants to know, in the words of telling.py, and client.py counts what a tab was sent;
wire.py lists what the two sides say to each other; twin.py leaves pictures in the saved notebook;
notebook.py knows which cell of which notebook is running. The browser's side is in frontend/,
and what it is built to in static/.
"""

from comfynb.widgets.scene_grid import SceneGrid

__all__ = ["SceneGrid"]

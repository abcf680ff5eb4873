"""The widget, and the handle that a user holds.

A grid shows a board. Its traits are a few words that never change; all that lives goes in custom
messages (clients.py). The browser's messages arrive on whatever thread the kernel likes, so they
are checked there and handed to comfynb's own loop, from which all answers come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Sequence,
)
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import anywidget
import comm
import traitlets

from comfynb import loop
from comfynb.boards.board import Board
from comfynb.errors import ClosedError, ComfynbError
from comfynb.keyframes import ENDED, MADE, Keyframe, Status
from comfynb.widgets import notebook, telling, twin, wire
from comfynb.widgets.clients import Clients
from comfynb.widgets.twin import Twin

logger = logging.getLogger(__name__)

T = TypeVar("T")

STATIC = Path(__file__).with_name("static")
RETRIED: tuple[Status, ...] = ("failed", "cancelled", "lost")
"""What Retry tries again."""


class SceneGrid(anywidget.AnyWidget):
    """The scenes of a board as tiles that fill in one by one. Made by `Studio.grid`.

    Awaiting it waits for its runs and returns the keyframes in the order of the storyboard; being
    cancelled (or interrupted) meanwhile cancels the runs. Iterating over it only observes:
    leaving the loop leaves the runs going. Both work without any browser.

    Example:
        grid = studio.grid(["a lighthouse at dawn", "a fox in a snowy forest"])
        keyframes = await grid
    """

    count = traitlets.Int(0).tag(sync=True)
    """Tiles."""
    ratio = traitlets.Float(1.0).tag(sync=True)
    """Width of a tile divided by its height."""
    title = traitlets.Unicode("").tag(sync=True)
    """What stands above them."""
    protocol = traitlets.Int(wire.VERSION).tag(sync=True)
    """Version of the messages."""
    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)

    _open = False

    def __init__(
        self,
        board: Board,
        *,
        title: str | None = None,
        static_twin: bool | Literal["auto"] = "auto",
        **unknown: Any,
    ) -> None:
        """Show a board; in a notebook, in the cell whose last expression it is.

        Args:
            board: What to show.
            title: What to call it; None: as the board is called.
            static_twin: Whether a contact sheet goes beside it, for when there is no kernel;
                "auto": where the live view can hide it.
            **unknown: None is known: a widget would take a misspelt name in silence.

        Raises:
            TypeError: A keyword that is not known.
            ComfynbError: The front end has not been built.
        """
        if unknown:
            raise TypeError(
                f"SceneGrid() has no keyword {next(iter(unknown))!r}; "
                "it takes a board, title= and static_twin="
            )
        self._board = board
        self._twin = Twin(board) if twin.wanted(static_twin) else None
        self._watching: asyncio.Task[None] | None = None
        self._shown_in: notebook.Execution | None = None
        self._before: list[Board] = []
        self._clients = Clients(
            board, send=self._say, act=self._act, stale_sheet=self._sheet_out_of_reach
        )
        cells = board.state.cells
        super().__init__(
            count=len(cells),
            ratio=_ratio(cells[0].cell.knobs) if cells else 1.0,
            title=board.title if title is None else title,
            _esm=_bundle("scene_grid.js"),
            _css=_bundle("scene_grid.css"),
        )
        self._open = True
        made_in = notebook.execution()
        for old in notebook.replace(self, made_in) if made_in is not None else ():
            # What it began goes on, is joined by our run, and is stopped by our Stop.
            self._before += [b for b in (old._board, *old._before) if b.active]  # noqa: SLF001
            old.close()
        if isinstance(self.comm, comm.DummyComm):
            # No front end can ever come, and ipywidgets keeps what has a comm for ever.
            self._open = False
            self._close_comm()
        else:
            self.on_msg(self._hear)

    # -- showing

    def show(self) -> None:
        """Show it in the cell that runs; does nothing where there is no notebook."""
        if notebook.shell() is None:
            return
        self._shown_in = notebook.execution()
        if self.comm is None:
            notebook.display({"text/plain": repr(self)})
            return
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        # Words that are the same each time the notebook is run.
        words = f"<SceneGrid of {self.count} scenes>"
        bundle = {"text/plain": words, "application/vnd.jupyter.widget-view+json": view}
        notebook.display(bundle)
        if self._twin is not None:
            self._show_twin(self._twin)

    def _show_twin(self, shown: Twin) -> None:
        shown.show()
        loop.get().call_soon_threadsafe(self._watch_twin, shown)

    def snapshot(self) -> None:
        """Show the contact sheet in the cell that runs; it is refreshed there from now on.

        For a page that was reloaded while pictures were made: it cannot refresh the sheet that
        it shows, and would save an old one.
        """
        if notebook.shell() is None:
            return
        self._twin = self._twin or Twin(self._board)
        self._show_twin(self._twin)

    def _ipython_display_(self) -> None:
        here = notebook.execution()
        if notebook.shell() is None:
            print(repr(self))  # noqa: T201 - IPython in a terminal asks us to show ourselves
        elif here is None or here != self._shown_in:
            self.show()

    def __repr__(self) -> str:
        """Say how many pictures there are, and where they come from."""
        state = self._board.state
        runs = self._board.runs
        where = f"on {runs[-1].server}" if runs else "from a log"
        return f"<SceneGrid {state.made} of {len(state.cells)} {where}>"

    # -- observing

    def __await__(self) -> Generator[Any, None, list[Keyframe]]:
        """Wait for the runs; cancelled meanwhile, cancel them."""
        return self._wait_or_cancel().__await__()

    async def _wait_or_cancel(self) -> list[Keyframe]:
        try:
            await self._board.until_idle()
        except asyncio.CancelledError:
            await self.cancel()
            raise
        if self._twin is not None:
            await self._twin.settle()
        return self._board.result()

    def wait(self) -> list[Keyframe]:
        """Block until the runs have ended; interrupted, they go on.

        Nothing that a browser asks for is heard meanwhile by some kernels: prefer `await grid`.

        Returns:
            The keyframes in the order of the storyboard.

        Raises:
            ComfynbError: What stopped the latest run before its cells could be tried.
        """
        self._board.block_until_idle()
        if self._twin is not None:
            self._twin.block_until_settled()
        return self._board.result()

    def __aiter__(self) -> AsyncIterator[Keyframe]:
        """Yield what is here, then each keyframe as it comes; leaving does not cancel."""
        return self._observe()

    async def _observe(self) -> AsyncGenerator[Keyframe, None]:
        async with contextlib.aclosing(self._board.keyframes()) as keyframes:
            async for keyframe in keyframes:
                yield keyframe
        if self._twin is not None:
            await self._twin.settle()
        self._board.result()

    @property
    def keyframes(self) -> list[Keyframe]:
        """What came out so far, in the order of the storyboard."""
        return [s.keyframe for s in self._board.state.cells if s.keyframe is not None]

    # -- steering

    def retry(
        self,
        scenes: str | Collection[str] | None = None,
        *,
        statuses: Iterable[Status] = RETRIED,
    ) -> Self:
        """Make what has no picture; await the grid to wait for it.

        Args:
            scenes: Ids of the scenes; None: all.
            statuses: Of the cells to try again.

        Raises:
            ClosedError: There is no server behind this grid, or its studio was closed.
            ValueError: There is no such scene.
        """
        ids = self._ids(scenes)
        self._retry(
            {
                s.cell.index
                for s in self._board.state.cells
                if ids is None or s.cell.scene.id in ids
            },
            frozenset(statuses),
        )
        return self

    def _retry(self, indices: Collection[int], statuses: Collection[Status]) -> bool:
        """Begin with what has no picture; return whether there was anything."""
        if not self._board.has_server:
            raise ClosedError(telling.NO_SERVER)
        missing = self._standing(indices, (ENDED - MADE) & frozenset(statuses))
        if missing:
            self._board.begin(missing)
        return bool(missing)

    def _standing(self, indices: Collection[int], statuses: Collection[Status]) -> set[int]:
        """Return those of some cells that stand so."""
        cells = self._board.state.cells
        return {s.cell.index for s in cells if s.cell.index in indices and s.status in statuses}

    def cancel(self, scenes: str | Collection[str] | None = None) -> Awaitable[None]:
        """Cancel; it begins at once, and can be awaited until our prompts are gone.

        Args:
            scenes: Ids of the scenes to give up; None: all.

        Raises:
            ValueError: There is no such scene.
        """
        return _Begun(self._cancel(self._ids(scenes)))

    async def _cancel(self, ids: Collection[str] | None = None) -> None:
        """Cancel here and in what the same cell began before; on our loop."""
        boards = [self._board, *(board for board in self._before if board.active)]
        await asyncio.gather(*(board.cancel(ids) for board in boards))

    def _ids(self, scenes: str | Collection[str] | None) -> frozenset[str] | None:
        if scenes is None:
            return None
        ids = frozenset([scenes] if isinstance(scenes, str) else scenes)
        unknown = ids - {state.cell.scene.id for state in self._board.state.cells}
        if unknown:
            raise ValueError(f"this grid has no scene {min(unknown)!r}")
        return ids

    async def _act(self, name: wire.Action, cells: Sequence[int] | None, client: str) -> None:
        """Do what a button asks for; on our loop."""
        runs = [run for run in self._board.runs if not run.ended]
        every = range(len(self._board.state.cells))
        chosen = every if cells is None else frozenset(cells)
        match name:
            case "stop":
                await self._cancel()
            case "pause" | "resume" if not runs:
                raise ComfynbError("nothing is being made")
            case "pause":
                for run in runs:
                    run.pause()
            case "resume":
                for run in runs:
                    run.resume()
            case "retry" | "retry_failed":
                if not self._retry(every if name == "retry_failed" else chosen, RETRIED):
                    raise ComfynbError("there is nothing to retry")
            case "regenerate":
                if not self._board.has_server:
                    raise ClosedError(telling.NO_SERVER)
                made = self._standing(() if cells is None else chosen, ENDED)
                if not made:
                    raise ComfynbError("there is nothing to make again")
                self._board.begin(made, next_seed=True)
            case "snapshot":
                await self._refresh_sheet(client)

    # -- closing

    def close(self) -> None:
        """Take it off the screen and let go of everything; the runs go on.

        The handle can still be awaited and iterated over. Safe to call twice.
        """
        if not self._open:
            return
        self._open = False
        notebook.forget(self)
        loop.get().call_soon_threadsafe(self._close_on_loop)
        self._close_comm()

    def _close_comm(self) -> None:
        layout = self.layout  # a widget of its own, which nobody else would close
        super().close()
        layout.close()

    def _close_on_loop(self) -> None:
        self._clients.close()
        if self._watching is not None:
            self._watching.cancel()

    # -- the browser

    def _hear(self, _: Any, content: object, __: object) -> None:
        """Take a message, on any thread: only check it and hop."""
        try:
            message = wire.parse(content)
        except wire.WireError as error:
            self._hop(self._clients.refuse, error)
            return
        self._hop(self._take, message)

    def _take(self, message: wire.FromBrowser) -> None:
        if message["kind"] == "hello" and self._twin is not None:
            self._twin.met(message["client"])
        self._clients.hear(message)

    def _hop(self, function: Callable[[T], None], argument: T) -> None:
        """Do something on our loop; an error of our own is shown in the panel."""

        def guarded() -> None:
            try:
                if self._open:
                    function(argument)
            except Exception as exc:
                logger.exception("a message of the browser met an error of comfynb's own")
                self._clients.notice_all(f"an error of comfynb's own: {exc!r}; please report it")

        loop.get().call_soon_threadsafe(guarded)

    def _say(self, message: wire.ToBrowser, buffers: Sequence[bytes]) -> None:
        self.send(message, buffers=list(buffers))

    # -- the static twin

    def _watch_twin(self, shown: Twin) -> None:
        if self._watching is None and self._open:
            self._watching = asyncio.create_task(shown.watch(), name="comfynb-twin")
            self._watching.add_done_callback(self._twin_stopped)

    def _twin_stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            logger.error("the contact sheet stopped", exc_info=error)
            self._clients.notice_all(f"the contact sheet cannot be refreshed: {error!r}")

    def _sheet_out_of_reach(self, client: str) -> bool:
        return self._twin is not None and self._twin.out_of_reach(client)

    async def _refresh_sheet(self, client: str) -> None:
        if self._twin is None or not self._twin.shown:
            raise ComfynbError("this grid has no contact sheet; run grid.snapshot() in a cell")
        if self._twin.out_of_reach(client):
            raise ComfynbError("this page was reloaded; run grid.snapshot() in a cell")
        await self._twin.refresh()


class _Begun(Awaitable[None]):
    """Something that goes on whether it is awaited or not."""

    def __init__(self, work: Any) -> None:
        self._future = loop.start(work)

    def __await__(self) -> Generator[Any, None, None]:
        return self._arrive().__await__()

    async def _arrive(self) -> None:
        await loop.across(self._ended())

    async def _ended(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._future))


def _bundle(name: str) -> str:
    """Read a part of the front end."""
    try:
        return (STATIC / name).read_text(encoding="utf-8")
    except OSError as exc:
        raise ComfynbError(
            f"the grid's front end is missing ({name}): in a checkout, run `make frontend`; "
            "else install comfynb again"
        ) from exc


def _ratio(knobs: Any) -> float:
    """Width by height as the knobs say, 1 where they do not; never absurd."""
    width, height = knobs.get("width"), knobs.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float) or height <= 0:
        return 1.0
    return min(4.0, max(0.25, width / height))

"""The facade on top: a server, a workflow and a log, ready to draw.

`connect` sends at most one short probe; everything else waits until there is something to make.
So a studio costs nothing to have, shows its log while its server is away, and an embedded engine
that is not needed is never started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from comfynb import lanes, loop
from comfynb.backends.base import Backend
from comfynb.backends.embedded import CHECKPOINT, LABEL, EmbeddedBackend, identity, missing
from comfynb.board import Board
from comfynb.errors import (
    BackendError,
    CheckpointError,
    ClosedError,
    EngineMissingError,
    LogError,
    ServerUnreachableError,
)
from comfynb.keyframes import Keyframe
from comfynb.lanes import Lane
from comfynb.log import Log, MemoryStore, Store
from comfynb.plan import Plan
from comfynb.run import Run
from comfynb.scenes import Storyboard
from comfynb.workflows import Workflow

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
DEFAULT_URL = "http://127.0.0.1:8188"
DEFAULT_LOG = Path("comfynb-log")
PROBE_SECONDS = 0.5


class Studio:
    """A server, a workflow and a log. Made by `connect`.

    Attributes:
        workflow: What renders the scenes; its knobs are what can be turned.
        checkpoint: The checkpoint for a workflow that leaves it open, or None.
    """

    def __init__(
        self,
        lane: Lane,
        store: Store,
        *,
        kind: str,
        workflow: Workflow,
        checkpoint: str | None = None,
    ) -> None:
        """Put one together; `connect` is the usual way.

        Args:
            lane: The server, held for this studio already.
            store: Where results are kept, held for it likewise.
            kind: Of the backend, as it stands in content keys.
            workflow: What renders the scenes.
            checkpoint: For a workflow that leaves it open; None: the server's only one.
        """
        self.workflow, self.checkpoint = workflow, checkpoint
        self._lane, self._store, self._kind = lane, store, kind
        # Runs when the studio is closed, forgotten, or the interpreter ends.
        self._release = weakref.finalize(self, _let_go, lane, store)

    # -- drawing

    def plan(
        self,
        scenes: Any,
        *,
        style: str | None = None,
        negative: str | None = None,
        seed: int | Literal["random"] | None = None,
        knobs: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Resolve scenes to cells without making anything.

        Args:
            scenes: A storyboard, or anything that `Storyboard.of` takes: prompts, dicts, a
                DataFrame, a file.
            style: Joined to every prompt; None: the storyboard's.
            negative: Joined to every negative; None: the storyboard's.
            seed: For scenes without their own; None: the storyboard's.
            knobs: Values for every scene that does not say otherwise; they win over the
                storyboard's.

        Raises:
            SceneError: A scene cannot be understood.
            WorkflowError: The workflow cannot take what a scene gives.
        """
        storyboard = Storyboard.of(scenes)
        given = {"style": style, "negative": negative, "seed": seed}
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if knobs:
            changes["knobs"] = {**storyboard.knobs, **knobs}
        if changes:
            storyboard = replace(storyboard, **changes)
        return Plan.make(storyboard, self.workflow, kind=self._kind, checkpoint=self.checkpoint)

    def run(self, scenes: Any, *, force: bool = False, **shared: Any) -> Run:
        """Start a run and return its handle at once.

        Args:
            scenes: As for `plan`.
            force: Make cells although the log has them.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`.

        Raises:
            SceneError: A scene cannot be understood.
            WorkflowError: The workflow cannot take what a scene gives.
            ClosedError: The studio was closed.
        """
        return self._start(self.plan(scenes, **shared), force)

    def board(self, scenes: Any, *, force: bool = False, **shared: Any) -> Board:
        """Start a run on a board of its own, which outlives it; arguments as for `run`."""
        plan = self.plan(scenes, **shared)

        def start(indices: Any, force: bool) -> Run:  # noqa: FBT001
            return self._start(plan.only(indices), force)

        board = Board(plan.cells, start=start)
        board.begin(force=force)
        return board

    async def keyframes(
        self, scenes: Any, *, force: bool = False, **shared: Any
    ) -> AsyncGenerator[Keyframe, None]:
        """Yield each keyframe as soon as it is safe on disk, in order of completion.

        The run belongs to the generator: leaving it, by `aclose`, cancellation or an interrupt,
        takes our prompts off the server. A `break` closes a generator only when it is
        garbage-collected, so wrap it in `contextlib.aclosing`.

        Args:
            scenes: As for `plan`.
            force: Make cells although the log has them.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`.

        Yields:
            Keyframes; a cell that failed is one with `status` "failed" and an `error`.

        Raises:
            ServerUnreachableError: There is something to make and nobody answers (retryable).
            ComfynbError: As for `run`.

        Example:
            async with contextlib.aclosing(studio.keyframes(["a fox", "a whale"])) as keyframes:
                async for keyframe in keyframes:
                    print(keyframe.scene.label, keyframe.status)
        """
        run = self.run(scenes, force=force, **shared)
        try:
            async for keyframe in run.keyframes():
                yield keyframe
        finally:
            await run.cancel()

    def render(self, scenes: Any, *, force: bool = False, **shared: Any) -> list[Keyframe]:
        """Block until all is made; for scripts, and for those who want it in a notebook.

        Args:
            scenes: As for `plan`.
            force: Make cells although the log has them.
            **shared: `style`, `negative`, `seed`, `knobs`: as for `plan`.

        Returns:
            The keyframes in the order of the storyboard; failed ones among them.

        Raises:
            ServerUnreachableError: There is something to make and nobody answers (retryable).
            ComfynbError: As for `run`.
        """
        run = self.run(scenes, force=force, **shared)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            try:
                return run.wait()
            except BaseException:
                if not run.ended:
                    loop.wait(run.cancel())
                raise
        # Inside a running loop (a notebook cell) blocking would stop the caller's other tasks.
        import nest_asyncio2  # noqa: PLC0415 - it patches asyncio: only here, and only now

        nest_asyncio2.apply(running)
        return running.run_until_complete(_result(run))

    def _start(self, plan: Plan, force: bool) -> Run:  # noqa: FBT001
        if not self._release.alive:
            raise ClosedError("this studio was closed; connect again")
        return Run(plan, self._lane, self._store, self._choose, force=force)

    async def _choose(self, lane: Lane, plan: Plan) -> Plan:
        """Settle the checkpoint: the server's only one."""
        try:
            await lane.open()
            names = await lane.backend.checkpoints()
        except ServerUnreachableError:
            remembered = await loop.in_worker(self._remembered)
            if remembered is None:
                raise
            return plan.settle(remembered)  # enough to show what the log has
        if len(names) != 1:
            raise CheckpointError(lane.label, names)
        return plan.settle(names[0])

    def _remembered(self) -> str | None:
        """The checkpoint that the log's last run on this server took."""
        runs = self._store.runs() if isinstance(self._store, Log) else []
        taken = [run.checkpoint for run in runs if run.server == self._lane.label]
        return taken[-1] if taken else None

    # -- what was made

    @property
    def log(self) -> Log:
        """The log.

        Raises:
            LogError: The studio was connected with `log=False`.
        """
        if not isinstance(self._store, Log):
            raise LogError("this studio keeps no log: it was connected with log=False")
        return self._store

    @property
    def server(self) -> str:
        """Name of the server: host and port, or "embedded engine"."""
        return self._lane.label

    def __repr__(self) -> str:
        kept = f"log {self._store.folder}" if isinstance(self._store, Log) else "no log"
        closed = "" if self._release.alive else ", closed"
        return f"<comfynb.Studio on {self.server}, workflow {self.workflow.name}, {kept}{closed}>"

    # -- closing

    def close(self) -> None:
        """Let go of the server and the log, and wait until what is unused is closed.

        A run that is still active keeps its server until it ends. Safe to call twice.
        """
        self._release()
        if not loop.inside():
            lanes.wait_closed()

    async def aclose(self) -> None:
        """Do as `close` without blocking the caller's loop."""
        self._release()
        await asyncio.get_running_loop().run_in_executor(None, lanes.wait_closed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _result(run: Run) -> list[Keyframe]:
    return await run


def connect(
    url: str | None = None,
    *,
    workflow: str | Path | Mapping[str, Any] | Workflow = "txt2img",
    log: str | Path | Log | Literal[False] | None = None,
    checkpoint: str | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    reconnect_for: float = 60.0,
) -> Studio:
    """Make a studio: a server, a workflow and a log.

    Args:
        url: Of a ComfyUI, such as "http://gpu:8188"; "embedded" for the embedded engine; None:
            the environment's COMFYUI_URL, else 127.0.0.1:8188 if a ComfyUI answers there
            within 0.5 s, else the embedded engine.
        workflow: A name of the library ("txt2img", "img2img"), an API-format file or graph.
        log: A folder; None: ./comfynb-log; False: keep results in memory only.
        checkpoint: For a library workflow; None: the server's only one.
        token: Sent as a bearer token; never shown or stored.
        headers: Further HTTP headers; never shown or stored.
        reconnect_for: Seconds of trying before a lost server counts as gone.

    Raises:
        WorkflowError: The workflow cannot be read.
        BackendError: The address is none.
        EngineMissingError: No ComfyUI was found and the embedded engine is not installed.
        LogError: The log cannot be used.

    Example:
        studio = comfynb.connect()
        studio.render(["a lighthouse at dawn", "a fox in a snowy forest"])
    """
    flow = workflow if isinstance(workflow, Workflow) else Workflow.load(workflow)
    chosen = url or os.environ.get("COMFYUI_URL") or _find_server(token, headers)
    key: Hashable
    make: Callable[[], Backend]
    if chosen == EMBEDDED:
        kind, key, make = f"engine/{identity()}", EMBEDDED, EmbeddedBackend
        checkpoint = checkpoint or CHECKPOINT
    else:
        # Here and not above: httpx and websockets take 150 ms that the embedded engine's
        # cached pictures need not pay.
        from comfynb.backends.comfyui import Address, ComfyUIBackend  # noqa: PLC0415

        address = Address.parse(chosen, token=token, headers=headers)
        secrets = (tuple(sorted(address.headers.items())), tuple(sorted(address.params.items())))
        kind, key = "comfyui", (address.url, secrets, reconnect_for)

        def make() -> Backend:
            return ComfyUIBackend(address, reconnect_for=reconnect_for)

    store = _store(log)
    try:
        lane = lanes.lane(key, make)
    except BaseException:
        _let_go_store(store)
        raise
    return Studio(lane, store, kind=kind, workflow=flow, checkpoint=checkpoint)


def _find_server(token: str | None, headers: Mapping[str, str] | None) -> str:
    """Look for a ComfyUI on this machine, and say what was found."""
    import httpx  # noqa: PLC0415 - as in `connect`

    from comfynb.backends.comfyui import Address  # noqa: PLC0415
    from comfynb.backends.comfyui.socket import server_info  # noqa: PLC0415

    address = Address.parse(DEFAULT_URL, token=token, headers=headers)
    try:
        with httpx.Client(timeout=PROBE_SECONDS, trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP
            answer = client.get(f"{address.url}/system_stats", headers=dict(address.headers))
        server_info(address.label, answer.json())
    except (httpx.HTTPError, ValueError, BackendError) as exc:
        logger.debug("no ComfyUI at %s: %r", address.label, exc)
        if lacking := missing():
            raise EngineMissingError(
                f"No ComfyUI at {address.label} and the embedded engine is not installed "
                f"({', '.join(lacking)}): pip install 'comfynb[engine]', "
                "or connect('http://...')",
                server=address.label,
            ) from None
        _say(f"no ComfyUI at {address.label}: pictures come from the {LABEL}")
        return EMBEDDED
    _say(f"using the ComfyUI at {address.label}")
    return DEFAULT_URL


# -- logs, one object a folder, so that one process writes one segment

_lock = threading.RLock()
_held: dict[Store, int] = {}


def _store(log: str | Path | Log | Literal[False] | None) -> Store:
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
            _say(f"results are kept in ./{folder}")
        return folder
    folder = Path(tempfile.mkdtemp(prefix="comfynb-log-"))
    warnings.warn(
        f"{Path.cwd()} is not writable: results are kept in {folder}; choose a folder with "
        "connect(log=...)",
        stacklevel=4,
    )
    return folder


def _let_go(lane: Lane, store: Store) -> None:
    lane.let_go()
    _let_go_store(store)


def _let_go_store(store: Store) -> None:
    with _lock:
        left = _held.get(store, 1) - 1
        if left > 0:
            _held[store] = left
            return
        _held.pop(store, None)
    store.close()


def _say(text: str) -> None:
    """Tell a person at a notebook or a terminal; scripts' output stays their own."""
    print(f"comfynb: {text}", file=sys.stderr)  # noqa: T201


class OpenLog:
    """A log without a server: for looking. Made by `open_log`.

    Attributes:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        self.log = log

    def board(self, run: str | None = None) -> Board:
        """Lay out a run with its latest keyframes.

        Args:
            run: Its id; None: the latest.

        Raises:
            KeyError: There is no such run.
        """
        return Board.of_log(self.log, run)

    def close(self) -> None:
        """Close the log. Safe to call twice."""
        self.log.close()

    def __repr__(self) -> str:
        return f"<comfynb.OpenLog {self.log.folder}>"


def open_log(folder: str | Path = DEFAULT_LOG) -> OpenLog:
    """Open a log for looking; no server is needed, and none is asked.

    Args:
        folder: Where it is.

    Raises:
        LogError: There is none, or it was written by a newer comfynb.
    """
    if not Path(folder).is_dir():
        raise LogError(f"there is no log at {folder}", folder=str(folder))
    return OpenLog(Log(folder, read_only=True))

"""The ways in: `connect` to draw, `open_log` to look.

`connect` sends at most one short probe, and only where it has to choose a server by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from comfynb import loop, stores
from comfynb.backends.base import Backend
from comfynb.backends.embedded import CHECKPOINT, LABEL, EmbeddedBackend, identity, missing
from comfynb.boards.board import Board
from comfynb.errors import BackendError, EngineMissingError, LogError
from comfynb.keyframes import Keyframe
from comfynb.log import Log
from comfynb.servers import lanes
from comfynb.servers.lanes import Lane
from comfynb.stores import DEFAULT_LOG
from comfynb.studio import Studio
from comfynb.workflows import WaitingWorkflow, Workflow, read_source, with_checkpoint

if TYPE_CHECKING:
    from comfynb.backends.comfyui.address import Access
    from comfynb.widgets import SceneGrid

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
DEFAULT_URL = "http://127.0.0.1:8188"
PROBE_SECONDS = 0.5


def connect(
    url: str | Sequence[str] | None = None,
    *,
    workflow: str | Path | Mapping[str, Any] | bytes | Keyframe | Workflow = "txt2img",
    log: str | Path | Log | Literal[False] | None = None,
    checkpoint: str | None = None,
    token: str | None = None,
    auth: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    ca: str | Path | None = None,
    verify: bool = True,
    reconnect_for: float = 60.0,
) -> Studio:
    """Make a studio: one server or several, a workflow and a log.

    Args:
        url: Of a ComfyUI, such as "http://gpu:8188"; "embedded" for the embedded engine; None:
            the environment's COMFYUI_URL, else 127.0.0.1:8188 if a ComfyUI answers there
            within 0.5 s, else the embedded engine. Several ComfyUIs share the work: each takes a
            picture when it has a place free. While the line to one is down, for more than 3 s
            where it was sent a picture, the others make what it has: the first that comes counts,
            and one that comes too late is a further take. They must have the models that the
            workflow names. What is secret in it (user and password,
            the query) is sent with every request and never shown or stored; the same holds
            for `token`, `auth`, `headers` and `cookies`, which several servers get each.
        workflow: A name of the library ("txt2img", "img2img"); a JSON file or a dict, in API format
            or as ComfyUI's editor saves it; a PNG, WebP or JPEG that ComfyUI saved; or a keyframe
            (see `Workflow.load`). What the editor saved is converted when it is first needed,
            with the server's node classes, or those in the log where it does not answer.
        log: A folder, or an open `Log` (which may leave prompts out); None: ./comfynb-log; False:
            keep results in memory only.
        checkpoint: Instead of the workflow's own; None: that one, and for a library workflow
            the server's only one.
        token: Sent as a bearer token.
        auth: User and password, sent as basic authentication.
        headers: Further HTTP headers.
        cookies: By name. Cookies that a proxy sets are kept as long as the studio.
        ca: A PEM file, or a folder of such, with the certificates to trust instead of this
            machine's; None: the environment's SSL_CERT_FILE, else this machine's.
        verify: False takes any certificate, and warns: prefer `ca`.
        reconnect_for: Seconds of trying before a lost server counts as gone. Studios of one
            server share one line to it: the first one's value holds.

    Raises:
        WorkflowError: The workflow cannot be read, or has no checkpoint to choose.
        BackendError: An address is none, or `ca` cannot be read, or both a ComfyUI and the embedded
            engine are given.
        ValueError: An empty list of servers.
        EngineMissingError: No ComfyUI was found and the embedded engine is not installed.
        LogError: The log cannot be used.

    Example:
        studio = comfynb.connect()
        studio.render(["a lighthouse at dawn", "a fox in a snowy forest"])
    """
    flow = _read_workflow(workflow, checkpoint)
    access: Access = {
        "token": token,
        "auth": auth,
        "headers": headers,
        "cookies": cookies,
        "ca": ca,
        "verify": verify,
    }
    if url is not None and not isinstance(url, str) and not url:
        raise ValueError("connect() was given an empty list of servers")
    urls = [url or _choose_server(access)] if isinstance(url, str | None) else url
    servers = {server.key: server for server in (_server(u, access, reconnect_for) for u in urls)}
    kinds = {server.kind for server in servers.values()}
    if len(kinds) != 1:
        raise BackendError(
            "the embedded engine draws other pictures than a ComfyUI: connect to it alone, or "
            "to ComfyUIs"
        )
    if EMBEDDED in servers:
        checkpoint = checkpoint or CHECKPOINT
    store = stores.hold(log)
    held: list[Lane] = []
    try:
        for server in servers.values():
            held.append(lanes.lane(server.key, server.make))  # noqa: PERF401 - each is held
    except BaseException:
        for lane in held:
            lane.let_go()
        stores.let_go(store)
        raise
    return Studio(held, store, kind=kinds.pop(), workflow=flow, checkpoint=checkpoint)


class _Server(NamedTuple):
    """What stands behind an address.

    Attributes:
        kind: Of the backend, as it stands in content keys.
        key: Tells servers, with their credentials, apart.
        make: Makes the backend; sends nothing.
    """

    kind: str
    key: Hashable
    make: Callable[[], Backend]


def _server(url: str, access: Access, reconnect_for: float) -> _Server:
    if url == EMBEDDED:
        return _Server(f"engine/{identity()}", EMBEDDED, EmbeddedBackend)
    # Here and not above: httpx and websockets take 150 ms that the embedded engine's cached
    # pictures need not pay.
    from comfynb.backends.comfyui import Address, ComfyUIBackend  # noqa: PLC0415

    address = Address.parse(url, **access)
    make = partial(ComfyUIBackend, address, reconnect_for=reconnect_for)
    return _Server("comfyui", address.key, make)


def _choose_server(access: Access) -> str:
    return os.environ.get("COMFYUI_URL") or _find_server(access)


def _read_workflow(workflow: Any, checkpoint: str | None) -> Workflow | WaitingWorkflow:
    """Read a workflow, and say in what form it came where that is not plain."""
    if isinstance(workflow, Workflow):
        return with_checkpoint(workflow, checkpoint)
    source = read_source(workflow)
    if source.form not in ("library", "API", "keyframe"):
        stores.say(f"workflow {source.name}: {source.form}")
    if source.is_editor:
        return WaitingWorkflow(source, checkpoint)
    return with_checkpoint(Workflow.of(source), checkpoint)


def _find_server(access: Access) -> str:
    """Look for a ComfyUI on this machine, and say what was found."""
    from comfynb.backends.comfyui import Address  # noqa: PLC0415 - as in `connect`
    from comfynb.backends.comfyui.http import Http  # noqa: PLC0415
    from comfynb.backends.comfyui.socket import probe  # noqa: PLC0415

    address = Address.parse(DEFAULT_URL, **access)

    async def ask() -> None:
        client = Http(address)
        try:
            await probe(address, client)
        finally:
            await client.aclose()

    try:
        loop.wait(ask(), timeout=PROBE_SECONDS)  # all of it: an answer may also drip for ever
    except (BackendError, TimeoutError) as exc:
        logger.debug("no ComfyUI at %s: %r", address.label, exc)
        if lacking := missing():
            raise EngineMissingError(
                f"No ComfyUI at {address.label} and the embedded engine is not installed "
                f"({', '.join(lacking)}): pip install 'comfynb[engine]', "
                "or connect('http://...')",
                server=address.label,
            ) from None
        stores.say(f"no ComfyUI at {address.label}: pictures come from the {LABEL}")
        return EMBEDDED
    stores.say(f"using the ComfyUI at {address.label}")
    return DEFAULT_URL


class OpenLog:
    """A log without a server: for looking. Made by `open_log`.

    Attributes:
        log: The log: `open_log("x").log.sql(...)`.
    """

    def __init__(self, log: Log) -> None:
        self.log = log

    if not TYPE_CHECKING:  # which know the names that there are

        def __getattr__(self, name: str) -> NoReturn:
            where = f"; its log has: say .log.{name}" if hasattr(Log, name) else ""
            raise AttributeError(f"an OpenLog has no {name!r}{where}")

    def board(self, run: str | None = None) -> Board:
        """Lay out a run with its latest keyframes.

        Args:
            run: Its id; None: the latest.

        Raises:
            LogError: There is no such run.
        """
        return Board.of_log(self.log, run)

    def grid(
        self,
        run: str | None = None,
        *,
        title: str | None = None,
        static_twin: bool | Literal["auto"] = "auto",
    ) -> SceneGrid:
        """Show a run as a grid; its buttons that need a server say that there is none.

        Args:
            run: Its id; None: the latest.
            title: Stands above the tiles; None: the storyboard's.
            static_twin: As for `Studio.grid`.

        Raises:
            LogError: There is no such run.
        """
        from comfynb.widgets import SceneGrid  # noqa: PLC0415 - ipywidgets takes 0.2 s

        grid = SceneGrid(self.board(run), title=title, static_twin=static_twin)
        grid.show()
        return grid

    def close(self) -> None:
        """Close the log. Safe to call twice."""
        self.log.close()

    def __repr__(self) -> str:
        return f"<comfynb.OpenLog {self.log.shown}>"

    def _repr_html_(self) -> str:
        return self.log._repr_html_()


def open_log(folder: str | Path = DEFAULT_LOG, *, read_only: bool = False) -> OpenLog:
    """Open a log for looking; no server is needed, and none is asked.

    Nothing is written by looking, but for small copies of pictures.

    Args:
        folder: Where it is.
        read_only: Refuse to rate, tag, delete and the like, too.

    Raises:
        LogError: There is none, or it was written by a newer comfynb.
    """
    if not Path(folder).is_dir():
        raise LogError(f"there is no log at {folder}", folder=str(folder))
    return OpenLog(Log(folder, read_only=read_only))

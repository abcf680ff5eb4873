"""The embedded engine as a backend: a process of ours, spoken to like any ComfyUI.

It is started at the first picture to be made, and shared by all studios of the process. It ends
when its standard input does, so that it cannot outlive us, whatever happens to us.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

from comfynb import loop
from comfynb.backends.base import Backend, Line, Listener, Outcome, Read, ServerInfo
from comfynb.errors import EngineError, EngineMissingError, ServerGoneError

if TYPE_CHECKING:
    from comfynb.backends.comfyui import Address, ComfyUIBackend

LABEL = "embedded engine"
CHECKPOINT = "tiny-scenes.onnx"
"""The one checkpoint it has; known here, so that keys need no running engine."""

START_SECONDS = 120.0
"""How long the engine may take to listen; usually it takes 0.5 s, from a cold disk many more."""

Started: TypeAlias = "tuple[subprocess.Popen[bytes], Address]"
"""A process, and where it listens."""

_all: WeakSet[EmbeddedBackend] = WeakSet()

NEEDS = ("aiohttp", "onnxruntime", "numpy")


def missing() -> list[str]:
    """Return the packages that the engine needs and that are not installed."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


@lru_cache
def identity() -> str:
    """Return what tells this engine's pictures from another's: a hash of its model's card.

    The file holds the checksums of the weights, and a version that is raised whenever the
    engine's results change.
    """
    card = resources.files("comfynb").joinpath("engine", "weights", "model.json").read_bytes()
    return hashlib.sha256(card).hexdigest()[:16]


class EmbeddedBackend(Backend):
    """The engine of this process."""

    label = LABEL

    def __init__(self, *, threads: int | None = None) -> None:
        """Prepare; nothing is started.

        Args:
            threads: For the model; None: as many as the engine finds right.
        """
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._server: ComfyUIBackend | None = None
        self.address: Address | None = None
        """Where it listens, and with which token; None: it was not opened yet."""
        self._opening = asyncio.Lock()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        _all.add(self)

    @property
    def line(self) -> Line:  # noqa: D102 - as Backend says
        return "none" if self._server is None else self._server.line

    async def open(self) -> ServerInfo:  # noqa: D102
        async with self._opening:
            if self._server is None or not self._alive():
                await self._end()
                self._process, self.address = await _unless_cancelled(self._start)
                from comfynb.backends.comfyui import ComfyUIBackend  # noqa: PLC0415 - as in _start

                self._server = ComfyUIBackend(self.address, alive=self._alive)
            return await self._server.open()

    async def checkpoints(self) -> Sequence[str]:  # noqa: D102
        return [CHECKPOINT]

    async def object_info(self) -> Mapping[str, Any]:  # noqa: D102
        if self._server is None or not self._alive():
            return self.shipped_object_info()
        return await self._server.object_info()  # knows its input files too

    def shipped_object_info(self) -> Mapping[str, Any]:  # noqa: D102
        # Written by the engine itself, and a test holds it against the engine's answer.
        file = resources.files("comfynb.backends") / "embedded_nodes.json"
        return dict(json.loads(file.read_text("utf-8")))

    async def upload(self, name: str, mime: str, read: Read) -> str:  # noqa: D102
        if self._server is None:
            raise ServerGoneError("the embedded engine was closed", server=LABEL)
        return await self._server.upload(name, mime, read)

    async def render(  # noqa: D102
        self, prompt_id: str, graph: Mapping[str, Any], listener: Listener
    ) -> Outcome:
        if self._server is None:
            raise ServerGoneError("the embedded engine was closed", server=LABEL)
        return await self._server.render(prompt_id, graph, listener)

    async def adopt(  # noqa: D102
        self,
        prompt_id: str,  # noqa: ARG002
        graph: Mapping[str, Any],  # noqa: ARG002
        listener: Listener,  # noqa: ARG002
        *,
        sent_at: datetime,  # noqa: ARG002
    ) -> Outcome | None:
        return None  # an engine ends with the process that sent it prompts; this is another one

    async def cancel(self, prompt_ids: Sequence[str]) -> None:  # noqa: D102
        if self._server is not None and self._alive():
            await self._server.cancel(prompt_ids)

    async def aclose(self) -> None:  # noqa: D102
        async with self._opening:
            await self._end()
            self._stderr.close()

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self) -> Started:
        """Start the process and hear where it listens; in a worker."""
        if lacking := missing():
            raise EngineMissingError(
                f"the embedded engine needs {', '.join(lacking)}: pip install 'comfynb[engine]'",
                server=LABEL,
            )
        command = [sys.executable, "-m", "comfynb.engine", "--owned"]
        if self._threads is not None:
            command += ["--threads", str(self._threads)]
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,  # a file: a pipe that nobody reads would stop it one day
                # Ctrl-C in a terminal goes to the whole group: it is for us, not for the engine.
                start_new_session=os.name == "posix",
            )
        except OSError as exc:
            raise EngineError(f"the embedded engine did not start: {exc}", server=LABEL) from exc
        # httpx and websockets take 0.2 s: who only looks at a log does not pay them, and who draws
        # pays while the engine starts.
        from comfynb.backends.comfyui import Address  # noqa: PLC0415

        assert process.stdout is not None
        too_late = threading.Timer(START_SECONDS, process.kill)
        too_late.start()
        try:
            line = process.stdout.readline()
        finally:
            too_late.cancel()
        try:
            hello = json.loads(line)
            return process, Address.parse(hello["url"], token=hello["token"], name=LABEL)
        except (ValueError, TypeError, KeyError):
            _kill(process)
        self._stderr.seek(0)
        said = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else "it said nothing"
        raise EngineError(f"the embedded engine did not start: {reason}", server=LABEL)

    async def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.shield(_ended(process))

    def _disown(self) -> None:
        """In a forked child: the process is the parent's, and ends with the parent alone."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = self._server = None


async def _unless_cancelled(start: Callable[[], Started]) -> Started:
    """Start a process in a worker; cancelled meanwhile, end it again."""
    starting = asyncio.ensure_future(loop.in_worker(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_abandon)
        raise


def _abandon(starting: asyncio.Future[Started]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _kill(starting.result()[0])


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Close its standard input and see it end. Needs no worker: those are gone at exit."""
    assert process.stdin is not None
    process.stdin.close()
    for _ in range(300):
        if process.poll() is not None:
            break
        await asyncio.sleep(0.01)
    _kill(process)  # where it did not end by itself; else only what is left of it


def _disown_all() -> None:
    for backend in list(_all):
        backend._disown()  # noqa: SLF001 - ours


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_disown_all)

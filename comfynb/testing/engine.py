"""The embedded engine as a process of its own, for tests: a ComfyUI that every machine can run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from comfynb.errors import EngineError

START_SECONDS = 60.0
"""How long it may take to listen; usually 0.5 s."""
END_SECONDS = 20.0
"""How long it may take to end; usually 0.1 s."""


class EngineProcess:
    """An engine that listens on loopback, and can be killed and started again.

    It ends with the process that started it, whatever way that ends.

    Attributes:
        token: What it wants as bearer token; "": none.
        port: Where it listens; the same after a restart.
        process: The process, or None before the first start.

    Example:
        with EngineProcess() as engine:
            studio = comfynb.connect(engine.url, token=engine.token)
    """

    def __init__(
        self,
        *,
        token: str = "",
        nodes: str | os.PathLike[str] | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """Prepare; `start`, or entering the context, starts it.

        Args:
            token: To want as bearer token; "": none, as ComfyUI.
            nodes: A Python file with `register(registry)` that adds nodes; None: none.
            flags: More of what `python -m comfynb.engine --help` lists.
        """
        self.token = token
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._flags = ["--threads", "1", "--token", token, *flags]
        if nodes is not None:
            self._flags += ["--nodes", os.fspath(nodes)]

    @property
    def url(self) -> str:
        """Its address, without the token."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start it; it answers when this returns.

        Raises:
            EngineError: It runs already, or did not start; what it said is on standard error.
        """
        if self.running:
            raise EngineError("this engine is running already")
        command = [sys.executable, "-m", "comfynb.engine", "--owned", "--port", str(self.port)]
        self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*command, *self._flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        too_late = threading.Timer(START_SECONDS, self.process.kill)
        too_late.start()
        try:
            hello = json.loads(self.process.stdout.readline())
            self.port = int(hello["url"].rpartition(":")[2])
        except (ValueError, TypeError, KeyError) as exc:
            self.kill()
            raise EngineError("the engine did not start; see its standard error") from exc
        finally:
            too_late.cancel()
        return self

    def kill(self) -> None:
        """End it as a crash would: its queue and its history are gone."""
        if self.process is not None:
            self.process.kill()
            self._reap(self.process)

    def stop(self) -> None:
        """End it in order. Safe to call twice."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self._reap(self.process)

    def restart(self) -> None:
        """Kill it and start it on the same port."""
        self.kill()
        self.start()

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

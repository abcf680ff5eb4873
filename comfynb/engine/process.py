"""The engine as a process: arguments, start, who owns it, end.

Owned (`--owned`) it belongs to the process that started it: it prints one JSON line when it
listens, and ends when its standard input reaches EOF. The operating system closes that pipe with
the parent whatever way it dies, kill -9 included, so no engine outlives its notebook.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from aiohttp import web

from comfynb._version import __version__
from comfynb.engine.access import is_loopback
from comfynb.engine.execute import Checkpoint
from comfynb.engine.files import Files
from comfynb.engine.nodes import builtin
from comfynb.engine.server import Server

TOKEN_VARIABLE = "COMFYNB_ENGINE_TOKEN"  # noqa: S105 - a name

END_WITHIN = 5.0
"""Seconds in which an orderly end must succeed; after that the process is ended hard."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m comfynb.engine",
        description="A small image server that speaks ComfyUI's protocol.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE) or None,
        help=f"wanted as bearer token; default: ${TOKEN_VARIABLE}, else a random one; "
        "empty: none is wanted",
    )
    parser.add_argument(
        "--no-token", dest="token", action="store_const", const="", help="as --token ''"
    )
    parser.add_argument("--threads", type=int, help="for the model; default: 2 at most")
    parser.add_argument("--owned", action="store_true", help="end when standard input ends")
    parser.add_argument("--nodes", help="Python file or module with register(registry)")
    parser.add_argument(
        "--output-directory", type=Path, help="default: a folder removed at the end"
    )
    parser.add_argument("--no-previews", action="store_true", help="no latent previews")
    options = parser.parse_args(arguments)
    if not is_loopback(options.host):
        parser.error("--host must be a loopback address: the engine is not made for networks")
    if options.threads is not None and options.threads < 1:
        parser.error("--threads must be at least 1")
    if options.token is None:
        options.token = secrets.token_urlsafe(24)
    return options


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run an engine as this whole process; its exit status is that of `main`."""
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed and removed. Taking the interpreter down under a thread that is still
    # inside onnxruntime aborts the process ("terminate called without an active exception").
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine until it is told to end; return the exit status."""
    options = parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="comfynb-engine-"))
    # onnxruntime leaves a file in the temporary directory when it is imported (1.32 does).
    os.environ["TMPDIR"] = str(folder)
    try:
        asyncio.run(_serve(options, folder))
    except OSError as problem:
        print(f"comfynb engine: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        _remove(folder)
    return 0


async def _serve(options: argparse.Namespace, folder: Path) -> None:
    registry = builtin()
    if options.nodes:
        load_nodes(options.nodes).register(registry)
    output = options.output_directory or folder / "output"
    files = Files(output=output, input=folder / "input", temp=folder / "temp")
    checkpoint = Checkpoint(options.threads)
    server = Server(
        registry, files, checkpoint, token=options.token, previews=not options.no_previews
    )
    ended = asyncio.Event()
    _listen_for_end(ended, folder, owned=options.owned)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"http://{host}:{runner.addresses[0][1]}"
        _announce(options, url)
        if options.owned:
            # Somebody will want a picture soon; loading the model now costs them no waiting.
            threading.Thread(target=checkpoint.warm_up, name="engine-warm-up", daemon=True).start()
        await ended.wait()
    finally:
        await runner.cleanup()


def _announce(options: argparse.Namespace, url: str) -> None:
    facts = {"url": url, "token": options.token, "pid": os.getpid(), "version": __version__}
    if options.owned:
        text = json.dumps(facts)
    else:
        header = f", with the header Authorization: Bearer {options.token}" if options.token else ""
        kept = options.output_directory or "a temporary folder, removed at the end"
        text = (
            f"comfynb engine {__version__} listens on {url}{header}\n"
            f"  in Python: comfynb.connect({url!r}, token={options.token!r})\n"
            f"  pictures go to {kept}; Ctrl-C ends it"
        )
    with contextlib.suppress(BrokenPipeError):  # the parent is gone; stdin tells the same
        print(text, flush=True)  # noqa: T201


def _listen_for_end(ended: asyncio.Event, folder: Path, *, owned: bool) -> None:
    """Set `ended` on SIGTERM, on Ctrl-C, and when an owner is gone."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        threading.Thread(target=_end_hard, args=(folder,), daemon=True).start()

    def end_soon(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: already ended
            loop.call_soon_threadsafe(end)

    signal.signal(signal.SIGTERM, end_soon)
    # A notebook's Interrupt sends SIGINT to the kernel's whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN if owned else end_soon)
    if owned:

        def wait_for_owner() -> None:
            with contextlib.suppress(OSError, ValueError):
                while os.read(0, 4096):
                    pass
            end_soon()

        threading.Thread(target=wait_for_owner, name="engine-owner", daemon=True).start()


def _end_hard(folder: Path) -> None:
    """End the process even if a node hangs in native code."""
    threading.Event().wait(END_WITHIN)
    _remove(folder)
    os._exit(1)


def _remove(folder: Path) -> None:
    """Remove our folder, although the warm-up may just be putting a file there."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def load_nodes(source: str) -> ModuleType:
    """Import a file or module that has a function `register(registry)`."""
    if not source.endswith(".py"):
        return importlib.import_module(source)
    spec = importlib.util.spec_from_file_location(Path(source).stem, source)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

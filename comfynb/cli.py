"""The command `comfynb`: demo, render, doctor, log, engine.

Exit status: 0 all is made; 1 a picture is missing; 2 the command could not be carried out as it
was given; 130 interrupted. Of `doctor`: 0 the server works, also where there are warnings; 1 it
answers and something does not work; 2 it was not reached. Of `log verify`: 1 something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from comfynb import log_commands, stores, terminal
from comfynb._version import __version__
from comfynb.connecting import EMBEDDED, connect
from comfynb.errors import BackendError, ComfynbError, LogError, WorkflowError
from comfynb.keyframes import Keyframe
from comfynb.log import Log
from comfynb.log.leaving import LEAVABLE, chosen
from comfynb.scenes import Storyboard
from comfynb.showing.export import write_page
from comfynb.showing.sheet import contact_sheet, save_sheet
from comfynb.studio import Studio

SHARED = ("style", "negative", "seed")
"""What `--set` gives to the storyboard; every other name is a knob."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit status.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["engine"]:  # its options are its own, and it stays a process of its own
        return _engine(given[1:])
    options = _parser().parse_args(given)
    try:
        status: int = options.command(options, console)
    except ComfynbError as exc:
        errors.print(f"[red]comfynb:[/] {escape(str(exc))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("comfynb: interrupted; what was made is in the log", soft_wrap=True)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="comfynb", description="Pictures from ComfyUI, one by one, and every one is kept."
    )
    parser.add_argument("--version", action="version", version=f"comfynb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="render a storyboard with the embedded engine")
    demo.add_argument("--out", type=Path, default=Path("comfynb-demo"), metavar="DIR")
    demo.set_defaults(command=_demo)

    render = commands.add_parser("render", help="render a storyboard of your own")
    render.add_argument("scenes", type=Path, help="a .yaml, .csv, .json or .txt file")
    render.add_argument(
        "--server",
        action="append",
        metavar="URL",
        help="a ComfyUI, or 'embedded'; once for each of several that share the work",
    )
    _add_access(render)
    render.add_argument("--log", type=Path, metavar="DIR", help="default: ./comfynb-log")
    render.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="|".join(LEAVABLE),
        help="keep out of the log, its rows and pictures: 'workflows', the graphs; or 'prompts', "
        "which are every prompt, negative, style and note, and the graphs. A log that is made so "
        "stays so, also without this option. Sheet and page have the prompts all the same",
    )
    render.add_argument(
        "--workflow", default="txt2img", metavar="FILE", help="JSON, or a picture of ComfyUI's"
    )
    render.add_argument("--checkpoint", metavar="NAME")
    render.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="knobs")
    render.add_argument("--force", action="store_true", help="make again what the log has")
    render.add_argument(
        "--out", type=Path, metavar="DIR", help="for sheet and page; default: beside the scenes"
    )
    render.set_defaults(command=_render)

    doctor = commands.add_parser(
        "doctor",
        help="examine a server, and say what to do",
        epilog="Exit status: 0 it works, also where there are warnings; 1 it answers and something "
        "does not work; 2 it was not reached.",
    )
    doctor.add_argument(
        "server",
        nargs="?",
        metavar="URL",
        help="a ComfyUI, or 'embedded'; default: $COMFYUI_URL, else here",
    )
    _add_access(doctor)
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds in all")
    doctor.add_argument("--no-round-trip", action="store_true", help="have no picture made")
    doctor.set_defaults(command=_doctor)

    log_commands.add_parser(commands)

    commands.add_parser("engine", help="serve the embedded engine alone (see: engine --help)")
    return parser


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", help="sent to the server as a bearer token")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", dest="headers"
    )
    parser.add_argument(
        "--cookie", action="append", default=[], metavar="NAME=VALUE", dest="cookies"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust (PEM)")


def _access(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `connect` and `diagnose` take.

    Raises:
        BackendError: A header or cookie is none; it is not quoted.
    """
    taken: dict[str, Any] = {"token": options.token, "ca": options.ca}
    for kind, separator, example in (
        ("headers", ":", "NAME: VALUE"),
        ("cookies", "=", "NAME=VALUE"),
    ):
        pairs = [entry.partition(separator) for entry in getattr(options, kind)]
        if not all(name.strip() and found for name, found, _ in pairs):
            raise BackendError(f"--{kind[:-1]} takes '{example}'")
        taken[kind] = {name.strip(): value.strip() for name, _, value in pairs}
    return taken


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from comfynb.diagnosis import diagnose  # noqa: PLC0415 - httpx and websockets take 0.2 s
    from comfynb.diagnosis.table import as_table  # noqa: PLC0415

    diagnosis = asyncio.run(
        diagnose(
            options.server,
            **_access(options),
            timeout=options.timeout,
            round_trip=not options.no_round_trip,
        )
    )
    if options.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))  # noqa: T201 - for programs, as it is
    else:
        console.print(as_table(diagnosis))
    return diagnosis.exit_status


def _demo(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out
    text = resources.files("comfynb").joinpath("demo.yaml").read_text("utf-8")
    storyboard = Storyboard.of(yaml.safe_load(text))
    with connect(EMBEDDED, log=out / "log") as studio:
        keyframes = _make(studio, storyboard, console)
    status = _finish(keyframes, storyboard, out, "storyboard", console)
    console.print(f"log    {out / 'log'}", soft_wrap=True)
    page = out / "storyboard.html"
    console.print(
        f"next   open {page} in a browser; write scenes of your own, one a line, into "
        "scenes.txt and say: comfynb render scenes.txt",
        soft_wrap=True,
    )
    return status


def _render(options: argparse.Namespace, console: Console) -> int:
    source: Path = options.scenes
    storyboard = Storyboard.load(source)
    shared = _settings(options.knobs)
    access = _access(options)
    with (
        _log(options) as log,
        connect(
            options.server,
            workflow=options.workflow,
            log=log,
            checkpoint=options.checkpoint,
            **access,
        ) as studio,
    ):
        folder = studio.log.shown
        keyframes = _make(studio, storyboard, console, force=options.force, **shared)
    status = _finish(keyframes, storyboard, options.out or source.parent, source.stem, console)
    console.print(f"log    {folder}", soft_wrap=True)
    if status:
        console.print("next   the same command again makes only what is missing", soft_wrap=True)
    else:
        console.print(f"next   in Python: comfynb.open_log({folder!r}).log.df()")
    return status


@contextlib.contextmanager
def _log(options: argparse.Namespace) -> Iterator[Path | Log | None]:
    """Give what `connect` takes; a log that leaves something out is ours to close.

    Raises:
        LogError: It cannot leave that out, or cannot be used.
    """
    if not options.leave_out:
        yield options.log
        return
    try:
        words = chosen(options.leave_out)
    except ValueError as exc:
        raise LogError(f"--leave-out: {exc}") from exc
    with contextlib.closing(Log(options.log or stores.default_folder(), leave_out=words)) as log:
        yield log


def _make(
    studio: Studio, storyboard: Storyboard, console: Console, **shared: Any
) -> list[Keyframe]:
    console.print(f"[bold]{escape(storyboard.title or 'storyboard')}[/]  on {studio.server}")

    async def make() -> list[Keyframe]:
        run = studio.run(storyboard, **shared)
        try:
            await terminal.follow(run, console)
        finally:
            await run.cancel()
        return run.result()

    return asyncio.run(make())


def _finish(
    keyframes: list[Keyframe], storyboard: Storyboard, out: Path, stem: str, console: Console
) -> int:
    """Write sheet and page, and say where all is."""
    out.mkdir(parents=True, exist_ok=True)
    title = storyboard.title or stem
    sheet = save_sheet(contact_sheet(keyframes, title=title), out / f"{stem}.png")
    page = write_page(keyframes, out / f"{stem}.html", title=title)
    counts = Counter(keyframe.status for keyframe in keyframes)
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"\nmade   {said}")
    console.print(f"sheet  {sheet}", soft_wrap=True)
    console.print(f"page   {page}", soft_wrap=True)
    return 0 if all(keyframe.ok for keyframe in keyframes) else 1


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """Read `--set knob=value`; values are YAML scalars, so 20 is a number and "20" a text."""
    shared: dict[str, Any] = {}
    knobs: dict[str, Any] = {}
    for entry in given:
        name, separator, text = entry.partition("=")
        if not separator or not name.strip():
            raise WorkflowError(f"--set takes KNOB=VALUE, such as --set steps=20; got {entry!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        target = shared if name.strip() in SHARED else knobs
        target[name.strip()] = "" if value is None else value
    return {**shared, "knobs": knobs} if knobs else shared


def _engine(arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "comfynb.engine", *arguments]
    try:
        return subprocess.run(command, check=False).returncode  # noqa: S603 - our own module
    except KeyboardInterrupt:
        return 130

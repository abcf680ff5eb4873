"""The command `comfynb log`: look at a log, care for it, and pass it on, in a terminal.

Logs may be strangers': what stands in them is shown as text, never as markup or as what a
terminal obeys.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfynb.errors import LogError
from comfynb.log import Log

if TYPE_CHECKING:
    from comfynb.keyframes import Keyframe

_SIGNS = {"done": ("✓", "green"), "cancelled": ("-", "yellow")}
_FAILED = ("✗", "red")
_LS = 50
_LONGEST = 200
"""Characters of a value in a table; --json gives all of them."""

_SUMMARY = """
    SELECT count(*) AS keyframes, count(DISTINCT scene) AS scenes,
        count(*) FILTER (status = 'done') AS done, count(DISTINCT run) AS runs,
        min(created_at) AS first, max(created_at) AS last
    FROM keyframes
"""

Work = Callable[[argparse.Namespace, Console, Log], int]


def add_parser(commands: Any) -> None:
    """Add `log` to the commands of an argument parser."""
    parser = commands.add_parser(
        "log",
        help="look at a log, care for it, pass it on",
        epilog="Exit status: 0; of verify 1 where something is wrong; 2 where the command could "
        "not be carried out.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    ls = _add(actions, "ls", _ls, "list keyframes, the last ones at the end", as_json=True)
    ls.add_argument("--scene", metavar="ID")
    ls.add_argument("--run", metavar="ID")
    ls.add_argument("--status", choices=("done", "failed", "cancelled", "lost"))
    ls.add_argument("--limit", type=int, default=_LS, metavar="N", help=f"default: {_LS}; 0: all")

    show = _add(actions, "show", _show, "how much there is, or one keyframe", as_json=True)
    show.add_argument("keyframe", nargs="?", metavar="ID", help="or how it begins")

    _add(actions, "verify", _verify, "hash every picture, read every row", as_json=True)

    compact = _add(actions, "compact", _compact, "seal and merge segments now")
    compact.add_argument("--force", action="store_true", help="merge also a few, or without locks")

    gc = _add(actions, "gc", _gc, "say which pictures no row names; with --yes, remove them")
    gc.add_argument("--yes", action="store_true", help="remove them")
    gc.add_argument("--older-than", type=float, default=24.0, metavar="HOURS", help="default: 24")

    text = "say which keyframes would be hidden; with --yes, hide them"
    delete = _add(actions, "delete", _delete, text)
    which = delete.add_mutually_exclusive_group(required=True)
    which.add_argument("--scene", metavar="ID", help="every take of it")
    which.add_argument("--run", metavar="ID", help="it, and all that it made")
    which.add_argument("--where", metavar="SQL", help="a condition on keyframes: 'rating <= 2'")
    which.add_argument("--keyframes", nargs="+", metavar="ID", help="these, or how they begin")
    delete.add_argument("--yes", action="store_true", help="hide them; gc removes the pictures")

    text = "say what has been deleted; with --yes, bring it back"
    restore = _add(actions, "restore", _restore, text)
    which = restore.add_mutually_exclusive_group()
    which.add_argument("--scene", metavar="ID", help="only its takes")
    which.add_argument("--run", metavar="ID", help="only it, and what it made")
    which.add_argument("--keyframes", nargs="+", metavar="ID", help="only these")
    restore.add_argument("--yes", action="store_true", help="bring it back")

    export = _add(actions, "export", _export, "write it to one file")
    export.add_argument("file", type=Path, help="x.parquet, x.duckdb or x.zip")
    export.add_argument(
        "--strip-metadata",
        action="store_true",
        help="of a zip: take prompt and workflow out of the pictures",
    )

    import_ = _add(actions, "import", _import, "copy what another log has", creates=True)
    import_.add_argument("other", type=Path, help="its folder, or a zip of it")

    sql = _add(actions, "sql", _sql, "ask it a question", as_json=True)
    sql.add_argument("query", help="one SELECT over keyframes, latest, runs, submitted, marks")


def _add(
    actions: Any, name: str, work: Work, text: str, *, as_json: bool = False, creates: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the log folder")
    if as_json:
        parser.add_argument("--json", action="store_true", help="for programs")

    def run(options: argparse.Namespace, console: Console) -> int:
        if not creates and not (options.folder / "seg").is_dir():
            raise LogError(
                f"there is no log at {options.folder}: give the folder that has seg/ and blobs/ "
                "in it",
                folder=str(options.folder),
            )
        with contextlib.closing(Log(options.folder)) as log:
            try:
                return work(options, console, log)
            except ValueError as exc:
                raise LogError(str(exc), folder=str(options.folder)) from exc

    parser.set_defaults(command=run)
    return parser


def _ls(options: argparse.Namespace, console: Console, log: Log) -> int:
    found = log.keyframes(run=options.run, scene=options.scene, status=options.status)
    shown = found[-options.limit :] if options.limit > 0 else found
    if options.json:
        _print_json([_brief(log, keyframe) for keyframe in shown])
        return 0
    console.print(_listed(shown))
    if len(shown) < len(found):
        console.print(f"the last {len(shown)} of {len(found):,} keyframes; --limit 0 lists all")
    return 0


def _listed(keyframes: Iterable[Keyframe]) -> Table:
    table = _table("", "made (UTC)", "scene", "take", "seed", "seconds", "id")
    for keyframe in keyframes:
        sign, style = _SIGNS.get(keyframe.status, _FAILED)
        seconds = "" if keyframe.seconds is None else f"{keyframe.seconds:.1f}"
        table.add_row(
            Text(sign, style),
            f"{keyframe.created_at:%Y-%m-%d %H:%M:%S}",
            _text(keyframe.scene.label),
            str(keyframe.take or ""),
            str(keyframe.seed),
            seconds,
            _text(keyframe.id[:8]),
        )
    return table


def _show(options: argparse.Namespace, console: Console, log: Log) -> int:
    wanted = options.keyframe
    facts = _summary(log) if wanted is None else _brief(log, _one(log, wanted))
    if options.json:
        _print_json(facts)
        return 0
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name, "bold"), _text(value, longest=None))
    console.print(table)
    return 0


def _summary(log: Log) -> dict[str, Any]:
    (row,) = log.sql(_SUMMARY).to_dict("records")
    first, last = row.pop("first"), row.pop("last")
    sizes = {name: _size(log.folder / name) for name in ("seg", "blobs", "thumbs")}
    return {
        "log": log.shown,
        **{str(name): int(value) for name, value in row.items()},
        "first": f"{first:%Y-%m-%d %H:%M:%S} UTC" if row["keyframes"] else None,
        "last": f"{last:%Y-%m-%d %H:%M:%S} UTC" if row["keyframes"] else None,
        **{f"{name}_bytes": size for name, size in sizes.items()},
    }


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _one(log: Log, start: str) -> Keyframe:
    found = log.keyframes(where="starts_with(id, $start)", params={"start": start})
    if len(found) != 1:
        count = "no keyframe" if not found else f"{len(found)} keyframes"
        raise LogError(
            f"{count} of the log at {log.folder} begin with {start!r}: comfynb log ls lists ids",
            folder=str(log.folder),
        )
    return found[0]


def _brief(log: Log, keyframe: Keyframe) -> dict[str, Any]:
    paths = [log.path(output.sha256, output.mime) for output in keyframe.outputs]
    return {
        "id": keyframe.id,
        "scene": keyframe.scene.id,
        "title": keyframe.scene.title,
        "status": keyframe.status,
        "error": None if keyframe.error is None else str(keyframe.error),
        "prompt": keyframe.prompt,
        "negative": keyframe.negative,
        "seed": keyframe.seed,
        "take": keyframe.take,
        "knobs": dict(keyframe.knobs),
        "axes": dict(keyframe.axes),
        "seconds": keyframe.seconds,
        "run": keyframe.run,
        "server": keyframe.server,
        "made": keyframe.created_at.isoformat(),
        "files": [path.relative_to(log.folder).as_posix() for path in paths if path],
    }


def _verify(options: argparse.Namespace, console: Console, log: Log) -> int:
    found = log.verify()
    if options.json:
        _print_json({**dataclasses.asdict(found), "ok": found.ok})
        return 0 if found.ok else 1
    sign, style = _SIGNS["done"] if found.ok else _FAILED
    said = "all sound" if found.ok else f"{len(found.findings)} found wrong"
    console.print(
        Text(f"{sign} {said}", style),
        f" {found.rows:,} rows in {found.segments} segments, {found.pictures:,} pictures "
        f"({found.bytes / 1e6:,.1f} MB)",
    )
    table = _table("file", "problem", "what to do")
    for finding in found.findings:
        table.add_row(_text(finding.path), _text(finding.problem), finding.advice)
    if found.findings:
        console.print(table)
    if found.unnamed:
        console.print(
            f"{found.unnamed:,} pictures are named by no row: comfynb log gc --yes removes those "
            "older than a day"
        )
    return 0 if found.ok else 1


def _compact(options: argparse.Namespace, console: Console, log: Log) -> int:
    before = len(_segments(log))
    log.compact(force=options.force)
    console.print(f"{before} segments before, {len(_segments(log))} now")
    return 0


def _segments(log: Log) -> Sequence[Path]:
    from comfynb.log.listing import list_segments  # noqa: PLC0415 - few need it

    listing = list_segments(log.folder)
    return (*listing.sealed, *listing.active)


def _gc(options: argparse.Namespace, console: Console, log: Log) -> int:
    found = log.gc(dry_run=not options.yes, older_than=options.older_than * 3600)
    for path in (*found.pictures, *found.thumbnails, *found.temporary):
        console.print(_text(path.relative_to(log.folder).as_posix(), longest=None))
    said = repr(found).replace("log.gc(dry_run=False) does", "--yes does")
    console.print(said)
    return 0


def _delete(options: argparse.Namespace, console: Console, log: Log) -> int:
    keyframes: list[Keyframe] | None = None
    if options.where is not None:
        keyframes = log.keyframes(where=options.where)
    elif options.keyframes is not None:
        keyframes = [_one(log, start) for start in options.keyframes]
    run = any(record.id == options.run for record in log.runs())
    found = log.delete(
        run=options.run, scene=options.scene, keyframes=keyframes, dry_run=not options.yes
    )
    what = _counted(len(found), int(run))
    if found:
        console.print(_listed(found))
    if not what:
        console.print("nothing to delete")
    elif options.yes:
        console.print(
            f"deleted {what}: comfynb log restore brings back what comfynb log gc has not removed"
        )
    else:
        console.print(f"would delete {what}; --yes does")
    return 0


def _restore(options: argparse.Namespace, console: Console, log: Log) -> int:
    from comfynb.log.deleting import DELETED_ROWS  # noqa: PLC0415 - DuckDB takes 0.1 s

    rows = [row for row in log.sql(DELETED_ROWS).to_dict("records") if _is_meant(row, options)]
    if options.yes:
        log.restore([row["id"] for row in rows])
    table = _table("made (UTC)", "scene", "run", "id", "picture")
    made = [row for row in rows if row["kind"] == "result"]
    for row in made:
        gone = any(log.path(sha256) is None for sha256 in row["pictures"])
        table.add_row(
            f"{row['created_at']:%Y-%m-%d %H:%M:%S}",
            _text(row["scene"]),
            _text(row["run"]),
            _text(row["id"][:8]),
            "removed by gc" if gone else "",
        )
    what = _counted(len(made), len(rows) - len(made))
    if made:
        console.print(table)
    if not what:
        console.print("nothing to restore")
    else:
        console.print(f"restored {what}" if options.yes else f"would restore {what}; --yes does")
    return 0


def _is_meant(row: dict[Any, Any], options: argparse.Namespace) -> bool:
    if options.scene is not None:
        return bool(row["scene"] == options.scene)
    if options.run is not None:
        return bool(row["run"] == options.run)
    return options.keyframes is None or str(row["id"]).startswith(tuple(options.keyframes))


def _counted(keyframes: int, runs: int) -> str:
    """Return how many there are of both, "" for none."""
    counts = (f"{keyframes:,} keyframes" if keyframes else "", f"{runs:,} runs" if runs else "")
    return " and ".join(filter(None, counts))


def _export(options: argparse.Namespace, console: Console, log: Log) -> int:
    path = log.export(options.file, strip_metadata=options.strip_metadata)
    console.print(f"wrote  {path}  ({path.stat().st_size / 1e6:,.1f} MB)", soft_wrap=True)
    return 0


def _import(options: argparse.Namespace, console: Console, log: Log) -> int:
    done = log.import_(options.other)
    console.print(
        f"copied {done.pictures:,} pictures and {done.segments} segments "
        f"({done.bytes / 1e6:,.1f} MB); {done.known:,} were here"
    )
    for name in done.refused:
        console.print(Text("left out, as it is not what it should be: "), _text(name))
    return 0


def _sql(options: argparse.Namespace, console: Console, log: Log) -> int:
    frame = log.sql(options.query)
    if options.json:
        print(frame.to_json(orient="records", date_format="iso", indent=2))  # noqa: T201
        return 0
    table = _table(*(_text(name).plain for name in frame.columns))
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(_text(value) for value in row))
    console.print(table)
    console.print(f"{len(frame):,} rows", style="dim")
    return 0


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def _text(value: Any, *, longest: int | None = _LONGEST) -> Text:
    """Return a value of a log as text that a terminal only shows."""
    text = value if isinstance(value, str) else "" if value is None else _plain(value)
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    return Text(text)


def _plain(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _print_json(value: dict[str, Any] | Iterable[Any]) -> None:
    print(json.dumps(value, indent=2, default=str))  # noqa: T201 - for programs, as it is

"""What a log looks like in a notebook: counts, size, span, servers and the last pictures.

The card is plain HTML without scripts that weighs at most about 120 kB, its pictures included, so
that a saved notebook stays small and shows it without a kernel. It names the folder as the log
does on screen, never by its absolute path. What scenes and servers are called is escaped: a log
may be a stranger's.

JupyterLab strips <style> from a saved notebook until its reader has run it, but leaves `style`
attributes: those here hold the layout together meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from comfynb.errors import LogError
from comfynb.pictures import BadPictureError
from comfynb.showing.markup import colour, img, stars, text

if TYPE_CHECKING:
    from pathlib import Path

    from comfynb.log.log import Log
    from comfynb.log.reader import Reader
    from comfynb.log.records import Row

PICTURES = 12
_SIDES_PX = (200, 144, 96)
"""Longer sides of a picture, tried in this order until it fits into `_PICTURE`."""
_PICTURE = 6500
"""Bytes of a picture; base64 adds a third."""
_SERVERS = 4
_ROW = "display:flex;flex-wrap:wrap"

_COUNTS = """
    SELECT status, count(*) AS keyframes, min(created_at) AS first, max(created_at) AS last
    FROM results GROUP BY status ORDER BY keyframes DESC, status
"""
_SERVER_NAMES = """
    SELECT server FROM results WHERE server <> '' GROUP BY server ORDER BY max(created_at) DESC
"""
_PICTURE_COUNT = """
    SELECT count(DISTINCT output.sha256) AS pictures
    FROM (SELECT unnest(outputs) AS output FROM results) WHERE starts_with(output.mime, 'image/')
"""
_RUNS = "SELECT count(DISTINCT id) AS count FROM log_rows WHERE kind = 'run'"
_LAST = f"""
    SELECT coalesce(nullif(title, ''), scene, '') AS name, created_at, rating, picked,
        list_filter(outputs, lambda o: starts_with(o.mime, 'image/'))[1].sha256 AS sha256
    FROM placed
    WHERE newest AND status = 'done'
        AND len(list_filter(outputs, lambda o: starts_with(o.mime, 'image/'))) > 0
    ORDER BY made DESC LIMIT {PICTURES}
"""  # noqa: S608 - a number of ours


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in a log."""

    statuses: Sequence[Row]
    servers: list[str]
    pictures: int
    runs: int
    last: Sequence[Row]


def html(log: Log, reader: Reader) -> str:
    """Return a log as HTML; where it cannot be read, why."""
    name = f'<p class="name">{escape(log.shown)}</p>'
    try:
        found = _Contents(
            statuses=reader.rows(_COUNTS),
            servers=[row["server"] for row in reader.rows(_SERVER_NAMES)],
            pictures=reader.rows(_PICTURE_COUNT)[0]["pictures"],
            runs=reader.rows(_RUNS)[0]["count"],
            last=reader.rows(_LAST),
        )
    except LogError as exc:
        reason = str(exc).replace(str(log.folder), log.shown)
        return f'<div class="comfynb-log">{_STYLE}{name}<p class="bad">{escape(reason)}</p></div>'
    if not found.statuses:
        empty = (
            "Nothing was made yet." if not found.runs else "A run has begun, nothing is made yet."
        )
        return f'<div class="comfynb-log">{_STYLE}{name}<p>{empty}</p></div>'
    return (
        f'<div class="comfynb-log">{_STYLE}<header>{name}{_span(found.statuses)}</header>'
        f"{_numbers(found, _size(log.folder))}{_pictures(log, found.last)}"
        f"{_servers(found.servers)}</div>"
    )


def _numbers(found: _Contents, size: int) -> str:
    made = sum(row["keyframes"] for row in found.statuses)
    numbers = [
        _number(f"{made:,}", "keyframe", made),
        _number(f"{found.pictures:,}", "picture", found.pictures),
        _number(f"{found.runs:,}", "run", found.runs),
        _number(_bytes(size), "on disk"),
    ]
    parts = "".join(
        f'<i style="flex-grow:{row["keyframes"]};background:{colour(row["status"])}"></i>'
        for row in found.statuses
    )
    words = "".join(
        f'<span><b style="background:{colour(row["status"])}"></b>{row["keyframes"]:,} '
        f"{text(row['status'] or 'unknown')}</span>"
        for row in found.statuses[:8]
    )
    return (
        f'<div class="numbers" style="{_ROW};gap:6px 32px">{"".join(numbers)}</div>'
        f'<div class="bar" aria-hidden="true">{parts}</div>'
        f'<div class="words" style="{_ROW};gap:2px 16px">{words}</div>'
    )


def _number(number: str, word: str, count: int | None = None) -> str:
    plural = "s" if count not in (None, 1) else ""
    strong = f'<strong style="display:block">{number}</strong>'
    return f"<div>{strong}<span>{word}{plural}</span></div>"


def _span(statuses: Sequence[Row]) -> str:
    """Say from when to when things were made; in UTC, as the log keeps it."""
    first = min((row["first"] for row in statuses if row["first"]), default=None)
    last = max((row["last"] for row in statuses if row["last"]), default=None)
    if first is None or last is None:
        return ""
    if first.date() == last.date():
        span = f"{_day(last)}, {first:%H:%M}"
        span += f" to {last:%H:%M}" if f"{first:%H:%M}" != f"{last:%H:%M}" else ""
    else:
        span = f"{_day(first)} to {_day(last)}"
    return f'<p title="{first} to {last} UTC">{span} <small>UTC</small></p>'


def _day(time: datetime) -> str:
    return f"{time.day} {time:%b} {time.year}"


def _servers(servers: Sequence[str]) -> str:
    if not servers:
        return ""
    names = " ".join(f"<code>{text(name)}</code>" for name in servers[:_SERVERS])
    more = len(servers) - _SERVERS
    return f'<p class="servers">made on {names}{f" and {more} more" if more > 0 else ""}</p>'


def _pictures(log: Log, last: Sequence[Row]) -> str:
    if not last:
        return ""
    tiles = "".join(_tile(log, row) for row in last)
    return f'<div class="pictures" style="{_ROW};gap:10px">{tiles}</div>'


def _tile(log: Log, row: Row) -> str:
    name = text(row["name"])
    picture = '<span class="gone">cannot be shown</span>'
    with contextlib.suppress(LogError, BadPictureError):
        small = log.thumbnail(row["sha256"])
        picture = img(small, row["name"], sides_px=_SIDES_PX, most_bytes=_PICTURE)
    rating = stars(row["rating"])
    said = f'<b title="rating">{rating}</b>' if rating else ""
    pick = '<em title="picked">✓</em>' if row["picked"] else ""
    return (
        f'<figure style="margin:0;max-width:128px" '
        f'title="{name}, {row["created_at"]:%Y-%m-%d %H:%M} UTC">{picture}{pick}'
        f"<figcaption><span>{name}</span> {said}</figcaption></figure>"
    )


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder, without links and what goes meanwhile."""
    total, folders = 0, [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


# `:not(#_)` always holds, and outweighs what a host says of all paragraphs, images and figures.
# Names of colours fall back from JupyterLab's to VS Code's to the system's; shades are mixed from
# the text's own colour, since notebooks declare no colour scheme for `light-dark`.
_STYLE = """<style>
.comfynb-log { --line: color-mix(in srgb, currentColor 14%, transparent);
  --quiet: color-mix(in srgb, currentColor 62%, transparent);
  --tint: color-mix(in srgb, currentColor 7%, transparent);
  color: var(--jp-ui-font-color1, var(--vscode-foreground, CanvasText)); max-width: 56rem;
  font: 13px/1.45 var(--jp-ui-font-family, var(--vscode-font-family, system-ui, sans-serif));
  border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; box-sizing: border-box; }
.comfynb-log:not(#_) * { box-sizing: border-box; }
.comfynb-log:not(#_) p { margin: 0; color: var(--quiet); font-size: 13px; }
.comfynb-log:not(#_) p.name { color: inherit; font-weight: 600; font-size: 14px;
  overflow-wrap: anywhere; }
.comfynb-log:not(#_) p.bad { color: inherit; border-left: 3px solid #d9413b; padding-left: 8px;
  margin-top: 6px; }
.comfynb-log:not(#_) header { display: flex; flex-wrap: wrap; gap: 2px 16px;
  justify-content: space-between; align-items: baseline; background: none; padding: 0; }
.comfynb-log:not(#_) small { font-size: 11px; color: inherit; }
.comfynb-log:not(#_) .numbers { margin: 12px 0; }
.comfynb-log:not(#_) .numbers strong { font-size: 22px; line-height: 1.2;
  font-weight: 600; font-variant-numeric: tabular-nums; color: inherit; }
.comfynb-log:not(#_) .numbers span { color: var(--quiet); }
.comfynb-log:not(#_) .bar { display: flex; gap: 2px; height: 6px; border-radius: 3px;
  overflow: hidden; }
.comfynb-log:not(#_) .bar i { min-width: 4px; flex-basis: 0; }
.comfynb-log:not(#_) .words { margin: 6px 0 0;
  color: var(--quiet); font-variant-numeric: tabular-nums; }
.comfynb-log:not(#_) .words b { display: inline-block; width: 8px; height: 8px;
  border-radius: 50%; margin-right: 6px; }
.comfynb-log:not(#_) .pictures { display: grid !important; margin: 14px 0 0;
  grid-template-columns: repeat(auto-fill, minmax(max(100px, (100% - 50px) / 6), 1fr)); }
.comfynb-log:not(#_) figure { min-width: 0; max-width: none !important; position: relative; }
.comfynb-log:not(#_) :is(img, .gone) { display: flex; width: 100%; height: auto; max-width: none;
  aspect-ratio: 1; object-fit: cover; border-radius: 6px; background: var(--tint); margin: 0; }
.comfynb-log:not(#_) .gone { align-items: center; justify-content: center; text-align: center;
  color: var(--quiet); font-size: 12px; padding: 8px; }
.comfynb-log:not(#_) figcaption { display: flex; gap: 6px; justify-content: space-between;
  font-size: 12px; color: var(--quiet); margin: 3px 1px 0; padding: 0; text-align: left; }
.comfynb-log:not(#_) figcaption span { overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; }
.comfynb-log:not(#_) figcaption b { color: #c98a04; font-weight: 400; letter-spacing: -1px; }
.comfynb-log:not(#_) figure em { position: absolute; top: 6px; right: 6px; width: 20px;
  height: 20px; border-radius: 50%; background: #2f9e5b; color: #fff; font: 600 12px/20px
  system-ui, sans-serif; text-align: center; }
.comfynb-log:not(#_) .servers { margin: 12px 0 0; font-size: 12px; }
.comfynb-log:not(#_) code { font: 12px/1.5 var(--jp-code-font-family, ui-monospace, monospace);
  color: inherit; background: var(--tint); border-radius: 4px; padding: 1px 5px; }
</style>"""

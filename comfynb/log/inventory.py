"""Which files a log holds, and which pictures its rows name: what care of a log compares.

Rows name pictures in two ways: a result by its outputs, a run (and its results) by the files that
its prompts start from, wherever in the storyboard they stand. Whoever only wants to know what must
not go takes everything in these texts that looks like a sha256: too much, never too little.
"""

# ruff: noqa: S608 - SQL from our own texts

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfynb.errors import LogError
from comfynb.log.blobs import EXTENSIONS
from comfynb.log.listing import list_segments
from comfynb.log.reader import Reader
from comfynb.log.schema import COLUMNS, ROW_VERSION
from comfynb.log.views import DELETED

_PICTURE = re.compile(rf"([0-9a-f]{{64}})\.({'|'.join([*EXTENSIONS.values(), 'bin'])})")
_THUMBNAIL = re.compile(r"([0-9a-f]{64})\.(webp)")
_COLUMNS = frozenset(column.name for column in COLUMNS)
_SHA256 = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

OUTPUTS = f"""
    SELECT DISTINCT ON (output.sha256, output.mime)
        scene, output.sha256 AS sha256, output.mime AS mime
    FROM (
        SELECT scene, unnest(outputs) AS output FROM log_rows
        WHERE kind = 'result' AND (id IS NULL OR id NOT IN ({DELETED}))
    )
"""
"""What the keyframes that are not deleted gave."""

_TEXTS = f"""
    SELECT DISTINCT unnest(regexp_extract_all(text, '[0-9a-f]{{64}}')) AS sha256 FROM (
        SELECT unnest([storyboard, sweep, cells, scene_json, knobs::VARCHAR, extra]) AS text
        FROM log_rows
        WHERE kind IS NOT NULL AND (id IS NULL OR id NOT IN ({DELETED}))
    )
"""


_NAMES = "SELECT column_name AS name FROM (DESCRIBE SELECT * FROM log_rows)"


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a folder of files that are named by sha256.

    Attributes:
        path: Where it is.
        status: Of the entry itself, links not followed.
        sha256: What its name says; None: it is no file with such a name in its place.
    """

    path: Path
    status: os.stat_result
    sha256: str | None


def pictures(root: Path) -> Iterator[Found]:
    """Give all that is in the `blobs` folder of a log."""
    return _entries(root / "blobs", _PICTURE)


def thumbnails(root: Path) -> Iterator[Found]:
    """Give all that is in the `thumbs` folder of a log."""
    return _entries(root / "thumbs", _THUMBNAIL)


def _entries(folder: Path, names: re.Pattern[str]) -> Iterator[Found]:
    for inner, status in _scan(folder):
        if not stat.S_ISDIR(status.st_mode) or re.fullmatch("[0-9a-f]{2}", inner.name) is None:
            yield Found(inner, status, None)
            continue
        for path, inside in _scan(inner):
            named = names.fullmatch(path.name)
            ours = named is not None and named[1][:2] == inner.name
            regular = stat.S_ISREG(inside.st_mode)
            yield Found(path, inside, named[1] if named and ours and regular else None)


def _scan(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Give the entries of a folder that is one and no link, in the order of their names."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return
    for name in names:
        try:
            yield folder / name, (folder / name).lstat()
        except FileNotFoundError:  # gone since
            continue


def named(reader: Reader) -> frozenset[str]:
    """Return the sha256 of everything that a row may name, and of some things more.

    Raises:
        LogError: Not all of it can be read, or it has rows of a newer comfynb.
    """
    ((version,),) = (row.values() for row in reader.rows("SELECT max(v) FROM log_rows"))
    columns = {row["name"] for row in reader.rows(_NAMES)}
    if (version or 0) > ROW_VERSION or not columns <= _COLUMNS:
        raise LogError(
            f"the log at {reader.root} has rows of a newer comfynb, which may name pictures that "
            "this one knows nothing of; nothing is removed. Upgrade: pip install -U comfynb",
            folder=str(reader.root),
        )
    found = {row["sha256"] for row in reader.rows(OUTPUTS)}
    found |= {row["sha256"] for row in reader.rows(_TEXTS)}
    if reader.damaged:
        files = ", ".join(f"seg/{name}" for name in reader.damaged)
        raise LogError(
            f"in the log at {reader.root} {files} cannot be read, and nobody knows which pictures "
            "its rows name; nothing is removed. Bring it back from a copy, or move it out of the "
            "log",
            folder=str(reader.root),
        )
    for path in list_segments(reader.root).active:
        found |= _beside_our_columns(path)
    return frozenset(sha256 for sha256 in found if sha256)


def _beside_our_columns(path: Path) -> set[str]:
    """Return every sha256 in lines that are no rows any more, or have columns unknown to us."""
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # sealed meanwhile
        for line in file:
            try:
                row = json.loads(line)
                known = isinstance(row, dict) and row.keys() <= _COLUMNS
            except (ValueError, RecursionError):
                known = False
            if not known:
                found.update(digits.decode() for digits in _SHA256.findall(line))
    return found

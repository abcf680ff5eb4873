"""A log as one file to give away: a table of its keyframes, or the whole of it in a zip.

    x.parquet   the view `keyframes`, for any program that reads Parquet
    x.duckdb    the tables keyframes, runs and marks
    x.zip       a log of its own: one sealed segment and the pictures, without thumbnails

What was deleted is in none of them. A file appears under its name whole, or not at all.
"""

# ruff: noqa: S608 - SQL from our own schema and quoted paths

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from comfynb.errors import LogError
from comfynb.log import folder as files
from comfynb.log import views
from comfynb.log.blobs import EXTENSIONS, Blobs, is_sha256
from comfynb.log.listing import list_segments
from comfynb.log.sealing import database, write_parquet
from comfynb.log.stripping import strip

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ATTEMPTS = 10
_STORAGE = "v1.2.0"
"""A file in the format of DuckDB 2 could not be opened by 1.x."""

_SHA256 = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_INPUT_NAME = re.compile(r"comfynb-([0-9a-f]{32})(?=\.)")  # inputs.py
_MIMES = {extension: mime for mime, extension in EXTENSIONS.items()}
_KEPT = f"""
    SELECT * FROM log_rows AS r WHERE id IS NOT NULL
        AND id NOT IN ({views.DELETED})
        AND (target IS NULL OR target NOT IN ({views.DELETED}))
        AND NOT (kind = 'mark' AND field = 'deleted')
        AND NOT (kind = 'submitted' AND key IN (
            SELECT key FROM log_rows WHERE id IN ({views.DELETED}) AND key IS NOT NULL))
    QUALIFY {views.BEST_OF_ID} = 1
"""


def export(root: Path, target: Path, *, strip_metadata: bool) -> Path:
    """Write a log to one file; see `Log.export`.

    Raises:
        ValueError: The file's name says no format that we write.
        LogError: The log cannot be read, or the file cannot be written.
    """
    suffix = target.suffix.lower()
    if suffix not in (".parquet", ".duckdb", ".zip"):
        raise ValueError(f"{target.name}: a log is exported to .parquet, .duckdb or .zip")
    if strip_metadata and suffix != ".zip":
        raise ValueError(f"strip_metadata is about pictures, and there are none in {target.name}")
    try:
        _export(root, target, suffix, strip_metadata=strip_metadata)
    except OSError as exc:
        raise LogError(
            f"could not export the log at {root} to {target}: {exc.strerror or exc}. The log is as "
            "it was; give another file, or make room there",
            folder=str(root),
        ) from exc
    return target


def _export(root: Path, target: Path, suffix: str, *, strip_metadata: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        # DuckDB locks what it writes, which is not possible everywhere: let it write elsewhere.
        with tempfile.TemporaryDirectory(prefix="comfynb-export-") as scratch:
            written = Path(scratch, f"log{suffix}")
            if suffix == ".parquet":
                _ask(root, lambda connection: _parquet(connection, written))
            elif suffix == ".duckdb":
                _ask(root, lambda connection: _duckdb(connection, written))
            else:
                rows = Path(scratch, "rows.parquet")
                _ask(root, lambda connection: write_parquet(_KEPT, rows, connection))
                _zip(root, rows, aside, strip_metadata=strip_metadata)
            if written.exists():
                shutil.copyfile(written, aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _ask(root: Path, work: Callable[[DuckDBPyConnection], None]) -> None:
    """Do something with a database of all views; again where a segment goes meanwhile."""
    for attempt in range(1, _ATTEMPTS + 1):
        listing = list_segments(root)
        try:
            with database() as connection:
                views.open_views(connection, listing)
                work(connection)
                return
        except duckdb.Error as exc:
            if attempt == _ATTEMPTS or list_segments(root) == listing:
                raise LogError(
                    f"the log at {root} cannot be exported: {exc}. log.verify() says what is "
                    "wrong with it",
                    folder=str(root),
                ) from exc


def _parquet(connection: DuckDBPyConnection, target: Path) -> None:
    connection.execute(
        f"COPY (FROM keyframes ORDER BY created_at, id) TO {views.path_list([target])[1:-1]} "
        "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 4096)"
    )


def _duckdb(connection: DuckDBPyConnection, target: Path) -> None:
    target.unlink(missing_ok=True)
    name = views.path_list([target])[1:-1]
    connection.execute(f"ATTACH {name} AS exported (STORAGE_VERSION '{_STORAGE}')")
    for view in ("keyframes", "runs", "marks"):
        order = "ORDER BY created_at, id"
        connection.execute(f"CREATE TABLE exported.{view} AS FROM {view} {order}")
    connection.execute("DETACH exported")


def _zip(root: Path, rows: Path, target: Path, *, strip_metadata: bool) -> None:
    blobs = Blobs(root)
    renamed: dict[str, tuple[str, int]] = {}
    there: set[str] = set()
    left: list[str] = []
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        archive.writestr(files.MARKER, files.new_marker(files.left_out(root)))
        for sha256 in _named(rows):
            path = blobs.find(sha256)
            if path is None:
                continue  # a key; or a picture that is gone, which verify() tells
            if not strip_metadata:
                archive.write(path, f"blobs/{sha256[:2]}/{path.name}")
                continue
            data = path.read_bytes()
            stripped = _stripped(data, path, left)
            name = hashlib.sha256(stripped).hexdigest()
            if name not in there:
                archive.writestr(f"blobs/{name[:2]}/{name}{path.suffix}", stripped)
            there.add(name)
            renamed[sha256] = (name, len(stripped))
        if strip_metadata:
            _rename(rows, renamed)
        stem = f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}"
        archive.write(rows, f"seg/{stem}.parquet")
    if left:
        warnings.warn(
            f"{len(left)} files are exported as the server wrote them, since only PNG, WebP and "
            f"JPEG can be stripped: {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}",
            stacklevel=5,
        )


def _stripped(data: bytes, path: Path, left: list[str]) -> bytes:
    mime = _MIMES.get(path.suffix[1:], "")
    try:
        stripped = strip(data, mime)
    except ValueError as exc:
        raise LogError(
            f"{path.name} cannot be stripped: {exc}. Delete its keyframe, or export without "
            "strip_metadata"
        ) from exc
    if stripped is not None:
        return stripped
    if not mime.startswith("text/"):
        left.append(path.name)
    return data


def _named(rows: Path) -> list[str]:
    """Return the sha256 of all that these rows name; and their keys, which no file has."""
    texts = "[storyboard, sweep, cells, scene_json, knobs::VARCHAR, extra, outputs::VARCHAR]"
    with database() as connection:
        found = connection.execute(
            "SELECT DISTINCT unnest(regexp_extract_all(text, '[0-9a-f]{64}')) AS sha256 FROM "
            f"(SELECT unnest({texts}) AS text FROM read_parquet({views.path_list([rows])})) "
            "ORDER BY sha256"
        ).fetchall()
    return [sha256 for (sha256,) in found if is_sha256(sha256)]


def _rename(rows: Path, renamed: dict[str, tuple[str, int]]) -> None:
    """Give the rows the new names and sizes of their pictures."""
    prefixes = {old[:32]: new[:32] for old, (new, _) in renamed.items()}

    def new_name(found: re.Match[str]) -> str:
        return renamed.get(found[0], (found[0], 0))[0]

    def new_prefix(found: re.Match[str]) -> str:
        return f"comfynb-{prefixes.get(found[1], found[1])}"

    lines = rows.with_suffix(".jsonl")
    with database() as connection, lines.open("w", encoding="utf-8") as file:
        answer = connection.execute(
            f"SELECT to_json(r)::VARCHAR FROM read_parquet({views.path_list([rows])}) AS r"
        )
        while row := answer.fetchone():
            parsed = json.loads(row[0])
            for output in parsed.get("outputs") or ():
                output["bytes"] = renamed.get(output["sha256"], ("", output["bytes"]))[1]
            text = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))
            file.write(_INPUT_NAME.sub(new_prefix, _SHA256.sub(new_name, text)) + "\n")
    with database() as connection:
        write_parquet(f"SELECT * FROM {views.read_json([lines])}", rows, connection)

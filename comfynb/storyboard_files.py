"""Storyboard files: text, CSV, YAML and JSON to plain data and back.

This module knows the formats and nothing about scenes: reading gives lists and mappings that
`scenes.Storyboard` then checks, whatever they came from. What it refuses, it refuses with the
name of the file: missing, too big, not text, broken, of an unknown kind.

| suffix | holds |
|---|---|
| `.json`, `.yaml`, `.yml` | everything |
| `.csv`, `.tsv` | one scene a row, under a header; nothing shared, knobs of the common names only |
| `.txt` | one prompt a line; blank lines and lines that begin with `#` are skipped |
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from comfynb.errors import SceneError

MAX_BYTES = 10_000_000
"""A storyboard of a thousand scenes weighs about 200 kB; more than this is some other file."""

MAX_DEPTH = 50
"""Levels of lists and mappings in YAML; a storyboard has four."""

DELIMITERS = ",;\t"
"""Spreadsheets write `;` where the comma is the decimal sign."""


SCENE_FIELDS = ("id", "title", "prompt", "negative", "seed", "notes")

KNOB_TYPES: Mapping[str, type] = {
    "steps": int,
    "cfg": float,
    "sampler": str,
    "scheduler": str,
    "width": int,
    "height": int,
    "checkpoint": str,
    "denoise": float,
    "image": str,
}
"""The knobs with a column of their own in tables; any other has a place in YAML and JSON only."""

COLUMNS = (*SCENE_FIELDS, *KNOB_TYPES)


def read(path: Path) -> Any:
    """Read a storyboard file.

    Args:
        path: Its suffix says the format.

    Returns:
        Lists, mappings, texts and numbers; nobody asked yet whether they make sense.

    Raises:
        SceneError: The suffix is unknown, or the file is missing, unreadable, bigger than
            10 MB, not UTF-8, or broken.
    """
    parse = _format_of(path).parse
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SceneError(
            "there is no such file",
            source=str(path),
            hint=f"Look at the name; the current folder is {Path.cwd()}",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise SceneError(
            f"the file cannot be read ({reason})",
            source=str(path),
            hint="Look whether it is a file and may be read",
        ) from error
    if len(content) > MAX_BYTES:
        raise SceneError(
            f"the file is bigger than {MAX_BYTES // 1_000_000} MB",
            source=str(path),
            hint="A storyboard holds prompts, not pictures: is it the right file?",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SceneError(
            f"the byte 0x{content[error.start]:02x} is not UTF-8",
            source=str(path),
            row=f"line {line}",
            hint="Save the file as UTF-8",
        ) from error
    try:
        return parse(text)
    except SceneError as error:
        raise SceneError(
            error.problem, source=str(path), row=error.row, hint=error.hint
        ) from error.__cause__
    except RecursionError:
        raise SceneError(
            "the file is nested too deeply",
            source=str(path),
            hint="A storyboard is a list of scenes: is it the right file?",
        ) from None


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a storyboard's dict; an older file of that name is replaced in one step.

    Args:
        path: Its suffix says the format.
        data: From `Storyboard.to_dict`.

    Raises:
        SceneError: The suffix is unknown, the format has no place for something, or the file
            cannot be written.
    """
    try:
        text = _format_of(path).serialise(data)
    except SceneError as error:
        raise SceneError(
            error.problem, source=str(path), row=error.row, hint=error.hint
        ) from error.__cause__
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:100]}-", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text.encode())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise SceneError(
            f"the file cannot be written ({error.strerror or error})",
            source=str(path),
            hint="Look whether the folder exists, may be written to, and has room",
        ) from error


def _umask() -> int:
    """Return the process's umask; there is no way to ask without setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _parse_text(text: str) -> list[str]:
    # Not splitlines: it also breaks at form feeds and U+2028, which may stand in a prompt.
    lines = (line.strip() for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _parse_csv(text: str) -> list[dict[str, Any]]:
    first_line = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=first_line.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, Any]] = []
    try:
        header = [name.strip() for name in next(lines, [])]
        for name in header:
            if header.count(name) > 1:
                raise SceneError(
                    f"the column {name!r} is there twice",
                    row="header",
                    hint="Rename or remove one of them",
                )
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                raise SceneError(
                    f"it has {len(cells)} cells, the header has {len(header)} columns",
                    row=f"row {len(rows) + 1}",
                    hint="A text with a comma in it needs double quotes around it",
                )
            rows.append(
                {n: _value(n, c) for n, c in zip(header, cells, strict=False) if n or c.strip()}
            )
    except csv.Error as error:
        raise SceneError(
            f"the CSV is broken ({error})",
            row=f"line {lines.line_num}",
            hint="Look for a double quote that is not closed",
        ) from error
    if rows and "prompt" not in header:
        raise SceneError(
            f"there is no column 'prompt', only {', '.join(map(repr, header))}",
            row="header",
            hint="The first line must name the columns, one of them 'prompt'",
        )
    return rows


def _value(column: str, cell: str) -> Any:
    """Read a cell as the type of its column; what is no number stays text, to be refused."""
    if column != "seed" and KNOB_TYPES.get(column, str) is str:
        return cell
    for number in (int, float):  # 20.0 is what a spreadsheet may make of 20
        try:
            return number(cell)
        except ValueError:
            pass
    return cell


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SceneError(
            f"the JSON is broken ({error.msg}, column {error.colno})",
            row=f"line {error.lineno}",
            hint="Look there for a missing comma, bracket or quote",
        ) from error
    except ValueError as error:  # a number of thousands of digits
        raise SceneError(
            f"the JSON is broken ({error})", hint="Look for a number that is none"
        ) from error


def _parse_yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 (import comfynb stays fast)

    # libyaml's parser, where it is there, is seven times as fast; both build plain values only.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # libyaml's composer would crash the process on 200,000 levels
                raise RecursionError
        return yaml.load(text, loader)  # noqa: S506 (both are safe loaders)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise SceneError(
            f"the YAML is broken ({error.problem})",
            row=None if mark is None else f"line {mark.line + 1}",
            hint="Look there for wrong indentation, or a text with a colon that needs quotes",
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        reason = " ".join(str(error).split())
        raise SceneError(
            f"the YAML is broken ({reason})", hint="Put unusual texts in quotes"
        ) from error


def _no_place(what: str, suffix: str, row: str | None = None) -> SceneError:
    return SceneError(
        f"a {suffix} file has no place for {what}", row=row, hint="Save it as .yaml or .json"
    )


def _scenes_alone(data: Mapping[str, Any], suffix: str) -> list[dict[str, Any]]:
    for name in data:
        if name != "scenes":
            raise _no_place(f"what scenes share ({name})", suffix)
    return list(data["scenes"])


def _serialise_text(data: Mapping[str, Any]) -> str:
    lines = []
    for position, scene in enumerate(_scenes_alone(data, ".txt"), start=1):
        for name in scene:
            if name not in {"id", "prompt"}:
                raise _no_place(f"a scene's {name}", ".txt", f"row {position}")
        if scene["id"] != f"scene-{position}":
            raise _no_place(f"the id {scene['id']!r}", ".txt", f"row {position}")
        if "\n" in scene["prompt"] or "\r" in scene["prompt"]:
            raise _no_place("a prompt of several lines", ".txt", f"row {position}")
        if scene["prompt"].startswith(("#", "\ufeff")):
            raise _no_place(
                f"a prompt that begins with {scene['prompt'][0]!r}", ".txt", scene["id"]
            )
        lines.append(scene["prompt"] + "\n")
    return "".join(lines)


def _serialise_csv(data: Mapping[str, Any], suffix: str, delimiter: str) -> str:
    rows = []
    for position, scene in enumerate(_scenes_alone(data, suffix), start=1):
        row = {**scene, **scene.get("knobs", {})}
        row.pop("knobs", None)
        for name, value in row.items():
            if name not in COLUMNS or isinstance(value, Mapping):
                raise _no_place(f"the knob {name!r}", suffix, f"row {position}")
        rows.append(row)
    used = [name for name in COLUMNS if any(name in row for row in rows)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, used, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _serialise_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _serialise_yaml(data: Mapping[str, Any]) -> str:
    import yaml  # noqa: PLC0415 (import comfynb stays fast)

    return str(yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=100))


class _Format(NamedTuple):
    parse: Callable[[str], Any]
    serialise: Callable[[Mapping[str, Any]], str]


_YAML = _Format(_parse_yaml, _serialise_yaml)
FORMATS: Mapping[str, _Format] = {
    ".json": _Format(_parse_json, _serialise_json),
    ".yaml": _YAML,
    ".yml": _YAML,
    ".csv": _Format(_parse_csv, lambda data: _serialise_csv(data, ".csv", ",")),
    ".tsv": _Format(_parse_csv, lambda data: _serialise_csv(data, ".tsv", "\t")),
    ".txt": _Format(_parse_text, _serialise_text),
}


def _format_of(path: Path) -> _Format:
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise SceneError(
            f"the suffix {path.suffix!r} is not one of {', '.join(FORMATS)}",
            source=str(path),
            hint="Rename the file after what is in it",
        )
    return found

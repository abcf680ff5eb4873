"""Is everything still there, and as it was? Every picture is hashed, every segment read.

Nothing is changed and nothing repaired: what is damaged may be the only copy of what it was.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfynb.log import views
from comfynb.log.blobs import EXTENSIONS, is_sha256
from comfynb.log.folder import TEMPORARY, is_left_behind
from comfynb.log.inventory import OUTPUTS, Found, pictures
from comfynb.log.listing import Listing, list_segments
from comfynb.log.reader import Reader

_OURS = re.compile(r"m?\d{13}-[0-9a-f]{8}\.(jsonl|claimed\.jsonl|parquet|replaces)|\.compact\.lock")
_INPUTS = (
    "SELECT DISTINCT unnest(regexp_extract_all(storyboard, "
    '\'"name":"comfynb-[0-9a-f]{32}[.][a-z0-9]+","sha256":"([0-9a-f]{64})"\', 1)) AS sha256 '
    "FROM runs"
)
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        path: Of the file, from the log folder on, with "/".
        problem: What is wrong with it.
        advice: What to do.
    """

    path: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. {self.advice}"


@dataclass(frozen=True, slots=True, repr=False)
class Verification:
    """What `log.verify()` found.

    Attributes:
        findings: What is wrong; nothing, as a rule.
        segments: How many files of rows count.
        rows: How many rows they have.
        pictures: How many files were hashed.
        bytes: Their size.
        unnamed: Pictures that no row names: what crashes and deletions leave behind, and nothing
            wrong; `log.gc(dry_run=False)` removes those older than a day.
    """

    findings: tuple[Finding, ...]
    segments: int
    rows: int
    pictures: int
    bytes: int
    unnamed: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __repr__(self) -> str:
        lines = [
            f"{self.rows:,} rows in {self.segments} segments, {self.pictures:,} pictures "
            f"({self.bytes / 1e6:,.1f} MB): "
            + ("all sound" if self.ok else f"{len(self.findings)} found wrong")
        ]
        lines += [f"  {finding}" for finding in self.findings[:_SHOWN]]
        if len(self.findings) > _SHOWN:
            lines.append(f"  and {len(self.findings) - _SHOWN} more: see .findings")
        if self.unnamed:
            lines.append(
                f"  {self.unnamed:,} pictures are named by no row: log.gc(dry_run=False) removes "
                "those older than a day"
            )
        return "\n".join(lines)


def verify(root: Path) -> Verification:
    """Read every row and hash every picture of a log; see `Log.verify`.

    Raises:
        LogError: The log cannot be read at all.
    """
    reader = Reader(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would warn of is among the findings
        # Before the pictures are looked at: theirs were there before the rows.
        ((count,),) = (row.values() for row in reader.rows("SELECT count(*) FROM log_rows"))
        outputs = reader.rows(OUTPUTS)
        inputs = {row["sha256"] for row in reader.rows(_INPUTS)}
    reader.close()
    listing = list_segments(root)
    findings = list(_segments(root, listing, reader.skipped_lines))
    hashed = size = unnamed = 0
    there: set[str] = set()
    named = {row["sha256"] for row in outputs} | inputs
    for found in pictures(root):
        if found.sha256 is None:
            findings += _stray(root, found.path, found.status)
            continue
        finding = _picture(root, found)
        if finding is not None:
            findings.append(finding)
        hashed, size = hashed + 1, size + found.status.st_size
        unnamed += found.sha256 not in named
        there.add(f"{found.sha256}{found.path.suffix}")
    findings += _missing(outputs, inputs, there)
    findings.sort(key=lambda finding: finding.path)
    segments = len(listing.sealed) + len(listing.active)
    return Verification(tuple(findings), segments, count, hashed, size, unnamed)


def _segments(root: Path, listing: Listing, skipped: dict[str, int]) -> Iterator[Finding]:
    for name in listing.damaged:
        yield Finding(
            f"seg/{name}",
            "is not whole, or a link",
            "Its rows are left out. Bring it back from a copy, or move it out of the log",
        )
    for path in views.unsound(listing):
        if os.path.lexists(path):
            yield Finding(
                f"seg/{path.name}",
                "cannot be read to its end",
                "Its rows are left out. Bring it back from a copy, or move it out of the log",
            )
    for name, lines in skipped.items():
        yield Finding(
            f"seg/{name}",
            f"{lines} of its lines cannot be read",
            "All its other rows are there. A torn last line was never acknowledged; for any "
            "other, bring the file back from a copy",
        )
    folder = root / "seg"
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():  # noqa: PTH208
        if _OURS.fullmatch(name) is None:
            try:
                yield from _stray(root, folder / name, (folder / name).lstat())
            except FileNotFoundError:
                continue


def _stray(root: Path, path: Path, status: os.stat_result) -> Iterator[Finding]:
    name = path.relative_to(root).as_posix()
    if not path.name.startswith(TEMPORARY):
        yield Finding(name, "is nothing that a log has in this place", "Move it elsewhere")
    elif is_left_behind(status):
        problem = "is what a killed process left behind: unfinished for more than an hour"
        yield Finding(name, problem, "log.gc(dry_run=False) removes it")


def _picture(root: Path, found: Found) -> Finding | None:
    name = found.path.relative_to(root).as_posix()
    try:
        with found.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == found.sha256:
                return None
    except FileNotFoundError:  # collected meanwhile; one that is named is found missing
        return None
    except OSError as exc:
        return Finding(name, f"cannot be read: {exc.strerror}", "Look at its disk and permissions")
    return Finding(
        name,
        "its content is not what its name says",
        "Bring it back from a copy; or delete it, and what it shows is made again when asked for",
    )


def _missing(outputs: list[dict[str, str]], inputs: set[str], there: set[str]) -> Iterator[Finding]:
    for row in outputs:
        sha256, scene = row["sha256"], row["scene"]
        if not is_sha256(sha256):
            yield Finding("seg", f"a row of {scene!r} names no picture", "No comfynb wrote it")
            continue
        name = f"{sha256}.{EXTENSIONS.get(row['mime'] or '', 'bin')}"
        if name not in there:
            yield Finding(
                f"blobs/{name[:2]}/{name}",
                f"is not there; a keyframe of {scene!r} shows it",
                "Bring it back from a copy, or render the scene again",
            )
    stems = {name.partition(".")[0] for name in there}
    for sha256 in sorted(inputs - stems):
        yield Finding(
            f"blobs/{sha256[:2]}/{sha256}",
            "is not there; a run starts from it",
            "Bring it back from a copy; without it the run cannot be resumed",
        )

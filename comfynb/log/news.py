"""What was appended to a log, as who follows it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comfynb.keyframes import Keyframe
from comfynb.log.marks import Mark
from comfynb.log.records import RunRecord, SubmittedRecord

Cursor = Mapping[str, int]
"""Which rows were seen: of each session, by its id, the number of the last. JSON can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What was appended between two looks; each part in order of creation.

    Attributes:
        runs: What runs are about to make.
        submitted: Prompts that are about to be sent.
        keyframes: What came out, without workflows, takes and marks.
        marks: What was said about keyframes; the field "deleted" hides one, or a run.
        cursor: Give it to `follow` to go on from here, now or after a restart.
    """

    runs: tuple[RunRecord, ...] = ()
    submitted: tuple[SubmittedRecord, ...] = ()
    keyframes: tuple[Keyframe, ...] = ()
    marks: tuple[Mark, ...] = ()
    cursor: Cursor

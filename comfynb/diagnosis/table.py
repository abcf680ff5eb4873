"""A diagnosis for a terminal."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from comfynb.diagnosis.notes import span
from comfynb.diagnosis.values import Diagnosis, Finding, Part

MARKS = {
    "good": ("✓", "green"),
    "note": ("·", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "red"),
    "skipped": ("-", "dim"),
}
"""Sign and style of each status and severity; the signs tell them apart without colour."""


def as_table(diagnosis: Diagnosis) -> RenderableType:
    """Return it as rich shows it. All texts are `Text`, so that none is read as markup."""
    status = "good" if diagnosis.ok else "problem"
    if diagnosis.ok and any(f.severity == "warning" for f in diagnosis.findings):
        status = "warning"
    sign, style = MARKS[status]
    head = Text.assemble(
        (f"{sign} {diagnosis.server}: {diagnosis.verdict}", f"bold {style}"),
        (f"   {diagnosis.at:%Y-%m-%d %H:%M:%S}, in {span(diagnosis.seconds)}", "dim"),
    )
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for part in diagnosis.shown:
        sign, style = MARKS[part.status]
        table.add_row(Text(sign, style), Text(part.title, "bold"), _facts(part))
    steps = [_finding(finding) for finding in diagnosis.findings]
    return Group(head, Text(), table, *([Text(), *steps] if steps else []))


def _facts(part: Part) -> Text:
    text = Text()
    for place, (label, shown) in enumerate(part.facts):
        text.append(" · " if place else "", "dim")
        text.append(f"{label} ", "dim")
        text.append(shown)
    return text


def _finding(finding: Finding) -> RenderableType:
    sign, style = MARKS[finding.severity]
    row = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(sign, style), Text(finding.what, style))
    if finding.next_step:
        row.add_row("", Text(f"→ {finding.next_step}"))
    return row


def as_text(diagnosis: Diagnosis) -> str:
    """Return it without colours, 100 characters wide."""
    file = io.StringIO()
    Console(file=file, width=100, color_system=None, highlight=False).print(as_table(diagnosis))
    return file.getvalue().rstrip()

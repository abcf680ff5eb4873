"""A diagnosis for a notebook: one piece of HTML without script, in light and in dark."""

from __future__ import annotations

import html
from importlib import resources

from comfynb.diagnosis.notes import span
from comfynb.diagnosis.values import Diagnosis, Finding, Part

SIGNS = {"good": "✓", "note": "i", "warning": "!", "problem": "✗", "skipped": "-"}
WORDS = {
    "good": "good",
    "note": "note",
    "warning": "warning",
    "problem": "problem",
    "skipped": "not examined",
}


def as_html(diagnosis: Diagnosis) -> str:
    """Return it; every text in it is escaped, whoever wrote it."""
    style = (resources.files("comfynb") / "diagnosis" / "report.css").read_text("utf-8")
    status = "good" if diagnosis.ok else "problem"
    if diagnosis.ok and any(f.severity == "warning" for f in diagnosis.findings):
        status = "warning"
    findings = "".join(map(_finding, diagnosis.findings))
    return (
        f'<style>{style}</style><div class="comfynb-doctor">'
        f'<header class="{status}">{_sign(status)}<h3>{_text(diagnosis.server)}</h3>'
        f'<span class="verdict">{_text(diagnosis.verdict)}</span>'
        f'<span class="when">{diagnosis.at:%Y-%m-%d %H:%M:%S}, in {span(diagnosis.seconds)}</span>'
        "</header>"
        + (f'<ul class="findings">{findings}</ul>' if findings else "")
        + f'<div class="parts">{"".join(map(_part, diagnosis.shown))}</div></div>'
    )


def _part(part: Part) -> str:
    facts = "".join(
        f"<dt>{_text(label)}</dt><dd>{_text(shown)}</dd>" for label, shown in part.facts
    )
    took = f'<span class="took">{span(part.seconds)}</span>' if part.status != "skipped" else ""
    return (
        f'<section class="{part.status}"><h4>{_sign(part.status)}{_text(part.title)}{took}</h4>'
        f"<dl>{facts}</dl></section>"
    )


def _finding(finding: Finding) -> str:
    step = f'<p class="step">{_text(finding.next_step)}</p>' if finding.next_step else ""
    return (
        f'<li class="{finding.severity}">{_sign(finding.severity)}'
        f'<div><p class="what">{_text(finding.what)}</p>{step}</div></li>'
    )


def _sign(status: str) -> str:
    word = WORDS[status]
    return (
        f'<span class="sign" role="img" aria-label="{word}" title="{word}">{SIGNS[status]}</span>'
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)

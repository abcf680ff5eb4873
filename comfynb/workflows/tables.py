"""What a workflow's knobs, and the problems of one, look like: in a notebook and in a terminal.

HTML stands in an output of its own, without scripts, and takes the colours of what it stands in:
JupyterLab's, VS Code's, or the system's, light or dark. Every text in it may come from a file or a
server, and is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from comfynb.errors import UnknownKnobError
from comfynb.values import nearest
from comfynb.workflows.knobs import Knob

if TYPE_CHECKING:
    from comfynb.workflows.report import Problem, Report

_CHOICES = 4
"""Choices that are shown of a knob; the others open on a click."""
_ALL_CHOICES = 200
"""The most that open on that click; a server may have thousands of LoRAs."""
_VALUE = 80
"""Characters of a value."""
_LIMITS = (24, 28, 40, 44)
"""Characters of each column in a terminal."""

_TYPES = {
    "whole": "whole number",
    "number": "number",
    "switch": "true or false",
    "text": "text",
    "choice": "choice",
    "any": "any",
}


class Knobs(Mapping[str, Knob]):
    """The knobs of a workflow by name; a table in a notebook and in a terminal.

    Args:
        knobs: By name, in the order in which they are shown.
        title: Name of the workflow.
        typed: Gives the same knobs with their types, once somebody wants to see the table and no
            type is known; it may ask a server for a moment. None: nobody knows more.
    """

    def __init__(
        self,
        knobs: Mapping[str, Knob],
        *,
        title: str = "workflow",
        typed: Callable[[], Mapping[str, Knob]] | None = None,
    ) -> None:
        self._knobs, self._title, self._typed = knobs, title, typed

    def __getitem__(self, name: str) -> Knob:
        try:
            return self._knobs[name]
        except KeyError:
            raise UnknownKnobError(name, tuple(self), nearest(name, list(self))) from None

    def __contains__(self, name: object) -> bool:
        return name in self._knobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._knobs)

    def __len__(self) -> int:
        return len(self._knobs)

    def __repr__(self) -> str:
        return "\n".join(_knob_lines(self._title, list(self._shown().values())))

    def _repr_html_(self) -> str:
        return _knobs_html(self._title, list(self._shown().values()))

    def _shown(self) -> Mapping[str, Knob]:
        if self._typed is not None and not any(knob.type for knob in self._knobs.values()):
            self._knobs, self._typed = self._typed(), None
        return self._knobs


# -- knobs


def _knob_lines(title: str, knobs: Sequence[Knob]) -> Iterator[str]:
    if not knobs:
        yield f"{title}: no knobs were found. Name one by its node: 'id.input' or 'Title.input'"
        return
    rows = [(knob.name, _one_line(knob.value), _takes(knob), _where(knob)) for knob in knobs]
    cells = [
        [_cut(text, limit) for text, limit in zip(row, _LIMITS, strict=True)]
        for row in (("knob", "value", "takes", "where"), *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield f"{title}: {len(knobs)} knobs"
    for row in cells:
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _takes(knob: Knob) -> str:
    """Say in one line what a knob takes."""
    if knob.upload is not None:
        return f"{knob.upload}: a file, or one on the server"
    if knob.choices is not None:
        return _choices(knob.choices)
    step = f", step {knob.step:g}" if knob.step not in (None, 1) else ""
    limits = f", {knob.range}{step}" if knob.range and not _endless(knob) else ""
    return _TYPES[knob.kind] + limits


def _choices(choices: Sequence[Any]) -> str:
    """Name as many choices as fit, and how many there are."""
    if not choices:
        return "nothing: the server has none"
    shown, end = "", f", … ({len(choices)})"
    for number, choice in enumerate(map(str, choices), 1):
        longer = f"{shown}, {choice}" if shown else choice
        if len(longer) + (len(end) if number < len(choices) else 0) > _LIMITS[2]:
            return f"{shown}{end}" if shown else f"{_cut(choice, _LIMITS[2] - len(end))}{end}"
        shown = longer
    return shown


def _endless(knob: Knob) -> bool:
    """Whether the range says no more than what a number of 64 bits can hold."""
    return knob.minimum is not None and knob.minimum <= -(2**53)


def _where(knob: Knob) -> str:
    return f"node {knob.node}, {knob.node_type}.{'+'.join((knob.input, *knob.also))}"


def _one_line(value: Any) -> str:
    text = " ".join(str(value).split()) if isinstance(value, str) else repr(value)
    if len(text) > _VALUE:
        text = text[: _VALUE - 1] + "…"
    return text if text or not isinstance(value, str) else "(empty)"


def _knobs_html(title: str, knobs: Sequence[Knob]) -> str:
    if not knobs:
        lines = escape(next(_knob_lines(title, knobs)))
        return f'<div class="comfynb-table">{_STYLE}<p>{lines}</p></div>'
    rows = "".join(map(_knob_row, knobs))
    known = any(knob.type for knob in knobs)
    foot = "" if known else (
        "<p>Ranges and choices are shown once the server has been asked, "
        "which happens with the first picture.</p>"
    )  # fmt: skip
    return (
        f'<div class="comfynb-table">{_STYLE}<table class="knobs"><caption><b>{escape(title)}</b> '
        f"<span>{len(knobs)} knobs</span></caption><thead><tr><th>Knob</th><th>Value</th>"
        f"<th>Takes</th><th>Where</th></tr></thead><tbody>{rows}</tbody></table>{foot}</div>"
    )


def _knob_row(knob: Knob) -> str:
    empty = isinstance(knob.value, str) and not knob.value
    value = "<i>empty</i>" if empty else f"<span>{escape(_one_line(knob.value))}</span>"
    number = ' class="n"' if knob.kind in ("whole", "number") else ""
    if knob.choices is not None and knob.value not in (*knob.choices, ""):
        value += ' <b class="warn">not there</b>'
    tip = escape(_cut(" ".join(knob.tooltip.split()), 400)) if knob.tooltip else ""
    tip = f'<small title="{tip}">{tip}</small>' if tip else ""
    inputs = "".join(f"<wbr>.{escape(_cut(name, 40))}" for name in (knob.input, *knob.also)[:1])
    also = "".join(f" + {escape(_cut(name, 40))}" for name in knob.also)
    where = f"{escape(_cut(knob.node_type, 60))}{inputs}{also}"
    return (
        f"<tr><th scope=row><code>{escape(_cut(knob.name, 60))}</code></th><td{number}>{value}</td>"
        f"<td>{_takes_html(knob)}{tip}</td>"
        f'<td title="{escape(_cut(knob.title, 80))}">{where} <em>#{escape(_cut(knob.node, 30))}'
        "</em></td></tr>"
    )


def _takes_html(knob: Knob) -> str:
    if knob.choices:  # an empty list has a line of its own
        names = [f"<code>{escape(_cut(str(name), 80))}</code>" for name in knob.choices]
        more = len(names) - _CHOICES
        if more <= 2:  # a click would show no more than it hides
            return f"<div>{' '.join(names)}</div>"
        first = " ".join(names[:_CHOICES])
        rest = " ".join(names[_CHOICES:_ALL_CHOICES])
        hidden = len(names) - _ALL_CHOICES
        end = f" and {hidden} more" if hidden > 0 else ""
        return f"<details><summary>{first} <em>and {more} more</em></summary>{rest}{end}</details>"
    default = knob.default
    usual = default is not None and default not in ("", knob.value)
    shown = f" <em>usually {escape(_cut(_one_line(default), 40))}</em>" if usual else ""
    return f"<div>{escape(_takes(knob))}{shown}</div>"


# -- problems


def report_html(report: Report) -> str:
    """Return a report as HTML: the headline and one row for each problem."""
    state = "warn" if report.warnings or not report.checked else "ok"
    state = "bad" if report.errors else state
    head = f'<p class="{state}">{escape(report.headline())}</p>'
    shown = report.problems[:_ALL_CHOICES]
    if not shown:
        return f'<div class="comfynb-table">{_STYLE}{head}</div>'
    more = len(report.problems) - len(shown)
    foot = f"<p>and {more} more</p>" if more else ""
    rows = "".join(_problem_row(problem, report.scenes) for problem in shown)
    return (
        f'<div class="comfynb-table">{_STYLE}{head}<table><thead><tr><th></th><th>Node</th>'
        f"<th>Problem</th><th>Scenes</th></tr></thead><tbody>{rows}</tbody></table>{foot}</div>"
    )


def _problem_row(problem: Problem, scenes: int) -> str:
    node = f"{escape(_cut(problem.node_type, 60))} <em>#{escape(_cut(problem.node, 30))}</em>"
    where = node if problem.node else "the whole graph"
    name = f"<br><code>{escape(_cut(problem.input, 60))}</code>" if problem.input else ""
    which = ", ".join(problem.scenes[:3]) + (", …" if len(problem.scenes) > 3 else "")
    count = f"{len(problem.scenes)} of {scenes}: {which}" if problem.scenes else "all"
    kind = "bad" if problem.is_error else "warn"
    server = f"<em>{escape(_cut(problem.server, 120))}</em><br>" if problem.server else ""
    message = server + escape(_cut(problem.message, 600))
    return (
        f'<tr><td><b class="{kind}">{problem.severity}</b></td><td>{where}{name}</td>'
        f"<td>{message}</td><td>{escape(_cut(count, 120))}</td></tr>"
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# `:not(#_)` always holds, and outweighs what a host says of all tables (JupyterLab: to the right).
# Names of colours fall back from JupyterLab's to VS Code's to the system's. `light-dark` would need
# a colour scheme that notebooks do not declare: shades are mixed from the text's own colour.
_STYLE = """<style>
.comfynb-table { --line: color-mix(in srgb, currentColor 16%, transparent);
  --quiet: color-mix(in srgb, currentColor 62%, transparent);
  --tint: color-mix(in srgb, currentColor 7%, transparent);
  color: var(--jp-ui-font-color1, var(--vscode-foreground, CanvasText)); max-width: 68rem;
  font: 13px/1.45 var(--jp-ui-font-family, var(--vscode-font-family, system-ui, sans-serif));
  overflow-x: auto; }
.comfynb-table:not(#_) table { border-collapse: collapse; border: 0; margin: 0; width: 100%;
  font-size: 13px; table-layout: auto; }
.comfynb-table:not(#_) caption { text-align: left; padding: 2px 10px 8px; color: inherit; }
.comfynb-table:not(#_) :is(caption span, em, small, i),
.comfynb-table:not(#_) > p { color: var(--quiet); font-style: normal; }
.comfynb-table:not(#_) tr { background: none; border: 0; }
.comfynb-table:not(#_) thead th { font-weight: 600; font-size: 11px; color: var(--quiet);
  text-transform: uppercase; letter-spacing: .04em; border-bottom: 1px solid var(--line); }
.comfynb-table:not(#_) :is(th, td) { text-align: left; vertical-align: top; padding: 6px 10px;
  border: 0; white-space: normal; max-width: 30rem; overflow-wrap: anywhere; background: none; }
.comfynb-table:not(#_) tbody tr + tr > * { border-top: 1px solid var(--line); }
.comfynb-table:not(#_) tbody tr:hover > * { background: var(--tint); }
.comfynb-table:not(#_) td.n { font-variant-numeric: tabular-nums; }
.comfynb-table:not(#_) tbody th { font-weight: 600; white-space: nowrap; }
.comfynb-table:not(#_) tbody th code { background: none; padding: 0; font-weight: 600; }
.comfynb-table:not(#_) code { font: 12px/1.5 var(--jp-code-font-family, ui-monospace, monospace);
  color: inherit; background: var(--tint); border-radius: 4px; padding: 1px 5px;
  display: inline-block; max-width: 100%; box-sizing: border-box; }
.comfynb-table:not(#_) small { display: block; font-size: 12px; overflow: hidden;
  white-space: nowrap; text-overflow: ellipsis; }
.comfynb-table:not(#_) .knobs { table-layout: fixed; min-width: 40rem; }
.comfynb-table:not(#_) .knobs th:nth-child(1) { width: 13%; }
.comfynb-table:not(#_) .knobs th:nth-child(2) { width: 23%; }
.comfynb-table:not(#_) .knobs th:nth-child(3) { width: 37%; }
.comfynb-table:not(#_) summary { cursor: pointer; list-style-position: outside; }
.comfynb-table:not(#_) details { padding-left: 1em; }
.comfynb-table:not(#_) summary { margin-left: -1em; }
.comfynb-table:not(#_) > p { margin: 4px 10px 8px; }
.comfynb-table:not(#_) > p:is(.bad, .warn, .ok) { color: inherit;
  font-weight: 600; border-left: 3px solid; padding-left: 8px; }
.comfynb-table:not(#_) > p.ok { border-color: #2f9e5b; }
.comfynb-table:not(#_) > p.bad { border-color: #d9413b; }
.comfynb-table:not(#_) > p.warn { border-color: #c98a04; }
.comfynb-table:not(#_) b:is(.bad, .warn) { font-size: 11px; border: 1px solid; padding: 0 6px;
  border-radius: 8px; white-space: nowrap; }
.comfynb-table:not(#_) b.bad { color: #d9413b; }
.comfynb-table:not(#_) b.warn { color: #c98a04; }
</style>"""

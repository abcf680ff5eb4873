"""A board as the pieces of one HTML file.

Every text on the page goes through `_text`, every picture through `Pictures.img`; nothing else
that a user or a server wrote gets in.
"""

from __future__ import annotations

import base64
import hashlib
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from comfynb._version import __version__
from comfynb.errors import LogError
from comfynb.keyframes import Keyframe
from comfynb.pictures import BadPictureError
from comfynb.showing import markup
from comfynb.showing.sheet import status_of, summary
from comfynb.showing.shrink import shrink
from comfynb.showing.wording import WITHOUT

if TYPE_CHECKING:
    from comfynb.cells import Cell

LONGEST = 4000
"""Characters of one text on the page."""

FIRST = ("steps", "cfg", "sampler", "scheduler", "denoise")
"""Knobs that everybody asks for, in this order. One that is the same everywhere stands on top of
the page, one that varies below each picture; all others stand in the viewer only."""

NOT_SHOWN = frozenset({"positive", "negative", "seed", "width", "height"})
"""Knobs with a place of their own."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """How pictures get into the page."""

    side_px: int
    quality: int

    def img(self, keyframe: Keyframe, index: int, alt: str) -> str:
        """Return an img element of an output.

        Raises:
            LogError, OSError, BadPictureError: If it cannot be read.
        """
        picture = shrink(keyframe.read(index), (self.side_px, self.side_px))
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=self.quality, method=4)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return (
            f'<img src="data:image/webp;base64,{data}" width="{picture.width}"'
            f' height="{picture.height}" alt="{_text(alt)}" decoding="async">'
        )


def render(
    board: Sequence[Keyframe | Cell], title: str, note: str | None, pictures: Pictures
) -> Iterator[str]:
    """Write a page, one piece for each cell.

    Args:
        board: At least one cell, in order.
        title: On top.
        note: Below it; None: how many pictures there are and what they share, "": nothing.
        pictures: How pictures get into it.
    """
    files = resources.files("comfynb.showing") / "page"
    style = f"{(files / 'page.css').read_text('utf-8')}\n:root {{ --shape: {_shape(board)}; }}\n"
    script = (files / "page.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}';"
        f" script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    yield (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="comfynb {__version__}">\n'
        f"<title>{_text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )
    varying = _varying(board)
    note = " \u00b7 ".join((summary(board), *_common(board, varying))) if note is None else note
    yield f'<header>\n<h1 dir="auto">{_text(title)}</h1>\n'
    yield f'<p dir="auto">{_text(note)}</p>\n</header>\n' if note else "</header>\n"
    yield '<main>\n<ol class="board">\n'
    for number, cell in enumerate(board, 1):
        yield _card(number, cell, pictures, varying)
    yield f"</ol>\n</main>\n{_footer(board)}{_VIEWER}<script>{script}</script>\n</body>\n</html>\n"


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _shape(board: Sequence[Keyframe | Cell]) -> str:
    """Return the usual aspect ratio, width by height, as CSS wants it."""
    ratios = [
        output.width_px / max(1, output.height_px)
        for cell in board
        if isinstance(cell, Keyframe) and (output := cell.picture) is not None
    ]
    return f"{min(2.0, max(0.5, statistics.median(ratios))):.4f}" if ratios else "1"


def _varying(board: Sequence[Keyframe | Cell]) -> frozenset[str]:
    """Return the names of what is not the same in every cell."""
    names = {"seed", "size", *FIRST}
    return frozenset(
        name for name in names if len({dict(_settings(cell)).get(name) for cell in board}) > 1
    )


def _common(board: Sequence[Keyframe | Cell], varying: frozenset[str]) -> Iterator[str]:
    """Say what every cell has the same."""
    for name, value in _settings(board[0]):
        if name not in varying and name in ("seed", "steps", "cfg", "sampler", "scheduler", "size"):
            yield f"{name} {value}" if name in ("seed", "steps", "cfg") else value


def _card(number: int, cell: Keyframe | Cell, pictures: Pictures, varying: frozenset[str]) -> str:
    name = cell.scene.title or cell.scene.prompt
    if isinstance(cell, Keyframe) and cell.ok and cell.outputs:
        shown = _shown(number, name, cell, pictures)
    else:
        error = cell.error if isinstance(cell, Keyframe) else None
        reasons = (error.message, error.node and f"node {error.node}", error.hint) if error else ()
        shown = _missing(WITHOUT.get(status_of(cell), "no picture"), *reasons)
    kind = status_of(cell) if cell.scene.title else f"{status_of(cell)} untitled"
    return (
        f'<li id="cell-{number}" class="{kind}">\n<figure>\n{shown}'
        f"<figcaption>\n{_caption(number, name, cell, varying)}</figcaption>\n</figure>\n</li>\n"
    )


def _shown(number: int, name: str, keyframe: Keyframe, pictures: Pictures) -> str:
    """Return the first picture large, the others small below it, then texts and other files."""
    indices = [index for index, output in enumerate(keyframe.outputs) if output.is_picture]
    buttons = []
    for place, index in enumerate(indices, 1):
        nth = f", picture {place} of {len(indices)}" if len(indices) > 1 else ""
        try:
            img = pictures.img(keyframe, index, alt=keyframe.prompt or name)
        except (LogError, OSError, BadPictureError) as exc:
            buttons.append(_missing("the picture cannot be read", str(exc)))
            continue
        label = _text(f"Look at {number}{nth}: {name}")
        buttons.append(f'<button class="open" type="button" aria-label="{label}">{img}</button>\n')
    others = "".join(buttons[1:])
    shown = "".join(buttons[:1]) + (f'<div class="others">\n{others}</div>\n' if others else "")
    return shown + "".join(_beside(keyframe, bare=not buttons))


def _beside(keyframe: Keyframe, *, bare: bool) -> Iterator[str]:
    """Return what is no still picture: texts in full, of anything else what and where it is.

    Args:
        keyframe: Whose.
        bare: Whether there is no picture above it.
    """
    for index, output in enumerate(keyframe.outputs):
        match output.kind:
            case "image":
                continue
            case "text":
                try:
                    text = keyframe.read(index).decode("utf-8", "replace")
                except (LogError, OSError) as exc:
                    yield _missing("the text cannot be read", str(exc))
                else:
                    yield f'<p class="said{" bare" if bare else ""}" dir="auto">{_text(text)}</p>\n'
            case "animation":
                yield _note("an animation: its first frame is shown here, the log has all of it")
            case kind:
                what = "a file" if kind == "file" else f"{output.mime}"
                size = f"{output.bytes / 1000:,.0f} kB"
                yield _note(f"{what}, {size}: not on this page, the log has it", bare=bare)


def _note(text: str, *, bare: bool = False) -> str:
    return _missing(text) if bare else f'<p class="beside">{_text(text)}</p>\n'


def _missing(state: str, *reasons: str | None) -> str:
    lines = "".join(f'<p dir="auto">{_text(reason)}</p>\n' for reason in reasons if reason)
    return f'<div class="missing">\n<p class="state">{_text(state)}</p>\n{lines}</div>\n'


def _caption(number: int, name: str, cell: Keyframe | Cell, varying: frozenset[str]) -> str:
    parts = [
        f'<span class="number">{number}</span>\n',
        f'<h2 dir="auto">{_text(name)}</h2>\n',
    ]
    if cell.prompt and cell.prompt != name:
        parts.append(f'<p class="prompt" dir="auto">{_text(cell.prompt)}</p>\n')
    if cell.negative:
        text = f"without: {cell.negative}"
        parts.append(f'<p class="negative in-viewer" dir="auto">{_text(text)}</p>\n')
    if isinstance(cell, Keyframe):
        parts += [
            f'<p class="warning" dir="auto">{_text(warning)}</p>\n' for warning in _warnings(cell)
        ]
    facts = "".join(
        f"<div{_class(in_card)}><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>\n"
        for name, value, in_card in _facts(cell, varying)
    )
    return f'{"".join(parts)}<dl class="facts">\n{facts}</dl>\n'


def _class(in_card: bool) -> str:  # noqa: FBT001
    return "" if in_card else ' class="in-viewer"'


def _warnings(keyframe: Keyframe) -> Iterator[str]:
    yield from keyframe.warnings
    if keyframe.unknown_words:
        yield f"words that the model does not know: {', '.join(keyframe.unknown_words)}"


def _settings(cell: Keyframe | Cell) -> Iterator[tuple[str, str]]:
    """Return what was turned to make it, as name and value."""
    if "seed" not in cell.axes:
        yield "seed", str(cell.seed)
    for knob in (*FIRST, *sorted(set(cell.knobs) - set(FIRST) - NOT_SHOWN)):
        if knob in cell.knobs and knob not in cell.axes and cell.knobs[knob] is not None:
            yield knob, _value(cell.knobs[knob])
    if isinstance(cell, Keyframe) and cell.picture is not None:
        yield "size", f"{cell.picture.width_px} \u00d7 {cell.picture.height_px}"


def _facts(cell: Keyframe | Cell, varying: frozenset[str]) -> Iterator[tuple[str, str, bool]]:
    """Return name, value, and whether it stands below the picture too."""
    for axis, label in cell.axes.items():
        yield axis, label, True
    for name, value in _settings(cell):
        yield name, value, name in varying
    if not isinstance(cell, Keyframe):
        return
    if cell.seconds is not None and cell.ok:
        seconds = f"{cell.seconds:.2f} s" if cell.seconds < 10 else f"{cell.seconds:.0f} s"
        yield "time", seconds, True
    yield "status", cell.status, not cell.ok
    if cell.server:
        yield "server", cell.server, False
    yield "made", f"{cell.created_at:%Y-%m-%d %H:%M} UTC", False


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: str) -> str:
    return markup.text(value, LONGEST)


def _footer(board: Sequence[Keyframe | Cell]) -> str:
    times = [cell.created_at for cell in board if isinstance(cell, Keyframe)]
    when = f" Newest picture: {max(times):%Y-%m-%d %H:%M} UTC." if times else ""
    return f"<footer>\n<p>Made with comfynb {__version__}.{when}</p>\n</footer>\n"


def _button(name: str, label: str, path: str, more: str = "") -> str:
    icon = f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{path}"/></svg>'
    return f'<button class="{name}" type="button" aria-label="{label}"{more}>{icon}</button>'


_VIEWER = f"""<dialog class="viewer" aria-label="Pictures">
<div class="stage">
{_button("previous", "Previous picture", "M15 5l-7 7 7 7")}
{_button("next", "Next picture", "M9 5l7 7-7 7")}
</div>
<div class="about" aria-live="polite"></div>
{_button("close", "Close", "M6 6l12 12M18 6L6 18", " autofocus")}
</dialog>
"""

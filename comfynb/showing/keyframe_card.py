"""What a keyframe looks like in a notebook: its picture, and beside it what was asked and came.

It is HTML of at most about 40 kB; JupyterLab, VS Code and nbconvert show that first.
All looks are in `style` attributes and take colour and letters from the page: so it is the same in
light and dark, and in an untrusted notebook, where JupyterLab strips <style>.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from comfynb.errors import LogError
from comfynb.keyframes import THUMBNAIL_PX, Keyframe
from comfynb.pictures import BadPictureError
from comfynb.showing.markup import AMBER, GREEN, colour, img, stars, text
from comfynb.showing.shrink import smallest
from comfynb.showing.wording import WITHOUT, words_for

PICTURE_PX = 256
"""Longer side of the picture, in pixels of CSS."""
LARGEST_PICTURE = 22_000
"""Bytes of the picture; base64 makes it 30 kB."""
_KNOBS = ("steps", "cfg", "sampler")
_LONG, _SHORT = 400, 120
"""Characters of a prompt and of a word."""
_QUIET = "opacity:0.7"
_CHIP = "border:1px solid rgba(128,128,128,0.4);border-radius:8px;padding:0 6px;margin-right:4px"
_FRAME = "border:1px solid rgba(128,128,128,0.4);border-radius:6px;padding:10px 12px"


def card(keyframe: Keyframe) -> str:
    """Return a keyframe as HTML; it never fails, whatever became of the files."""
    return (
        '<div class="comfynb-keyframe" style="display:flex;flex-wrap:wrap;gap:8px 18px;'
        'align-items:flex-start;line-height:1.45;font-size:13px;padding:4px 0">'
        f'{_shown(keyframe)}<div style="flex:1 1 260px;max-width:560px;overflow-wrap:anywhere">'
        f"{''.join(_lines(keyframe))}</div></div>"
    )


def thumbnail(keyframe: Keyframe, side_px: int) -> str:
    """Return a keyframe's picture as an element, or a word that says why there is none."""
    if not keyframe.ok or keyframe.picture is None or keyframe.pictures is None:
        return f'<span style="{_QUIET}">{text(_instead(keyframe))}</span>'
    sides = tuple(min(side, THUMBNAIL_PX) for side in (2 * side_px, 3 * side_px // 2, side_px))
    try:
        return img(
            smallest(keyframe),
            keyframe.prompt or keyframe.scene.label,
            sides_px=sides,
            most_bytes=LARGEST_PICTURE,
            style=f"max-width:{side_px}px;max-height:{side_px}px;border-radius:6px",
        )
    except (LogError, BadPictureError, OSError):
        return f'<span style="{_QUIET}">its picture {_why(keyframe)}</span>'


def _shown(keyframe: Keyframe) -> str:
    """Return what stands on the left: a picture, what came in place of it, or nothing."""
    if not keyframe.ok:
        return ""
    if keyframe.picture is not None and keyframe.pictures is not None:
        shown = thumbnail(keyframe, PICTURE_PX)
        return f"<div>{shown}</div>" if shown.startswith("<img") else _box(shown)
    if not keyframe.outputs or keyframe.pictures is None:
        return ""
    try:
        kind, more = words_for(keyframe)
    except LogError:
        kind, more = "text", "its file is gone"
    said = f'<div style="white-space:pre-wrap">{text(more, 600)}</div>'
    return _box(f'<div style="{_QUIET}">{text(kind)}</div>{said}')


def _box(inner: str) -> str:
    return (
        f'<div style="{_FRAME};max-width:{PICTURE_PX}px;max-height:{PICTURE_PX}px;overflow:auto;'
        f'overflow-wrap:anywhere">{inner}</div>'
    )


def _lines(keyframe: Keyframe) -> Iterator[str]:
    name = keyframe.scene.label
    yield f'<div style="font-weight:600;font-size:14px">{text(name, _SHORT)}</div>'
    dot = f'<span style="color:{colour(keyframe.status)}">●</span>'
    facts = " · ".join(text(fact) for fact in _facts(keyframe))
    yield f'<div>{dot} <span style="{_QUIET}">{facts}</span></div>'
    if keyframe.prompt and keyframe.prompt != name:
        yield f'<div style="margin-top:6px">{text(keyframe.prompt, _LONG)}</div>'
    if not keyframe.ok:
        yield _reason(keyframe)
    yield _said(keyframe)
    beside = [*_others(keyframe), *keyframe.warnings[:3]]
    if keyframe.unknown_words:
        beside.append(f"words that the model does not know: {', '.join(keyframe.unknown_words)}")
    for line in beside:
        yield f'<div style="margin-top:4px;{_QUIET}">{text(line, _LONG)}</div>'


def _facts(keyframe: Keyframe) -> Iterator[str]:
    yield keyframe.status
    for axis, label in list(keyframe.axes.items())[:8]:
        if axis not in ("scene", "seed"):
            yield f"{axis} {label}"
    yield f"seed {keyframe.seed}"
    for knob in _KNOBS:
        value = keyframe.knobs.get(knob)
        if value is not None and knob not in keyframe.axes:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            yield shown if knob == "sampler" else f"{knob} {shown}"
    if keyframe.take is not None and keyframe.take > 1:
        yield f"take {keyframe.take}"
    seconds = keyframe.seconds
    if keyframe.ok and seconds is not None and not keyframe.server_cached:
        yield f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _reason(keyframe: Keyframe) -> str:
    """Say why there is no picture, and what to do."""
    error = keyframe.error
    looks = f"margin-top:6px;border-left:3px solid {colour(keyframe.status)};padding-left:8px"
    if error is None:
        return f'<div style="{looks}">{text(WITHOUT.get(keyframe.status, "no picture"))}</div>'
    node = f' <span style="{_QUIET}">(node {text(error.node)})</span>' if error.node else ""
    hint = f'<div style="{_QUIET}">{text(error.hint, _LONG)}</div>' if error.hint else ""
    return (
        f'<div style="{looks}"><b>{text(error.kind)}</b>: {text(error.message, _LONG)}{node}'
        f"{hint}</div>"
    )


def _said(keyframe: Keyframe) -> str:
    """Return what somebody thought of it."""
    parts = []
    if keyframe.rating:
        shown = stars(keyframe.rating)
        parts.append(f'<span title="rating" style="color:{AMBER}">{shown}</span>')
    if keyframe.picked:
        parts.append(f'<span style="color:{GREEN}">✓ picked</span>')
    parts += [f'<span style="{_CHIP}">{text(tag)}</span>' for tag in keyframe.tags[:12]]
    line = f'<div style="margin-top:6px">{" ".join(parts)}</div>' if parts else ""
    if keyframe.note:
        line += f'<div style="margin-top:4px"><i>{text(keyframe.note, _LONG)}</i></div>'
    return line


def _others(keyframe: Keyframe) -> Iterator[str]:
    """Say what it gave beside what is shown."""
    shown = keyframe.picture or next(iter(keyframe.outputs), None)
    if not keyframe.ok or shown is None:
        return
    if shown.kind == "animation":
        yield f"an animation: the first of its {shown.frames} frames; `.read()` gives all"
    counts = Counter(output.kind for output in keyframe.outputs if output is not shown)
    if counts:
        kinds = (f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in sorted(counts.items()))
        yield f"and {', '.join(kinds)} more: see `.outputs`"


def _instead(keyframe: Keyframe) -> str:
    if keyframe.ok:
        shown = next(iter(keyframe.outputs), None)
        return "no picture" if shown is None else shown.kind
    return keyframe.error.kind if keyframe.error else WITHOUT.get(keyframe.status, "no picture")


def _why(keyframe: Keyframe) -> str:
    try:
        keyframe.read()
    except (LogError, OSError):
        return "is gone; render the scene again to make it anew"
    return "cannot be decoded"

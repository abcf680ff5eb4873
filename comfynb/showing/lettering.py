"""Text on pictures, in whatever fonts this machine has.

Pillow's built-in font reads well and is the same everywhere, but it has ASCII and little more.
So each word is set in the first font that has all its letters: the built-in one, then the
usual fonts of Linux, macOS and Windows, looked for by name and only when needed. A letter that
none has is set as its plain form where there is one (é as e); nothing here raises for a text.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

# From wide Latin, Greek and Cyrillic to CJK and symbols; those of Linux, macOS, Windows.
_FALLBACKS = (
    "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf",
    "HelveticaNeue.ttc", "Arial.ttf", "segoeui.ttf", "arial.ttf",
    "NotoSansCJK-Regular.ttc", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc",
    "Hiragino Sans GB.ttc", "PingFang.ttc", "AppleSDGothicNeo.ttc",
    "msyh.ttc", "YuGothR.ttc", "malgun.ttf",
    "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansThai-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf", "Nirmala.ttc", "leelawui.ttf",
    "Arial Unicode.ttf", "seguisym.ttf", "Symbola.ttf", "unifont.ttf",
)  # fmt: skip
_ELLIPSIS = "…"
_FINE = 4
"""Letters are drawn so many times larger and scaled down."""
_LONGEST = 600
"""Characters of one text that are looked at; more never fits on a sheet."""


class Face:
    """Fonts of one size that together cover as much text as this machine can.

    Args:
        size_px: Height of the em in pixels.
    """

    def __init__(self, size_px: float) -> None:
        self.size_px = size_px

    def width(self, text: str) -> float:
        """Return how wide the text is, in pixels."""
        return sum(font.getlength(run) for run, font in self._runs(text)) / _FINE

    def draw(self, image: Image.Image, at: tuple[float, float], text: str, fill: str) -> None:
        """Write the text.

        Args:
            image: Where to; RGB.
            at: Left end of the baseline, in pixels.
            text: One line.
            fill: Colour.
        """
        # Set large and scaled down: at small sizes FreeType moves each letter to whole pixels,
        # and words run together.
        ascent, descent = round(self.size_px * 1.2), round(self.size_px * 0.4)
        width = math.ceil(self.width(text)) + round(self.size_px)
        mask = Image.new("L", (width * _FINE, (ascent + descent) * _FINE))
        pen = ImageDraw.Draw(mask)
        x = (at[0] - math.floor(at[0])) * _FINE
        for run, font in self._runs(text):
            pen.text((x, ascent * _FINE), run, font=font, fill=255, anchor="ls")
            x += font.getlength(run)
        mask = mask.reduce(_FINE)
        image.paste(fill, (math.floor(at[0]), round(at[1]) - ascent), mask)

    def fit(self, text: str, width: float) -> str:
        """Return the text on one line, cut with an ellipsis where it is too wide."""
        text = _one_line(text)
        if self.width(text) <= width:
            return text
        low, high = 0, len(text)
        while low < high:  # the longest beginning that fits
            middle = (low + high + 1) // 2
            if self.width(text[:middle].rstrip() + _ELLIPSIS) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip(" ,;:.-") + _ELLIPSIS

    def wrap(self, text: str, width: float, lines: int) -> list[str]:
        """Break the text at spaces, or anywhere in a word that is too wide for a line.

        Args:
            text: Any text.
            width: Of a line, in pixels.
            lines: At most this many; the last one ends with an ellipsis if there is more.
        """
        rest = _one_line(text)
        broken: list[str] = []
        while rest and len(broken) < lines - 1:
            end = self._break(rest, width)
            broken.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        if rest:
            broken.append(self.fit(rest, width))
        return broken

    def _break(self, text: str, width: float) -> int:
        """Return where the first line of the text ends."""
        end = 0
        for index in [i for i, char in enumerate(text) if char == " "] + [len(text)]:
            if self.width(text[:index]) > width:
                break
            end = index
        if end:
            return end
        fitting = (i for i in range(len(text), 1, -1) if self.width(text[:i]) <= width)
        return next(fitting, 1)

    def _runs(self, text: str) -> Iterator[tuple[str, FreeTypeFont]]:
        """Cut the text into pieces of one font each."""
        names = [""] * len(text)
        start = 0
        while start < len(text):
            end = text.find(" ", start) + 1 or len(text)
            word = text[start:end]
            whole = _name_of_font(word.rstrip())
            names[start:end] = (
                [whole] * len(word)
                if whole is not None
                else [_name_of_font(char) or "" for char in word]
            )
            start = end
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or names[end] != names[start]:
                run = text[start:end]
                font = _font(names[start], self.size_px * _FINE)
                yield run if names[start] else "".join(map(_plain, run)), font
                start = end


def _one_line(text: str) -> str:
    """Return the text without line breaks, control characters and doubled spaces."""
    shown = (char if char.isprintable() else " " for char in text[:_LONGEST])
    return " ".join("".join(shown).split())


def _plain(char: str) -> str:
    """Return what the built-in font can show instead of a letter that it may not have."""
    if _has("", char):
        return char
    if unicodedata.category(char) == "Pd":
        return "-"
    bare = unicodedata.normalize("NFKD", char)[0]
    return bare if _has("", bare) else "?"


@functools.lru_cache(maxsize=4096)
def _name_of_font(text: str) -> str | None:
    """Return the first font that has every letter; "" is the built-in one, None: there is none."""
    for name in ("", *_FALLBACKS):
        if _is_there(name) and all(_has(name, char) for char in text if char != " "):
            return name
    return None


@functools.lru_cache(maxsize=256)
def _font(name: str, size_px: float) -> FreeTypeFont:
    font = ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size_px)
    assert isinstance(font, FreeTypeFont)  # Pillow without FreeType is not among its wheels
    return font


@functools.lru_cache(maxsize=256)
def _is_there(name: str) -> bool:
    try:
        _font(name, 24)
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=16_384)
def _has(name: str, char: str) -> bool:
    """Whether a font has a letter: Pillow shows no character map, but all missing look alike."""
    return _look(name, char) != _look(name, "\uffff")


def _look(name: str, char: str) -> bytes:
    mask = _font(name, 24).getmask(char)
    return repr(mask.size).encode() + bytes(mask)

"""Quotations of a prompt, found in what a server says and taken out of it.

A server that complains quotes what it was sent: whole, cut in its middle or at its end, with the
escapes of Python or JSON, or a single word of it. Which of these, its text does not say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_PIECE = 8
"""So many characters in a row that are those of a prompt are a quotation of it."""

_WORD = re.compile(r"\w{3,}")
_SAYS_NOTHING = frozenset({"and", "are", "but", "for", "from", "has", "not", "the", "was", "with"})
_GONE = "…"


def unquoted(text: str, known: Iterable[str]) -> str:
    """Return a text without what it quotes of others.

    What goes is each piece of eight characters or more, and each word of three letters or more,
    that one of them has too.

    Args:
        text: A warning, or an error's message.
        known: What it must not tell.
    """
    hidden = bytearray(len(text))
    pieces: set[str] = set()
    words: set[str] = set()
    for one in known:
        for form in {one, repr(one)[1:-1], json.dumps(one)[1:-1]}:
            pieces.update(form[at : at + _PIECE] for at in range(len(form) - _PIECE + 1))
        words.update(word.casefold() for word in _WORD.findall(one))
    for at in range(len(text) - _PIECE + 1):
        if text[at : at + _PIECE] in pieces:
            hidden[at : at + _PIECE] = b"\1" * _PIECE
    for found in _WORD.finditer(text):
        word = found[0].casefold()
        if word in words and word not in _SAYS_NOTHING and not word.isdigit():
            hidden[found.start() : found.end()] = b"\1" * len(found[0])
    left = "".join(_GONE if gone else sign for sign, gone in zip(text, hidden, strict=True))
    return re.sub(rf"{_GONE}(?:\W{{0,2}}{_GONE})*", _GONE, left)

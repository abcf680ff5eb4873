"""From a prompt to token ids: whole words, forgiving about endings and single letters.

The model was trained on lower-case English words from a fixed list of about 1,300. A word that
is not in the list goes to an inflected form that is ("foxy" -> "fox"), else to a word one letter
away ("lighthuose" -> "lighthouse"), else it has no effect and is reported, so that nobody wonders
why a "violoncello" never shows up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

# Letters and digits of any script, so that a word the model cannot know is reported rather than
# skipped; "1.3" of a prompt weight such as "(fox:1.3)" stays one word, or its 3 would mean three.
_WORD = re.compile(r"\d+\.\d+|[^\W_]+(?:'[^\W_]+)*")
_ENDINGS = ("s", "es", "y", "ing", "ed")
_SPECIAL = 3  # <pad>, <bos>, <eos> lead the list of words and cannot be typed


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the text encoder wants it.

    Attributes:
        ids: Begin mark, one id per understood word, end mark.
        unknown: Words without effect, as typed but in lower case, each once: those that the
            vocabulary lacks, and those behind the last place.
    """

    ids: tuple[int, ...]
    unknown: tuple[str, ...]


class Tokenizer:
    """Looks words up in the vocabulary of the trained model."""

    def __init__(self, path: Path) -> None:
        """Read the vocabulary.

        Args:
            path: vocab.json: `words` (place = id), `bos`, `eos`, `max_tokens`.
        """
        vocabulary = json.loads(path.read_text("utf-8"))
        self.words: list[str] = vocabulary["words"]
        self.max_tokens: int = vocabulary["max_tokens"]
        self._bos: int = vocabulary["bos"]
        self._eos: int = vocabulary["eos"]
        self._ids = {word: i for i, word in enumerate(self.words) if i >= _SPECIAL}

    def encode(self, text: str) -> Tokens:
        """Turn a text into ids.

        Args:
            text: Any text; case, punctuation and order of clauses are free. An empty text is the
                unconditional input.
        """
        words = _WORD.findall(text.lower().replace("\u2019", "'"))
        known = {word: self.lookup(word) for word in set(words)}
        ids = [self._bos]
        unknown: dict[str, None] = {}
        for word in words:
            token = known[word]
            if token is None or len(ids) >= self.max_tokens - 1:
                unknown[word] = None
            else:
                ids.append(token)
        return Tokens((*ids, self._eos), tuple(unknown))

    def lookup(self, word: str) -> int | None:
        """Return the id of a lower-case word or of its nearest relative, or None."""
        word = word.removesuffix("'s")
        if word in self._ids:
            return self._ids[word]
        for form in (*(word.removesuffix(ending) for ending in _ENDINGS), word + "y", word + "s"):
            if len(form) > 2 and form in self._ids:
                return self._ids[form]
        if len(word) >= 5:
            for candidate, token in self._ids.items():
                if len(candidate) >= 4 and candidate[0] == word[0] and _one_letter(word, candidate):
                    return token
        return None


def _one_letter(a: str, b: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours makes `a` into `b`."""
    if abs(len(a) - len(b)) > 1:
        return False
    i = 0
    while i < min(len(a), len(b)) and a[i] == b[i]:
        i += 1
    return (
        a[i:] == b[i + 1 :]
        or a[i + 1 :] == b[i:]
        or a[i + 1 :] == b[i + 1 :]
        or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])
    )

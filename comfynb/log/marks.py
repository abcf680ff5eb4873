"""What is said about a keyframe after it was made: ratings, tags, picks, notes, comparisons.

Nothing is changed by it: each saying is a row of its own, appended and durable, by any process and
at any time, also about a keyframe of another. What counts is the last of each field (by time,
then by id), and the ones before it stay as its history. The fields are as fine as what can be said
apart, so that two who speak at once lose nothing:

    rating          1 to 5
    pick            whether this keyframe is chosen; others of its place may be too
    note            a text
    tag:NAME        whether it has that tag
    versus:ID       of a comparison with the keyframe of that id: the id of the better one. The
                    row is about the lesser of the two ids, so that a pair has one verdict.

null takes back what was said. views.py (`marked`) reads them.
"""

from __future__ import annotations

import contextlib
import json
import operator
import threading
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from comfynb.errors import MarkError
from comfynb.keyframes import Keyframe

HIGHEST = 5
LONGEST_TAG = 100
LONGEST_NOTE = 10_000
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing that was said about a keyframe.

    Attributes:
        id: Of its row.
        keyframe: Id of the keyframe; of a comparison, the lesser of the two ids.
        field: "rating", "pick", "note", "tag:NAME" or "versus:ID".
        value: A number, true, a text, the id of the better keyframe; None takes it back.
        created_at: When it was said, UTC.
    """

    id: str
    keyframe: str
    field: str
    value: Any
    created_at: datetime


class Marking(ABC):
    """The calls that mark keyframes. Each may be made from any thread.

    A keyframe is given as it is, or by its id; it may be one of another process, and need not be
    in this log yet. All calls raise `MarkError` for what cannot be said, `LogWriteError` where it
    could not be made durable, and `ClosedError`.

    Attributes:
        read_only: Nothing can be said.
    """

    read_only: bool = False

    def rate(self, keyframe: Keyframe | str, rating: int | None) -> None:
        """Give a keyframe 1 to 5; None takes the rating back."""
        if rating is not None:
            rating = _rating(rating)
        self._say(_id(keyframe), "rating", rating)

    def pick(self, keyframe: Keyframe | str, *, picked: bool = True) -> None:
        """Choose a keyframe, or do so no longer. Of one scene several may be chosen."""
        if not isinstance(picked, bool):
            raise MarkError(f"picked={picked!r}: a keyframe is picked, or not: True or False")
        self._say(_id(keyframe), "pick", True if picked else None)

    def tag(self, keyframe: Keyframe | str, *tags: str) -> None:
        """Put tags on a keyframe, beside those that it has."""
        self._tag(keyframe, tags, on=True)

    def untag(self, keyframe: Keyframe | str, *tags: str) -> None:
        """Take tags off a keyframe; one that it does not have is no error."""
        self._tag(keyframe, tags, on=None)

    def note(self, keyframe: Keyframe | str, text: str | None) -> None:
        """Write down a text about a keyframe in place of the last; "" or None takes it back."""
        if text is not None and not isinstance(text, str):
            raise MarkError(f"a note is a text, and {text!r} is none")
        if text and len(text) > LONGEST_NOTE:
            raise MarkError(
                f"this note has {len(text)} characters; at most {LONGEST_NOTE} are kept"
            )
        self._say(_id(keyframe), "note", text or None)

    def compare(
        self, winner: Keyframe | str, loser: Keyframe | str, *, stands: bool = True
    ) -> None:
        """Say which of two keyframes is the better one; the last word on a pair counts.

        Args:
            winner: The better one.
            loser: The other.
            stands: False takes back what was said of the two, whichever was the better.
        """
        better, other = _id(winner), _id(loser)
        if better == other:
            raise MarkError(f"keyframe {better} cannot be compared with itself")
        about, against = sorted((better, other))
        self._say(about, f"versus:{against}", better if stands else None)

    @abstractmethod
    def marks(self, keyframe: Keyframe | str | None = None) -> list[Mark]:
        """Return all that was said, what does not count any more too, in the order of saying.

        Args:
            keyframe: What was said about this one, its comparisons included; None: about all.

        Raises:
            LogError: The log cannot be read.
        """

    @abstractmethod
    def _keep(self, mark: Mark) -> None:
        """Append a mark; durable on return."""

    def _tag(self, keyframe: Keyframe | str, tags: tuple[str, ...], *, on: bool | None) -> None:
        if not tags:
            raise MarkError('which tags? As in log.tag(keyframe, "night", "keep")')
        fields = [f"tag:{_checked_tag(tag)}" for tag in tags]  # all, before the first is written
        about = _id(keyframe)
        for field in dict.fromkeys(fields):
            self._say(about, field, on)

    def _say(self, about: str, field: str, value: Any) -> None:
        self._keep(
            Mark(
                id=str(uuid.uuid4()),
                keyframe=about,
                field=field,
                value=value,
                created_at=_now(),
            )
        )


def marking(store: object) -> Marking | None:
    """Return where to say something about the keyframes of a store; None: nowhere."""
    return store if isinstance(store, Marking) and not store.read_only else None


def is_about(mark: Mark, keyframe: str) -> bool:
    """Whether something was said about the keyframe with that id."""
    return mark.keyframe == keyframe or mark.field == f"versus:{keyframe}"


def id_of(keyframe: Keyframe | str | None) -> str | None:
    """Return the id of a keyframe, None for None.

    Raises:
        MarkError: It is no keyframe, and no id of one.
    """
    return None if keyframe is None else _id(keyframe)


def mark_of(row: dict[str, Any]) -> Mark:
    """Read a mark back; a value that is no JSON stays as it is."""
    value = row["value"]
    with contextlib.suppress(ValueError, RecursionError):
        value = None if value is None else json.loads(value)
    return Mark(
        id=row["id"],
        keyframe=row["target"] or "",
        field=row["field"] or "",
        value=value,
        created_at=(row["created_at"] or datetime.fromtimestamp(0, UTC)).replace(tzinfo=UTC),
    )


def _id(keyframe: Keyframe | str) -> str:
    if isinstance(keyframe, Keyframe):
        return keyframe.id
    try:
        return str(uuid.UUID(keyframe))
    except (ValueError, AttributeError, TypeError):
        raise MarkError(
            f"{keyframe!r:.80} is no keyframe and no id of one; log.takes(scene) and log.latest() "
            "give keyframes, and keyframe.id is its id"
        ) from None


def _rating(rating: Any) -> int:
    try:
        number = operator.index(rating)
    except TypeError:
        number = 0
    if isinstance(rating, bool) or not 1 <= number <= HIGHEST:
        raise MarkError(
            f"a rating is a whole number from 1 to {HIGHEST}, or None to take it back; "
            f"{rating!r:.80} is none"
        )
    return number


def _checked_tag(tag: Any) -> str:
    if not isinstance(tag, str):
        raise MarkError(f"a tag is a text, and {tag!r:.80} is none")
    name = tag.strip()
    if not name or len(name) > LONGEST_TAG or not name.isprintable():
        raise MarkError(
            f"{tag!r:.120} is no tag: it takes 1 to {LONGEST_TAG} characters, all in one line"
        )
    return name


_last = datetime.min.replace(tzinfo=UTC)
_last_lock = threading.Lock()


def _now() -> datetime:
    """Return the time, later than at the call before.

    Clocks of some systems tick 60 times a second, and any may be set back; what this process says
    later has to count.
    """
    global _last  # noqa: PLW0603 - one clock a process
    with _last_lock:
        _last = max(datetime.now(UTC), _last + timedelta(microseconds=1))
        return _last

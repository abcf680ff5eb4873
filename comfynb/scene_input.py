"""Reading and checking what scenes and storyboards are made of.

One row of input, whether a dict, a line of CSV or a row of a frame, is read in the same way: the
names in `SCENE_FIELDS` are the scene's own, those in `KNOB_TYPES` are its knobs, a mapping under
`knobs` holds any others, and any other name is an error that suggests the nearest. A cell that is
empty, None or NaN means "not given".

The checks return the value as it is kept, and raise a SceneError that says what is wrong and what
to do; who calls them adds the file and the row.
"""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from comfynb.errors import SceneError
from comfynb.inputs import InputFile, as_input
from comfynb.storyboard_files import KNOB_TYPES
from comfynb.values import (
    MAX_SEED,
    as_whole,
    describe,
    has_lone_surrogate,
    is_number,
    native,
    nearest,
    short,
)

MAX_ID = 120
"""Characters in an id; it is a label in grids, logs and file names of exports."""

_OWN_FIELD = {"positive": "prompt", "prompt": "prompt", "negative": "negative", "seed": "seed"}


def frame_rows(frame: Any) -> list[dict[str, Any]]:
    """Return the rows of a pandas DataFrame; an index named "id" is a column like others."""
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise SceneError(f"the column {short(twice)} is there twice", hint="Rename one of them")
    if frame.index.name == "id" and "id" not in frame.columns:
        frame = frame.reset_index()
    return list(frame.to_dict("records"))


def split_row(
    data: Mapping[str, Any], fields: Sequence[str], *, more: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a row into the object's own fields and its knobs; drop what is not given."""
    own: dict[str, Any] = {}
    knobs: dict[str, Any] = {}
    for name, value in data.items():
        if name in fields:
            target = own
        elif name in KNOB_TYPES:
            target = knobs
        elif name == "knobs":
            continue
        else:
            known = [*fields, *more, *KNOB_TYPES, "knobs"]
            raise SceneError(f"unknown key {short(name)}", hint=suggest(name, known))
        if not _is_missing(value):
            target[name] = native(value)
    nested = data.get("knobs")
    if _is_missing(nested):
        return own, knobs
    if not isinstance(nested, Mapping):
        raise SceneError(
            f"'knobs' must be a mapping, not {describe(nested)}",
            hint="Write names and values, such as {steps: 20}",
        )
    for name in nested:
        if name in knobs:
            raise SceneError(
                f"the knob {name!r} is given twice, once under 'knobs'", hint="Remove one"
            )
    return own, {**knobs, **nested}


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    pandas = sys.modules.get("pandas")  # rows of a frame hold its own words for missing
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return True
    value = native(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def suggest(name: Any, known: Sequence[str]) -> str:
    """Return a hint for a name that is not known."""
    found = nearest(name, known)
    if found:
        return "Did you mean " + " or ".join(map(repr, found)) + "?"
    return "Known are: " + ", ".join(known)


def check_text(name: str, value: Any) -> str:
    """Return a text without white space around it; `name` says in errors what it is."""
    if not isinstance(value, str):
        raise SceneError(f"the {name} must be text, not {describe(value)}", hint="Put it in quotes")
    if has_lone_surrogate(value):
        raise SceneError(
            f"the {name} holds half a character (a lone surrogate)",
            hint="It was cut or decoded wrongly: write it anew",
        )
    return value.strip()


def check_id(value: Any) -> str:
    """Return an id; a whole number, as in a column of numbers, becomes its digits."""
    number = as_whole(native(value))
    text = check_text("id", value if number is None else str(number))
    if not text:
        raise SceneError("the id is empty", hint="Leave it out to number the scene by position")
    if len(text) > MAX_ID:
        raise SceneError(
            f"the id has {len(text)} characters, more than {MAX_ID}",
            hint="Keep the id short and put the rest into 'title' or 'notes'",
        )
    for character in text:
        if character in "/\\" or unicodedata.category(character) in {"Cc", "Zl", "Zp"}:
            raise SceneError(
                f"the id holds {character!r}",
                hint="Ids are labels: no slashes, line breaks or control characters",
            )
    if text in {".", ".."}:
        raise SceneError(f"{text!r} cannot be an id", hint="Use a word or a number")
    return text


def check_seed(value: Any) -> int:
    """Return a seed, 0 to 2**64 - 1."""
    value = native(value)
    if isinstance(value, float) and abs(value) > 2**53:
        raise SceneError(
            f"the seed {value} has lost its last digits as a floating-point number",
            hint="Give seeds as whole numbers; in pandas, as dtype 'Int64' or 'UInt64'",
        )
    seed = as_whole(value)
    if seed is None:
        raise SceneError(
            f"the seed must be a whole number, not {describe(value)}",
            hint="'random' can be the seed of a whole storyboard only"
            if value == "random"
            else "Leave it out to use the storyboard's",
        )
    if not 0 <= seed <= MAX_SEED:
        raise SceneError(
            f"the seed {short(seed)} is out of range", hint="Seeds go from 0 to 2**64 - 1"
        )
    return seed


def check_knobs(knobs: Any) -> dict[str, Any]:
    """Return a copy of knob values whose names and kinds are as `KNOB_TYPES` says."""
    if not isinstance(knobs, Mapping):
        raise SceneError(
            f"knobs must be a mapping, not {describe(knobs)}",
            hint="Write names and values, such as {'steps': 20}",
        )
    return {_checked_name(name): _checked_knob(name, value) for name, value in knobs.items()}


def plain_knobs(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return knob values as JSON has them: of an input file its name and sha256."""
    return {name: dict(v) if isinstance(v, InputFile) else v for name, v in knobs.items()}


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise SceneError(
            f"the name of a knob must be text, not {describe(name)}", hint="Put it in quotes"
        )
    if name in _OWN_FIELD:
        raise SceneError(
            f"{name!r} is not a knob of a scene", hint=f"Use its own field '{_OWN_FIELD[name]}'"
        )
    return name


def _checked_knob(name: str, value: Any) -> Any:
    value, wanted = native(value), KNOB_TYPES.get(name, object)
    if name == "image" or wanted is object:
        try:
            file = as_input(value)
        except SceneError as error:
            raise SceneError(f"the knob {name!r}: {error.problem}", hint=error.hint) from None
        if file is not None:
            return file
    expected, fits = {
        int: ("a whole number", as_whole(value) is not None),
        float: ("a number", is_number(value)),
        str: ("text", isinstance(value, str) and bool(value.strip())),
        object: (
            "text, a number, true or false",
            isinstance(value, str | bool) or is_number(value),
        ),
    }[wanted]
    if not fits:
        raise SceneError(
            f"the knob {name!r} must be {expected}, not {describe(value)}",
            hint="Leave it out to use the storyboard's or the workflow's",
        )
    if isinstance(value, str):
        return check_text(f"knob {name!r}", value)
    return as_whole(value) if wanted is int else value

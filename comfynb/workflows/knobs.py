"""A knob: something that can be turned in a workflow, and what it can be turned to.

Where it is, `roles` finds. What it takes is known in two degrees. Always: the kind of the
value that is there now, since a text cannot become a number. And where the server's node types are
known (`NodeTypes`): the type of the input, its range, its choices, what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfynb.errors import KnobValueError
from comfynb.inputs import InputFile
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
from comfynb.workflows.node_types import InputType, NodeTypes
from comfynb.workflows.roles import title_of
from comfynb.workflows.upstream import Place

_WHOLE = frozenset(
    {"seed", "noise_seed", "steps", "width", "height", "length", "batch_size", "start_at_step",
     "end_at_step"}
)  # fmt: skip
"""Knobs and inputs that take whole numbers only, where nobody says their type; elsewhere JSON's 8
may well stand for 8.0."""

_CORE_UPLOADS = {
    ("LoadImage", "image"): "image",
    ("LoadImageMask", "image"): "image",
    ("LoadAudio", "audio"): "audio",
    ("LoadVideo", "file"): "video",
}
"""Inputs of core nodes that take an upload (ComfyUI 0.3.75: nodes.py, nodes_audio.py,
nodes_video.py), for when their server was not asked."""

_LISTED = 8
"""Choices that an error names."""

_KIND_OF_TYPE: Mapping[str, str] = {
    "INT": "whole", "FLOAT": "number", "BOOLEAN": "switch", "STRING": "text",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Knob:
    """Something that can be turned.

    What comes after `also` is what the server says of the input, and None where it is not known
    or says nothing.

    Attributes:
        name: What to call it in `with_knobs`.
        node: Id of its node.
        input: Name of its input.
        value: What it is set to.
        node_type: Class of its node.
        title: Title of its node, or the class where it has none.
        also: Other inputs of that node that are set to the same value.
        type: "INT", "FLOAT", "STRING", "BOOLEAN" or "COMBO".
        minimum: Smallest number it takes.
        maximum: Largest number it takes.
        step: Distance between numbers in ComfyUI's editor; others are taken too.
        choices: What it can be.
        default: What a new node has there.
        tooltip: What it is for, in a sentence or two.
        upload: What file it takes: "image", "audio" or "video"; of the core's own loaders this
            is known without their server.
    """

    name: str
    node: str
    input: str
    value: Any
    node_type: str
    title: str
    also: tuple[str, ...] = field(default=(), repr=False)
    type: str | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int | float | None = None
    choices: tuple[Any, ...] | None = field(default=None, repr=False)
    default: Any = field(default=None, repr=False)
    tooltip: str | None = field(default=None, repr=False)
    upload: str | None = field(default=None, repr=False)

    def check(self, value: Any) -> Any:
        """Return a value as this knob takes it.

        Args:
            value: Of the knob's type, within its range, one of its choices, as far as these are
                known; otherwise of the kind that is there now: text, number, whole number, or
                true or false. Seeds go from 0 to 2**64 - 1.

        Raises:
            KnobValueError: It is something else.
        """
        fitted = self.fit(value)
        number = is_number(fitted)
        if number and (
            (self.minimum is not None and fitted < self.minimum)
            or (self.maximum is not None and fitted > self.maximum)
        ):
            raise self._refusal(value, f" takes {self.range}, not {describe(value)}")
        if self.choices and fitted not in self.choices:
            alike = nearest_choices(fitted, self.choices)
            text = f" cannot be {short(value)}{suggest(alike) or listed(self.choices)}"
            raise self._refusal(value, text, alike)
        return fitted

    def fit(self, value: Any) -> Any:
        """Return a value as this knob's type has it, whatever its range and choices.

        Raises:
            KnobValueError: It is of another kind, or a seed out of range.
        """
        if isinstance(value, InputFile):
            return self._named(value)
        value = native(value)
        expected, as_kind = _KINDS[self.kind]
        fitted = as_kind(value)
        if fitted is None:
            raise self._refusal(value, f" takes {expected}, not {describe(value)}")
        if {self.name, self.input} & {"seed", "noise_seed"} and not 0 <= fitted <= MAX_SEED:
            text = f": the seed {describe(value)} is out of range. Seeds go from 0 to 2**64 - 1"
            raise self._refusal(value, text)
        if isinstance(fitted, str) and has_lone_surrogate(fitted):
            raise self._refusal(value, ": the text holds half a character. Write it anew")
        return fitted

    def _named(self, file: InputFile) -> str:
        """Return what the graph calls a file that is for this knob."""
        wanted = self.upload or ("image" if self.name == "image" else None)
        if wanted is None and (self.type is not None or self.kind != "text"):
            raise self._refusal(file, f" takes no file, and was given {file.mime}")
        if wanted not in (None, file.mime.partition("/")[0]):
            raise self._refusal(file, f" takes a file of the kind {wanted!r}, not {file.mime}")
        return file.name

    @property
    def kind(self) -> str:
        """What it takes: "whole", "number", "switch", "text", "choice", or "any"."""
        if self.type == "COMBO" and self.choices:
            return "choice"
        if (known := _KIND_OF_TYPE.get(self.type or "")) is not None:
            return known
        if isinstance(self.value, bool):
            return "switch"
        if isinstance(self.value, int | float):
            return "whole" if {self.name, self.input} & _WHOLE else "number"
        return "text" if isinstance(self.value, str) else "any"

    @property
    def range(self) -> str:
        """Its range in words, such as "1 to 10000"; "" where none is known."""
        return range_text(self.minimum, self.maximum)

    def _refusal(self, value: Any, problem: str, alike: Sequence[str] = ()) -> KnobValueError:
        return KnobValueError(
            f"{self}{problem}",
            knob=self.name,
            node=self.node,
            node_type=self.node_type,
            input=self.input,
            value=value,
            nearest=alike,
        )

    def __str__(self) -> str:
        return f"the knob {self.name!r} (node {self.node}, {self.node_type}.{self.input})"


def _choice(value: Any) -> Any:
    return value if isinstance(value, str | bool) or is_number(value) else None


_KINDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "switch": ("true or false", lambda value: value if isinstance(value, bool) else None),
    "whole": ("a whole number", as_whole),
    "number": ("a number", lambda value: value if is_number(value) else None),
    "text": ("text", lambda value: value if isinstance(value, str) else None),
    "choice": ("one of its choices", _choice),
    "any": ("text, a number, true or false", _choice),
}


def make_knob(
    graph: Mapping[str, Any], name: str, place: Place, node_types: NodeTypes | None = None
) -> Knob:
    """Return the knob at a place, with its value in this graph and what its server says of it."""
    node = graph[place.node]
    first, *also = place.inputs
    value, node_type = node["inputs"][first], node["class_type"]
    known = input_type(node_types, node_type, first)
    upload = _CORE_UPLOADS.get((node_type, first))
    if known is None or not known.is_widget:
        title = title_of(node)
        return Knob(name, place.node, first, value, node_type, title, (*also,), upload=upload)
    return Knob(
        name,
        place.node,
        first,
        value,
        node_type,
        title_of(node),
        (*also,),
        known.type,
        known.minimum,
        known.maximum,
        known.step,
        # What can be uploaded is not bound to what is there already, nor a list that is empty.
        known.choices if known.upload is None else None,
        known.default,
        known.tooltip or None,
        known.upload or upload,
    )


def input_type(node_types: NodeTypes | None, node_type: str, name: str) -> InputType | None:
    """Return what a server says of one input, or None."""
    if node_types is None or node_type not in node_types:
        return None
    return node_types[node_type].inputs.get(name)


def range_text(minimum: float | None, maximum: float | None) -> str:
    """Say a range in words; "" where there is none."""
    if minimum is not None and maximum is not None:
        return f"{_number(minimum)} to {_number(maximum)}"
    if minimum is not None:
        return f"{_number(minimum)} or more"
    return f"{_number(maximum)} or less" if maximum is not None else ""


def _number(value: float) -> str:
    """Write limits as people say them: the largest ones are powers of two."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    for power in (31, 32, 53, 63, 64):
        if value in (2**power, 2**power - 1):
            return f"2**{power}" + (" - 1" if value % 2 else "")
    return str(value)


def nearest_choices(value: Any, choices: Sequence[Any]) -> list[str]:
    """Return up to three choices that may have been meant, best first.

    The name of a model is often right but for its folder or its case.
    """
    texts = [str(choice) for choice in choices]
    wanted = _stem(str(value))
    same = [text for text in texts if _stem(text) == wanted]
    by_lower = {text.lower(): text for text in reversed(texts)}
    alike = [by_lower[lower] for lower in nearest(str(value).lower(), list(by_lower))]
    return list(dict.fromkeys([*same, *alike]))[:3]


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].lower()


def suggest(alike: Sequence[str]) -> str:
    """Ask for the nearest names, to stand at the end of a sentence; "" where there are none."""
    return f"; did you mean {' or '.join(short(name) for name in alike)}?" if alike else ""


def listed(choices: Sequence[Any]) -> str:
    """Say what there is, to stand at the end of a sentence: a few of many."""
    texts = [short(choice) for choice in choices[:_LISTED]]
    more = f" and {len(choices) - _LISTED} more" if len(choices) > _LISTED else ""
    return f". It can be {', '.join(texts)}{more}"

"""What a server says about its node classes: inputs, their types, ranges and choices.

Source of the shapes: ComfyUI server.py, node_info (GET /object_info), v0.3.75, and what its two
kinds of node classes write into it. An input is `[type, options]`:

- `["INT", {"default": 20, "min": 1, "max": 10000}]`, likewise FLOAT, STRING, BOOLEAN;
- a choice is a list in the place of the type, `[["euler", "heun"], {...}]`, or, of newer classes,
  `["COMBO", {"options": ["euler", "heun"], ...}]`; the options are absent where the server only
  says where to ask for them ("remote");
- anything else is a link, such as `["MODEL", {}]` or the union `["INT,FLOAT", {}]`;
- inputs that depend on others carry their whole family in the options
  (`COMFY_DYNAMICCOMBO_V3`, `COMFY_AUTOGROW_V3`): see `InputType.options`.

Anybody can write a node, so an entry may be malformed: it is left out, with a warning in the
log of this module. Classes are parsed when they are asked for; a server has thousands.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from comfynb.values import is_number, short

logger = logging.getLogger(__name__)

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
"""What is typed in on a node; any other type is a link or has a widget of its own."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_UPLOADS = ("image", "video", "audio")


@dataclass(frozen=True, slots=True)
class InputType:
    """One input of a node class.

    Attributes:
        name: As the graph calls it.
        type: "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", or a link's type such as "MODEL";
            a union is kept as it is: "INT,FLOAT".
        required: Whether a graph must give it.
        default: What the class takes where it is left out, or None.
        minimum: Smallest number allowed, or None.
        maximum: Largest number allowed, or None.
        step: Distance between numbers in the editor, or None; a server does not check it.
        choices: What a COMBO can be; None for other types, and where only the server's
            `remote` address knows.
        tooltip: One or two sentences for people, or "".
        multiline: Whether the text is long.
        control_after_generate: Whether the editor keeps "fixed", "randomize" and so on for it.
        force_input: Whether it is a link although its type could be typed in.
        upload: What can be uploaded into it: "image", "video", "audio", or None.
        options: Everything that the class says about it, as it came.
    """

    name: str
    type: str
    required: bool = True
    default: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int | float | None = None
    choices: tuple[Any, ...] | None = None
    tooltip: str = ""
    multiline: bool = False
    control_after_generate: bool = False
    force_input: bool = False
    upload: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_widget(self) -> bool:
        """Whether a value can be typed in, where it is not linked; a union is links only."""
        return not self.force_input and self.type in WIDGET_TYPES


@dataclass(frozen=True, slots=True)
class NodeType:
    """One node class of a server.

    Attributes:
        name: As the graph calls it: `class_type`.
        display_name: As people read it.
        category: Its menu, such as "sampling/custom_sampling".
        inputs: By name, required ones first, in the order in which the editor shows them.
        outputs: The type of each output.
        output_names: The name of each output.
        output_node: Whether it ends a graph: saving, previewing.
    """

    name: str
    display_name: str
    category: str
    inputs: Mapping[str, InputType]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    output_node: bool


class NodeTypes(Mapping[str, NodeType]):
    """The node classes of a server, by name.

    Example:
        >>> node_types = NodeTypes.of({"Add": {"input": {"required": {"a": ["INT", {"min": 0}]}}}})
        >>> node_types["Add"].inputs["a"].minimum
        0
    """

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self.object_info = object_info
        self._parsed: dict[str, NodeType] = {}

    @classmethod
    def of(cls, object_info: Any) -> NodeTypes:
        """Read what a server answered to GET /object_info.

        Args:
            object_info: Parsed JSON. What is malformed in it is left out, with a warning.
        """
        if not isinstance(object_info, Mapping):
            logger.warning("the list of node classes is %s: none is known", short(object_info))
            return cls({})
        sound = {name: info for name, info in object_info.items() if _is_class(name, info)}
        return cls(object_info if len(sound) == len(object_info) else sound)

    def __getitem__(self, name: str) -> NodeType:
        if name not in self._parsed:
            self._parsed[name] = parse_node_type(name, self.object_info[name])
        return self._parsed[name]

    def __contains__(self, name: object) -> bool:
        return name in self.object_info

    def __iter__(self) -> Iterator[str]:
        return iter(self.object_info)

    def __len__(self) -> int:
        return len(self.object_info)

    def __repr__(self) -> str:
        return f"<NodeTypes: {len(self)} node classes>"


def _is_class(name: Any, info: Any) -> bool:
    if isinstance(name, str) and isinstance(info, Mapping):
        return True
    logger.warning("the node class %s is malformed and left out", short(name))
    return False


def parse_node_type(name: str, info: Mapping[str, Any]) -> NodeType:
    """Read one class of /object_info; malformed inputs are left out, with a warning."""
    sections = info.get("input")
    sections = sections if isinstance(sections, Mapping) else _EMPTY
    inputs: dict[str, InputType] = {}
    for section in ("required", "optional"):
        for parsed in parse_section(
            sections.get(section), required=section == "required", order=_order(info, section)
        ):
            inputs.setdefault(parsed.name, parsed)
    outputs = _types(info.get("output"))
    names = _texts(info.get("output_name"))
    return NodeType(
        name=name,
        display_name=_text(info.get("display_name")) or name,
        category=_text(info.get("category")),
        inputs=MappingProxyType(inputs),
        outputs=outputs,
        output_names=names if len(names) == len(outputs) else outputs,
        output_node=info.get("output_node") is True,
    )


def parse_section(section: Any, *, required: bool, order: Any = None) -> Iterator[InputType]:
    """Yield the inputs of "required" or "optional" of a class, or of an input's family.

    Args:
        section: Specs by name; anything else has no inputs.
        required: What to say of each.
        order: Names in the editor's order, or None; names that are missing there come last.
    """
    if not isinstance(section, Mapping):
        return
    named = order if isinstance(order, list) else []
    first = [name for name in named if isinstance(name, str) and name in section]
    for name in dict.fromkeys([*first, *section]):
        parsed = parse_input(name, section[name], required=required)
        if parsed is not None:
            yield parsed


def parse_input(name: Any, spec: Any, *, required: bool) -> InputType | None:
    """Read one input, `[type, options]`; None where it is malformed, with a warning."""
    kind = spec[0] if isinstance(spec, list | tuple) and spec else None
    if not isinstance(name, str) or not isinstance(kind, str | list | tuple):
        logger.warning("the input %s is malformed and left out: %s", short(name), short(spec))
        return None
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else _EMPTY
    choices = options.get("options") if kind == "COMBO" else kind
    return InputType(
        name=name,
        type=kind if isinstance(kind, str) else "COMBO",
        required=required,
        default=options.get("default"),
        minimum=_number(options.get("min")),
        maximum=_number(options.get("max")),
        step=_number(options.get("step")),
        choices=tuple(choices) if isinstance(choices, list | tuple) else None,
        tooltip=_text(options.get("tooltip")),
        multiline=options.get("multiline") is True,
        control_after_generate=bool(options.get("control_after_generate")),
        force_input=options.get("forceInput") is True,
        upload=next((kind for kind in _UPLOADS if options.get(f"{kind}_upload") is True), None),
        options=options,
    )


def _order(info: Mapping[str, Any], section: str) -> Any:
    order = info.get("input_order")
    return order.get(section) if isinstance(order, Mapping) else None


def _types(value: Any) -> tuple[str, ...]:
    """Return the types of outputs; a list of choices is a COMBO."""
    if not isinstance(value, list | tuple):
        return ()
    return tuple("COMBO" if isinstance(item, list | tuple) else str(item) for item in value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int | float | None:
    return value if is_number(value) else None

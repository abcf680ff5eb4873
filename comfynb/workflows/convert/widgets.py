"""What was typed into a node, by the names of its inputs.

The editor saves the values of a node's widgets as a bare list, in the order in which its class
makes the widgets: required inputs, then optional ones. So the list can only be read beside the
server's description of the class, and what the editor adds on its own must be passed over:

- `control_after_generate`, such as "randomize", behind each input that asks for it, and behind
  whole numbers called `seed` or `noise_seed` that say nothing about it (ComfyUI_frontend,
  useIntWidget). Files of before 2023 lack it, so whether it is there is told from the values;
- the button of an upload, "image", between required and optional inputs;
- the buttons of a 3D view, before its value.

Newer editors save the values by name beside the list; names hold where a class of another release
has other widgets, so they count first.

A choice that brings further inputs (COMFY_DYNAMICCOMBO_V3) has their values behind its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfynb.workflows.convert.editor import EditorNode
from comfynb.workflows.node_types import WIDGET_TYPES, InputType, NodeType, parse_section

CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize"})
_VIEWS = frozenset({"LOAD_3D", "LOAD_3D_ADVANCED", "PREVIEW_3D", "AUDIO_UI", "WEBCAM"})
"""Types for which the editor has a view of its own that saves a value."""
_VIEW_BUTTONS = frozenset({"upload3dmodel", "uploadExtraResources", "clear"})
_NOT_INPUTS = frozenset({"videopreview", "preview", "upload", "control_after_generate"})
"""Names that stand among values by name and are no inputs."""
_BLANK: Mapping[str, Any] = {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False}
"""What the editor shows where the class has no default."""
_MAX_DEPTH = 16


def has_widget(input_: InputType) -> bool:
    """Whether the editor makes a widget for an input, so that the list has a value of it."""
    options = input_.options
    if input_.force_input:
        return False
    return (
        input_.type in WIDGET_TYPES | _VIEWS
        or isinstance(options.get("widgetType"), str)
        or options.get("socketless") is True
        or is_dynamic_choice(input_)
    )


def is_dynamic_choice(input_: InputType) -> bool:
    """Whether its value decides which inputs come with it."""
    return input_.type.startswith("COMFY_DYNAMICCOMBO")


def brought_by(choice: InputType, value: Any) -> list[InputType]:
    """Return the inputs that a value of a dynamic choice brings; their names lack its own."""
    options = choice.options.get("options")
    for option in options if isinstance(options, list) else ():
        if isinstance(option, Mapping) and option.get("key") == value:
            sections = option.get("inputs")
            sections = sections if isinstance(sections, Mapping) else {}
            return [
                input_
                for section in ("required", "optional")
                for input_ in parse_section(sections.get(section), required=section == "required")
            ]
    return []


def typed_in(node: EditorNode, node_type: NodeType) -> dict[str, Any]:
    """Return the values of a node's widgets by name, with defaults where nothing was saved."""
    if node.named is not None:
        found = _known(node.named, node_type)
    elif isinstance(node.values, dict):
        found = {name: value for name, value in node.values.items() if name not in _NOT_INPUTS}
    else:
        found = _paired(node.values, node_type)
    return {**_defaults(node_type.inputs.values(), found), **found}


def _known(named: Mapping[str, Any], node_type: NodeType) -> dict[str, Any]:
    """Return the values of inputs that the server's class has, which may be of another release."""
    inputs = {name: input_ for name, input_ in node_type.inputs.items() if has_widget(input_)}
    return {
        name: value
        for name, value in named.items()
        if name in inputs
        or ((owner := inputs.get(name.partition(".")[0])) and is_dynamic_choice(owner))
    }


def _paired(values: list[Any], node_type: NodeType) -> dict[str, Any]:
    # A newer file has a control behind every seed. Only where that does not come out even is a
    # word such as "fixed" left to a next widget that could mean it.
    for with_controls in (True, False):
        walk = _Walk(values, with_controls=with_controls)
        walk.go(list(node_type.inputs.values()))
        if walk.is_even:
            break
    if not any(map(has_widget, node_type.inputs.values())):
        return _loras(values)
    return walk.found


class _Walk:
    """One pass over the values and the widgets that they belong to."""

    def __init__(self, values: list[Any], *, with_controls: bool) -> None:
        self._values = values
        self._with_controls = with_controls
        self._position = 0
        self._is_short = False
        self.found: dict[str, Any] = {}

    @property
    def is_even(self) -> bool:
        """Whether every widget got a value and every value a widget."""
        return not self._is_short and self._position == len(self._values)

    @property
    def _next(self) -> Any:
        return self._values[self._position] if self._position < len(self._values) else None

    def go(self, inputs: list[InputType], prefix: str = "", after: InputType | None = None) -> None:
        """Give values to inputs; `after` is the widget behind the last of them."""
        widgets = [input_ for input_ in inputs if has_widget(input_)]
        uploads = [input_.required for input_ in widgets if input_.upload]
        for index, input_ in enumerate(widgets):
            following = widgets[index + 1] if index + 1 < len(widgets) else after
            if not input_.required and any(uploads) and self._button_is_next(len(widgets) - index):
                self._position, uploads = self._position + 1, []
            self._take(input_, prefix + input_.name, following)

    def _take(self, input_: InputType, name: str, following: InputType | None) -> None:
        while input_.type.startswith("LOAD_3D") and self._next in _VIEW_BUTTONS:
            self._position += 1
        if self._position >= len(self._values):
            self._is_short = True
            return
        value = self._next
        self._position += 1
        self.found[name] = value
        if is_dynamic_choice(input_):
            if name.count(".") < _MAX_DEPTH:
                self.go(brought_by(input_, value), f"{name}.", following)
        elif self._control_is_next(input_, following):
            self._position += 1

    def _button_is_next(self, widgets_left: int) -> bool:
        return self._next == "image" and len(self._values) - self._position > widgets_left

    def _control_is_next(self, input_: InputType, following: InputType | None) -> bool:
        if not isinstance(self._next, str) or self._next not in CONTROLS:
            return False
        if "control_after_generate" in input_.options:
            return input_.control_after_generate
        if input_.type != "INT" or "seed" not in input_.name.lower():
            return False
        if self._with_controls and input_.name in ("seed", "noise_seed"):
            return True
        return not _could_be(following, self._next)


def _could_be(input_: InputType | None, word: str) -> bool:
    """Whether a widget can hold a word."""
    if input_ is None or input_.type in ("INT", "FLOAT", "BOOLEAN"):
        return False
    return word in input_.choices if input_.choices is not None else True


def _loras(values: list[Any]) -> dict[str, Any]:
    """Return the rows of a stack of LoRAs that its script adds (rgthree's Power Lora Loader)."""
    rows = [value for value in values if isinstance(value, dict) and "lora" in value]
    return {f"lora_{number}": row for number, row in enumerate(rows, 1)}


def _defaults(
    inputs: Iterable[InputType], found: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Return what the editor shows in widgets that have no saved value."""
    filled: dict[str, Any] = {}
    for input_ in inputs:
        name = prefix + input_.name
        if not has_widget(input_):
            continue
        value = found[name] if name in found else default_of(input_)
        if name not in found and (value is not None or _must_be_given(input_)):
            filled[name] = value
        if is_dynamic_choice(input_) and name.count(".") < _MAX_DEPTH:
            filled |= _defaults(brought_by(input_, value), found, f"{name}.")
    return filled


def default_of(input_: InputType) -> Any:
    """Return what the editor shows before anything is typed in; None where it shows nothing."""
    if input_.default is not None:
        return input_.default
    if input_.choices:
        several = input_.options.get("multi_select") or input_.options.get("multiselect")
        return None if several else input_.choices[0]
    if is_dynamic_choice(input_):
        options = input_.options.get("options")
        first = options[0] if isinstance(options, list) and options else None
        return first.get("key") if isinstance(first, Mapping) else None
    return _BLANK.get(input_.options.get("widgetType") or input_.type)


def _must_be_given(input_: InputType) -> bool:
    """Whether even nothing must be sent: a required view without a socket."""
    return input_.required and input_.options.get("socketless") is True

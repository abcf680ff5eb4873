"""The node types of several servers as one list: what any of them takes.

A knob takes what some server takes; a check says which servers lack it (`report.together`). So a
value is refused early only where no server would draw it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from comfynb.workflows.node_types import InputType, NodeType, NodeTypes


def joined(several: Sequence[NodeTypes]) -> NodeTypes:
    """Join what several servers have.

    Args:
        several: At least one; where they differ in more than ranges and choices, the first holds.
    """
    return several[0] if len(several) == 1 else _Joined(several)


class _Joined(NodeTypes):
    def __init__(self, several: Sequence[NodeTypes]) -> None:
        classes: dict[str, Any] = {}
        for one in reversed(several):
            classes.update(one.object_info)
        super().__init__(classes)
        self._several = several

    def __getitem__(self, name: str) -> NodeType:
        if name not in self._parsed:
            first = super().__getitem__(name)  # the first server's that has it
            others = [one[name] for one in self._several if name in one][1:]
            inputs = {
                key: _widest(known, [o.inputs[key] for o in others if key in o.inputs])
                for key, known in first.inputs.items()
            }
            self._parsed[name] = replace(first, inputs=MappingProxyType(inputs))
        return self._parsed[name]


def _widest(first: InputType, others: Sequence[InputType]) -> InputType:
    alike = [first, *(other for other in others if other.type == first.type)]
    choices = first.choices
    if choices is not None:
        listed = [one.choices for one in alike]
        known = [choice for some in listed if some is not None for choice in some]
        # By their text: a choice may be of any kind.
        choices = tuple({repr(choice): choice for choice in known}.values())
        if any(some is None for some in listed):
            choices = None  # one of them takes what it does not list
    return replace(
        first,
        choices=choices,
        minimum=_bound(min, [one.minimum for one in alike]),
        maximum=_bound(max, [one.maximum for one in alike]),
    )


def _bound(
    widest: Callable[[Sequence[int | float]], int | float], bounds: Sequence[int | float | None]
) -> int | float | None:
    known = [bound for bound in bounds if bound is not None]
    return widest(known) if len(known) == len(bounds) else None

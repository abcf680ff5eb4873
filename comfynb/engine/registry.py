"""What a node is: a declaration and a function.

A node is declared once; its entry in /object_info, its validation and its execution all follow from
that declaration. Tests and users add nodes the same way the built-in ones are added:

    def register(registry: Registry) -> None:
        registry.add(Node("Brighten", brighten, category="image", outputs=("IMAGE",),
                          inputs=(Input("image", "IMAGE"),
                                  Input("by", "FLOAT", default=0.1, min=0.0, max=1.0))))

The function is called as `brighten(call, image=..., by=...)` and returns a tuple with one value per
output, or a `NodeResult` when it also has something to show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfynb.engine.files import Files

Choices = Sequence[str] | Callable[["Files"], list[str]]
"""The allowed words of an input, or a function that lists them at the moment (files, say)."""

LIST_TYPE = "COMBO"
"""`Input.type` of an input that takes one of a list of words."""


class Input:
    """One input of a node.

    Args:
        name: Key in the graph's `inputs`.
        type: "INT", "FLOAT", "STRING", "BOOLEAN" for literal values, or the type of a link
            ("IMAGE", "LATENT", ...). Left out when `choices` is given.
        choices: Words to choose from.
        optional: May be missing in the graph; the function then needs a default for it.
        **options: Shown in /object_info; `min` and `max` are also checked (inclusive),
            `default` is what a user interface starts with.
    """

    __slots__ = ("choices", "name", "optional", "options", "type")

    def __init__(
        self,
        name: str,
        type: str = LIST_TYPE,  # noqa: A002 - the field's word
        *,
        choices: Choices | None = None,
        optional: bool = False,
        **options: Any,
    ) -> None:
        if (type == LIST_TYPE) != (choices is not None):
            raise ValueError(f"input {name}: give either a type or choices")
        self.name = name
        self.type = type
        self.choices = choices
        self.optional = optional
        self.options = options

    def list_choices(self, files: Files) -> list[str] | None:
        """Return the allowed words now, or None for an input that is not a choice."""
        if self.choices is None:
            return None
        return self.choices(files) if callable(self.choices) else list(self.choices)

    def spec(self, files: Files) -> list[Any]:
        """Return `[type, options]` as validation errors quote it."""
        choices = self.list_choices(files)
        return [self.type if choices is None else choices, self.options]


@dataclass(frozen=True, slots=True)
class Blocked:
    """An output that forbids the nodes behind it to run (ComfyUI's ExecutionBlocker).

    Attributes:
        message: Told to the client once, as a not final execution_error; None: silently.
    """

    message: str | None


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a node with something to show returns.

    Attributes:
        outputs: One value per declared output.
        ui: Goes into `executed` and the history, e.g. `{"images": [...]}`; None: nothing.
    """

    outputs: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


NodeFunction = Callable[..., tuple[Any, ...] | NodeResult]


@dataclass(frozen=True, slots=True)
class Node:
    """The declaration of a node class.

    Attributes:
        name: `class_type` in graphs.
        function: Called with a `Call` and the inputs as keywords, in the worker thread.
        inputs: In the order of /object_info.
        outputs: Types; a link names them by position.
        output_node: Its being in a graph is a reason to run the graph.
        hidden: Declared hidden inputs, for /object_info only; the `Call` carries them.
        changed: Given the `Files` and the literal inputs, something that differs whenever
            the node must run again although its inputs are the same (a file's hash).
        check: Given the `Files` and the literal inputs, the name of a bad input and what is
            wrong with it, or None. An input named in `checked` skips the usual list check.
    """

    name: str
    function: NodeFunction
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    category: str = ""
    display_name: str = ""
    description: str = ""
    output_node: bool = False
    output_tooltips: tuple[str, ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    module: str = "nodes"
    changed: Callable[[Files, Mapping[str, Any]], object] | None = None
    check: Callable[[Files, Mapping[str, Any]], tuple[str, str] | None] | None = None
    checked: frozenset[str] = frozenset()

    def info(self, files: Files) -> dict[str, Any]:
        """Return the entry of /object_info, keys and order as ComfyUI 0.3.75 writes them."""
        groups: dict[str, dict[str, Any]] = {}
        for item in self.inputs:
            spec = item.spec(files)
            group = groups.setdefault("optional" if item.optional else "required", {})
            group[item.name] = spec if item.options else spec[:1]
        groups.setdefault("required", {})
        if self.hidden:
            groups["hidden"] = dict(self.hidden)
        info: dict[str, Any] = {
            "input": groups,
            "input_order": {name: list(group) for name, group in groups.items()},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.display_name or self.name,
            "description": self.description,
            "python_module": self.module,
            "category": self.category,
            "output_node": self.output_node,
        }
        if self.output_tooltips:
            info["output_tooltips"] = list(self.output_tooltips)
        return info


class Registry:
    """The node classes a server knows, by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def add(self, node: Node) -> None:
        """Add a node class, or replace the one of the same name."""
        self._nodes[node.name] = node

    def get(self, name: str) -> Node | None:
        """Return the class of that name, or None."""
        return self._nodes.get(name)

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

"""A workflow: a graph and its knobs, together as one value that never changes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from comfynb.errors import KnobValueError, UnknownKnobError, WorkflowError
from comfynb.keyframes import Keyframe
from comfynb.values import nearest, short
from comfynb.workflows.forms import Source, read_source
from comfynb.workflows.knobs import Knob, make_knob
from comfynb.workflows.node_types import NodeTypes
from comfynb.workflows.roles import find_aliases, find_knobs
from comfynb.workflows.tables import Knobs
from comfynb.workflows.upstream import Place


@dataclass(frozen=True)
class Workflow:
    """A graph in API format with named knobs.

    Attributes:
        name: The library's name, or the file's without its suffix, or "workflow".
        graph: API format. Look at it, send it, copy it; to change it, use `with_knobs`.
        form: In what form it came: "library", "API", "UI" (ComfyUI's editor), "keyframe", or of a
            picture "PNG, API inside" and the like.

    Example:
        >>> workflow = Workflow.load("txt2img").with_knobs({"steps": 8, "positive": "a fox"})
        >>> workflow.knobs["steps"].value
        8
    """

    name: str
    graph: Mapping[str, Any] = field(repr=False, hash=False)
    _places: Mapping[str, Place] = field(repr=False, compare=False)
    form: str = field(default="API", compare=False)
    _types: NodeTypes | None = field(default=None, repr=False, compare=False)
    _ask: Callable[[], NodeTypes | None] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any] | bytes | Keyframe,
        node_types: NodeTypes | None = None,
    ) -> Self:
        """Read a workflow in any of the forms in which people have them.

        Args:
            source: "txt2img" or "img2img" from the library; a JSON file or a dict, in API format
                or as ComfyUI's editor saves it; a PNG, WebP or JPEG that ComfyUI saved; bytes of
                one of these; or a keyframe. Files are at most 10 MB, pictures 256 MB.
            node_types: What a server says of its node classes. What the editor saved cannot be
                understood without; `comfynb.connect` asks the server by itself.

        Raises:
            WorkflowError: It cannot be read, is no sound graph, or is in the editor's format and
                `node_types` are missing or lack one of its classes.
        """
        return cls.of(read_source(source), node_types)

    @classmethod
    def of(cls, source: Source, node_types: NodeTypes | None = None) -> Self:
        """Make a workflow of what `read_source` read; arguments and errors as for `load`."""
        graph = source.graph(node_types)
        return cls(source.name, graph, find_knobs(graph), source.form, node_types)

    def with_types(
        self,
        node_types: NodeTypes | None,
        *,
        ask: Callable[[], NodeTypes | None] | None = None,
    ) -> Self:
        """Return this workflow with what a server says of its nodes; a studio's has it already.

        Args:
            node_types: They give knobs their types, ranges and choices; None: not known.
            ask: Asks the server anew, and blocks meanwhile; returns None where it does not answer
                in time. With it, what an old list refuses is refused only after a fresh one did.
        """
        return replace(self, _types=node_types, _ask=ask)

    @cached_property
    def knobs(self) -> Mapping[str, Knob]:
        """The knobs that were found, by name, as a table; `knob` also finds others."""
        return Knobs(
            self._make_knobs(self._types),
            title=self.name,
            typed=None if self._ask is None else self._typed_knobs,
        )

    def _make_knobs(self, node_types: NodeTypes | None) -> dict[str, Knob]:
        return {
            name: make_knob(self.graph, name, place, node_types)
            for name, place in self._places.items()
        }

    def _typed_knobs(self) -> dict[str, Knob]:
        return self._make_knobs(self._ask() if self._ask is not None else None)

    @property
    def values(self) -> dict[str, Any]:
        """What each knob is set to, by name."""
        return {
            name: self.graph[place.node]["inputs"][place.inputs[0]]
            for name, place in self._places.items()
        }

    @property
    def needs_checkpoint(self) -> bool:
        """Whether it loads a checkpoint that is not chosen yet: the empty name of the library."""
        return self.values.get("checkpoint") == ""

    def knob(self, name: str) -> Knob:
        """Return a knob.

        Args:
            name: One of `knobs`; or "Title.input" or "Title" of a node with a single value,
                where the class stands for a missing title; or "id.input".

        Raises:
            UnknownKnobError: There is none; carries the nearest names.
            WorkflowError: Several nodes have that title.
        """
        if name in self.knobs:
            return self.knobs[name]
        places = self._aliases.get(name, [])
        if not places:
            raise UnknownKnobError(
                name, tuple(self.knobs), nearest(name, [*self.knobs, *self._aliases])
            )
        if len(places) > 1:
            exact = " or ".join(repr(f"{place.node}.{place.inputs[0]}") for place in places[:4])
            raise WorkflowError(f"{len(places)} nodes are called {short(name)}. Say {exact}")
        return make_knob(self.graph, name, places[0], self._types)

    def with_knobs(self, values: Mapping[str, Any], *, ranges: bool = True) -> Self:
        """Return a workflow with some knobs set; this one stays as it is.

        Args:
            values: By the names that `knob` takes.
            ranges: Whether a value must be within the knob's range and one of its choices, as far
                as these are known; else only its type counts.

        Raises:
            UnknownKnobError: There is no such knob; carries the nearest names.
            KnobValueError: A value is of the wrong type, out of range, or none of the choices.
            WorkflowError: Several nodes have the title that a name names.
        """
        graph: dict[str, Any] = dict(self.graph)
        for name, value in values.items():
            knob = self.knob(name)
            checked = self._checked(knob, value) if ranges else knob.fit(value)
            node = graph[knob.node]
            inputs = dict.fromkeys((knob.input, *knob.also), checked)
            # Untouched nodes stay the same objects: canonical forms are reused by that.
            graph[knob.node] = {**node, "inputs": {**node["inputs"], **inputs}}
        return replace(self, graph=graph)

    def _checked(self, knob: Knob, value: Any) -> Any:
        """Return a value as a knob takes it; an old list of choices refuses nothing by itself."""
        with contextlib.suppress(KnobValueError):
            return knob.check(value)
        fitted = knob.fit(value)
        if self._ask is None:
            return knob.check(value)
        fresh = self._ask()
        if fresh is None:  # nobody answers: whoever sends it will check it then
            return fitted
        place = Place(knob.node, (knob.input, *knob.also))
        return make_knob(self.graph, knob.name, place, fresh).check(value)

    @cached_property
    def _aliases(self) -> Mapping[str, list[Place]]:
        return find_aliases(self.graph)

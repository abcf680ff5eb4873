"""What POST /prompt refuses, in ComfyUI's own words.

Types, texts and keys are those recorded from ComfyUI 0.3.75 (tests/engine/transcripts,
http_prompt.jsonl). Values are coerced in place as there: "33" and 33.9 become 33 for an INT.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfynb.engine.files import Files
from comfynb.engine.registry import Input, Node, Registry

LONGEST_QUOTED_LIST = 20
"""Choices that an error quotes; longer lists are only counted."""

Error = dict[str, Any]

_COERCE: dict[str, Callable[[Any], Any]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}


def error(kind: str, message: str, details: str = "", **extra_info: Any) -> Error:
    """Return an error as ComfyUI words it."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


class RefusedPromptError(Exception):
    """Nothing of a prompt can run.

    Attributes:
        error: `{type, message, details, extra_info}`.
        node_errors: By node id.
    """

    def __init__(self, error: Error, node_errors: dict[str, Any] | None = None) -> None:
        super().__init__(error["message"])
        self.error = error
        self.node_errors = node_errors or {}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What of a prompt can run.

    Attributes:
        outputs: Ids of the output nodes to run.
        node_errors: Of outputs that cannot; they are left out.
    """

    outputs: list[str]
    node_errors: dict[str, Any]


def validate(
    graph: Any,
    registry: Registry,
    files: Files,
    targets: Sequence[str] | None = None,
) -> Accepted:
    """Check a graph and coerce its values in place.

    Args:
        graph: An API-format graph, as parsed from JSON; another value raises what Python raises.
        registry: The node classes.
        files: The folders, for lists of files.
        targets: Run only these output nodes; None: all.

    Raises:
        RefusedPromptError: If nothing of it can run.
    """
    # ComfyUI looks into whatever it is given: an empty list or text is a graph without outputs.
    empty = isinstance(graph, list | str) and not graph
    outputs = [] if empty else _outputs(graph, registry, targets)
    if not outputs:
        raise RefusedPromptError(error("prompt_no_outputs", "Prompt has no outputs"))
    check = _Check(graph, registry, files)
    good: list[str] = []
    details: list[str] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        if check.output(output):
            good.append(output)
            continue
        own = check.reasons.get(output, [])
        details += [f"{reason['message']}: {reason['details']}" for reason in own]
        for node_id in check.behind(output):
            if reasons := check.reasons.get(node_id):
                entry = node_errors.setdefault(
                    node_id,
                    {
                        "errors": reasons,
                        "dependent_outputs": [],
                        "class_type": graph[node_id]["class_type"],
                    },
                )
                entry["dependent_outputs"].append(output)
    if not good:
        failed = error(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            "\n".join(details),
        )
        raise RefusedPromptError(failed, node_errors)
    return Accepted(good, node_errors)


def _outputs(graph: dict[str, Any], registry: Registry, targets: Sequence[str] | None) -> list[str]:
    outputs: list[str] = []
    for node_id, entry in graph.items():
        where = f"Node ID '#{node_id}'"
        if "class_type" not in entry:
            text = "Cannot execute because a node is missing the class_type property."
            raise RefusedPromptError(error("invalid_prompt", text, where))
        node = registry.get(entry["class_type"])
        if node is None:
            text = f"Cannot execute because node {entry['class_type']} does not exist."
            raise RefusedPromptError(error("invalid_prompt", text, where))
        if node.output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    return outputs


@dataclass
class _Check:
    """The walk from outputs to inputs; each node is checked once."""

    graph: dict[str, Any]
    registry: Registry
    files: Files
    reasons: dict[str, list[Error]] = field(default_factory=dict)
    _valid: dict[str, bool] = field(default_factory=dict)
    _sources: dict[str, list[str]] = field(default_factory=dict)

    def output(self, node_id: str) -> bool:
        """Check an output node and all that it needs."""
        try:
            return self._node(node_id)
        except Exception as problem:  # noqa: BLE001 - a graph may be malformed in any way
            self._fault(
                node_id, "exception_during_validation", "Exception when validating node", problem
            )
            return False

    def behind(self, output: str) -> list[str]:
        """Return an output node and all that were checked because of it, each once."""
        found = {output: None}
        waiting = [output]
        while waiting:
            for source in self._sources.get(waiting.pop(), ()):
                if source not in found:
                    found[source] = None
                    waiting.append(source)
        return list(found)

    def _node(self, node_id: str) -> bool:
        if node_id in self._valid:
            return self._valid[node_id]
        self._valid[node_id] = False  # for a cycle: refused without a reason, as ComfyUI does
        entry = self.graph[node_id]
        node = self.registry[entry["class_type"]]
        given: dict[str, Any] = entry["inputs"]
        reasons: list[Error] = []
        valid = True
        for item in node.inputs:
            if item.name not in given:
                if not item.optional:
                    reasons.append(
                        error(
                            "required_input_missing",
                            "Required input is missing",
                            item.name,
                            input_name=item.name,
                        )
                    )
            elif isinstance(given[item.name], list):
                valid &= self._link(node_id, item, given[item.name], reasons)
            else:
                self._literal(node, item, given, reasons)
        if node.check is not None:
            literals = {n: v for n, v in given.items() if not isinstance(v, list)}
            if problem := node.check(self.files, literals):
                name, text = problem
                reasons.append(
                    error(
                        "custom_validation_failed",
                        "Custom validation failed for node",
                        f"{name} - {text}",
                        input_name=name,
                    )
                )
        if reasons:
            self.reasons[node_id] = reasons
        self._valid[node_id] = valid and not reasons
        return self._valid[node_id]

    def _link(self, node_id: str, item: Input, link: list[Any], reasons: list[Error]) -> bool:
        """Check a linked input; False if the node behind it is not valid."""
        about = {"input_name": item.name, "input_config": item.spec(self.files)}
        if len(link) != 2:
            reasons.append(
                error(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    item.name,
                    **about,
                    received_value=link,
                )
            )
            return True
        source, slot = link
        # A link to nowhere raises here, and is reported for this node by the one that asked.
        received = self.registry[self.graph[source]["class_type"]].outputs[slot]
        if received != item.type:
            reasons.append(
                error(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{item.name}, received_type({received}) mismatch input_type({item.type})",
                    **about,
                    received_type=received,
                    linked_node=link,
                )
            )
            return True
        self._sources.setdefault(node_id, []).append(source)
        try:
            return self._node(source)
        except Exception as problem:  # noqa: BLE001 - as above
            self._fault(
                source,
                "exception_during_inner_validation",
                "Exception when validating inner node",
                problem,
                about=about,
                linked_node=link,
            )
            return False

    def _literal(
        self, node: Node, item: Input, given: dict[str, Any], reasons: list[Error]
    ) -> None:
        value = given[item.name]
        config = item.spec(self.files)
        about = {"input_name": item.name, "input_config": config, "received_value": value}
        if coerce := _COERCE.get(item.type):
            try:
                value = given[item.name] = coerce(value)
            except (TypeError, ValueError, OverflowError) as problem:
                reasons.append(
                    error(
                        "invalid_input_type",
                        f"Failed to convert an input value to a {item.type} value",
                        f"{item.name}, {value}, {problem}",
                        **about,
                        exception_message=str(problem),
                    )
                )
                return
        about["received_value"] = value
        least, most = item.options.get("min"), item.options.get("max")
        if least is not None and value < least:
            reasons.append(
                error(
                    "value_smaller_than_min",
                    f"Value {value} smaller than min of {least}",
                    item.name,
                    **about,
                )
            )
        elif most is not None and value > most:
            reasons.append(
                error(
                    "value_bigger_than_max",
                    f"Value {value} bigger than max of {most}",
                    item.name,
                    **about,
                )
            )
        choices = config[0]
        if isinstance(choices, list) and value not in choices and item.name not in node.checked:
            long = len(choices) > LONGEST_QUOTED_LIST
            quoted = f"(list of length {len(choices)})" if long else str(choices)
            about["input_config"] = None if long else config
            reasons.append(
                error(
                    "value_not_in_list",
                    "Value not in list",
                    f"{item.name}: '{value}' not in {quoted}",
                    **about,
                )
            )

    def _fault(
        self,
        node_id: str,
        kind: str,
        message: str,
        problem: Exception,
        *,
        about: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        extra = {
            **(about or {}),
            **({"exception_message": str(problem)} if about else {}),
            "exception_type": type(problem).__name__,
            "traceback": traceback.format_tb(problem.__traceback__),
            **more,
        }
        self.reasons[node_id] = [error(kind, message, str(problem), **extra)]

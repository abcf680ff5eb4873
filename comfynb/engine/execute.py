"""Run one prompt: its nodes one after another, in the worker thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from comfynb.engine.cache import OutputCache, signatures
from comfynb.engine.files import Files
from comfynb.engine.messages import EncodedImage
from comfynb.engine.order import Order, upstream
from comfynb.engine.queue import Job, Outcome
from comfynb.engine.registry import Blocked, NodeResult, Registry
from comfynb.engine.report import Report

if TYPE_CHECKING:
    from comfynb.engine.model import TinyScenes


class Interrupted(BaseException):
    """The prompt was interrupted. Not an Exception, so that no node swallows it."""


class Checkpoint:
    """The one checkpoint, loaded when it is first needed.

    Loading it imports onnxruntime, which costs more than starting the server.
    """

    NAME = "tiny-scenes.onnx"

    def __init__(self, threads: int | None = None) -> None:
        """Load nothing yet.

        Args:
            threads: For onnxruntime; None: the model's default.
        """
        self._threads = threads
        self._model: TinyScenes | None = None
        self._loading = Lock()

    def load(self) -> TinyScenes:
        """Return the model. Thread-safe; the first call takes about half a second."""
        with self._loading:
            if self._model is None:
                from comfynb.engine.model import TinyScenes  # noqa: PLC0415 - see above

                self._model = TinyScenes(threads=self._threads)
            return self._model

    def warm_up(self) -> None:
        """Load everything that a first picture needs, by making a very small one."""
        model = self.load()
        nothing = model.conditioning("")
        latent = model.sample(model.empty_latent(64, 64), nothing, nothing, seed=0, steps=1)
        model.decode(latent)

    def unload(self) -> None:
        """Give its memory back; the next `load` loads it again."""
        with self._loading:
            self._model = None


@dataclass(frozen=True, slots=True)
class Call:
    """What a node is told beside its inputs.

    Attributes:
        node_id: Its id in the graph.
        graph: The whole graph.
        extra_pnginfo: Goes into PNG files beside the graph; from the request's extra_data.
        files: The server's folders.
        previews: Whether to make latent previews.
    """

    node_id: str
    graph: Mapping[str, Any]
    extra_pnginfo: Mapping[str, Any]
    files: Files
    previews: bool
    _load: Callable[[], TinyScenes]
    _report: Report
    _registry: Registry
    _results: Mapping[str, NodeResult]

    def model(self) -> TinyScenes:
        """Return the checkpoint, loaded."""
        return self._load()

    @property
    def watched(self) -> bool:
        """Whether a preview would reach anybody and is wanted at all."""
        return self.previews and self._report.watched

    def check(self) -> None:
        """Stop here if the prompt was interrupted.

        Raises:
            Interrupted: It was.
        """
        if self._report.job.interrupted.is_set():
            raise Interrupted

    def progress(self, value: int, total: int, image: EncodedImage | None = None) -> None:
        """Report step `value` of `total`; long nodes call this often.

        Raises:
            Interrupted: The prompt was interrupted.
        """
        self.check()
        self._report.progress(self.node_id, value, total, image)

    def text(self, text: str) -> None:
        """Send a line of text to the client."""
        self._report.text(self.node_id, text)

    def upstream(self, class_type: str) -> list[tuple[Any, ...]]:
        """Return the outputs of all nodes of a class that this node depends on."""
        return [
            self._results[node_id].outputs
            for node_id in upstream(self.graph, self._registry, self.node_id)
            if self.graph[node_id]["class_type"] == class_type and node_id in self._results
        ]


class Executor:
    """Runs prompts and keeps the results of the last one."""

    def __init__(
        self, registry: Registry, files: Files, checkpoint: Checkpoint, *, previews: bool = True
    ) -> None:
        self.registry = registry
        self.files = files
        self.checkpoint = checkpoint
        self.previews = previews
        self.cache = OutputCache()

    def run(self, job: Job, report: Report) -> Outcome:
        """Run a prompt to its end, whatever that is; a node's error is an outcome, not raised."""
        run = _Run(self, job, report)
        report.started()
        run.find_known()
        success = run.run_nodes()
        if success:
            report.succeeded()
        return Outcome(success, run.shown, run.meta, report.history)


class _Run:
    """One prompt on its way through the executor."""

    def __init__(self, executor: Executor, job: Job, report: Report) -> None:
        self._executor = executor
        self._registry = executor.registry
        self._cache = executor.cache
        self._job = job
        self._report = report
        self._results: dict[str, NodeResult] = {}
        self._signatures: dict[str, str] = {}
        self._executed: list[str] = []
        self.shown: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}

    def find_known(self) -> None:
        """Look up what is known already, and tell."""
        self._signatures = signatures(self._job.graph, self._registry, self._executor.files)
        self._cache.keep(self._signatures)
        for node_id, signature in self._signatures.items():
            result = self._cache.get(signature)
            if result is not None:
                self._results[node_id] = result
        self._report.cached(list(self._results))

    def run_nodes(self) -> bool:
        """Visit the nodes in order; say whether all went well."""
        order = Order(self._job.graph, self._registry, self._results.__contains__)
        for output in self._job.outputs:
            order.add(output)
        while (node_id := order.take()) is not None:
            if not self._visit(node_id):
                return False
            order.done(node_id)
        return True

    def _visit(self, node_id: str) -> bool:
        signature = self._signatures.get(node_id)
        known = self._results.get(node_id) or self._cache.get(signature)
        if known is not None:
            self._results[node_id] = known
            # ComfyUI's history lists the outputs of a cached node only for prompts that have a
            # client id (measured, http_prompt).
            if self._job.client_id is not None:
                self._show(node_id, known.ui)
            self._report.known(node_id, known.ui)
            return True
        inputs: dict[str, Any] = {}
        try:
            self._report.running(node_id)
            inputs = self._inputs(node_id)
            result = self._call(node_id, inputs)
            if result.ui is not None:
                self._report.executed(node_id, result.ui)
        except Interrupted:
            self._report.interrupted(node_id, self._executed)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a node raises is its outcome
            self._report.failed(node_id, self._executed, inputs, error)
            return False
        self._show(node_id, result.ui)
        self._report.finished(node_id)
        self._executed.append(node_id)
        self._results[node_id] = result
        self._cache.put(signature, result)
        return True

    def _inputs(self, node_id: str) -> dict[str, Any]:
        given = self._job.graph[node_id]["inputs"]
        node = self._registry[self._job.graph[node_id]["class_type"]]
        inputs: dict[str, Any] = {}
        for item in node.inputs:
            if item.name in given:
                value = given[item.name]
                if isinstance(value, list):
                    value = self._results[value[0]].outputs[value[1]]
                inputs[item.name] = value
        return inputs

    def _call(self, node_id: str, inputs: dict[str, Any]) -> NodeResult:
        node = self._registry[self._job.graph[node_id]["class_type"]]
        block = next((value for value in inputs.values() if isinstance(value, Blocked)), None)
        if block is not None:
            if block.message is not None:  # told once; the nodes behind are blocked silently
                self._report.blocked(node_id, self._executed, block)
            return NodeResult((Blocked(None),) * len(node.outputs))
        call = Call(
            node_id,
            self._job.graph,
            self._job.extra_data.get("extra_pnginfo") or {},
            self._executor.files,
            self._executor.previews,
            self._executor.checkpoint.load,
            self._report,
            self._registry,
            self._results,
        )
        call.check()
        result = node.function(call, **inputs)
        return result if isinstance(result, NodeResult) else NodeResult(result)

    def _show(self, node_id: str, ui: dict[str, Any] | None) -> None:
        if ui is not None:
            self.shown[node_id] = ui
            self.meta[node_id] = {
                "node_id": node_id,
                "display_node": node_id,
                "parent_node": None,
                "real_node_id": node_id,
            }

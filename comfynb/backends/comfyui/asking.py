"""What a server knows of prompts: its queue, its history, and its jobs where it has them.

The order matters: a prompt leaves the queue for the history in one locked step of the server. So
/queue is asked first and /history after it; the other way round a prompt that ends in between is
in neither (measured, ComfyUI 0.3.75: 0 wrong verdicts of 300 this way, 158 the other way). GET
/api/jobs/{id} answers both in one small piece, where a long queue of strangers weighs megabytes;
it came after 0.3.75 (upstream pull request 11054), and whether it is there is found out by asking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from comfynb.backends.comfyui.http import Http
from comfynb.backends.comfyui.releases import MARK, Release
from comfynb.errors import ServerError, WorkflowError
from comfynb.workflows.graph import parse_graph


@dataclass(frozen=True, slots=True)
class Found:
    """A prompt that a server has.

    Attributes:
        id: Its id there: ours, but on a server that chooses by itself.
        graph: What it was, or {} where the server does not say.
    """

    id: str
    graph: Mapping[str, Any]


class Asking:
    """Asks one server about prompts.

    Attributes:
        release: Of the server; decides by which id prompts are found.
    """

    def __init__(self, http: Http) -> None:
        self.release = Release()
        self._http = http
        self._has_jobs: bool | None = None

    async def queue(self) -> tuple[set[str], set[str]]:
        """Return the ids of what runs and of what waits."""
        answer = await self._http.get_json("/queue")
        running, pending = (
            {str(item[1]) for item in _items(answer, key)}
            for key in ("queue_running", "queue_pending")
        )
        return running, pending

    async def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """Return how a prompt ended, or None where it has not."""
        answer = await self._http.get_json(f"/history/{quote(prompt_id, safe='')}")
        entry = answer.get(prompt_id) if isinstance(answer, dict) else None
        return entry if isinstance(entry, dict) else None

    async def find(self, prompt_id: str) -> Found | None:
        """Look for a prompt by the id that we chose, wherever it stands.

        Raises:
            BackendError: The server cannot be asked.
        """
        if not self.release.takes_ids:
            return await self._find_by_mark(prompt_id)
        if self._has_jobs is not False:
            job = await self._job(prompt_id)
            if job is not None:
                workflow = job.get("workflow")
                graph = workflow.get("prompt") if isinstance(workflow, dict) else None
                return Found(prompt_id, _graph(graph))
            if self._has_jobs:
                return None
        answer = await self._http.get_json("/queue")
        for key in ("queue_running", "queue_pending"):
            for item in _items(answer, key):
                if item[1] == prompt_id:
                    return Found(prompt_id, _graph(item[2]))
        entry = await self.history(prompt_id)
        if entry is None:
            return None
        sent = next(_items({"sent": [entry.get("prompt")]}, "sent"), None)
        return Found(prompt_id, {} if sent is None else _graph(sent[2]))

    async def _job(self, prompt_id: str) -> Mapping[str, Any] | None:
        try:
            job = await self._http.get_json(f"/api/jobs/{quote(prompt_id, safe='')}")
        except ServerError as exc:
            if exc.status != 404:
                raise
            # An unknown job, or an unknown path: both are 404.
            self._has_jobs = self._has_jobs or await self._lists_jobs()
            return None
        self._has_jobs = isinstance(job, dict) and job.get("id") == prompt_id
        return job if self._has_jobs else None

    async def _lists_jobs(self) -> bool:
        try:
            answer = await self._http.get_json("/api/jobs", {"limit": "1"})
        except ServerError:
            return False
        return isinstance(answer, dict) and isinstance(answer.get("jobs"), list)

    async def _find_by_mark(self, prompt_id: str) -> Found | None:
        """Look through all that a server has which chose its ids by itself."""
        answer = await self._http.get_json("/queue")
        items = [*_items(answer, "queue_running"), *_items(answer, "queue_pending")]
        history = await self._http.get_json("/history")
        entries = history.values() if isinstance(history, dict) else ()
        ended = [entry.get("prompt") for entry in entries if isinstance(entry, dict)]
        for item in (*items, *_items({"ended": ended}, "ended")):
            extra_data = item[3] if len(item) > 3 else None
            if isinstance(extra_data, dict) and extra_data.get(MARK) == prompt_id:
                return Found(str(item[1]), _graph(item[2]))
        return None


def _items(answer: object, key: str) -> Iterator[list[Any]]:
    """Yield what a list in an answer has: [number, prompt id, graph, extra data, outputs]."""
    items = answer.get(key) if isinstance(answer, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(item, list) and len(item) > 1:
            yield item if len(item) > 2 else [*item, None]


def _graph(graph: object) -> Mapping[str, Any]:
    try:
        return parse_graph(graph)
    except WorkflowError:  # not as we sent it; the caller knows what that was
        return {}

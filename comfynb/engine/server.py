"""The routes, each also under /api/, and what they answer.

Answers, statuses and their oddities are ComfyUI 0.3.75's (measured, http_*.jsonl): commands answer
200 with an empty body, malformed input is 500 in plain text, an unknown id is 200 `{}`.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from comfynb.engine import access, messages, transfer
from comfynb.engine.execute import Checkpoint, Executor
from comfynb.engine.files import Files
from comfynb.engine.queue import Chores, Job, PromptQueue, now_ms
from comfynb.engine.registry import Registry
from comfynb.engine.sockets import Client, Frame, Sockets
from comfynb.engine.stats import system_stats
from comfynb.engine.transfer import TROUBLE
from comfynb.engine.validate import RefusedPromptError, error, validate
from comfynb.engine.worker import Worker, status, tell_status

MAX_BODY = 100 * 2**20
"""Bytes of a request's body; larger ones are answered 413."""

FEATURES = {"supports_preview_metadata": True, "max_upload_size": MAX_BODY}

SECRETS = ("api_key_comfy_org", "auth_token_comfy_org")
"""Keys of extra_data that are never shown again."""

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """One engine: its queue, its worker, its sockets and the routes to them."""

    def __init__(
        self,
        registry: Registry,
        files: Files,
        checkpoint: Checkpoint,
        *,
        token: str = "",
        previews: bool = True,
    ) -> None:
        """Put an engine together; it works once its `app` runs.

        Args:
            registry: The node classes.
            files: The folders.
            checkpoint: The model.
            token: Demanded of every request; empty: none is.
            previews: Whether KSampler sends latent previews.
        """
        self.registry = registry
        self.files = files
        self.checkpoint = checkpoint
        self.queue = PromptQueue()
        self._executor = Executor(registry, files, checkpoint, previews=previews)
        self._sockets: Sockets
        self._worker: Worker
        checks = [access.refuse_other_origins, *([access.require_token(token)] if token else [])]
        self.app = web.Application(middlewares=checks, client_max_size=MAX_BODY)
        self.app.on_startup.append(self._start)
        self.app.on_shutdown.append(self._stop)
        self._add_routes()

    async def _start(self, _app: web.Application) -> None:
        self._sockets = Sockets()
        self._worker = Worker(self.queue, self._executor, self._sockets)
        self._worker.start()

    async def _stop(self, _app: web.Application) -> None:
        self.queue.close()
        await self._sockets.close()
        await asyncio.to_thread(self._worker.join, 2.0)

    def _add_routes(self) -> None:
        routes: list[tuple[str, str, Route]] = [
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/features", self._features),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/models", self._models),
            ("GET", "/models/{folder}", self._models_of),
            ("GET", "/embeddings", self._nothing),
            ("GET", "/extensions", self._nothing),
            ("GET", "/prompt", self._remaining),
            ("POST", "/prompt", self._submit),
            ("GET", "/queue", self._list_queue),
            ("POST", "/queue", self._edit_queue),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
            ("GET", "/history", self._list_history),
            ("GET", "/history/{prompt_id}", self._history_of),
            ("POST", "/history", self._edit_history),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("GET", "/ws", self._socket),
        ]
        for method, path, handler in routes:
            for prefix in ("", "/api"):
                self.app.router.add_route(method, prefix + path, handler)
                if path == "/view":
                    self.app.router.add_route("HEAD", prefix + path, handler)
        # ComfyUI serves static files below "/": an unknown path is an empty 404 for GET and 405
        # for anything else.
        for method in ("GET", "HEAD"):
            self.app.router.add_route(method, "/{path:.*}", self._unknown)

    # Information

    async def _system_stats(self, _request: web.Request) -> web.Response:
        return web.json_response(system_stats())

    async def _features(self, _request: web.Request) -> web.Response:
        return web.json_response(FEATURES)

    async def _object_info(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        nodes = [node for node in self.registry if name in (None, node.name)]

        def describe() -> dict[str, Any]:  # lists folders, so not on the loop
            return {node.name: node.info(self.files) for node in nodes}

        return web.json_response(await asyncio.to_thread(describe))

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response(["checkpoints"])

    async def _models_of(self, request: web.Request) -> web.Response:
        if request.match_info["folder"] != "checkpoints":
            return web.Response(status=404)
        return web.json_response([Checkpoint.NAME])

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.json_response([])

    async def _unknown(self, _request: web.Request) -> web.Response:
        return web.Response(status=404, content_type="application/octet-stream")

    # Prompts

    async def _remaining(self, _request: web.Request) -> web.Response:
        return web.json_response(status(self.queue)["status"])

    async def _submit(self, request: web.Request) -> web.Response:
        body = await _json(request)
        try:
            return self._put(body)
        except RefusedPromptError as refused:
            answer = {"error": refused.error, "node_errors": refused.node_errors}
            return web.json_response(answer, status=400)
        except (AttributeError, TypeError, ValueError) as problem:
            raise web.HTTPInternalServerError(text=TROUBLE) from problem

    def _put(self, body: Any) -> web.Response:
        if isinstance(body, list | str):  # no place for a prompt in it
            body = {}
        if "number" in body:
            number = float(body["number"])
        else:
            number = self.queue.next_number()
            if body.get("front"):
                number = -number
        if "prompt" not in body:
            text = "No prompt provided"
            raise RefusedPromptError(error("no_prompt", text, text))
        graph = body["prompt"]
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        accepted = validate(graph, self.registry, self.files, body.get("partial_execution_targets"))
        extra_data = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        for key in SECRETS:
            extra_data.pop(key, None)
        extra_data["create_time"] = now_ms()
        self.queue.put(Job(number, prompt_id, graph, extra_data, accepted.outputs))
        tell_status(self.queue, self._sockets)
        answer = {
            "prompt_id": prompt_id,
            "number": number,
            "node_errors": accepted.node_errors,
        }
        return web.json_response(answer)

    async def _list_queue(self, _request: web.Request) -> web.Response:
        running, pending = self.queue.listing()
        listing = {
            "queue_running": [job.to_item() for job in running],
            "queue_pending": [job.to_item() for job in pending],
        }
        return web.json_response(listing)

    async def _edit_queue(self, request: web.Request) -> web.Response:
        body = await _commands(request)
        if body.get("clear"):
            self.queue.clear()
            tell_status(self.queue, self._sockets)
        if "delete" in body and self.queue.delete(_iterable(body["delete"])):
            tell_status(self.queue, self._sockets)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError:  # nothing, or not JSON: ComfyUI takes both for "whatever runs"
            body = {}
        if not isinstance(body, dict):
            raise web.HTTPInternalServerError(text=TROUBLE)
        self.queue.interrupt(body.get("prompt_id") or None)
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        body = await _json(request, dict)
        self.queue.free(Chores(bool(body.get("unload_models")), bool(body.get("free_memory"))))
        return web.Response()

    # History

    async def _list_history(self, request: web.Request) -> web.Response:
        try:
            max_items = request.query.get("max_items")
            text = self.queue.history(
                max_items=None if max_items is None else int(max_items),
                offset=int(request.query.get("offset", -1)),
            )
        except ValueError:
            raise web.HTTPInternalServerError(text=TROUBLE) from None
        return web.json_response(text=text)

    async def _history_of(self, request: web.Request) -> web.Response:
        return web.json_response(text=self.queue.history_of(request.match_info["prompt_id"]))

    async def _edit_history(self, request: web.Request) -> web.Response:
        body = await _commands(request)
        if body.get("clear"):
            self.queue.forget(None)
        if "delete" in body:
            self.queue.forget(_iterable(body["delete"]))
        return web.Response()

    # Files

    async def _view(self, request: web.Request) -> web.StreamResponse:
        return await transfer.view(request, self.files)

    async def _upload(self, request: web.Request) -> web.Response:
        return await transfer.upload(request, self.files)

    # The socket

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        assert request.transport is not None, "a prepared socket has one"
        client = Client(socket, hang_up=request.transport.abort)
        client.put(Frame(messages.event("status", {**status(self.queue), "sid": client_id})))
        report = self._worker.report
        if report is not None and report.job.client_id == client_id and report.node is not None:
            client.put(Frame(messages.event("executing", {"node": report.node})))
        self._sockets.add(client_id, client)
        sending = asyncio.create_task(client.send_all())
        try:
            await client.listen(FEATURES)
        finally:
            self._sockets.remove(client_id, client)
            sending.cancel()
        return socket


async def _json(request: web.Request, kind: type | None = None) -> Any:
    """Return a request's body; the Content-Type is ignored, as in ComfyUI."""
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise web.HTTPInternalServerError(text=TROUBLE) from None
    if kind is not None and not isinstance(body, kind):
        raise web.HTTPInternalServerError(text=TROUBLE)
    return body


async def _commands(request: web.Request) -> dict[str, Any]:
    """Return what to do; a list or a text that names no command is none, as in ComfyUI."""
    body = await _json(request)
    if isinstance(body, list | str) and "clear" not in body and "delete" not in body:
        return {}
    if not isinstance(body, dict):
        raise web.HTTPInternalServerError(text=TROUBLE)
    return body


def _iterable(value: Any) -> Any:
    if not isinstance(value, list | str | dict):
        raise web.HTTPInternalServerError(text=TROUBLE)
    return value

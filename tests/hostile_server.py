"""A real server on a thread of its own that speaks ComfyUI's protocol as badly as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from fake_servers import STATS

NOTHING = {"queue_running": [], "queue_pending": []}
NODE_TYPES = {
    name: {"input": {"required": inputs}, "output": outputs, "output_node": not outputs}
    for name, inputs, outputs in (
        ("Words", {"text": ["STRING", {}]}, ["STRING"]),
        ("Noise", {"text": ["STRING", {}], "seed": ["INT", {}]}, ["IMAGE"]),
        ("SaveImage", {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, []),
    )
}


@dataclass
class Manners:
    """How it behaves towards one client.

    Texts and frames that hold `"p"` as a JSON text are about the client's own prompt.

    Attributes:
        answers: Route -> status, body, headers; other routes are answered well.
        frames: Sent once a prompt was taken.
        ends: Whether the usual end of a prompt follows them.
        cuts: Whether the socket breaks after that.
        file: What any file is.
    """

    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    frames: list[str | bytes] = field(default_factory=list)
    ends: bool = True
    cuts: bool = False
    file: bytes = b""


class HostileServer:
    """Serves on loopback while it is open; `manners` may be changed between two clients."""

    def __init__(self) -> None:
        self.manners = Manners()
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _main(self) -> None:
        server = web.Server(self._answer)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._ready.set()
        await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/ws":
            return await self._listen(request)
        body = await request.read()
        route = "/" + request.path.split("/")[1]
        prompt_id = request.path.rpartition("/")[2] if route == "/history" else ""
        if route == "/prompt":
            prompt_id = self._take(body)
        if route not in self.manners.answers:
            return self._good(route, prompt_id)
        status, data, headers = self.manners.answers[route]
        data = data.replace(b'"p"', json.dumps(prompt_id).encode())
        return web.Response(status=status, body=data, headers=headers)

    def _good(self, route: str, prompt_id: str) -> web.Response:
        answers: dict[str, Any] = {
            "/system_stats": STATS,
            "/queue": NOTHING,
            "/history": {},
            "/object_info": NODE_TYPES,
            "/prompt": {"prompt_id": prompt_id, "number": 1, "node_errors": {}},
        }
        if route == "/view":
            return web.Response(body=self.manners.file)
        return web.json_response(answers.get(route, {}))

    def _take(self, body: bytes) -> str:
        prompt = json.loads(body)
        task = asyncio.ensure_future(self._talk(prompt["client_id"], prompt["prompt_id"]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return str(prompt["prompt_id"])

    async def _listen(self, request: web.BaseRequest) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self._sockets[request.query["clientId"]] = socket
        await socket.send_str(json.dumps({"type": "status", "data": {"sid": "x"}}))
        async for _ in socket:
            pass
        return socket

    async def _talk(self, client_id: str, prompt_id: str) -> None:
        socket, manners = self._sockets.get(client_id), self.manners
        if socket is None:
            return
        file = {"filename": "a.png", "subfolder": "", "type": "output"}
        end = {"prompt_id": prompt_id, "node": "9", "output": {"images": [file]}}
        frames = list(manners.frames)
        if manners.ends:
            frames += [
                json.dumps({"type": "executed", "data": end}),
                json.dumps({"type": "executing", "data": {"prompt_id": prompt_id, "node": None}}),
            ]
        with contextlib.suppress(OSError, RuntimeError):
            for frame in frames:
                if isinstance(frame, bytes):
                    await socket.send_bytes(frame.replace(b'"p"', json.dumps(prompt_id).encode()))
                else:
                    await socket.send_str(frame.replace('"p"', json.dumps(prompt_id)))
            if manners.cuts and socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

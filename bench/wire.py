"""One web socket in the place of a kernel and a notebook server, and comms that go through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

from comm.base_comm import BaseComm
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.datastructures import Headers


class Link:
    """The server of one page at a time: gives it its HTML, then a socket.

    Attributes:
        host: Address and port.
        page: The HTML.
        comm: Of the grid that the page shows.
    """

    def __init__(self) -> None:
        self.host = self.page = ""
        self.comm: BaseComm | None = None
        self._loop = asyncio.get_running_loop()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._painted: dict[int | str, asyncio.Future[None]] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        serving = serve(self._talk, "127.0.0.1", 0, compression=None, process_request=self._answer)
        async with serving as server:
            self.host = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            yield self

    def post(self, head: dict[str, Any], buffers: Sequence[bytes]) -> None:
        """Send a message; from any thread, returns at once."""
        sizes = [len(buffer) for buffer in buffers]
        text = json.dumps({**head, "sizes": sizes}).encode()
        message = b"".join([struct.pack("<I", len(text)), text, *buffers])
        self._loop.call_soon_threadsafe(self._out.put_nowait, message)

    def painted(self, name: int | str) -> asyncio.Future[None]:
        """Return what is done once the page has painted this."""
        return self._painted.setdefault(name, self._loop.create_future())

    def forget(self) -> None:
        """Begin with another page."""
        self._out = asyncio.Queue()
        self._painted.clear()
        self.comm = None

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        if request.path == "/socket":
            return None
        body = self.page.encode()
        headers = Headers({"Content-Type": "text/html", "Content-Length": str(len(body))})
        return Response(200, "OK", headers, body)

    async def _talk(self, socket: ServerConnection) -> None:
        sending = asyncio.create_task(self._send(socket))
        async for text in socket:
            said = json.loads(text)
            if "painted" in said:
                future = self.painted(said["painted"])
                if not future.done():
                    future.set_result(None)
            elif self.comm is not None:
                data = {"method": "custom", "content": said["content"]}
                self.comm.handle_msg({"content": {"data": data}, "buffers": []})
        sending.cancel()

    async def _send(self, socket: ServerConnection) -> None:
        while True:
            await socket.send(await self._out.get())


class SocketComm(BaseComm):
    """The comm of a grid."""

    def __init__(self, link: Link, **options: Any) -> None:
        self._link = link
        super().__init__(**options)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys) -> None:  # noqa: ARG002
        if msg_type == "comm_msg" and data["method"] == "custom":
            self._link.post({"content": data["content"]}, buffers or [])

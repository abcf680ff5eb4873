"""The yardstick: the plainest client that draws the same, and keeps nothing.

One prompt at a time: POST /prompt, wait for `executed`, GET /view, wait for executing(null). No
log, no disk, no checks, no recovery. Its connections stay open, as comfynb's do.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Self

import httpx
import websockets.asyncio.client


class RawLoop:
    """An httpx client and a socket under one client id.

    Attributes:
        waits: Milliseconds from `executed` to the bytes, of each picture since last cleared.
    """

    def __init__(self, url: str) -> None:
        self.client_id = uuid.uuid4().hex
        self.url = url
        self.waits: list[float] = []

    async def __aenter__(self) -> Self:
        self.http = httpx.AsyncClient(base_url=self.url, trust_env=False, verify=False)
        self.socket = await websockets.asyncio.client.connect(
            f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self.client_id}",
            max_size=None,
            compression=None,
            proxy=None,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
        await self.http.aclose()

    async def draw(self, graph: dict) -> list[bytes]:
        """Run a graph; return its pictures once the prompt has left the worker."""
        body = {"prompt": graph, "client_id": self.client_id}
        answer = await self.http.post("/prompt", json=body)
        prompt_id = answer.raise_for_status().json()["prompt_id"]
        pictures = []
        async for frame in self.socket:
            if isinstance(frame, bytes):
                continue
            message = json.loads(frame)
            data = message["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            if message["type"] == "executed":
                heard = time.perf_counter()
                for image in data["output"]["images"]:
                    answer = await self.http.get("/view", params=image)
                    pictures.append(answer.raise_for_status().content)
                    self.waits.append((time.perf_counter() - heard) * 1000)
            elif message["type"] == "executing" and data["node"] is None:
                break
        return pictures

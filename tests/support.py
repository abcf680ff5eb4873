"""What tests share: real engines as processes, quick workflows, waiting for conditions."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as ws_connect

from comfynb import loop, stores
from comfynb.backends.comfyui import Address, ComfyUIBackend
from comfynb.servers import lanes
from comfynb.studio import Studio
from comfynb.testing import EngineProcess
from comfynb.workflows import Workflow

NODES = Path(__file__).parent / "nodes.py"
CHECKPOINT = "tiny-scenes.onnx"


class Server:
    """What the tests ask of a server, whichever it is; it can be killed and started again."""

    process: subprocess.Popen[bytes]

    def __init__(self, token: str = "") -> None:
        self.token = token
        # One for all questions, since making one takes 20 ms; without connections that outlive
        # the question, which a killed server would break.
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=False,
        )
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as before; ready when this returns."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self._reap()

    def restart(self) -> None:
        """Kill it and start it again; it has forgotten its queue and its history."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End it in order."""
        raise NotImplementedError

    def _reap(self) -> None:
        self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process.poll() is None

    def get(self, path: str):
        return self._http.get(self.url + path).json()

    def get_bytes(self, path: str, **query: str) -> bytes:
        answer = self._http.get(self.url + path, params=query)
        answer.raise_for_status()
        return answer.content

    def post(self, path: str, body: dict):
        answer = self._http.post(self.url + path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def prompts(self) -> set[str]:
        """Ids of the prompts that run or wait."""
        queue = self.get("/queue")
        return {item[1] for item in queue["queue_running"] + queue["queue_pending"]}

    def ended(self) -> set[str]:
        """Ids of the prompts that have ended since it was started."""
        return set(self.get("/history"))

    def quiet(self) -> None:
        """End all its prompts, whosever they are."""

        def is_empty() -> bool:
            self.post("/queue", {"clear": True})
            self.post("/interrupt", {})  # again: one in the first moment of a prompt is lost
            return not self.prompts()

        if self.prompts():
            wait_for(is_empty)

    def post_graph(self, graph: Mapping, *, client_id: str = "") -> str:
        """Send a graph as a client of its own does; return the prompt's id."""
        prompt_id = str(uuid.uuid4())
        plain = json.loads(json.dumps(graph, default=dict))
        self.post("/prompt", {"prompt": plain, "prompt_id": prompt_id, "client_id": client_id})
        return prompt_id


class Engine(EngineProcess, Server):
    """A stand-alone engine with the test nodes, which can be killed and started again."""

    def __init__(self, token: str = "") -> None:
        EngineProcess.__init__(self, token=token, nodes=NODES)
        Server.__init__(self, token)

    def post_prompt(self, *, client_id: str = "", **knobs) -> str:
        """Send a prompt as a client of its own does; return its id."""
        flow = Workflow.load(guarded_graph()).with_knobs({"checkpoint": CHECKPOINT, **knobs})
        return self.post_graph(flow.graph, client_id=client_id)


class Stranger(threading.Thread):
    """A client with a socket of its own on a thread of its own, that has nothing to do with us.

    Notes when each of its messages came.
    """

    def __init__(self, engine: Server) -> None:
        super().__init__(daemon=True)
        self.client_id = uuid.uuid4().hex
        self.heard: list[tuple[float, str, str | None]] = []
        """Time, type, prompt id."""
        self._url = f"{engine.url.replace('http', 'ws')}/ws?clientId={self.client_id}"
        self._socket: ClientConnection | None = None
        self.start()
        wait_for(lambda: self.heard)  # the first status: from here on it is told everything

    def run(self) -> None:
        with ws_connect(self._url, proxy=None, max_size=None) as self._socket:
            for frame in self._socket:
                if isinstance(frame, str):
                    body = json.loads(frame)
                    self.heard.append((time.time(), body["type"], body["data"].get("prompt_id")))

    def times(self, kind: str, prompt_id: str) -> list[float]:
        """When messages of a type about a prompt came; seconds since the epoch."""
        return [at for at, *what in self.heard if what == [kind, prompt_id]]

    def close(self) -> None:
        self._socket.close()
        self.join(10)


def studio_on(url: str, *, workflow, log, **options) -> Studio:
    """A studio on a lane of its own, whose backend takes `options` that `connect` has not."""
    key = ("test", url, object())
    lane = lanes.lane(key, lambda: ComfyUIBackend(Address.parse(url), **options))
    return Studio([lane], stores.hold(log), kind="comfyui", workflow=workflow)


def script(text: str, *arguments: object, errors: bool = False) -> subprocess.Popen[str]:
    """Run Python text that may import this module, in a process of its own."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if errors else None,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def tasks_on_our_loop() -> list[str]:
    """Names of the tasks on comfynb's own loop, but for the one that looks."""

    async def look() -> list[str]:
        return sorted(
            f"{task.get_name()}: {task.get_coro().__qualname__}"
            for task in asyncio.all_tasks()
            if task is not asyncio.current_task()
        )

    return loop.wait(look(), timeout=10)


def sockets_to(*ports: int) -> int:
    """How many open connections this process has to these ports of this machine."""
    return sum(
        bool(c.raddr) and c.raddr.port in ports and c.status == psutil.CONN_ESTABLISHED
        for c in psutil.Process().net_connections("tcp")
    )


def guarded_graph(*, seconds: float = 0.0, message: str = "", steps: int = 1) -> dict:
    """The library's txt2img at 64 pixels and one step (about 20 ms), a Guard before its end.

    Scenes turn the guard by the knobs "Guard.seconds" and "Guard.message".
    """
    graph = json.loads(json.dumps(dict(Workflow.load("txt2img").graph), default=dict))
    save = next(node for node in graph.values() if node["class_type"] == "SaveImage")
    graph["guard"] = {
        "class_type": "Guard",
        "inputs": {"image": save["inputs"]["images"], "seconds": seconds, "message": message},
        "_meta": {"title": "Guard"},
    }
    save["inputs"]["images"] = ["guard", 0]
    quick = {"width": 64, "height": 64, "steps": steps}
    return dict(Workflow.load(graph).with_knobs(quick).graph)


def scenes(count: int, first: int = 0, **knobs) -> list[dict]:
    """So many scenes, all different; from another `first` on, they are others."""
    words = ("fox", "owl", "whale", "castle", "robot", "rocket", "boat", "cat", "dog")
    return [
        {"prompt": f"a {words[i % len(words)]}", "seed": 1000 + first + i, "knobs": knobs}
        for i in range(count)
    ]


def wait_for(condition, timeout: float = 30.0) -> None:
    """Block until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {condition}"
        time.sleep(0.01)


async def until(condition, timeout: float = 30.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)

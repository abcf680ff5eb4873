"""What tests share: real engines as processes, quick workflows, waiting for conditions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx

from comfynb.workflows import Workflow

NODES = Path(__file__).parent / "nodes.py"


class Engine:
    """A stand-alone engine with the test nodes, which can be killed and started again."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as before; ready when this returns."""
        command = [sys.executable, "-m", "comfynb.engine", "--owned", "--threads", "1"]
        command += ["--nodes", str(NODES), "--port", str(self.port), "--token", self.token]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        hello = json.loads(self.process.stdout.readline())
        self.port = int(hello["url"].rpartition(":")[2])

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self._reap()

    def stop(self) -> None:
        """End it in order."""
        self.process.stdin.close()
        self._reap()

    def _reap(self) -> None:
        self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()

    def get(self, path: str):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.get(self.url + path, headers=headers, trust_env=False).json()

    def post(self, path: str, body: dict):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = httpx.post(self.url + path, json=body, headers=headers, trust_env=False)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def prompts(self) -> set[str]:
        """Ids of the prompts that run or wait."""
        queue = self.get("/queue")
        return {item[1] for item in queue["queue_running"] + queue["queue_pending"]}


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


def scenes(count: int, **knobs) -> list[dict]:
    """So many scenes, all different."""
    words = ("fox", "owl", "whale", "castle", "robot", "rocket", "boat", "cat", "dog")
    return [
        {"prompt": f"a {words[i % len(words)]}", "seed": 1000 + i, "knobs": knobs}
        for i in range(count)
    ]


def wait_for(condition, timeout: float = 15.0) -> None:
    """Block until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {condition}"
        time.sleep(0.01)


async def until(condition, timeout: float = 15.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)

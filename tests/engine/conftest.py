"""Engines to test against: in this process (`server`), and as a process of its own (`engine`).

Both are reached over real sockets. `server` is fresh for each test and fast to start; its state
can be waited for. `engine` is what users get; start others like it with `start_engine`.
"""

import asyncio
import contextlib
import importlib.util
import json
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from comfynb.engine.execute import Checkpoint
from comfynb.engine.files import Files
from comfynb.engine.nodes import builtin
from comfynb.engine.server import Server

HERE = Path(__file__).parent
TIMEOUT = 20.0


def load_probe_nodes():
    spec = importlib.util.spec_from_file_location("probe_nodes", HERE / "probe_nodes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def until(condition, what="condition", timeout=TIMEOUT):
    """Wait until `condition()` (sync or async) is true, and return its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"timeout: {what}"
        await asyncio.sleep(0.005)


class Socket:
    """A /ws connection that reads all the time; text frames become dicts, binary stay bytes."""

    def __init__(self, connection):
        self.connection = connection
        self.received = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        async for message in self.connection:
            is_text = message.type is aiohttp.WSMsgType.TEXT
            self.received.append(json.loads(message.data) if is_text else message.data)

    def events(self, kind=None):
        """The text frames without `status`, or those of one type."""
        texts = [m for m in self.received if isinstance(m, dict)]
        if kind is not None:
            return [m["data"] for m in texts if m["type"] == kind]
        return [m for m in texts if m["type"] != "status"]

    def frames(self):
        return [m for m in self.received if isinstance(m, bytes)]

    async def wait(self, kind, count=1, **fields):
        """Wait for the count-th message of that type with these fields."""

        def found():
            hits = [
                d
                for d in self.events(kind)
                if all(d.get(name, ...) == value for name, value in fields.items())
            ]
            return hits[count - 1] if len(hits) >= count else None

        return await until(found, f"{kind} {fields}")

    async def send(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        await self.connection.send_str(text)

    async def close(self):
        await self.connection.close()
        await self._reader


class User:
    """A client of a server: HTTP and any number of sockets, all closed at the end."""

    until = staticmethod(until)

    def __init__(self, url, token=""):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self.http = aiohttp.ClientSession(url, headers=headers)
        self._sockets = []

    async def connect(self, client_id="", *, flags=None, **options):
        connection = await self.http.ws_connect(
            f"/ws?clientId={client_id}", max_msg_size=0, **options
        )
        socket = Socket(connection)
        self._sockets.append(socket)
        if flags is not None:
            await socket.send({"type": "feature_flags", "data": flags})
            await socket.wait("feature_flags")
        await socket.wait("status")
        return socket

    async def get(self, path):
        async with self.http.get(path) as answer:
            return answer.status, await body_of(answer)

    async def post(self, path, json=None, **options):
        async with self.http.post(path, json=json, **options) as answer:
            return answer.status, await body_of(answer)

    async def submit(self, graph, **more):
        status, answer = await self.post("/prompt", {"prompt": graph, **more})
        assert status == 200, answer
        return answer["prompt_id"]

    async def finished(self, prompt_id):
        """Wait for the history entry of a prompt."""

        async def entry():
            return (await self.get(f"/history/{prompt_id}"))[1].get(prompt_id)

        return await until(entry, f"the history of {prompt_id}")

    async def run(self, graph, socket=None, **more):
        """Run a graph to its end; return its history entry."""
        prompt_id = await self.submit(graph, **more)
        if socket is not None:
            await socket.wait("executing", node=None, prompt_id=prompt_id)
        return await self.finished(prompt_id)

    async def close(self):
        for opened in self._sockets:
            await opened.close()
        await self.http.close()


async def body_of(answer):
    data = await answer.read()
    return json.loads(data) if answer.content_type == "application/json" else data


class InProcess:
    """A server in this process."""

    def __init__(self, server, url, files):
        self.server = server
        self.url = url
        self.files = files

    @property
    def node(self):
        """Id of the node that runs."""
        report = self.server._worker.report
        return report and report.node


@contextlib.asynccontextmanager
async def serve(folder, checkpoint):
    registry = builtin()
    load_probe_nodes().register(registry)
    files = Files(folder / "output", folder / "input", folder / "temp")
    server = Server(registry, files, checkpoint)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield InProcess(server, f"http://127.0.0.1:{runner.addresses[0][1]}", files)
    finally:
        await runner.cleanup()


@pytest.fixture(scope="session")
def checkpoint():
    """The model, loaded once for all servers in this process."""
    return Checkpoint()


@pytest.fixture
async def server(tmp_path, checkpoint):
    """A fresh engine with the probe nodes, in this process, without a token."""
    async with serve(tmp_path, checkpoint) as running:
        yield running


@pytest.fixture
async def user(server):
    """A client of `server`."""
    user = User(server.url)
    yield user
    await user.close()


class EngineProcess:
    """`python -m comfynb.engine --owned`, as a client starts it."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "comfynb.engine", "--owned", *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = json.loads(self.process.stdout.readline())
        self.url, self.token = self.facts["url"], self.facts["token"]

    def end(self):
        """Close its standard input and return its exit status."""
        self.process.stdin.close()
        try:
            return self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture
def start_engine():
    """A function that starts an engine process with the probe nodes; all end with the test."""
    started = []

    def start(*arguments):
        engine = EngineProcess(*PROBES, *arguments)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.end()


PROBES = ("--nodes", str(HERE / "probe_nodes.py"))


@pytest.fixture(scope="session")
def engine():
    """An engine process with the probe nodes, shared by all tests of a session."""
    engine = EngineProcess(*PROBES)
    yield engine
    assert engine.end() == 0


@pytest.fixture
async def owner(engine):
    """A client of `engine`, with its token."""
    user = User(engine.url, engine.token)
    yield user
    await user.close()


@pytest.fixture
async def owner_of():
    """A function that connects a client to an engine process."""
    users = []

    async def connect(engine):
        users.append(User(engine.url, engine.token))
        return users[-1]

    yield connect
    for user in users:
        await user.close()


@pytest.fixture
def stuck_socket():
    """A function that opens a /ws connection which never reads (blocks until it is open)."""
    opened = []

    def connect(url, client_id, token=""):
        stuck = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        opened.append(stuck)
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lines = [
            f"GET /ws?clientId={client_id} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {token}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        stuck.sendall("\r\n".join([*lines, "", ""]).encode())
        assert stuck.recv(12) == b"HTTP/1.1 101"

    yield connect
    for stuck in opened:
        stuck.close()


@pytest.fixture
def graphs():
    return Graphs


class Graphs:
    """Graphs that many tests run."""

    @staticmethod
    def image(color=1, *, side=16, prefix="x"):
        return {
            "1": node("EmptyImage", width=side, height=side, batch_size=1, color=color),
            "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
        }

    @staticmethod
    def slow(color=1, *, seconds=50, steps=500, prefix="x"):
        return {
            "1": node("EmptyImage", width=16, height=16, batch_size=1, color=color),
            "2": node("ProbeSleep", image=["1", 0], seconds=seconds, steps=steps, tag=""),
            "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
        }

    @staticmethod
    def text_to_image(text="a fox in the snow", negative="", *, width=64, height=64, **sampler):
        settings = {
            "seed": 1,
            "steps": 4,
            "cfg": 4.0,
            "sampler_name": "euler",
            "scheduler": "karras",
            "denoise": 1.0,
            **sampler,
        }
        return {
            "3": node(
                "KSampler",
                **settings,
                model=["4", 0],
                positive=["6", 0],
                negative=["7", 0],
                latent_image=["5", 0],
            ),
            "4": node("CheckpointLoaderSimple", ckpt_name="tiny-scenes.onnx"),
            "5": node("EmptyLatentImage", width=width, height=height, batch_size=1),
            "6": node("CLIPTextEncode", text=text, clip=["4", 1]),
            "7": node("CLIPTextEncode", text=negative, clip=["4", 1]),
            "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
            "9": node("SaveImage", images=["8", 0], filename_prefix="scene"),
        }


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


@pytest.fixture
def new_id():
    return lambda: str(uuid.uuid4())

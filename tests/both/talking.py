"""Says something to a server and notes what it answers, so that two servers can be compared.

What differs from one server, prompt or moment to the next (ids, times, counters, names that are
drawn by lot) is replaced by a word; all else stays as it came.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from PIL import Image
from support import Server
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as ws_connect

TIMEOUT = 30.0
WORDS = {
    "timestamp": "<time>",
    "create_time": "<time>",
    "sid": "<sid>",
    "traceback": "<lines>",
    "description": "<words>",
    "tooltip": "<words>",
    "output_tooltips": "<words>",
}
"""Keys whose values are never the same twice, or are prose for people."""
NAMES = (
    (re.compile(r"ComfyUI_temp_[a-z]{5}"), "ComfyUI_temp_xxxxx"),
    (re.compile(r"_\d{5}_\."), "_00000_."),
    (re.compile(r"tiny-scenes\.onnx|tiny-random\.safetensors"), "<checkpoint>"),
)
SETS = ("executed", "current_outputs", "errors")
"""Lists in whose order nothing is meant: ComfyUI makes them of sets."""
FRAMES = {1: "preview", 3: "text", 4: "preview with metadata"}


class Talk:
    """A client of one server, whose notes can be compared.

    Attributes:
        notes: What was heard: answers to requests, and messages of the socket.
    """

    def __init__(self, server: Server) -> None:
        self.notes: list[Any] = []
        self.client_id = uuid.uuid4().hex
        self._server = server
        self._life = contextlib.ExitStack()
        client = httpx.Client(base_url=server.url, trust_env=False, timeout=TIMEOUT)
        self._http = self._life.enter_context(client)
        self._socket: ClientConnection | None = None
        self._ids: dict[str, str] = {}

    def close(self) -> None:
        self._life.close()

    # -- requests

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request and note its answer."""
        answer = self.quietly(method, path, **options)
        self.notes.append({"asked": f"{method} {self._plain(path)}", **self._answer(answer)})
        return answer

    def quietly(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request that is not compared."""
        return self._http.request(method, path, **options)

    def post(self, graph: Any, **more: Any) -> str:
        """Send a prompt under a new id and note the answer; return the id."""
        prompt_id = str(uuid.uuid4())
        self._ids[prompt_id] = f"<prompt {len(self._ids) + 1}>"
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id, **more}
        self.ask("POST", "/prompt", json=body)
        return prompt_id

    # -- the socket

    def listen(self, **flags: bool) -> None:
        """Open the socket, and tell what this client can do."""
        url = f"{self._server.url.replace('http', 'ws')}/ws?clientId={self.client_id}"
        self._socket = self._life.enter_context(ws_connect(url, proxy=None, max_size=None))
        self.hear("status")
        if flags:
            self._socket.send(json.dumps({"type": "feature_flags", "data": flags}))
            self.hear("feature_flags")

    def say(self, frame: str | bytes) -> None:
        """Send a frame over the socket."""
        self._socket.send(frame)

    def run(self, graph: Any, **more: Any) -> str:
        """Send a prompt, and hear it to its end; return its id."""
        prompt_id = self.post(graph, **more)
        self.hear_end(prompt_id)
        return prompt_id

    def hear_end(self, prompt_id: str) -> None:
        """Note messages until the prompt has left the worker."""
        self.hear("executing", node=None, prompt_id=prompt_id)

    def hear(self, kind: str, **fields: Any) -> None:
        """Note messages until one of this kind with these fields."""
        while True:
            frame = self._socket.recv(timeout=TIMEOUT)
            if isinstance(frame, bytes):
                self.notes.append(self._frame(frame))
                continue
            message = json.loads(frame)
            if message["type"] != "status":  # how often it is told is a matter of luck
                self.notes.append({"heard": message["type"], **self._plain(message["data"])})
            if message["type"] == kind and fields.items() <= message["data"].items():
                return

    # -- notes

    def note(self, value: Any) -> None:
        """Note something that was heard quietly."""
        self.notes.append(self._plain(value))

    def leave_out(self, *kinds: str) -> None:
        """Forget messages whose number is a matter of time."""
        self.notes = [note for note in self.notes if note.get("heard") not in kinds]

    def _answer(self, answer: httpx.Response) -> dict[str, Any]:
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        said: dict[str, Any] = {"status": answer.status_code, "type": kind}
        for header in ("Content-Disposition", "Allow", "Content-Range"):
            if header in answer.headers:
                said[header] = self._plain(answer.headers[header])
        if kind == "application/json" and answer.content:
            said["body"] = self._plain(answer.json())
        elif kind.startswith("image/") and answer.status_code == 200 and answer.content:
            said["body"] = picture_of(answer.content)
        else:
            said["body"] = answer.text
        return said

    def _frame(self, frame: bytes) -> dict[str, Any]:
        kind, length = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:8], "big")
        if kind == 1:
            return {"heard": FRAMES[kind], "format": length, "picture": picture_of(frame[8:])}
        inner = frame[8 : 8 + length]
        if kind == 3:
            text = frame[8 + length :].decode()
            return {"heard": FRAMES[kind], "node": inner.decode(), "text": text}
        metadata = self._plain(json.loads(inner))
        picture = picture_of(frame[8 + length :])
        return {"heard": FRAMES[kind], "metadata": metadata, "picture": picture}

    def _plain(self, value: Any, key: str = "") -> Any:
        if key in WORDS and value is not None:
            return WORDS[key]
        if key == "current_inputs":  # of the sampler and others: dumps of tensors
            return dict.fromkeys(value, "<value>")
        if isinstance(value, dict):
            return {self._plain(name): self._plain(item, name) for name, item in value.items()}
        if isinstance(value, list):
            items = [self._plain(item) for item in value]
            if key in SETS:
                items.sort(key=json.dumps)
            if len(value) == 5 and value[1] in self._ids:  # an item of the queue
                items[0] = "<number>"
                items[4].sort()  # of its output nodes; made of a set too
            return items
        if isinstance(value, str):
            for given, word in self._ids.items():
                value = value.replace(given, word)
            for pattern, word in NAMES:
                value = pattern.sub(word, value)
            if key == "details":  # a line for each of the errors
                value = "\n".join(sorted(value.split("\n")))
            return value.replace(self.client_id, "<client>")
        return "<number>" if key == "number" else value


def picture_of(data: bytes) -> str:
    """Describe a picture: what it shows is each server's own."""
    if not data.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF")):
        return repr(data)
    with Image.open(io.BytesIO(data)) as picture:
        return f"{picture.format} {picture.width}x{picture.height} {picture.mode}"


def merged(notes: list[Any]) -> list[Any]:
    """Return notes in which the steps of a node, which repeat, stand once."""
    out: list[Any] = []
    for note in notes:
        out.append(_without_count(note))
        for length in (1, 2, 3):
            if out[-length:] == out[-2 * length : -length]:
                del out[-length:]
    return out


def unordered(notes: list[Any]) -> list[Any]:
    """Return notes of independent nodes, which ComfyUI runs in any order, in one order."""
    told = [_without_past(note) for note in notes if note.get("heard") != "progress_state"]
    return sorted(told, key=lambda note: json.dumps(note, sort_keys=True))


def _without_past(note: Any) -> Any:
    if isinstance(note, dict):
        return {k: _without_past(v) for k, v in note.items() if k not in SETS[:2]}
    return [_without_past(item) for item in note] if isinstance(note, list) else note


def _without_count(note: Any) -> Any:
    if isinstance(note, dict):
        return {k: _without_count(v) for k, v in note.items() if k not in ("value", "max")}
    return note


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield where two notes differ, as a path ("/3/body/error") and what stands there."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs}):
            missing = "<missing>"
            where = f"{path}/{key}"
            yield from differences(ours.get(key, missing), theirs.get(key, missing), where)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(mine, other, f"{path}/{index}")
    elif ours != theirs:
        yield path, f"{json.dumps(ours)[:700]} for {json.dumps(theirs)[:700]}"

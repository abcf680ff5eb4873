"""The engine answers as the recorded ComfyUI did: see transcripts/README.md."""

import asyncio
import base64
import io
import json
import re
from pathlib import Path

import aiohttp
import pytest

TRANSCRIPTS = Path(__file__).parent / "transcripts"

# Transcripts of one group were recorded one after another and build on each other's state.
GROUPS = [
    ["http_cors"],
    ["http_files", "http_upload_raw"],
    ["http_info"],
    ["http_prompt", "http_queue_history"],
    ["sampler_tiny_previewmeta", "sampler_tiny_legacy_preview", "sampler_tiny_interrupted"],
    ["ws_connect_after_completion"],
    ["ws_delete_pending"],
    ["ws_duplicate_prompt_id"],
    ["ws_error"],
    ["ws_execution_blocker"],
    ["ws_feature_flags"],
    ["ws_free_logs"],
    ["ws_interrupt"],
    ["ws_late_and_reconnect"],
    ["ws_nan"],
    ["ws_normal_and_cached"],
    ["ws_partial_targets"],
    ["ws_previewimage"],
    ["ws_saveimagewebsocket_nofeatures", "ws_saveimagewebsocket_previewmeta"],
    ["ws_special_nodes"],
    ["ws_two_clients"],
    ["ws_two_queued"],
    ["ws_validation_failure"],
]

# Seconds of ProbeSleep are divided by this where nothing hangs on their length.
SPEED = {"http_queue_history": 1, "ws_late_and_reconnect": 2}
USUAL_SPEED = 4

PNG_A = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAFklEQVR4nGP8z8DwnwEPYMInOXwUAAASWwIOH0pJXQAAA"
    "ABJRU5ErkJggg=="
)
PNG_B = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAFUlEQVR4nGNkYPjfwIAHMOGTHD4KAI9SAY+KwrEAAAAAS"
    "UVORK5CYII="
)
UPLOADS = {  # the recorder kept names and sizes
    79: base64.b64decode(PNG_A),
    78: base64.b64decode(PNG_B),
    11: b"hello world",
    12: b"not an image",
}


def test_every_transcript_is_replayed():
    files = {path.stem for path in TRANSCRIPTS.glob("*.jsonl")}
    assert files == {name for group in GROUPS for name in group}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
async def test_the_engine_answers_as_comfyui_did(group, server, user):
    for name in group:
        replay = Replay(name, server, user)
        await replay.run()


class Replay:
    """Does what a recorded client did, and compares what comes back."""

    def __init__(self, name, server, user):
        self.name = name
        self.server = server
        self.user = user
        self.rows = [
            json.loads(line)
            for line in (TRANSCRIPTS / f"{name}.jsonl").read_text("utf-8").splitlines()
        ]
        self.ids = {}  # recorded prompt id -> ours
        self.forms = []
        self.sockets = {}
        self.recorded = {}  # per socket: what the recorded one got so far

    async def run(self):
        await self._prepare()
        for position, row in enumerate(self.rows):
            kind, conn = row["kind"], row.get("conn")
            if kind == "ws-open":
                await self._wait_for_recorded()
                await self._open(position, row)
            elif kind in ("ws-text", "ws-binary") and row["direction"] == "server->client":
                if not is_status(row):
                    self.recorded[conn].append(row)
            elif kind in ("ws-text", "ws-binary"):
                await self._send(conn, row)
            elif kind == "ws-close":
                await self._wait_for_recorded()
                await self._compare_socket(conn)
                await self.sockets.pop(conn).close()
            elif kind == "http" and row["direction"] == "request":
                await self._wait_for_recorded()
                await self._request(row["data"], self._answer_to(position))
        for conn in self.sockets:
            await self._compare_socket(conn)

    def _answer_to(self, position):
        return next(
            row["data"]
            for row in self.rows[position:]
            if row["kind"] == "http" and row["direction"] == "response"
        )

    # What the recorded client did

    async def _prepare(self):
        if self.name == "http_files":  # made by /upload/mask, which the engine lacks
            form = aiohttp.FormData()
            form.add_field("image", UPLOADS[79], filename="m.png")
            await self.user.http.post("/upload/image", data=form)
        if self.name == "http_prompt":  # keep all of them waiting, so that their order is sure
            self.blocker = await self.user.submit(
                {
                    "1": {
                        "class_type": "EmptyImage",
                        "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1},
                    },
                    "2": {
                        "class_type": "ProbeSleep",
                        "inputs": {"image": ["1", 0], "seconds": 60, "steps": 1000, "tag": ""},
                    },
                    "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
                },
                number=-1000,
            )

    async def _open(self, position, row):
        if "conn" not in row:  # http_cors: only whether the handshake succeeds
            headers = row["data"].get("headers", {}) or {"Origin": row["data"]["Origin"]}
            connecting = self.user.http.ws_connect("/ws", headers=self._ported(headers))
            if "error" in row["data"]:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await connecting
                assert refused.value.status == 403
            else:
                await (await connecting).close()
            return
        conn = row["conn"]
        late = next((r for r in self._received_after(position, conn) if not is_status(r)), None)
        if late is not None and late["data"].get("data") == {"node": "2"}:
            await self.user.until(lambda: self.server.node == "2")
        else:
            await self.user.until(lambda: self.server.server.queue.remaining() == 0)
        self.recorded[conn] = []
        client_id = row["data"]["url"].partition("clientId=")[2]
        self.sockets[conn] = await self.user.connect(client_id)

    def _received_after(self, position, conn):
        return [
            row
            for row in self.rows[position:]
            if row.get("conn") == conn and row["direction"] == "server->client"
        ]

    async def _send(self, conn, row):
        if row["kind"] == "ws-binary":
            await self.sockets[conn].connection.send_bytes(base64.b64decode(row["data"]))
        else:
            await self.sockets[conn].send(row["data"])

    async def _request(self, request, expected):
        options = {"headers": self._ported(request.get("headers", {}))}
        if "json" in request:
            options["data"] = self._translated(json.dumps(self._sped_up(request["json"])))
        elif "form" in request:
            self.forms.append(request["form"])
            # The third file of this name and size had other bytes when it was recorded.
            third = request["form"] == {"image": "<file up1.png 79 bytes>"}
            third = third and self.forms.count(request["form"]) == 3
            options["data"] = upload_form(request["form"], b"other" if third else b"")
        elif "raw" in request:
            options["data"] = raw_body(request["raw"])
        if options["headers"].get("If-None-Match", "").startswith('"'):
            async with self.user.http.get(request["path"]) as answer:
                options["headers"]["If-None-Match"] = answer.headers["ETag"]
        await self._synchronise(request)
        path = self._translated(request["path"])

        async def ask():
            async with self.user.http.request(request["method"], path, **options) as answer:
                got = await described(answer)
            if "json_truncated" in expected:
                got["json_truncated"] = ""
            return got

        got = await ask()
        if request["method"] == "POST" and "prompt_id" in (expected.get("json") or {}):
            self.ids[expected["json"]["prompt_id"]] = got["json"]["prompt_id"]
        wanted = comparable(path, json.loads(self._translated(json.dumps(expected))))
        patience = 100 if request["method"] == "GET" else 0
        while comparable(path, got) != wanted and patience:
            # The recorder slept between two requests; here the state comes when it comes.
            patience -= 1
            await asyncio.sleep(0.05)
            got = await ask()
        assert comparable(path, got) == wanted, (request["method"], path)

    async def _synchronise(self, request):
        if self.name == "http_prompt" and request["path"] == "/history":
            await self.user.post("/interrupt", {"prompt_id": self.blocker})
            await self.user.finished(self.blocker)
            await self.user.post("/history", {"delete": [self.blocker]})
        if self.name == "http_queue_history" and "front" in (request.get("json") or {}):
            await self.user.until(lambda: self.server.node == "2")  # the first is not overtaken
        if self.name == "http_queue_history" and request.get("raw") == "{{":
            running = [self.ids[recorded] for recorded in list(self.ids)[2:3]]

            async def third_runs():
                queue = (await self.user.get("/queue"))[1]
                return [item[1] for item in queue["queue_running"]] == running

            await self.user.until(third_runs)
        if request.get("json") == {"free_memory": True} and self.name == "ws_free_logs":
            await self.user.until(lambda: self.server.server.queue.remaining() == 0)

    def _sped_up(self, body):
        speed = SPEED.get(self.name, USUAL_SPEED)
        if isinstance(body, dict) and isinstance(body.get("prompt"), dict):
            body = json.loads(json.dumps(body))
            for entry in body["prompt"].values():
                inputs = entry.get("inputs", {}) if isinstance(entry, dict) else {}
                if "seconds" in inputs:
                    inputs["seconds"] /= speed
                if self.name == "http_queue_history" and inputs.get("steps") == 15:
                    # All of these are interrupted: they may take as long as a slow machine needs.
                    inputs["seconds"], inputs["steps"] = 60, 600
        return body

    def _ported(self, headers):
        port = self.server.url.rpartition(":")[2]
        return {name: value.replace("8199", port) for name, value in headers.items()}

    def _translated(self, text):
        for recorded, ours in self.ids.items():
            if len(recorded) == 36:
                text = text.replace(recorded, ours)
        for quote in "\"'":
            two = f"{quote}random-sd15-tiny.safetensors{quote}, {quote}random-sd15.safetensors"
            text = text.replace(two, f"{quote}tiny-scenes.onnx")
        text = re.sub(r"ComfyUI_temp_[a-z]{5}", self.server.files.temp_prefix, text)
        return text.replace("random-sd15-tiny.safetensors", "tiny-scenes.onnx")

    # What came back

    async def _wait_for_recorded(self):
        for conn, socket in self.sockets.items():
            count = len(self.recorded[conn])
            try:
                await self.user.until(lambda s=socket, n=count: len(counted(s)) >= n, timeout=10)
            except AssertionError:
                await self._compare_socket(conn)

    async def _compare_socket(self, conn):
        numbers = {}
        wanted = collapsed([token(self._row(row), numbers) for row in self.recorded[conn]])
        socket = self.sockets[conn]

        def got():
            seen = {}
            frames = [frame for frame in counted(socket) if not self._deviates(conn, frame)]
            return collapsed([token(frame, seen) for frame in frames])

        try:
            await self.user.until(lambda: got() == wanted, timeout=5)
        except AssertionError:
            assert got() == wanted, conn

    def _row(self, row):
        if row["kind"] == "ws-binary":
            return row
        return row["data"]

    def _deviates(self, conn, frame):
        """ComfyUI issue #16010: after B closed, C got nothing more, which we do not imitate."""
        if self.name != "ws_late_and_reconnect" or conn != "C" or not isinstance(frame, dict):
            return False
        return frame["data"].get("prompt_id") in list(self.ids.values())[1:]


def is_status(row):
    data = row.get("data")
    return isinstance(data, dict) and data.get("type") == "status"


def counted(socket):
    return [m for m in socket.received if isinstance(m, bytes) or m["type"] != "status"]


def token(message, prompts):
    """What is compared of a message; prompts are numbered as they appear."""
    if isinstance(message, bytes):
        return binary_token(int.from_bytes(message[:4], "big"), message)
    if message.get("kind") == "ws-binary":
        return binary_token(message["event"], bytes.fromhex(message["head_hex"]))
    kind, data = message["type"], message["data"]
    number = prompts.setdefault(data["prompt_id"], len(prompts)) if "prompt_id" in data else None
    more = None
    if kind == "progress_state":
        more = {
            (node_id, state["state"], tuple(sorted(state)))
            for node_id, state in data["nodes"].items()
        }
    elif kind == "execution_cached":
        more = data["nodes"]
    elif kind == "executed":
        more = shape(data["output"])
    elif kind in ("execution_error", "execution_interrupted"):
        more = [data["node_id"], data["node_type"], sorted(data["executed"])]
        more += [data.get("exception_type"), shape(data.get("current_inputs"))]
    return [kind, number, data.get("node"), sorted(data), more]


def binary_token(event, data):
    if event == 1:
        return ["binary", 1, int.from_bytes(data[4:8], "big")]
    return ["binary", event]


def collapsed(tokens):
    """Steps of a node, repeated, count as one."""
    out = []
    for item in tokens:
        out.append(item)
        for length in (2, 3):
            if out[-length:] == out[-2 * length : -length]:
                del out[-length:]
    return out


async def described(answer):
    data = await answer.read()
    kind = answer.headers.get("Content-Type", "")
    found = {"status": answer.status, "content_type": kind}
    for header in ("Allow", "Content-Disposition"):
        if header in answer.headers:
            found[header] = answer.headers[header]
    if kind.startswith("application/json") and data:
        found["json"] = json.loads(data)
    elif kind.startswith("text/") or not data:
        found["text"] = data.decode()
    return found


def comparable(path, answer):
    """What is compared of an HTTP answer."""
    body = answer.get("json")
    found = {
        "status": answer["status"],
        "content_type": answer["content_type"].partition(";")[0],
        "Allow": answer.get("Allow"),
        "Content-Disposition": answer.get("Content-Disposition"),
    }
    if path == "/object_info" or "json_truncated" in answer:
        return {**found, "body": None}
    if path == "/queue" and body:  # a heap: its order hangs on when the first was taken
        body = {**body, "queue_pending": sorted(body["queue_pending"], key=lambda item: item[0])}
    if "/object_info/" in path:
        return {**found, "body": {name: node_shape(info) for name, info in body.items()}}
    if "json" in answer and isinstance(body, dict) and "error" in body:
        return {**found, "body": without(body, "traceback", "tooltip")}
    if "json" in answer:
        return {**found, "body": shape(without(body, "comfynb_engine"))}
    if path == "/ws":  # the words are aiohttp's
        return found
    return {**found, "body": answer.get("text") or None}


EXACT = {
    "class_type",
    "completed",
    "exception_type",
    "name",
    "queue_remaining",
    "state",
    "status_str",
    "subfolder",
    "type",
}


def shape(value, key=None):
    """Key sets, lengths of lists of things, and the values of a few telling keys."""
    if isinstance(value, dict):
        return {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        if key == "messages":
            return [[kind, shape(data)] for kind, data in value]
        if all(not isinstance(item, dict | list) for item in value):
            return "list"
        return [shape(item) for item in value]
    return value if key in EXACT else "scalar"


def node_shape(info):
    """Of an /object_info entry: its keys, and its inputs with their types."""
    inputs = {
        group: {
            name: "COMBO" if isinstance(spec[0], list) else spec[0] for name, spec in given.items()
        }
        if group != "hidden"
        else given
        for group, given in info["input"].items()
    }
    return {**shape(info), "input": inputs, "output": info["output"]}


def without(value, *names):
    if isinstance(value, dict):
        return {key: without(item, *names) for key, item in value.items() if key not in names}
    if isinstance(value, list):
        return [without(item, *names) for item in value]
    return value


def upload_form(fields, trailing=b""):
    form = aiohttp.FormData()
    for name, value in fields.items():
        file = re.fullmatch(r"<file (.*) (\d+) bytes>", value)
        if file:
            form.add_field(name, UPLOADS[int(file[2])] + trailing, filename=file[1])
        else:
            form.add_field(name, value)
    return form


def raw_body(text):
    if text == "<101 MiB>":
        head = b'--BB\r\nContent-Disposition: form-data; name="image"; filename="big.png"\r\n\r\n'
        return io.BytesIO(head + bytes(101 * 2**20))
    if text.startswith("LS1C"):  # "--B" of a multipart body, in base64
        return base64.b64decode(text)
    return text

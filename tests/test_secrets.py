"""No secret comes to light: every way in is used at once, everything is done that a user does, with
every logger at DEBUG, and then all that was written anywhere is searched for every secret."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import nbclient
import nbformat
import plain
import pytest
import trustme
from aiohttp import web
from nbformat.v4 import new_code_cell, new_notebook
from reverse_proxy import ReverseProxy

import comfynb
from comfynb.backends.comfyui import Address, ComfyUIBackend
from comfynb.errors import BackendError

SECRETS = {
    "password": "pa55/w0rd+0ne",
    "query": "qu3ry-s3cret=tw0",
    "header": "h34der-s3cret",
    "cookie": "c00kie-g1ven",
    "handed": "c00kie-h4nded-0ut",
    "token": "t0ken-that-is-wr0ng",
}
BASIC = base64.b64encode(f"ann:{SECRETS['password']}".encode()).decode()


def forms() -> dict[str, str]:
    """What to look for -> which secret that is. Written anew here: it checks the product's own."""
    found = {BASIC: "password", BASIC.rstrip("="): "password"}
    for name, secret in SECRETS.items():
        encoded = (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
        for form in (*encoded, base64.b64encode(secret.encode()).decode()):
            found[form] = found[form.lower()] = name
    return found


def search(folder: Path) -> list[str]:
    """Files below a folder, and the secrets that are in them."""
    return [
        f"{path.relative_to(folder)} holds the {name}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for form, name in forms().items()
        if form.encode() in path.read_bytes()
    ]


class Door:
    """Wants every secret; hands a cookie out, and wants that, too. Echoes what it was sent."""

    def __init__(self) -> None:
        self.posts = 0

    def __call__(self, request: web.Request) -> web.Response | None:
        echo = f"{request.method} {request.raw_path} {dict(request.headers)}"
        if request.headers.get("Authorization") != f"Basic {BASIC}":
            return web.Response(status=401, text=echo)
        given = (request.query.get("key"), request.headers.get("X-Key"),
                 request.cookies.get("given"))  # fmt: skip
        if given != (SECRETS["query"], SECRETS["header"], SECRETS["cookie"]):
            return web.Response(status=403, text=echo)
        if request.path.endswith("/moved/system_stats"):
            there = f"https://elsewhere.invalid/?back={quote(request.raw_path)}"
            return web.Response(status=302, headers={"Location": there})
        if request.path.endswith("/broken/system_stats"):
            return web.Response(status=500, text=echo)
        if request.cookies.get("handed") != SECRETS["handed"]:
            back = web.Response(status=307, headers={"Location": request.raw_path})
            back.set_cookie("handed", SECRETS["handed"], path="/base")
            return back
        if request.method == "POST" and request.path.endswith("/prompt"):
            self.posts += 1
            if self.posts == 2:
                return web.Response(status=500, text=echo)
        return None


@pytest.fixture
def proxy(engine, tmp_path, monkeypatch):
    """A proxy with that door; the environment knows how to open it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "flow.json").write_text(json.dumps(plain.picture()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with ReverseProxy(engine.url, base="/base", authority=authority, gate=Door()) as proxy:
        password = quote(SECRETS["password"], safe="")
        query = quote(SECRETS["query"], safe="")
        at = proxy.url.replace("https://", f"https://ann:{password}@")
        monkeypatch.setenv("COMFYUI_URL", f"{at}?key={query}")
        monkeypatch.setenv("X_KEY", SECRETS["header"])
        monkeypatch.setenv("COOKIE", SECRETS["cookie"])
        monkeypatch.setenv("TOKEN", SECRETS["token"])
        yield proxy


LOG = """
import logging, sys
file = logging.FileHandler("debug.log")
logging.basicConfig(level=logging.DEBUG, handlers=[file, logging.StreamHandler(sys.stdout)])
for name in ("httpx", "httpcore", "websockets", "comfynb", "asyncio"):
    logging.getLogger(name).setLevel(logging.DEBUG)
from comfynb.backends.comfyui import handshake
handshake._wire.setLevel(logging.DEBUG)  # the product has it at INFO; even so nothing may show
"""
CELLS = (
    LOG,
    """
import os, comfynb
from comfynb.showing.export import write_page
from comfynb.showing.sheet import contact_sheet, save_sheet
door = dict(headers={"X-Key": os.environ["X_KEY"]}, cookies={"given": os.environ["COOKIE"]},
            ca="ca.pem")
studio = comfynb.connect(workflow="flow.json", log="log", **door)
studio
""",
    "grid = studio.grid(['a fox', 'an owl', 'a whale'])\nkeyframes = await grid\nkeyframes",
    "[(k.status, k.error) for k in keyframes]",
    "studio.server, studio.log, studio.workflow, studio.log.df()",
    """
write_page(keyframes, "page.html")
save_sheet(contact_sheet(keyframes), "sheet.png")
diagnosis = await comfynb.diagnose(**door)
diagnosis
""",
    "import json\nprint(diagnosis)\nprint(json.dumps(diagnosis.to_dict()))",
    """
wrong = comfynb.connect(workflow="flow.json", log=False, ca="ca.pem", token=os.environ["TOKEN"])
await wrong.run(["a fox"])
""",
    "await comfynb.diagnose(ca='ca.pem', token=os.environ['TOKEN'])",
    "await comfynb.connect(workflow='flow.json', log=False).run(['a fox'])",
    "studio.close()",
)


async def test_a_notebook_its_log_its_exports_and_every_logger_hold_no_secret(proxy, tmp_path):
    notebook = new_notebook(cells=[new_code_cell(text) for text in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", allow_errors=True,
        resources={"metadata": {"path": str(tmp_path)}},
    )  # fmt: skip
    await client.async_execute(env=dict(os.environ))
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    failed = [
        output["ename"] for cell in notebook.cells for output in cell.outputs
        if output["output_type"] == "error"
    ]  # fmt: skip
    assert failed == ["AccessDeniedError", "CertificateError"], "as is meant to be"
    said = (tmp_path / "notebook.ipynb").read_text("utf-8")
    assert "server_error" in said, "the prompt whose answer was an echo failed"
    assert "comfynb-doctor" in said
    debug = (tmp_path / "debug.log").read_text("utf-8")
    assert "HTTP Request: POST https://localhost" in debug
    assert "key=***" in debug
    assert "send_request_headers" in debug
    assert "> GET /base/ws" in debug
    assert (tmp_path / "page.html").exists()
    assert (tmp_path / "sheet.png").exists()
    assert len(comfynb.open_log(tmp_path / "log").log.keyframes(status="done")) == 2
    assert any(seen.websocket and "key" in seen.query for seen in proxy.seen)
    assert search(tmp_path) == []


@pytest.mark.parametrize("command", [["render", "scenes.txt", "--workflow", "flow.json"],
                                     ["doctor"], ["doctor", "--json"]])  # fmt: skip
def test_the_command_line_shows_no_secret(proxy, tmp_path, command):
    (tmp_path / "scenes.txt").write_text("a fox\nan owl\n")
    given = ["--header", f"X-Key: {SECRETS['header']}", "--cookie", f"given={SECRETS['cookie']}"]
    text = f"{LOG}\nfrom comfynb.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", text, *command, *given, "--ca", "ca.pem"],
        capture_output=True, text=True, timeout=50, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if command[0] == "render" else 0), done.stdout + done.stderr
    (tmp_path / "said.txt").write_text(done.stdout + done.stderr)
    assert "key=***" in done.stdout
    assert search(tmp_path) == []


@pytest.mark.parametrize("path", ["", "/moved", "/broken", "/none"])
async def test_an_error_shows_no_secret_even_with_the_variables_of_its_frames(
    proxy, tmp_path, path
):
    """As sentry and pytest print them; and none is in its causes and contexts."""
    url = os.environ["COMFYUI_URL"].replace("/base", f"/base{path}")
    for access in (
        {"headers": {"X-Key": SECRETS["header"]}, "cookies": {"given": SECRETS["cookie"]}},
        {"token": SECRETS["token"]},
    ):
        backend = ComfyUIBackend(Address.parse(url, ca=tmp_path / "ca.pem", **access))
        if not path and "headers" in access:
            await backend.open()
            proxy.gate = lambda _: web.Response(status=500)
            with pytest.raises(BackendError) as raised:
                await backend.checkpoints()
        else:
            with pytest.raises(BackendError) as raised:
                await backend.open()
        await backend.aclose()
        text = repr(raised.value) + "".join(_chain(raised.value))
        assert [name for form, name in forms().items() if form in text] == []


def _chain(error: BaseException | None):
    while error is not None:
        trace = error.__traceback__.tb_next if error.__traceback__ else None  # not the test's own
        yield from traceback.TracebackException(
            type(error), error, trace, capture_locals=True
        ).format(chain=False)
        error = error.__cause__ or error.__context__


def test_the_search_would_find_each_secret(tmp_path):
    for form in forms():
        (tmp_path / "file").write_text(f"before{form}after")
        assert search(tmp_path)

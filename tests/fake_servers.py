"""Servers that are no ComfyUI, or a bad one: real sockets that answer what a test tells them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

STATS = {
    "system": {"comfyui_version": "0.3.75", "os": "posix"},
    "devices": [{"name": "cpu", "type": "cpu"}],
}
HTML = b"<!doctype html><title>Welcome</title><h1>It works!</h1>"


class FakeServer:
    """An HTTP server with fixed answers.

    Args:
        answers: Path -> body (bytes, or a value for JSON), or (status, body, headers).
        default: For every other path.

    Attributes:
        requests: (method, path with query, headers in lower case) of each so far.
    """

    def __init__(self, answers: dict[str, Any] | None = None, *, default: Any = (404, b"")) -> None:
        self.answers = answers or {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                sent = {name.lower(): value for name, value in self.headers.items()}
                fake.requests.append((self.command, self.path, sent))
                found = fake.answers.get(self.path.partition("?")[0], default)
                found = found if isinstance(found, tuple) else (200, found)
                status, body, headers = (*found, {})[:3]
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = answer  # noqa: N815 - as BaseHTTPRequestHandler calls it
            do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # clients that leave in the middle

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RawServer:
    """A TCP server that lets a function talk, each connection on a thread of its own."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._talk(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown wakes the thread in accept(); close alone does not
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def silent(connection: socket.socket) -> None:
    """Read and never answer."""
    while connection.recv(4096):
        pass


def dripping(piece: bytes, pause: float) -> Callable[[socket.socket], None]:
    """Answer for ever, a little at a time: no single wait is long, the whole never ends."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        stop = threading.Event()
        while not stop.wait(pause):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    return talk


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

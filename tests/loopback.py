"""A browser without a browser: comms that only record, and a page that speaks the wire."""

from __future__ import annotations

import itertools
import threading
import time

from comm.base_comm import BaseComm
from support import wait_for

_numbers = itertools.count(1)


class LoopbackComm(BaseComm):
    """Keeps what the kernel sends, and hands it to the pages that listen."""

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        self.sent = getattr(self, "sent", [])
        self.pages = getattr(self, "pages", [])
        if msg_type != "comm_msg":
            self.sent.append(msg_type)
            return
        if data["method"] == "custom":
            for page in list(self.pages):
                page.take(data["content"], [bytes(b) for b in buffers or []])

    def hear(self, content) -> None:
        """Deliver what a browser says, as ipykernel does."""
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": []})


class Page:
    """One tab: takes batches, acknowledges them, asks again for gaps, as the front end does."""

    def __init__(self, grid, *, see: tuple[int, int] | None = None, acks: bool = True) -> None:
        self.comm = grid.comm
        self.client = f"page-{next(_numbers)}"
        self.acks = acks
        self.lose = lambda message: False
        self.version = 0
        self.head: dict = {}
        self.cells: dict[int, dict] = {}
        self.statuses: dict[int, list[str]] = {}
        self.about: dict[int, dict] = {}
        self.thumbs: dict[int, tuple[dict, bytes]] = {}
        self.previews: dict[int, list[bytes]] = {}
        self.messages: list[dict] = []
        self.replies: dict[str, tuple[dict, list[bytes]]] = {}
        self.notices: list[str] = []
        self.gaps = 0
        self._asked = False
        self._lock = threading.RLock()
        self.comm.pages.append(self)
        self.say(kind="hello", have=0)
        if see is not None:
            self.see(*see)

    # -- to the kernel

    def say(self, **message) -> None:
        self.comm.hear({"v": 1, "client": self.client, **message})

    def see(self, start: int, stop: int) -> None:
        self.say(kind="see", **{"from": start, "to": stop})

    def do(self, name: str, cells: list[int] | None = None) -> dict:
        """Press a button; return the reply."""
        more = {} if cells is None else {"cells": cells}
        return self.ask(kind="do", name=name, **more)[0]

    def rate(self, cell: int, rating: int, keyframe: str | None = None) -> dict:
        """Rate what is shown of a cell, or another keyframe; return the reply."""
        shown = self.about[cell]["keyframe"] if keyframe is None else keyframe
        return self.ask(kind="rate", cell=cell, keyframe=shown, rating=rating)[0]

    def pick(self, cell: int, *, picked: bool) -> dict:
        """Choose what is shown of a cell, or do so no longer; return the reply."""
        shown = self.about[cell]["keyframe"]
        return self.ask(kind="pick", cell=cell, keyframe=shown, picked=picked)[0]

    def get(self, cell: int, output: int = 0) -> tuple[dict, list[bytes]]:
        return self.ask(kind="get", cell=cell, output=output)

    def ask(self, **message) -> tuple[dict, list[bytes]]:
        req = f"r{next(_numbers)}"
        self.say(req=req, **message)
        wait_for(lambda: req in self.replies)
        return self.replies[req]

    # -- from the kernel

    def take(self, message: dict, buffers: list[bytes]) -> None:
        if message["client"] != self.client or self.lose(message):
            return
        assert message["v"] == 1
        with self._lock:
            self.messages.append({**message, "at": time.monotonic()})
            getattr(self, f"_{message['kind']}")(message, buffers)

    def _batch(self, message: dict, buffers: list[bytes]) -> None:
        if self.acks and message["seq"]:
            self.say(kind="ack", seq=message["seq"])
        if message["from"] > self.version:
            if not self._asked:
                self.gaps += 1
                self._asked = True
                self.say(kind="hello", have=self.version)
            return
        self._asked = False
        self.version = max(self.version, message["to"])
        self.head = message["head"]
        for cell in message["cells"]:
            self.cells[cell["i"]] = cell
            seen = self.statuses.setdefault(cell["i"], [])
            if not seen or seen[-1] != cell["status"]:
                seen.append(cell["status"])
        for preview, data in zip(message["previews"], buffers, strict=True):
            self.previews.setdefault(preview["i"], []).append(data)

    def _about(self, message: dict, _: list[bytes]) -> None:
        self.about |= {cell["i"]: cell for cell in message["cells"]}

    def _thumb(self, message: dict, buffers: list[bytes]) -> None:
        (data,) = buffers
        self.thumbs[message["i"]] = (message, data)

    def _full(self, message: dict, buffers: list[bytes]) -> None:
        self.replies[message["req"]] = (message, buffers)

    def _reply(self, message: dict, buffers: list[bytes]) -> None:
        self.replies[message["req"]] = (message, buffers)

    def _notice(self, message: dict, _: list[bytes]) -> None:
        self.notices.append(message["text"])

    # -- what a test waits for

    def of_kind(self, kind: str) -> list[dict]:
        with self._lock:
            return [m for m in self.messages if m["kind"] == kind]

    def has(self, **statuses: int):
        """A condition: so many cells stand so, and no others."""

        def holds() -> bool:
            with self._lock:
                counts: dict[str, int] = {}
                for cell in self.cells.values():
                    counts[cell["status"]] = counts.get(cell["status"], 0) + 1
                return counts == statuses

        return holds

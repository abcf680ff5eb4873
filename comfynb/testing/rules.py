"""What a `FaultProxy` can be told to break, as values.

A rule says what it is about and what happens then. There are two families: a `MessageRule` is
about messages that the server sends over the websocket, a `RequestRule` about HTTP requests.
Every rule has

- `nth`: it leaves the first n - 1 that match alone (1: takes the first);
- `times`: how often it acts after that; None: always.

Adding a rule of your own is one subclass with one method.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import struct
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

Frame = str | bytes
"""A websocket message as it is on the wire: text or binary."""


@dataclass(frozen=True, slots=True)
class Message:
    """One websocket message of the server, as far as rules look into it.

    Attributes:
        kind: ComfyUI's type, such as "executed"; "executing:null" for the one that says that a
            prompt has left the worker; "binary:4" for a binary frame of event type 4; "?" for
            what is neither.
        prompt_id: The prompt it names, or None.
        ordinal: That prompt is the n-th posted through this proxy, from 1; None if it is not.
        fraction: Steps done of all in a "progress" message, 0 to 1; else None.
        frame: The message itself.
    """

    kind: str
    prompt_id: str | None
    ordinal: int | None
    fraction: float | None
    frame: Frame = field(repr=False)

    @classmethod
    def parse(cls, frame: Frame, prompts: Sequence[str]) -> Message:
        """Look into a message.

        Args:
            frame: As received.
            prompts: The ids posted so far, in order.
        """
        kind, data = _binary(frame) if isinstance(frame, bytes) else _text(frame)
        prompt_id = data.get("prompt_id")
        if not isinstance(prompt_id, str):
            prompt_id = None
        ordinal = prompts.index(prompt_id) + 1 if prompt_id in prompts else None
        fraction = None
        if kind == "progress" and data.get("max"):
            fraction = float(str(data["value"])) / float(str(data["max"]))
        return cls(kind, prompt_id, ordinal, fraction, frame)


def _text(frame: str) -> tuple[str, Mapping[str, object]]:
    try:
        body = json.loads(frame)
        kind, data = body["type"], body.get("data")
    except (ValueError, TypeError, KeyError):
        return "?", {}
    data = data if isinstance(data, dict) else {}
    # `executing` with a null node is another message altogether: the prompt left the worker.
    if kind == "executing" and data.get("node", "") is None:
        kind = "executing:null"
    return str(kind), data


def _binary(frame: bytes) -> tuple[str, Mapping[str, object]]:
    if len(frame) < 8:
        return "?", {}
    event, length = struct.unpack_from(">II", frame)
    data: object = {}
    # Only frames of type 4 say whose they are: length of the metadata, then its JSON.
    if event == 4:
        try:
            data = json.loads(frame[8 : 8 + length])
        except ValueError:
            data = {}
    return f"binary:{event}", data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer on its way to the client.

    Attributes:
        status: HTTP status.
        headers: As the server sent them, in order.
        body: All of it.
        bytes_per_second: Speed of the body; None: at once.
        cut_after: Cut the connection after that many bytes of the body; None: never.
        drop: Cut the connection instead of answering at all.
    """

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = field(default=b"", repr=False)
    bytes_per_second: float | None = None
    cut_after: int | None = None
    drop: bool = False


class Link(Protocol):
    """A websocket that goes through the proxy, as a rule sees it."""

    def cut(self) -> None:
        """Cut the client's connection, without a close frame."""

    def tear(self, frame: Frame, after_bytes: int) -> None:
        """Send that many bytes of a message's frame, its head included, then cut."""

    def mute(self) -> None:
        """Forward nothing any more, in neither direction, and leave the socket open."""

    async def usurp(self) -> None:
        """Open a second socket to the server under the same client id, and keep it open."""

    async def down(self, seconds: float | None) -> None:
        """Take the whole proxy down, as `FaultProxy.down`."""


class Restartable(Protocol):
    """A server that can be restarted."""

    def restart(self) -> object:
        """End it as a crash would, start it on the same port; block until it answers."""


Forward = Callable[[], Awaitable[Reply]]
"""Asks the server; called at most once."""


@dataclass(frozen=True, slots=True)
class MessageRule:
    """Something to do with messages of the websocket.

    Attributes:
        kind: As `Message.kind`; None: any.
        prompt: Only messages about this prompt: its id, or its number among those posted
            through this proxy, from 1. None: any.
        progress: Only "progress" messages at or beyond that fraction, 0 to 1. None: any.
        nth: Which matching message is the first it takes, from 1.
        times: How many it takes; None: all from there on.
    """

    kind: str | None = None
    _: KW_ONLY
    prompt: int | str | None = None
    progress: float | None = None
    nth: int = 1
    times: int | None = 1

    def matches(self, message: Message) -> bool:
        """Whether the message is one that this rule is about."""
        if self.kind is not None and message.kind != self.kind:
            return False
        if self.prompt is not None and self.prompt not in (message.prompt_id, message.ordinal):
            return False
        if self.progress is None:
            return True
        return message.fraction is not None and message.fraction >= self.progress

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:
        """Do it; return what goes on to the client instead of the message."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Swallow(MessageRule):
    """Lose the message."""

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Forward nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class Duplicate(MessageRule):
    """Send the message several times.

    Attributes:
        copies: How often it arrives.
    """

    copies: int = 2

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Forward it that often."""
        return (message.frame,) * self.copies


def strangers_prompt(prompt_id: str | None = None) -> tuple[Frame, ...]:
    """Return what a server tells of a prompt of somebody else's, from its start to its end.

    A server tells everybody of prompts that were sent without a client id, their previews in
    frames that name no prompt (ComfyUI 0.3.75, `send_sync` with sid None).

    Args:
        prompt_id: Of that prompt; None: a new one.
    """
    about = {"prompt_id": prompt_id or str(uuid.uuid4())}
    file = {"filename": "not-yours.png", "subfolder": "", "type": "output"}

    def text(kind: str, **data: object) -> str:
        return json.dumps({"type": kind, "data": {**data, **about}})

    return (
        json.dumps({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 3}}}}),
        text("execution_start"),
        text("execution_cached", nodes=[]),
        text("executing", node="1", display_node="1"),
        text("progress", node="1", value=1, max=1),
        struct.pack(">II", 1, 1) + b"\xff\xd8 no picture at all",
        text("executed", node="1", display_node="1", output={"images": [file]}),
        text("execution_error", node_id="2", node_type="Theirs", exception_type="ValueError",
             exception_message="theirs", executed=["1"]),
        text("executing", node=None),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Insert(MessageRule):
    """Send other messages before the message: a stranger's, malformed ones, what you like.

    Attributes:
        frames: The messages; None: a whole prompt of a stranger, another one each time.
    """

    frames: Sequence[Frame] | None = None

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Forward them, and then it."""
        frames = strangers_prompt() if self.frames is None else self.frames
        return (*frames, message.frame)


@dataclass(frozen=True, slots=True)
class Usurp(MessageRule):
    """Let a second client connect under the client id of this socket.

    ComfyUI then tells the second one alone, although the first stays open; when the first leaves,
    the second becomes deaf as well (its issue 16010).
    """

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:
        """Connect, then forward it: the last that arrives here."""
        await link.usurp()
        return (message.frame,)


@dataclass(frozen=True, slots=True)
class Delay(MessageRule):
    """Hold the message, and with it all that follow on the same socket.

    Attributes:
        seconds: For how long.
    """

    seconds: float = 1.0

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Wait, then forward it."""
        await asyncio.sleep(self.seconds)
        return (message.frame,)


@dataclass(frozen=True, slots=True)
class Cut(MessageRule):
    """Cut the socket, without a close frame; the message is lost with it.

    Attributes:
        after_bytes: How many bytes of the message's frame arrive before, its head included (2 to
            10 bytes, RFC 6455). None: none of it.
    """

    after_bytes: int | None = None

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:
        """Cut it."""
        if self.after_bytes is None:
            link.cut()
        else:
            link.tear(message.frame, self.after_bytes)
        return ()


@dataclass(frozen=True, slots=True)
class HalfOpen(MessageRule):
    """Go silent: the socket stays open, nothing passes, no ping is answered.

    The server does not learn of it either, not even when the client leaves.
    """

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Mute it."""
        link.mute()
        return ()


@dataclass(frozen=True, slots=True)
class Down(MessageRule):
    """Let the server die at this message, as far as clients can tell: connections are refused.

    Attributes:
        seconds: For how long; None: until `FaultProxy.up`.
    """

    seconds: float | None = None

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Cut everything and refuse what comes after."""
        await link.down(self.seconds)
        return ()


@dataclass(frozen=True, slots=True)
class Restart(MessageRule):
    """Restart the server itself at this message: it forgets its queue and its history.

    Attributes:
        server: Whatever can `restart()`, such as the fixture `comfyui_engine`. Until that returns,
            every connection breaks.
    """

    _: KW_ONLY
    server: Restartable

    async def apply(self, message: Message, link: Link) -> Sequence[Frame]:  # noqa: ARG002
        """Restart it in a thread; everything else goes on meanwhile."""
        # Not awaited: this socket is cut, and with it ends whoever awaits here.
        asyncio.get_running_loop().run_in_executor(None, self.server.restart)
        link.cut()
        return ()


@dataclass(frozen=True, slots=True)
class RequestRule:
    """Something to do with HTTP requests.

    Attributes:
        route: Method and first part of the path without /api, such as "GET /history" (which
            includes /api/history/ID). "WS /ws" is the handshake of the websocket.
        nth: Which matching request is the first it takes, from 1.
        times: How many it takes; None: all from there on.
    """

    route: str
    _: KW_ONLY
    nth: int = 1
    times: int | None = 1

    async def handle(self, forward: Forward) -> Reply:
        """Answer the request."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Blank(RequestRule):
    """Answer an empty JSON object without asking the server: a history that comes late."""

    route: str = "GET /history"

    async def handle(self, forward: Forward) -> Reply:  # noqa: ARG002
        """Answer {}."""
        return Reply(200, (("Content-Type", "application/json"),), b"{}")


@dataclass(frozen=True, slots=True)
class LateAnswer(RequestRule):
    """Ask the server at once and hold its answer.

    Attributes:
        seconds: For how long; 3600 is as good as never.
    """

    route: str = "GET /history"
    _: KW_ONLY
    seconds: float = 1.0

    async def handle(self, forward: Forward) -> Reply:
        """Ask, wait, answer."""
        reply = await forward()
        await asyncio.sleep(self.seconds)
        return reply


@dataclass(frozen=True, slots=True)
class Fail(RequestRule):
    """Answer with an error.

    Attributes:
        status: HTTP status.
        accepted: Whether the server gets the request, and does what it asks, all the same.
        body: Text of the answer.
    """

    route: str = "POST /prompt"
    _: KW_ONLY
    status: int = 502
    accepted: bool = True
    body: str = "the proxy was told to fail"

    async def handle(self, forward: Forward) -> Reply:
        """Ask or do not ask, and answer the error."""
        if self.accepted:
            await forward()
        return Reply(self.status, (("Content-Type", "text/plain"),), self.body.encode())


@dataclass(frozen=True, slots=True)
class DropAnswer(RequestRule):
    """Cut the connection instead of answering.

    Attributes:
        accepted: Whether the server gets the request, and does what it asks, all the same.
    """

    route: str = "POST /prompt"
    _: KW_ONLY
    accepted: bool = True

    async def handle(self, forward: Forward) -> Reply:
        """Ask or do not ask, and cut."""
        if self.accepted:
            await forward()
        return Reply(0, drop=True)


@dataclass(frozen=True, slots=True)
class Slow(RequestRule):
    """Send the body of the answer slowly.

    Attributes:
        bytes_per_second: How slowly.
    """

    route: str = "GET /view"
    _: KW_ONLY
    bytes_per_second: float = 10_000.0

    async def handle(self, forward: Forward) -> Reply:
        """Ask and pace the answer."""
        reply = await forward()
        return dataclasses.replace(reply, bytes_per_second=self.bytes_per_second)


@dataclass(frozen=True, slots=True)
class Truncate(RequestRule):
    """Cut the connection in the middle of the body of the answer.

    Attributes:
        after_bytes: How much of the body arrives before.
    """

    route: str = "GET /view"
    _: KW_ONLY
    after_bytes: int = 100

    async def handle(self, forward: Forward) -> Reply:
        """Ask and cut the answer short."""
        return dataclasses.replace(await forward(), cut_after=self.after_bytes)


Rule = MessageRule | RequestRule


class Fault:
    """A rule at work in a proxy: tells how often it acted.

    Attributes:
        rule: What was asked for.
        seen: How many messages or requests it was about so far.
        applied: How often it acted so far.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.applied = 0
        self._acted = threading.Event()

    def due(self) -> bool:
        """Count one more that matches; whether it is the rule's turn to act on it."""
        self.seen += 1
        exhausted = self.rule.times is not None and self.applied >= self.rule.times
        return self.seen >= self.rule.nth and not exhausted

    def act(self) -> None:
        """Count that it acts now."""
        self.applied += 1
        self._acted.set()

    def wait(self, timeout: float = 10.0) -> None:
        """Block until it acted for the first time.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: If it did not in time; says how many matched.
        """
        if not self._acted.wait(timeout):
            text = f"{self.rule} did not act within {timeout} s; {self.seen} matched"
            raise TimeoutError(text)

"""What a run asks of whatever renders, and what it hears back.

A backend takes a graph under a prompt id that the caller chose (and wrote down) before, tells
what happens to a listener, and gives the pictures' bytes. It knows no log, no scene and no
widget. All of it lives on the one loop of `comfynb.loop`; listeners are called there and must
return at once.

`render` returns as soon as every expected picture is here, which may be before the prompt has
left the server's worker: `Released` says when the next prompt may be sent. So the bytes of one
picture are fetched and made durable while the next is already being drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from comfynb.keyframes import Failure


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself.

    Attributes:
        label: Host and port, or "embedded engine".
        version: Its own, or "" where it does not say.
        device: Name of its first device, or "".
        protocol: Version of the ComfyUI whose protocol it speaks, or "" where it does not say.
    """

    label: str
    version: str = ""
    device: str = ""
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """The server began with the prompt."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A node made a step.

    Attributes:
        node: Id of the node.
        value: Steps done.
        maximum: Steps in all.
    """

    node: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Preview:
    """A rough picture of an unfinished one.

    Attributes:
        node: Id of the node that works on it.
        data: JPEG or PNG bytes.
        mime: Their type.
    """

    node: str
    data: bytes
    mime: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a user should know although the picture may still come."""

    message: str


@dataclass(frozen=True, slots=True)
class Released:
    """The prompt has left the server's worker; the next one may be sent."""


Event = Started | Progress | Preview | Warned | Released
Listener = Callable[[Event], None]
Read = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Given:
    """Bytes that a node gave: a file, a picture that came over the socket, a text.

    Attributes:
        node: Id of the node.
        index: Position among what that node gave, from 0.
        data: As the server sent them, unchecked; a text as UTF-8.
        name: What the server calls the file, good for its suffix only; "" where it is no file.
        is_text: Whether it is a text.
    """

    node: str
    index: int
    data: bytes
    name: str = ""
    is_text: bool = False


Ending = Literal["done", "failed", "cancelled", "lost"]
"""How a prompt can end: `done` with all its outputs; `failed`; `cancelled` (someone removed or
interrupted it); `lost` (the server does not know it any more)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt ended.

    Attributes:
        status: How.
        given: In the order of the graph's output nodes; also what came before it broke off.
        failure: Why, unless done.
        unknown_words: Words the model does not know, where the server says so.
        server_cached: The server did not run a single node for it.
        queued_ms: From the POST until it began; None where not seen.
        executing_ms: From then until its last expected output; None where not seen.
        fetch_ms: Getting the bytes.
    """

    status: Ending
    given: tuple[Given, ...] = ()
    failure: Failure | None = None
    unknown_words: tuple[str, ...] = ()
    server_cached: bool = False
    queued_ms: float | None = None
    executing_ms: float | None = None
    fetch_ms: float | None = None


Line = Literal["none", "connected", "reconnecting", "gone"]
"""How the line to a server stands; "none": not opened yet, or closed."""


class Backend(ABC):
    """Something that renders graphs."""

    label: str
    """Host and port, or "embedded engine"; never a token."""
    billed: bool = False
    """Whether each prompt costs money: then one that was lost is not sent again by itself."""

    @property
    def line(self) -> Line:
        """How the line to it stands, without asking it."""
        return "none"

    @property
    def can_interrupt(self) -> bool:
        """Whether a cancel ends what runs; else that comes to its end."""
        return True

    @abstractmethod
    async def open(self) -> ServerInfo:
        """Connect, or find the connection still good; safe to call again.

        Raises:
            ServerUnreachableError: Nobody answers (retryable).
            NotComfyUIError: Something else answers there.
            AccessDeniedError: A token is missing or wrong.
            EngineMissingError: The embedded engine is not installed.
            EngineError: The embedded engine did not start.
        """

    @abstractmethod
    async def checkpoints(self) -> Sequence[str]:
        """Return the names of the checkpoints that can be loaded, sorted."""

    @abstractmethod
    async def object_info(self) -> Mapping[str, Any]:
        """Return what it says of its node types: the answer to GET /object_info.

        Nothing is started for this.

        Raises:
            BackendError: It does not answer, or with something else.
        """

    def shipped_object_info(self) -> Mapping[str, Any] | None:
        """Return what is known of its node types without it; None: nothing."""
        return None

    @abstractmethod
    async def upload(self, name: str, mime: str, read: Read) -> str:
        """Have an input file where graphs can name it; sent once for each content.

        Args:
            name: Made from the content: another content has another name.
            mime: Its type, such as "image/png".
            read: Gives the file. Called when it is sent, which may be again where it was lost.

        Returns:
            What the graph must call it there.

        Raises:
            BackendError: It could not be sent.
            ComfynbError: Whatever `read` raises.
        """

    @abstractmethod
    async def render(self, prompt_id: str, graph: Mapping[str, Any], listener: Listener) -> Outcome:
        """Run a graph and return its pictures.

        Cancelling the task that waits here tells the server nothing: call `cancel`.

        Args:
            prompt_id: A canonical uuid4 that was never used before.
            graph: API format.
            listener: Told what happens meanwhile; may still hear `Warned` and `Released` after
                this returned. `Released` comes exactly once, also where the prompt failed.

        Raises:
            ServerGoneError: Not reachable again in time.
        """

    def holds_back(self, prompt_id: str) -> bool:  # noqa: ARG002
        """Whether a prompt that `render` was given has certainly not left for the server yet."""
        return False

    @abstractmethod
    async def adopt(
        self, prompt_id: str, graph: Mapping[str, Any], listener: Listener, *, sent_at: datetime
    ) -> Outcome | None:
        """Finish a prompt that a session sent which has died, by asking.

        Nothing can be heard of it: its messages go to a client id that died too.

        Args:
            prompt_id: As that session chose it.
            graph: What it was; where the server still has the graph, that one counts.
            listener: As for `render`.
            sent_at: When, UTC: what was sent a moment ago may still be on its way.

        Returns:
            None where the server does not know the prompt.

        Raises:
            BackendError: The server cannot be asked, or went away meanwhile.
        """

    @abstractmethod
    async def cancel(self, prompt_ids: Sequence[str]) -> None:
        """Take exactly these prompts off the server; return when they are gone from it."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close sockets and end what was started. Safe to call twice."""

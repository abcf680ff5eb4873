"""What the parts of a diagnosis share: the way to the server, and what earlier parts learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfynb.backends.comfyui import Address
from comfynb.backends.comfyui.http import Http
from comfynb.errors import AccessDeniedError, BackendError, NotComfyUIError, RedirectedError

ENTRIES = 5
"""How many of the last entries of the history are looked at."""


@dataclass
class Visit:
    """One diagnosis under way.

    Attributes:
        address: Of the server.
        http: To ask it.
        round_trip: Whether a small prompt may be sent.
        named: Whether somebody named it; else it is the one `connect` looks for by itself.
        stats: Its answer to /system_stats.
        heard: Whether its WebSocket opened.
        busy: Whether anything ran or waited there.
        stuck: Whether its worker seems dead.
        pictures: Files of the last entries of its history, newest first.
        nodes: Its node classes.
    """

    address: Address
    http: Http
    round_trip: bool
    named: bool
    stats: Mapping[str, Any] = field(default_factory=dict)
    heard: bool = False
    busy: bool = False
    stuck: bool = False
    pictures: list[dict[str, str]] = field(default_factory=list)
    nodes: frozenset[str] = frozenset()

    @property
    def system(self) -> Mapping[str, Any]:
        """What it says of its machine."""
        return mapping(self.stats.get("system"))

    @property
    def flags(self) -> list[str]:
        """Its command line; empty where it does not say."""
        return [str(flag) for flag in listed(self.system.get("argv"))]

    def flag(self, name: str) -> str | None:
        """Return the value of a flag of its command line; "" without one; None: not given."""
        for place, flag in enumerate(self.flags):
            if flag == name:
                following = self.flags[place + 1 : place + 2]
                return next((v for v in following if not v.startswith("--")), "")
            if flag.startswith(f"{name}="):
                return flag.partition("=")[2]
        return None


def mapping(value: object) -> Mapping[str, Any]:
    """Return what should be a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """Return what should be a JSON array; an empty one for anything else."""
    return value if isinstance(value, list) else []


def number(value: object) -> float:
    """Return what should be a finite number; 0 for anything else."""
    usual = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usual and -1e300 < value < 1e300 else 0.0  # type: ignore[operator,arg-type]


def advice(error: BackendError) -> tuple[str, str]:
    """Split what an error of ours says into what happened and what to do."""
    what, _, step = str(error).partition("; ")
    if step:
        return what, step
    if isinstance(error, AccessDeniedError):
        step = "give a token (token=..., on the command line --token)"
    elif isinstance(error, RedirectedError):
        step = f"give the address that it points to: {error.target}"
    elif isinstance(error, NotComfyUIError):
        step = "look at the address: it must be the one that opens ComfyUI in a browser"
    else:
        step = "look at the log of the server, and of a proxy before it"
    return what, step

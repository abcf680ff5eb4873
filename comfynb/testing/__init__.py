"""Tools to test what is built on comfynb, public.

`FaultProxy` stands between a client and any ComfyUI and breaks what it is told to break; the
rules say what. It needs aiohttp (`pip install 'comfynb[test]'`).
"""

from comfynb.testing.fault_proxy import FaultProxy
from comfynb.testing.rules import (
    Blank,
    Cut,
    Delay,
    Down,
    DropAnswer,
    Duplicate,
    Fail,
    Fault,
    HalfOpen,
    LateAnswer,
    Message,
    MessageRule,
    Reply,
    RequestRule,
    Rule,
    Slow,
    Swallow,
    Truncate,
)

__all__ = [
    "Blank",
    "Cut",
    "Delay",
    "Down",
    "DropAnswer",
    "Duplicate",
    "Fail",
    "Fault",
    "FaultProxy",
    "HalfOpen",
    "LateAnswer",
    "Message",
    "MessageRule",
    "Reply",
    "RequestRule",
    "Rule",
    "Slow",
    "Swallow",
    "Truncate",
]

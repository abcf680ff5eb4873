"""Tools to test what is built on comfynb, public.

`FaultProxy` stands between a client and any ComfyUI and breaks what it is told to break; the
rules say what. It needs aiohttp (`pip install 'comfynb[engine]'`).
"""

from comfynb.testing.engine import EngineProcess
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
    Insert,
    LateAnswer,
    Message,
    MessageRule,
    Reply,
    RequestRule,
    Restart,
    Restartable,
    Rule,
    Slow,
    Swallow,
    Truncate,
    Usurp,
    strangers_prompt,
)

__all__ = [
    "Blank",
    "Cut",
    "Delay",
    "Down",
    "DropAnswer",
    "Duplicate",
    "EngineProcess",
    "Fail",
    "Fault",
    "FaultProxy",
    "HalfOpen",
    "Insert",
    "LateAnswer",
    "Message",
    "MessageRule",
    "Reply",
    "RequestRule",
    "Restart",
    "Restartable",
    "Rule",
    "Slow",
    "Swallow",
    "Truncate",
    "Usurp",
    "strangers_prompt",
]

"""Tools to test what is built on comfynb, or on any ComfyUI; public.

- `FaultProxy` stands between a client and a server and breaks what it is told to break. Its rules
  say what: those about messages of the websocket (`Cut`, `Swallow`, `Duplicate`, `Delay`,
  `Insert`, `HalfOpen`, `Usurp`, `Down`, `Restart`), those about requests (`Blank`, `LateAnswer`,
  `Fail`, `DropAnswer`, `Slow`, `Truncate`). A rule of one's own is a subclass with one method.
- `EngineProcess` is the embedded engine as a server that needs no GPU and can be killed.
- `comfynb.testing.plugin` has both as fixtures of pytest; it shows an example.

All of it needs aiohttp (`pip install 'comfynb[engine]'`), the fixtures pytest too.
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

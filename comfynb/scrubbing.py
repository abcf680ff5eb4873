"""Keep secrets out of whatever is written down.

httpx logs whole addresses at INFO, httpcore and websockets whole headers at DEBUG, and a proxy may
quote in its error page what it was sent. What opens a door is therefore told to this module when
an address is read, and from then on, for the life of the process, it is replaced by `***`: in
records of those libraries' loggers (a filter; levels, handlers and formats stay the user's), and
in every text of a server that comfynb quotes.

What a server hands out (a session cookie) is logged by httpcore before anybody can tell: values of
cookies are masked in these loggers wherever they stand.

A secret is looked for in each form in which it travels: as it is, percent-encoded, in base64, and
as Python or JSON would quote it. One shorter than four characters is not looked for: it would be
found in everything, and it protects nothing.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 4
"""Characters below which a text is no secret."""

LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "websockets.client",
    "comfynb.backends.comfyui.backend",
    "comfynb.backends.comfyui.handshake.wire",
    "comfynb.backends.comfyui.prompt",
    "comfynb.backends.comfyui.socket",
    "comfynb.backends.comfyui.uploads",
)
"""Those that may be handed an address, a header or a server's text. A filter of a logger does not
see what its children log, so each is named; tests compare with what the libraries have."""

_COOKIE = re.compile(r"""(cookie['"]?\s*[:,=]\s*b?['"]?)(?!['"])[^'"\r\n]+""", re.IGNORECASE)
"""`Set-Cookie: a=b` as websockets writes it, `(b'Set-Cookie', b'a=b')` as httpcore does."""

_lock = threading.Lock()
_forms: set[str] = set()
_pattern: re.Pattern[str] | None = None


def hide(secrets: Iterable[str]) -> None:
    """Have these texts replaced wherever comfynb or the libraries below it write.

    Args:
        secrets: Tokens, passwords, values of headers, cookies and query parameters.
    """
    global _pattern  # noqa: PLW0603 - one list for the process: its loggers are, too
    found = {form for secret in secrets for form in _forms_of(secret)}
    with _lock:
        if not found <= _forms:
            _forms.update(found)
            longest_first = sorted(_forms, key=len, reverse=True)
            _pattern = re.compile("|".join(map(_expression, longest_first)))
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # once: the same filter is not added again


def scrub(text: str) -> str:
    """Return a text without the secrets that were told."""
    return text if _pattern is None else _pattern.sub(MASK, text)


def _expression(form: str) -> str:
    """Return what finds a text, also where its percent-encoding is in small letters."""
    return re.sub("%[0-9A-F]{2}", lambda match: f"(?i:{match[0]})", re.escape(form))


def _forms_of(secret: str) -> set[str]:
    if len(secret) < SHORTEST:
        return set()
    forms = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
        repr(secret)[1:-1],
        repr(secret.encode())[2:-1],
        json.dumps(secret)[1:-1],
    }
    return forms | {form.replace("'", "\\'") for form in forms}


class _Filter(logging.Filter):
    """Lets every record pass, without the secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _pattern is None:
            return True
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a bad format is logging's to report, not ours
            return True
        if (clean := _COOKIE.sub(rf"\1{MASK}", scrub(text))) != text:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            if (clean := scrub(trace)) != trace:  # handlers write this instead of the exception
                record.exc_text = clean
        return True


_filter = _Filter()

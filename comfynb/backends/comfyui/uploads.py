"""Input files of prompts: each is sent once to each server, and again where the server lost it.

Nobody keeps their bytes here: they are read from where they are kept when they are to be sent.

Facts (ComfyUI 0.3.75, measured): POST /upload/image stores any bytes unchecked. The same name with
the same bytes gives the same name back, other bytes get a number behind theirs: so what counts is
the name in the answer. A prompt that names a file which is not there is refused with
custom_validation_failed, "image - Invalid image file: NAME".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from comfynb.backends.base import Read
from comfynb.backends.comfyui.http import Http
from comfynb.errors import ServerError, ServerUnreachableError

logger = logging.getLogger(__name__)

TRIES = 20
"""How often a file is sent while its server stands, before the cell fails."""
FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds between two tries, doubling."""


class Uploads:
    """What this process has uploaded to one server. Used on our loop only."""

    def __init__(self, http: Http, ready: Callable[[], Awaitable[None]]) -> None:
        """Prepare; nothing is sent.

        Args:
            http: The server.
            ready: Waits until it can be reached; raises when it is gone.
        """
        self._http, self._ready = http, ready
        self._sent: dict[str, asyncio.Task[str]] = {}
        self._files: dict[str, tuple[str, Read]] = {}

    async def put(self, name: str, mime: str, read: Read) -> str:
        """Have a file on the server; sent once, whoever asks.

        Args:
            name: Made from the content: another content has another name.
            mime: Its type.
            read: Gives the file; the last one given for a name counts.

        Returns:
            What the server calls it.

        Raises:
            BackendError: It could not be sent.
            ComfynbError: Whatever `read` raises.
        """
        self._files[name] = mime, read
        sending = self._sent.get(name)
        if sending is None or (sending.done() and _failed(sending)):
            sending = asyncio.create_task(self._send(name), name="comfynb-upload")
            self._sent[name] = sending
        return await asyncio.shield(sending)  # another cell may wait for the same file

    async def mend(self, complaint: str) -> bool:
        """Send again the files that a server's refusal names: it was restarted without them.

        Args:
            complaint: What the server said.

        Returns:
            Whether there was any.
        """
        lacking = [name for name in self._files if name in complaint]
        for name in lacking:
            logger.info("uploading %s again: the server does not have it any more", name)
            self._sent.pop(name, None)
            await self.put(name, *self._files[name])
        return bool(lacking)

    async def aclose(self) -> None:
        """Give up what is on its way."""
        sending = list(self._sent.values())
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        self._sent.clear()
        self._files.clear()

    async def _send(self, name: str) -> str:
        mime, read = self._files[name]
        pause, tries = FIRST_PAUSE, 0
        while True:
            await self._ready()
            try:
                return await self._http.upload(name, await read(), mime)
            except (ServerUnreachableError, ServerError) as exc:
                tries += 1
                refused = isinstance(exc, ServerError) and (exc.status or 0) < 500
                if refused or tries == TRIES:
                    raise
                logger.info("uploading %s again: %s", name, exc)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)


def _failed(sending: asyncio.Task[str]) -> bool:
    return sending.cancelled() or sending.exception() is not None

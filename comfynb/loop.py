"""The one background thread and loop on which all sockets, slots and timers of the process live.

A notebook's own loop belongs to the user: a `time.sleep` cell or a training loop blocks it, and
a blocked reader starves every client of a ComfyUI server. So everything that must go on lives
here, on a daemon thread that starts on first use, and the public coroutines are thin bridges:

* `across(coroutine)` awaits something of this loop from whatever loop the caller has;
* `wait(coroutine)` does the same from plain code and blocks;
* `in_worker(function)` is for this loop itself: file syncs, hashing, decoding and DuckDB go to
  threads, since they would block every socket of the process.

Whoever waits wakes at least four times a second. Without that, Interrupt in a notebook is dead:
a signal reaches Python code only when the main thread runs some (measured with ipykernel).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

WAKE_SECONDS = 0.25
"""How long anything a user can sit in may stay deaf to an interrupt."""

_lock = threading.RLock()  # re-entrant: a garbage collection may need the loop while we hold it
_loop: asyncio.AbstractEventLoop | None = None
_workers: dict[str, ThreadPoolExecutor] = {}


def get() -> asyncio.AbstractEventLoop:
    """Return the loop, starting its thread on the first call."""
    global _loop  # noqa: PLW0603 - one loop for the process is the point
    if _loop is not None:
        return _loop
    made = asyncio.new_event_loop()
    with _lock:
        if _loop is None:
            _loop = made
            # A daemon: a script that forgot to close still ends; what was made is on disk.
            threading.Thread(target=_serve, args=(made,), name="comfynb-loop", daemon=True).start()
    if made is not _loop:  # another thread was quicker
        made.close()
    return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def inside() -> bool:
    """Whether the caller runs on this loop's thread."""
    try:
        return asyncio.get_running_loop() is _loop
    except RuntimeError:
        return False


def start(coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Schedule a coroutine on the loop from any thread."""
    return asyncio.run_coroutine_threadsafe(coroutine, get())


async def across(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on our loop, from any loop.

    Cancelling the caller cancels the coroutine.
    """
    if inside():
        return await coroutine
    waiting = asyncio.wrap_future(start(coroutine))
    try:
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=WAKE_SECONDS)
    except asyncio.CancelledError:
        waiting.cancel()
        raise
    return waiting.result()


def wait(coroutine: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
    """Block until a coroutine on our loop is done; for callers without a running loop.

    An exception in the waiting thread (KeyboardInterrupt) cancels the coroutine.

    Args:
        coroutine: What to run.
        timeout: Seconds after which it is cancelled and TimeoutError raised; None: never.

    Raises:
        RuntimeError: If called on our own loop, which it would block for ever.
    """
    if inside():
        coroutine.close()
        raise RuntimeError("comfynb.loop.wait() was called on comfynb's own loop")
    future = start(coroutine)
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    try:
        while not future.done() and time.monotonic() < deadline:
            pause = min(WAKE_SECONDS, deadline - time.monotonic())
            concurrent.futures.wait([future], timeout=max(0.0, pause))
        return future.result(None if future.done() else 0)
    except BaseException:
        future.cancel()
        raise


async def pause(seconds: float) -> None:
    """Sleep on the caller's loop, waking now and then as whatever a user can sit in."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:  # noqa: ASYNC110 - it waits for time to pass
        await asyncio.sleep(min(WAKE_SECONDS, left))


async def in_worker(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread; called on our loop."""
    return await asyncio.wrap_future(_pool("work", 4).submit(function, *args, **kwargs))


def later(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run something nobody waits for, one at a time, behind everything that somebody does."""
    _pool("later", 1).submit(function, *args, **kwargs)


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    with _lock:
        if name not in _workers:
            _workers[name] = ThreadPoolExecutor(threads, thread_name_prefix=f"comfynb-{name}")
        return _workers[name]


class Signal:
    """Tells any number of waiters, on any loop or thread, that something changed.

    It carries no data: a waiter compares versions by itself, so that a slow one costs nothing
    and misses nothing that still matters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], object]] = set()

    def notify(self) -> None:
        """Wake everybody who waits now."""
        with self._lock:
            wakers, self._wakers = self._wakers, set()
        for wake in wakers:
            wake()

    @contextmanager
    def _listening(self, wake: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._wakers.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.discard(wake)

    async def until(self, changed: Callable[[], bool]) -> None:
        """Wait, on any loop, until `changed()` holds."""
        loop = asyncio.get_running_loop()
        while not changed():
            woken = asyncio.Event()

            def wake(woken: asyncio.Event = woken) -> None:
                with suppress(RuntimeError):  # its loop was closed; nobody is left to tell
                    loop.call_soon_threadsafe(woken.set)

            with self._listening(wake):
                if changed():
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(WAKE_SECONDS):
                        await woken.wait()

    def block_until(self, changed: Callable[[], bool]) -> None:
        """Block the calling thread until `changed()` holds."""
        woken = threading.Event()
        while not changed():
            woken.clear()
            with self._listening(woken.set):
                if changed():
                    return
                woken.wait(WAKE_SECONDS)


def _forget_after_fork() -> None:
    """A forked child has the objects but not the threads: let it start its own."""
    global _loop, _lock
    _loop, _lock = None, threading.RLock()
    _workers.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)

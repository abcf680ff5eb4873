"""The one loop: bridges to it from other loops and threads, wake-ups, forks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from support import until, wait_for

from comfynb import loop
from comfynb.loop import Signal


async def _thread_name() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def _forever(state: dict) -> None:
    state["begun"] = True
    try:
        await asyncio.sleep(1000)
    finally:
        state["ended"] = True


async def test_across_runs_on_the_loops_own_thread():
    assert await loop.across(_thread_name()) == "comfynb-loop"


def test_wait_runs_on_the_loops_own_thread():
    assert loop.wait(_thread_name()) == "comfynb-loop"


async def test_across_on_the_loop_itself_does_not_hop():
    async def inner():
        return await loop.across(_thread_name())

    assert await loop.across(inner()) == "comfynb-loop"


async def test_an_exception_comes_back_across():
    async def fail():
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        await loop.across(fail())
    with pytest.raises(LookupError, match="here"):
        loop.wait(fail())


async def test_cancelling_the_caller_cancels_what_runs_on_the_loop():
    state = {}
    task = asyncio.create_task(loop.across(_forever(state)))
    await until(lambda: "begun" in state)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: "ended" in state)


def test_wait_gives_up_after_its_timeout_and_cancels():
    state = {}
    with pytest.raises(TimeoutError):
        loop.wait(_forever(state), timeout=0.1)
    wait_for(lambda: "ended" in state or "begun" not in state)


def test_a_timeout_of_the_coroutine_itself_comes_through_wait():
    async def late():
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        loop.wait(late())


def test_what_finishes_in_the_moment_of_a_wake_up_is_not_taken_for_late(monkeypatch):
    """Many that end just when the waiting thread wakes: each gives its result."""
    monkeypatch.setattr(loop, "WAKE_SECONDS", 0.0)  # wakes all the time

    async def short(number):
        await asyncio.sleep(0.001)
        return number

    assert [loop.wait(short(n)) for n in range(60)] == list(range(60))


def test_wait_is_refused_on_the_loop_itself():
    async def block():
        loop.wait(_thread_name())

    with pytest.raises(RuntimeError, match="own loop"):
        loop.wait(block())


def test_an_interrupt_reaches_a_thread_that_waits_and_cancels():
    state = {}

    def interrupt_when_begun():
        wait_for(lambda: "begun" in state)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt_when_begun)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        loop.wait(_forever(state))
    sender.join()
    wait_for(lambda: "ended" in state)


async def test_in_worker_leaves_the_loop_free():
    async def both():
        release = threading.Event()
        blocked = asyncio.create_task(loop.in_worker(release.wait, 10))
        await asyncio.sleep(0)
        release.set()  # only possible if the loop goes on
        return await blocked, await loop.in_worker(threading.current_thread)

    released, thread = await loop.across(both())
    assert released
    assert thread.name.startswith("comfynb-work")


def test_what_runs_later_runs_one_at_a_time_in_order():
    order, running = [], []

    def step(number):
        running.append(number)
        assert len(running) == 1
        order.append(number)
        running.remove(number)

    for number in range(50):
        loop.later(step, number)
    wait_for(lambda: len(order) == 50)
    assert order == list(range(50))


# -- Signal


async def test_a_signal_wakes_waiters_on_other_loops_and_threads():
    news, changed, woken = Signal(), threading.Event(), []

    def blocked():
        news.block_until(changed.is_set)
        woken.append("thread")

    def other_loop():
        asyncio.run(news.until(changed.is_set))
        woken.append("loop")

    threads = [threading.Thread(target=blocked), threading.Thread(target=other_loop)]
    for thread in threads:
        thread.start()
    here = asyncio.create_task(news.until(changed.is_set))
    await asyncio.sleep(0)
    changed.set()
    news.notify()
    await here
    await asyncio.gather(*(asyncio.to_thread(thread.join, 5) for thread in threads))
    assert sorted(woken) == ["loop", "thread"]


async def test_no_wake_up_is_lost_when_many_threads_notify(monkeypatch):
    """Every change is seen at once: with a lost wake-up only the slow poll would find it."""
    monkeypatch.setattr(loop, "WAKE_SECONDS", 30.0)
    news, count, seen = Signal(), [0], [0]
    rounds, lock = 3000, threading.Lock()

    def write():
        for _ in range(rounds):
            with lock:
                count[0] += 1
            news.notify()

    def ahead() -> bool:
        return count[0] > seen[0]

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    async with asyncio.timeout(20):
        while seen[0] < 4 * rounds:
            await news.until(ahead)
            seen[0] = count[0]
    for writer in writers:
        writer.join()


async def test_waiters_notice_a_change_that_nobody_announced_within_the_wake_time():
    news, flag = Signal(), []
    asyncio.get_running_loop().call_later(0.05, flag.append, True)
    async with asyncio.timeout(10):
        await news.until(lambda: bool(flag))
    assert loop.WAKE_SECONDS <= 0.25


async def test_a_waiter_that_was_cancelled_leaves_nothing_behind():
    news = Signal()
    task = asyncio.create_task(news.until(lambda: False))
    await until(lambda: news._wakers)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not news._wakers


def test_a_waiter_whose_loop_was_closed_disturbs_nobody():
    news, changed, heard = Signal(), [], []
    gone = asyncio.new_event_loop()
    waiting = gone.create_task(news.until(lambda: bool(changed)))
    gone.run_until_complete(asyncio.sleep(0))
    gone.close()
    waiting._log_destroy_pending = False

    def listen():
        news.block_until(lambda: bool(changed))
        heard.append(True)

    other = threading.Thread(target=listen)
    other.start()
    wait_for(lambda: len(news._wakers) == 2)
    changed.append(True)
    news.notify()
    other.join(5)
    assert heard


# -- processes


def test_a_forked_child_starts_a_loop_of_its_own():
    code = """
import os, sys, threading
from comfynb import loop

async def name():
    return threading.current_thread().name, os.getpid()

parents = loop.wait(name())
loop.later(int)
child = os.fork()
if child == 0:
    theirs = loop.wait(name(), timeout=5)
    assert theirs == ("comfynb-loop", os.getpid()), theirs

    async def work():
        return await loop.in_worker(os.getpid)

    assert loop.wait(work(), timeout=5) == os.getpid()
    os._exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert loop.wait(name()) == parents
print("both")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "both\n"), done.stderr


def test_a_script_ends_although_the_loop_still_works():
    code = """
import asyncio
from comfynb import loop
loop.start(asyncio.sleep(1000))
"""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun < 10

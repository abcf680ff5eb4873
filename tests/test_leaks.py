"""A kernel lives for weeks: runs, studios and servers come and go and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import psutil
from support import scenes, sockets_to, tasks_on_our_loop, until

import comfynb
from comfynb import loop

MEGABYTE = 2**20


def usage():
    process = psutil.Process()
    threads = sorted(thread.name for thread in threading.enumerate())
    pools = [name for name in threads if name.startswith(("comfynb-work", "asyncio_"))]
    assert len(pools) <= 4 + 8  # they fill up as needed, to a limit
    return {
        "threads": [name for name in threads if name not in pools],
        "files": sorted(file.path for file in process.open_files()),
        "descriptors": process.num_fds(),
        "tasks": tasks_on_our_loop(),
    }


async def test_fifty_runs_leave_no_growth(engine, flow, tmp_path):
    process = psutil.Process()
    with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        for seed in range(10):  # pools and caches fill
            await studio.run(["a fox", "an owl"], seed=seed)
        await asyncio.to_thread(thumbnails_made)
        gc.collect()
        before, memory = usage(), process.memory_info().rss
        for seed in range(100, 150):
            assert [k.status for k in await studio.run(["a fox", "an owl"], seed=seed)] == [
                "done",
                "done",
            ]
        await asyncio.to_thread(thumbnails_made)
        gc.collect()
        assert usage() == before
        assert process.memory_info().rss - memory < 25 * MEGABYTE


def thumbnails_made():
    """Block until they are: one is made after the other, so what comes now comes after them."""
    loop._pool("later", 1).submit(int).result(30)


async def test_studios_come_and_go_without_growth(engine, flow, tmp_path):
    def once(seed):
        with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
            studio.render(["a fox"], seed=seed)

    await asyncio.to_thread(once, 0)
    thumbnails_made()
    before = usage()
    for seed in range(1, 11):
        await asyncio.to_thread(once, seed)
    thumbnails_made()
    assert usage() == before
    assert sockets_to(engine.port) == 0


async def test_a_run_outlives_its_closed_studio_and_then_lets_go_of_everything(
    engine, slow_flow, tmp_path
):
    studio = comfynb.connect(engine.url, workflow=slow_flow, log=tmp_path / "log")
    run = studio.run(scenes(4))
    await anext(run.keyframes())
    await studio.aclose()
    assert [k.status for k in await run] == ["done"] * 4
    await until(lambda: tasks_on_our_loop() == [])
    assert sockets_to(engine.port) == 0
    assert len(comfynb.Log(tmp_path / "log", read_only=True).keyframes(status="done")) == 4


async def test_a_run_that_has_ended_holds_no_ring_of_references(engine, flow, tmp_path):
    """It would keep its studio, and with it the server, until somebody collects garbage."""
    studio = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    run = studio.run(scenes(1))
    await run
    left = [weakref.ref(run), weakref.ref(studio)]
    gc.collect()
    gc.disable()
    try:
        del run, studio
        await until(lambda: not any(ref() for ref in left))
    finally:
        gc.enable()


async def test_forgotten_studios_are_closed(engine, flow, tmp_path):
    await asyncio.to_thread(thumbnails_made)
    before = usage()
    for seed in range(5):
        studio = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
        await studio.run(["a fox"], seed=seed)
        del studio
        gc.collect()
    await until(lambda: tasks_on_our_loop() == [])
    await until(lambda: sockets_to(engine.port) == 0)
    await until(lambda: usage() == before)


async def test_a_run_whose_studio_was_forgotten_goes_on(engine, slow_flow, tmp_path):
    run = comfynb.connect(engine.url, workflow=slow_flow, log=tmp_path / "log").run(scenes(3))
    gc.collect()
    assert [k.status for k in await run] == ["done"] * 3
    del run
    gc.collect()
    await until(lambda: tasks_on_our_loop() == [])
    assert sockets_to(engine.port) == 0

"""Three clients, a stranger, and two minutes of whatever may break, in an order of chance.

    COMFYNB_SOAK_SECONDS=20 COMFYNB_SOAK_SEED=7 pytest -m long tests/both/test_soak.py

runs a shorter one, and the one that another run has printed the seed of. (The same seed gives the
same scenes, cancels and faults; when each strikes is for the machine to say.)
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from pathlib import Path

import plain
import psutil
import pytest
from support import Server, Stranger, sockets_to, studio_on, tasks_on_our_loop, until

from comfynb.log import Log
from comfynb.log.records import result_id
from comfynb.testing import (
    Blank,
    Cut,
    Delay,
    Down,
    DropAnswer,
    Duplicate,
    Fail,
    FaultProxy,
    HalfOpen,
    Insert,
    LateAnswer,
    Slow,
    Swallow,
    Truncate,
    Usurp,
)

SECONDS = float(os.environ.get("COMFYNB_SOAK_SECONDS", "120"))
CLIENTS, PROMPTS = 3, 300
BOUND = 60.0
"""Seconds after which a run of at most seven pictures counts as a hang."""

FAULTS = [
    Swallow("executed"),
    Swallow("executing:null"),
    Swallow("execution_success"),
    Swallow(times=8),
    Duplicate(times=5),
    Delay(seconds=0.3),
    Insert(times=3),
    Usurp(),
    Cut(),
    Cut("executed"),
    Cut(after_bytes=30),
    HalfOpen(),
    Down(seconds=0.5),
    Blank(times=2),
    LateAnswer(seconds=0.5),
    DropAnswer("POST /prompt"),
    DropAnswer("POST /prompt", accepted=False),
    DropAnswer("GET /queue"),
    DropAnswer("GET /history"),
    DropAnswer("GET /view"),
    DropAnswer("POST /queue"),
    DropAnswer("POST /interrupt"),
    DropAnswer("WS /ws"),
    Fail("POST /prompt", status=502),
    Fail("GET /view", status=502),
    Fail("GET /history", status=503),
    Slow(bytes_per_second=30_000),
    Truncate(after_bytes=50),
]


class Client:
    """A client with a line, a log and a mind of its own.

    Attributes:
        cells: How many it asked for so far.
        cancelled: Seeds of the scenes that it asked to give up.
        remade: Seeds of the scenes that it asked for although the log had them.
    """

    def __init__(self, server: Server, folder: Path, number: int, seed: int) -> None:
        self.proxy = FaultProxy(server.url).start()
        self.log, self.number, self.chance = folder / f"log-{number}", number, random.Random(seed)
        self.studio = studio_on(
            self.proxy.url, workflow=plain.flow(seconds=0.01), log=self.log, silence=1.0
        )
        self.cells = self.runs = 0
        self.cancelled: set[int] = set()
        self.remade: set[int] = set()

    async def work(self, until: float) -> None:
        """Start runs, mostly one after the other, until that time; seconds, monotonic."""
        while time.monotonic() < until or self.cells < PROMPTS / CLIENTS:
            await asyncio.gather(*(self.one_run() for _ in range(self.chance.choice([1, 1, 2]))))

    async def one_run(self) -> None:
        chance = self.chance
        self.runs += 1
        rows = [
            {
                "id": f"{self.runs}-{i}",
                "prompt": "a fox",
                # Some are the same, in one run and in others; none is another client's.
                "seed": self.number * 10_000 + chance.randrange(500),
                "knobs": {"Guard.seconds": chance.choice([0.01, 0.02, 0.05])},
            }
            for i in range(chance.randrange(1, 8))
        ]
        self.cells += len(rows)
        force = chance.random() < 0.1
        if force:
            self.remade |= {row["seed"] for row in rows}
        run = self.studio.run(rows, force=force)
        await asyncio.sleep(chance.random() * 0.3)
        match chance.randrange(8):
            case 0:
                self.cancelled |= {row["seed"] for row in rows}
                await run.cancel()
            case 1:
                self.cancelled |= {row["seed"] for row in rows[::2]}
                await run.cancel({row["id"] for row in rows[::2]})
            case 2:
                run.pause()
                await asyncio.sleep(chance.random() * 0.2)
                run.resume()
            case 3:
                self.proxy.kill()
            case 4 | 5 | 6:
                self.proxy.add(chance.choice(FAULTS))
        async with asyncio.timeout(BOUND):
            yielded = [keyframe.scene.id async for keyframe in run.keyframes()]
        given = run.result()
        assert [k.scene.id for k in given] == [row["id"] for row in rows]
        assert len(set(yielded)) == len(yielded)
        assert {k.scene.id for k in given if k.ok} <= set(yielded)
        unended = [k for k in given if k.status not in ("done", "cached", "cancelled")]
        assert not unended, [str(k.error) for k in unended]
        assert all(k.scene.seed in self.cancelled for k in given if k.status == "cancelled")

    async def aclose(self) -> None:
        await self.studio.aclose()
        self.proxy.close()

    def check(self, ended: dict) -> None:
        """Compare what the server made for this client with what its log has."""
        kept = Log(self.log, read_only=True).keyframes()
        assert len({k.id for k in kept}) == len(kept)
        done = [k for k in kept if k.status == "done"]
        assert all(k.read().startswith(b"\x89PNG") for k in done)
        keys = Counter(k.key for k in done if k.scene.seed not in self.remade)
        assert set(keys.values()) <= {1}, "a picture was made twice"
        made = {
            result_id(prompt_id): seed_of(ended[prompt_id])
            for prompt_id in self.proxy.prompts
            if prompt_id in ended and ended[prompt_id]["status"]["status_str"] == "success"
        }
        assert {k.id for k in done} <= made.keys()
        lost = made.keys() - {k.id for k in done}
        assert {made[result] for result in lost} <= self.cancelled, "a picture was lost"


def seed_of(entry: dict) -> int:
    """The seed of a prompt, by its entry in the history."""
    return entry["prompt"][2]["noise"]["inputs"]["seed"]


async def strange(server: Server, until: float) -> list[str]:
    """Have prompts made as somebody else does, straight on the server; return their ids."""
    stranger, prompts = await asyncio.to_thread(Stranger, server), []
    seeds = iter(range(900_000, 1_000_000))
    while time.monotonic() < until:
        graph = plain.picture(next(seeds), seconds=0.05)
        posted = asyncio.to_thread(server.post_graph, graph, client_id=stranger.client_id)
        prompts.append(await posted)
        await asyncio.sleep(0.5)
    await asyncio.to_thread(stranger.close)
    return prompts


@pytest.mark.long
@pytest.mark.timeout(SECONDS * 4 + BOUND)
async def test_nothing_is_lost_or_doubled_or_left_over_and_no_stranger_is_touched(
    server, tmp_path, capsys
):
    seed = int(os.environ.get("COMFYNB_SOAK_SEED") or random.randrange(2**32))
    with capsys.disabled():
        print(f"\nsoak of {SECONDS:g} s on {server.url}: COMFYNB_SOAK_SEED={seed}")
    await warm_up(server, tmp_path / "warm-up")
    descriptors = psutil.Process().num_fds()

    clients = [Client(server, tmp_path, n, seed + n) for n in range(CLIENTS)]
    ports = [int(client.proxy.url.rpartition(":")[2]) for client in clients]
    try:
        for client in clients:
            await client.studio.run(["a lighthouse"])  # never reached, it may well be an error
        until_then = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as group:
            strangers = group.create_task(strange(server, until_then))
            for client in clients:
                group.create_task(client.work(until_then))
        await until(lambda: not server.prompts())
    finally:
        for client in clients:
            await client.aclose()

    ended = server.get("/history")
    for client in clients:
        client.check(ended)
    for prompt_id in strangers.result():
        assert ended[prompt_id]["status"]["status_str"] == "success", "a stranger's was touched"
    asked, posted = sum(c.cells for c in clients), sum(len(c.proxy.prompts) for c in clients)
    with capsys.disabled():
        print(f"{asked} cells, {posted} prompts, {len(strangers.result())} of a stranger")
    assert asked >= PROMPTS

    assert tasks_on_our_loop() == []
    assert sockets_to(server.port, *ports) == 0
    gc.collect()
    await until(lambda: psutil.Process().num_fds() <= descriptors)


async def warm_up(server: Server, folder: Path) -> None:
    """Open once what stays open as long as a process lives: pools, loops, databases."""
    client = Client(server, folder, 9, 0)
    await client.studio.run([{"prompt": "a fox", "seed": i} for i in range(12)])
    await client.aclose()

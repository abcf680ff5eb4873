"""Runs, cancels, pauses, cut sockets and lost answers at random, many times over."""

from __future__ import annotations

import asyncio
import random

import pytest
from support import sockets_to, tasks_on_our_loop, until

import comfynb
from comfynb.log import Log
from comfynb.testing import DropAnswer, Duplicate, Fail, FaultProxy, Swallow

FAULTS = [
    lambda: Swallow("executed"),
    lambda: Swallow("executing:null"),
    lambda: Swallow("execution_success"),
    lambda: Duplicate(times=5),
    lambda: DropAnswer("POST /prompt"),
    lambda: DropAnswer("POST /prompt", accepted=False),
    lambda: DropAnswer("GET /queue"),
    lambda: DropAnswer("GET /history"),
    lambda: DropAnswer("GET /view"),
    lambda: Fail("POST /prompt", status=502),
    lambda: Fail("GET /view", status=502),
]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_every_run_ends_and_no_prompt_stays(engine, flow, tmp_path, seed):
    chance = random.Random(seed)
    with FaultProxy(engine.url) as proxy:
        studio = comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log")
        await studio.run(["a lighthouse"])  # a server that was never reached may well be an error

        async def one(number):
            rows = [
                {
                    "id": f"{number}-{i}",
                    "prompt": "a fox",
                    "seed": chance.randrange(60),  # some are the same, in one run and in others
                    "knobs": {"Guard.seconds": chance.choice([0, 0.01, 0.05])},
                }
                for i in range(chance.randrange(1, 8))
            ]
            run = studio.run(rows, force=chance.random() < 0.2)
            await asyncio.sleep(chance.random() * 0.3)
            match chance.randrange(6):
                case 0:
                    await run.cancel()
                case 1:
                    await run.cancel({row["id"] for row in rows[::2]})
                case 2:
                    run.pause()
                    await asyncio.sleep(chance.random() * 0.2)
                    run.resume()
                case 3:
                    proxy.kill()
                case 4:
                    proxy.add(chance.choice(FAULTS)())
            keyframes = await asyncio.wait_for(run, 40)
            assert run.ended
            assert len(keyframes) == len(rows)
            assert {k.status for k in keyframes} <= {"done", "cached", "cancelled"}, keyframes

        for batch in range(25):
            await asyncio.gather(*(one(f"{batch}-{n}") for n in range(chance.randrange(1, 4))))
            proxy.clear()
        await until(lambda: not engine.prompts())
        await studio.aclose()
    assert tasks_on_our_loop() == []
    assert sockets_to(engine.port) == 0
    kept = Log(tmp_path / "log", read_only=True).keyframes()
    assert len({k.id for k in kept}) == len(kept)

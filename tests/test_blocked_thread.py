"""A user's `time.sleep` in the notebook's thread stalls nothing and starves nobody."""

from __future__ import annotations

import threading
import time

import pytest
from support import Stranger, scenes, wait_for

import comfynb
from comfynb.log import Log


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.long)])
async def test_a_sleeping_caller_stops_neither_the_run_nor_a_stranger(
    engine, slow_flow, tmp_path, seconds
):
    stranger = Stranger(engine)
    posted = []

    def post_meanwhile():
        time.sleep(seconds / 3)  # well inside the caller's sleep
        posted.append(engine.post_prompt(client_id=stranger.client_id, seed=4242))

    count = seconds * 2  # of 0.4 s each: about 0.8 of the sleep
    with comfynb.connect(engine.url, workflow=slow_flow, log=tmp_path / "log") as studio:
        run = studio.run(scenes(count))
        keyframes = run.keyframes()
        await anext(keyframes)
        sleeping = threading.Thread(target=post_meanwhile)
        sleeping.start()
        begun = time.time()
        time.sleep(seconds)  # noqa: ASYNC251 - it is what this test is about
        woken = time.time()
        sleeping.join()
        meanwhile = [
            k
            for k in Log(tmp_path / "log", read_only=True).keyframes(status="done")
            if begun < k.created_at.timestamp() < woken
        ]
        assert len(meanwhile) > count / 2
        assert all(begun < k.path.stat().st_mtime < woken for k in meanwhile)
        wait_for(lambda: stranger.times("executed", posted[0]))
        (heard,) = stranger.times("executed", posted[0])
        assert begun < heard < woken
        assert [k.status for k in await run] == ["done"] * count
        await keyframes.aclose()
    stranger.close()

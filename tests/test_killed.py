"""kill -9 in the middle of a run: what was yielded is there, at once and for everybody."""

from __future__ import annotations

import asyncio
import json
import signal

from support import script

import comfynb
from comfynb.boards.board import Board
from comfynb.log import Log

VICTIM = """
import asyncio, contextlib, os, signal, sys
import comfynb
from support import scenes
url, flow, log = sys.argv[1:]

async def main():
    studio = comfynb.connect(url, workflow=flow, log=log)
    given = 0
    async with contextlib.aclosing(studio.keyframes(scenes(9))) as keyframes:
        async for keyframe in keyframes:
            print(keyframe.id, flush=True)
            given += 1
            if given == 3:
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_three_yielded_keyframes_outlive_a_kill_while_another_process_appends(
    engine, flow, tmp_path
):
    folder, file = tmp_path / "log", tmp_path / "flow.json"
    slow = flow.with_knobs({"Guard.seconds": 0.2})
    file.write_text(json.dumps(slow.graph, default=dict))
    others = [{"id": f"other-{i}", "prompt": "a boat", "seed": i} for i in range(12)]
    with comfynb.connect(engine.url, workflow=slow, log=folder) as studio:
        ours = studio.run(others)  # appends before the kill, and after it
        process = script(VICTIM, engine.url, file, folder)
        yielded = (await asyncio.to_thread(process.communicate, timeout=30))[0].split()
        assert process.returncode == -signal.SIGKILL
        assert not ours.ended

        log = Log(folder, read_only=True)
        theirs = next(run for run in log.runs() if len(run.cells) == 9)
        kept = log.keyframes(run=theirs.id)
        assert [k.id for k in kept] == yielded
        assert [k.status for k in kept] == ["done"] * 3
        assert all(k.read().startswith(b"\x89PNG") for k in kept)
        assert [cell.scene for cell in theirs.cells] == [f"scene-{n}" for n in range(1, 10)]
        cells = Board.of_log(log, theirs.id).state.cells
        assert [cell.status for cell in cells[:3]] == ["done"] * 3
        sent = [cell for cell in cells if cell.status == "unknown"]  # what was on its way
        assert {cell.cell.key for cell in sent} == {orphan.key for orphan in log.orphans()}
        server = engine.url.partition("//")[2]
        assert all(f"connect to {server}" in cell.keyframe.error.hint for cell in sent)

        made = await ours
        assert [k.status for k in made] == ["done"] * 12
        assert made[0].created_at < kept[-1].created_at < made[-1].created_at
        assert len(log.keyframes(status="done")) == 15

"""The bug this project began with: a server that dies in the middle must cost nothing made."""

from __future__ import annotations

import json

import pytest
from support import scenes, script, wait_for

import comfynb
from comfynb.log import Log
from comfynb.testing import FaultProxy

NINE = scenes(9, **{"Guard.seconds": 0.1})
NINE[5]["knobs"] = {"Guard.seconds": 2.5}
"""The sixth takes long enough to kill its server in."""

ANOTHER_PROCESS = """
import json, sys
import comfynb
url, flow, log, scenes = sys.argv[1:]
with comfynb.connect(url, workflow=flow, log=log) as studio:
    print(json.dumps([k.status for k in studio.render(json.loads(scenes))]))
"""


@pytest.fixture
def proxy(own_engine):
    with FaultProxy(own_engine.url) as proxy:
        yield proxy


async def test_nothing_made_is_lost_with_the_server_and_retry_makes_exactly_the_rest(
    own_engine, proxy, flow, tmp_path
):
    folder = tmp_path / "log"
    with comfynb.connect(proxy.url, workflow=flow, log=folder, reconnect_for=0.5) as studio:
        run = studio.run(NINE)
        given = []
        async for keyframe in run:
            given.append(keyframe)
            if len(given) == 5:
                own_engine.kill()
        assert [k.status for k in given] == ["done"] * 5 + ["failed"] * 4
        for keyframe in given[5:]:
            assert keyframe.error.kind == "server_gone"
            assert studio.server in keyframe.error.message
            assert keyframe.error.hint
        log = Log(folder, read_only=True)
        assert [k.id for k in log.keyframes(status="done")] == [k.id for k in given[:5]]
        assert {k.id for k in log.keyframes(status="failed")} == {k.id for k in given[5:]}

        own_engine.start()
        sent = proxy.requests["POST /prompt"]
        again = await run.retry()
        assert {k.key for k in again} == {k.key for k in given[5:]}
        assert [k.status for k in again] == ["done"] * 4
        assert proxy.requests["POST /prompt"] - sent == len(own_engine.ended()) == 4
        assert [k.status for k in log.latest()] == ["done"] * 9

    # Its sockets close a moment after the studio; then nothing but the new process is counted.
    wait_for(lambda: not proxy.open_sockets)
    proxy.requests.clear()
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(flow.graph, default=dict))
    process = script(ANOTHER_PROCESS, proxy.url, file, folder, json.dumps(NINE))
    said, _ = process.communicate(timeout=30)
    assert json.loads(said) == ["cached"] * 9
    assert proxy.requests.keys() <= {"GET /system_stats", "GET /models"}

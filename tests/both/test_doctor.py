"""The doctor on both servers: everything is examined, and nothing stays behind."""

from __future__ import annotations

import plain

import comfynb


async def test_every_part_is_good_and_queue_and_history_are_as_before(server, tmp_path):
    with comfynb.connect(server.url, workflow=plain.flow(), log=tmp_path / "log") as studio:
        await studio.run(plain.scenes(1))
    before = server.get("/history"), server.get("/queue")
    diagnosis = await comfynb.diagnose(server.url)
    assert diagnosis.ok, str(diagnosis)
    assert {part.status for part in diagnosis.parts} == {"good"}, str(diagnosis)
    assert diagnosis["round_trip"].data["round_trip_ms"] > 0
    assert diagnosis["websocket"].data["flags"]["supports_preview_metadata"] == "True"
    assert diagnosis["retrieval"].data["mime"] == "image/png"
    assert (server.get("/history"), server.get("/queue")) == before

"""What a user does every day, on both servers: each picture comes once, at once, and is kept."""

from __future__ import annotations

import contextlib

import plain
import pytest

import comfynb
from comfynb.log import Log


@pytest.fixture
def studio(server, tmp_path):
    with comfynb.connect(server.url, workflow=plain.flow(), log=tmp_path / "log") as studio:
        yield studio


async def test_each_picture_is_yielded_once_and_is_in_the_log_before_that(studio, server):
    before, given = server.ended(), []
    async with contextlib.aclosing(studio.keyframes(plain.scenes(6))) as keyframes:
        async for keyframe in keyframes:
            kept = Log(studio.log.folder, read_only=True).keyframes()
            assert keyframe.id in {k.id for k in kept}
            given.append(keyframe)
    assert [k.status for k in given] == ["done"] * 6, [str(k.error) for k in given]
    assert len({k.id for k in given}) == len({k.key for k in given}) == 6
    assert len(server.ended() - before) == 6


async def test_the_bytes_kept_are_those_that_the_server_has(studio, server):
    before = server.ended()
    kept = {k.read() for k in await studio.run(plain.scenes(3))}
    theirs = {
        server.get_bytes("/view", **picture)
        for prompt_id in server.ended() - before
        for picture in server.get(f"/history/{prompt_id}")[prompt_id]["outputs"]["save"]["images"]
    }
    assert kept == theirs
    assert len(kept) == 3

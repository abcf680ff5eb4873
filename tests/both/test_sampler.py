"""A sampler with a model, on both servers: steps, previews, pictures, and a sudden end."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from support import until

import comfynb
from comfynb.pictures import picture_type

QUICK = {"width": 64, "height": 64}


@pytest.fixture
def studio(server, tmp_path):
    with comfynb.connect(server.url, workflow="txt2img", log=tmp_path / "log") as studio:
        yield studio


async def test_each_step_and_a_preview_are_told_before_the_picture(studio):
    run = studio.run(["a fox", "an owl"], knobs={**QUICK, "steps": 12})
    steps, previews = defaultdict(list), defaultdict(set)
    async for changes in run.subscribe():
        for state in changes.cells:
            if state.steps == 12:
                steps[state.cell.index].append(state.step)
            if state.preview is not None:
                assert state.status == "running"
                previews[state.cell.index].add(state.preview)
    for index, keyframe in enumerate(run.result()):
        assert keyframe.status == "done", keyframe.error
        assert keyframe.image.size == (64, 64)
        assert steps[index] == sorted(steps[index])
        assert steps[index]
        assert {picture_type(preview) for preview in previews[index]} == {"image/jpeg"}


async def test_the_same_seed_gives_the_same_picture_and_another_seed_another(studio):
    first, other = await studio.run(
        [{"prompt": "a fox", "seed": 1}, {"prompt": "a fox", "seed": 2}],
        knobs={**QUICK, "steps": 2},
    )
    (again,) = await studio.run(
        [{"prompt": "a fox", "seed": 1}], knobs={**QUICK, "steps": 2}, force=True
    )
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.tobytes() != other.image.tobytes()


async def test_a_sampler_is_stopped_between_two_steps(studio, server):
    await studio.run(["a start"], knobs={**QUICK, "steps": 1})  # the model is loaded: nothing
    run = studio.run(["a fox", "an owl"], knobs={**QUICK, "steps": 1000})  # stops that
    await until(lambda: run.state.cells[0].step)
    await asyncio.wait_for(run.cancel(), 10)
    assert server.prompts() == set()
    assert [k.status for k in run.result()] == ["cancelled"] * 2

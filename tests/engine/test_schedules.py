"""Schedules start, fall and end where the model and ComfyUI want them."""

import json

import numpy as np
import pytest

from comfynb.engine.model import WEIGHTS
from comfynb.engine.schedules import SCHEDULES, NoiseLevels, sigmas


@pytest.fixture(scope="module")
def levels():
    return NoiseLevels.of(json.loads((WEIGHTS / "model.json").read_text("utf-8")))


def test_the_table_is_stable_diffusions(levels):
    # the published extremes of its scaled-linear schedule
    assert levels.table[[0, -1]] == pytest.approx([0.0292, 14.6146], abs=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 16, 100, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_sigmas_fall_strictly_to_zero(name, steps, levels):
    schedule = sigmas(name, steps, levels)
    assert len(schedule) == steps + 1
    assert (np.diff(schedule) < 0).all()
    assert schedule[-1] == 0


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("karras", 20, 0.03),
        ("exponential", 20, 0.03),
        ("normal", 14.6146, 0.0292),
        ("simple", 14.6146, 0.3417),  # entry 99 of 1000: it stops short of the lowest
    ],
)
def test_known_ends(name, first, last, levels):
    schedule = sigmas(name, 10, levels)
    assert schedule[[0, -2]] == pytest.approx([first, last], rel=2e-3)


def test_karras_is_even_in_the_seventh_root_and_exponential_in_the_logarithm(levels):
    assert np.ptp(np.diff(sigmas("karras", 9, levels)[:-1] ** (1 / 7))) < 1e-12
    assert np.ptp(np.diff(np.log(sigmas("exponential", 9, levels)[:-1]))) < 1e-12


def test_simple_takes_its_sigmas_from_the_table(levels):
    assert np.isin(sigmas("simple", 16, levels)[:-1], levels.table).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_denoise_walks_the_end_of_a_longer_schedule(name, levels):
    whole = sigmas(name, 20, levels)
    part = sigmas(name, 8, levels, denoise=0.4)
    assert np.array_equal(part, whole[-9:])
    assert np.array_equal(sigmas(name, 20, levels, denoise=0.99995), whole)


def test_denoise_zero_is_no_walk(levels):
    assert len(sigmas("karras", 8, levels, denoise=0)) == 0


def test_a_tiny_denoise_stays_small_work(levels):
    assert sigmas("karras", 20, levels, denoise=1e-12)[0] < 0.031


def test_simple_may_repeat_but_never_rises_beyond_its_table(levels):
    assert (np.diff(sigmas("simple", 1500, levels)) <= 0).all()


@pytest.mark.parametrize(
    ("name", "steps", "denoise", "says"),
    [
        ("cosine", 8, 1, "unknown scheduler 'cosine'.*karras"),
        ("karras", 0, 1, "steps must be at least 1, not 0"),
        ("karras", 8, 1.5, "denoise must be from 0 to 1, not 1.5"),
        ("karras", 8, float("nan"), "denoise"),
    ],
)
def test_what_makes_no_sense_is_refused(name, steps, denoise, says, levels):
    with pytest.raises(ValueError, match=says):
        sigmas(name, steps, levels, denoise=denoise)

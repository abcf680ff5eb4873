"""Samplers against a model whose answer is known.

Where the data are standard normal, the best guess at noise level s is x / (1 + s^2), and the exact
end of the walk from x at level s is x / sqrt(1 + s^2): an error can be measured, and its order.
"""

import numpy as np
import pytest

from comfynb.engine.samplers import SAMPLERS
from comfynb.engine.schedules import NoiseLevels, sigmas

# far below the model's own lowest level, so that the last step adds no error of its own
LEVELS = NoiseLevels(lowest=1e-4, highest=20, table=np.ones(1))


def gaussian(x, sigma):
    return x / (1 + sigma**2)


def no_noise():
    raise AssertionError("a deterministic sampler drew noise")


def ignore(step, steps, guess):
    pass


def error(name, steps):
    schedule = sigmas("karras", steps, LEVELS)
    start = np.full(1, 20.0)
    end = SAMPLERS[name](gaussian, start, schedule, no_noise, ignore)
    return abs(end - start / np.sqrt(1 + schedule[0] ** 2))[0]


@pytest.mark.parametrize(
    ("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)]
)
def test_error_shrinks_with_the_samplers_order(name, order):
    assert error(name, 200) / error(name, 400) == pytest.approx(2**order, rel=0.1)


def test_ddim_is_eulers_step():
    assert error("ddim", 10) == pytest.approx(error("euler", 10), rel=1e-9)


def test_euler_ancestral_keeps_the_spread_of_the_data():
    random = np.random.default_rng(0)
    schedule = sigmas("karras", 200, LEVELS)
    start = random.standard_normal(20_000) * 20
    end = SAMPLERS["euler_ancestral"](
        gaussian, start, schedule, lambda: random.standard_normal(20_000), ignore
    )
    assert end.std() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(start, end)[0, 1]) < 0.1  # 1 where no noise is added


def test_euler_ancestral_draws_noise_at_every_step_but_the_last():
    draws = []
    schedule = sigmas("karras", 6, LEVELS)
    SAMPLERS["euler_ancestral"](
        gaussian, np.ones(3), schedule, lambda: draws.append(1) or np.zeros(3), ignore
    )
    assert len(draws) == 5


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_told_once_in_order_with_its_guess(name):
    told = []
    SAMPLERS[name](
        gaussian,
        np.full(2, 20.0),
        sigmas("karras", 5, LEVELS),
        lambda: np.zeros(2),
        lambda step, steps, guess: told.append((step, steps, guess.shape)),
    )
    assert told == [(i, 5, (2,)) for i in range(5)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_gives_the_guess(name):
    start = np.full(2, 20.0)
    end = SAMPLERS[name](gaussian, start, np.array([20.0, 0]), no_noise, ignore)
    assert end == pytest.approx(gaussian(start, 20.0))


@pytest.mark.parametrize("name", SAMPLERS)
def test_repeated_sigmas_do_no_harm(name):
    schedule = np.array([2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.0])
    end = SAMPLERS[name](gaussian, np.ones(2), schedule, lambda: np.zeros(2), ignore)
    assert np.isfinite(end).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_on_step_may_stop_the_walk(name):
    asked = []

    def stop(step, steps, guess):
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SAMPLERS[name](
            lambda x, sigma: asked.append(sigma) or gaussian(x, sigma),
            np.ones(2),
            sigmas("karras", 9, LEVELS),
            lambda: np.zeros(2),
            stop,
        )
    assert len(asked) <= 3  # heun asks twice a step

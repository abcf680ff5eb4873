"""Samplers: ways to walk a noisy latent down a schedule of sigmas to a clean one.

Each asks the model what the clean latent would be (`denoise`) and moves towards it. They follow
k-diffusion (sampling.py) and carry its names. All compute in float64, which costs nothing beside
the model and keeps results independent of numpy's promotion rules (they changed in 2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Denoise = Callable[[Array, float], Array]
"""Noisy latent and its sigma -> the model's guess of the clean latent, of the same shape."""
Noise = Callable[[], Array]
"""Draws fresh unit noise in the latent's shape."""
OnStep = Callable[[int, int, Array], None]
"""Step from 0, number of steps, the guess of this step. May raise to stop."""


class Sampler(Protocol):
    """What every sampler looks like."""

    def __call__(
        self, denoise: Denoise, x: Array, sigmas: Array, noise: Noise, on_step: OnStep, /
    ) -> Array:
        """Walk `x`, noisy by sigmas[0], down to sigmas[-1], which is 0.

        Args:
            denoise: The model.
            x: Start, float64, any shape.
            sigmas: Falling, closed by a 0.
            noise: For samplers that add noise again on the way.
            on_step: Called once a step, after the model was asked and before `x` moves.
        """


def euler(denoise: Denoise, x: Array, sigmas: Array, _noise: Noise, on_step: OnStep) -> Array:
    """Follow the slope at the start of each step."""
    steps = len(sigmas) - 1
    for i in range(steps):
        guess = denoise(x, sigmas[i])
        on_step(i, steps, guess)
        x = x + (x - guess) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def euler_ancestral(
    denoise: Denoise, x: Array, sigmas: Array, noise: Noise, on_step: OnStep
) -> Array:
    """Step further down than asked, then add fresh noise up to the next sigma."""
    steps = len(sigmas) - 1
    for i in range(steps):
        here, there = sigmas[i], sigmas[i + 1]
        guess = denoise(x, here)
        on_step(i, steps, guess)
        up = min(there, np.sqrt(there**2 * (here**2 - there**2) / here**2))
        down = np.sqrt(there**2 - up**2)
        x = x + (x - guess) / here * (down - here)
        if there > 0:
            x = x + noise() * up
    return x


def heun(denoise: Denoise, x: Array, sigmas: Array, _noise: Noise, on_step: OnStep) -> Array:
    """Follow the mean of the slopes at both ends of a step: two model calls, second order."""
    steps = len(sigmas) - 1
    for i in range(steps):
        here, there = sigmas[i], sigmas[i + 1]
        guess = denoise(x, here)
        on_step(i, steps, guess)
        slope = (x - guess) / here
        if there > 0:
            ahead = x + slope * (there - here)
            slope = (slope + (ahead - denoise(ahead, there)) / there) / 2
        x = x + slope * (there - here)
    return x


def dpmpp_2m(denoise: Denoise, x: Array, sigmas: Array, _noise: Noise, on_step: OnStep) -> Array:
    """DPM-Solver++(2M): second order from the guess of the step before, one model call a step."""
    steps = len(sigmas) - 1
    before: Array | None = None
    for i in range(steps):
        here, there = sigmas[i], sigmas[i + 1]
        guess = denoise(x, here)
        on_step(i, steps, guess)
        if there == 0:
            return guess
        h = np.log(here / there)
        target = guess
        # a schedule with more steps than its table repeats sigmas: no distance, no extrapolation
        if before is not None and sigmas[i - 1] > here:
            target = guess + (guess - before) * h / (2 * np.log(sigmas[i - 1] / here))
        x = there / here * x - np.expm1(-h) * target
        before = guess
    return x


def ddim(denoise: Denoise, x: Array, sigmas: Array, _noise: Noise, on_step: OnStep) -> Array:
    """Keep the guess and shrink the noise to the next sigma: Euler's step in other words."""
    steps = len(sigmas) - 1
    for i in range(steps):
        guess = denoise(x, sigmas[i])
        on_step(i, steps, guess)
        x = guess + (x - guess) * (sigmas[i + 1] / sigmas[i])
    return x


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "euler": euler,
        "euler_ancestral": euler_ancestral,
        "heun": heun,
        "dpmpp_2m": dpmpp_2m,
        "ddim": ddim,
    }
)
"""The samplers by ComfyUI's names."""

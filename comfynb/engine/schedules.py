"""Noise schedules: at which noise levels (sigmas) the sampler stops on its way down.

A sigma is the standard deviation of the noise in a latent whose clean values have about unit
variance. Every schedule falls from most noise to nearly none, then 0. Names and formulas are
those of k-diffusion and ComfyUI (comfy/samplers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sigmas = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NoiseLevels:
    """The noise levels a model was trained for.

    Attributes:
        lowest: Smallest sigma of the continuous schedules.
        highest: Largest sigma of the continuous schedules.
        table: Sigmas of the discrete schedules, ascending, one per training timestep.
    """

    lowest: float
    highest: float
    table: Sigmas

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> NoiseLevels:
        """Read them from the contents of model.json."""
        discrete = info["discrete_schedule"]
        betas = np.linspace(
            discrete["beta_start"] ** 0.5, discrete["beta_end"] ** 0.5, discrete["steps"]
        )
        kept = np.cumprod(1 - betas**2)
        return cls(info["sigma_min"], info["sigma_max"], np.sqrt((1 - kept) / kept))


def _normal(steps: int, levels: NoiseLevels) -> Sigmas:
    """Evenly spaced in timesteps, between two entries of the table where they fall there."""
    timesteps = np.arange(len(levels.table))
    wanted = np.linspace(timesteps[-1], 0, steps)
    found: Sigmas = np.exp(np.interp(wanted, timesteps, np.log(levels.table)))
    return found


def _karras(steps: int, levels: NoiseLevels) -> Sigmas:
    """Evenly spaced in the seventh root of sigma (Karras et al. 2022, equation 5)."""
    rho = 7
    top, bottom = levels.highest ** (1 / rho), levels.lowest ** (1 / rho)
    found: Sigmas = (top + np.linspace(0, 1, steps) * (bottom - top)) ** rho
    return found


def _simple(steps: int, levels: NoiseLevels) -> Sigmas:
    """Every n-th entry of the table; more steps than entries repeat some."""
    back = (np.arange(steps) * len(levels.table) / steps).astype(np.int64)
    return levels.table[-1 - back]


def _exponential(steps: int, levels: NoiseLevels) -> Sigmas:
    """Evenly spaced in the logarithm of sigma."""
    return np.exp(np.linspace(np.log(levels.highest), np.log(levels.lowest), steps))


SCHEDULES: Mapping[str, Callable[[int, NoiseLevels], Sigmas]] = MappingProxyType(
    {"normal": _normal, "karras": _karras, "simple": _simple, "exponential": _exponential}
)
"""The schedules by ComfyUI's names."""


def sigmas(name: str, steps: int, levels: NoiseLevels, *, denoise: float = 1.0) -> Sigmas:
    """Compute a schedule, or only its low-noise end.

    Args:
        name: One of `SCHEDULES`.
        steps: Number of denoising steps, at least 1.
        levels: What the model was trained for.
        denoise: Share of the whole way to walk, 0 to 1. Below 1 the steps are the last ones of
            a schedule of steps / denoise, as ComfyUI's KSampler.set_steps has it.

    Returns:
        `steps` falling sigmas and a closing 0; nothing at all where denoise is 0.

    Raises:
        ValueError: If the name is unknown or a number is out of range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown scheduler {name!r}: choose one of {', '.join(SCHEDULES)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise must be from 0 to 1, not {denoise}")
    if denoise == 0:
        return np.zeros(0)
    # the floor keeps a mistyped denoise of 1e-9 from filling the memory
    whole = steps if denoise > 0.9999 else int(steps / max(denoise, 1e-3))
    return np.append(SCHEDULES[name](whole, levels)[-steps:], 0.0)

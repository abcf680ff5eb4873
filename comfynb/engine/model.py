"""The tiny-scenes model: text to latent to picture, with numpy and onnxruntime only.

Four graphs lie in `weights/` (see MODEL_CARD.md there): a text encoder, a denoiser, and both
halves of an autoencoder. This module knows how to call them; `samplers` and `schedules` hold the
mathematics in between, and `nodes` gives ComfyUI's shapes to it.

Pictures are (batch, height, width, 3) float32, 0 to 1, sRGB, as in ComfyUI's IMAGE. Latents are
(batch, 8, height / 8, width / 8) float32 of about unit variance. The pictures of a batch are
computed one after the other: on a CPU that is as fast as together, and the first one of a batch
is bit for bit the one that a batch of one gives.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from comfynb.engine.samplers import SAMPLERS, Denoise, OnStep
from comfynb.engine.schedules import NoiseLevels, sigmas
from comfynb.engine.tokenizer import Tokenizer

WEIGHTS = Path(__file__).resolve().parent / "weights"
SIDE_MULTIPLE_PX = 32  # the denoiser halves the latent twice
SMALLEST_SIDE_PX = 64
LARGEST_SIDE_PX = 512

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """A text as the denoiser sees it.

    Attributes:
        cond: (1, tokens, 192) float32, one vector a token.
        mask: (1, tokens) float32, 1 where there is a token.
        unknown_words: Words of the text that have no effect, each once.
    """

    cond: Floats
    mask: Floats
    unknown_words: tuple[str, ...] = ()


class TinyScenes:
    """The four graphs and what is needed to call them.

    Graphs load at first use, about 0.3 s for all. An object may be shared by threads.

    Example:
        >>> model = TinyScenes()
        >>> positive, negative = model.conditioning("a fox in the snow"), model.conditioning("")
        >>> latent = model.sample(model.empty_latent(64, 64), positive, negative, seed=7, steps=4)
        >>> model.decode(latent).shape
        (1, 64, 64, 3)
    """

    def __init__(self, folder: Path = WEIGHTS, *, threads: int | None = None) -> None:
        """Read the model's facts and words; load no graph yet.

        Args:
            folder: Where the four .onnx files, model.json and vocab.json lie.
            threads: Threads per graph call, at least 1. None: 2, or 1 on a single core; not more
                by itself, as more threads than free cores are several times slower. One and two
                gave the same bits where we looked, four did not.
        """
        self.info: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
        self.tokenizer = Tokenizer(folder / "vocab.json")
        self.levels = NoiseLevels.of(self.info)
        self._folder = folder
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads or min(2, os.cpu_count() or 1)
        # Threads that spin while they wait are 7 % faster on idle cores and a third slower when a
        # kernel or a browser wants one of them (measured on two): that is our case.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._options.log_severity_level = 3
        self._channels: int = self.info["latent_channels"]
        self._downscale: int = self.info["downscale"]
        self._rgb = np.array(self.info["preview"]["matrix"], np.float32)
        self._rgb_bias = np.array(self.info["preview"]["bias"], np.float32)
        self._graphs: dict[str, ort.InferenceSession] = {}
        self._loading = threading.Lock()

    def conditioning(self, text: str) -> Conditioning:
        """Encode a prompt; the empty text is the unconditional input."""
        tokens = self.tokenizer.encode(text)
        mask = np.ones((1, len(tokens.ids)), np.float32)
        ids = np.array([tokens.ids], np.int64)
        cond = self._run("text_encoder", input_ids=ids, mask=mask)
        return Conditioning(cond, mask, tokens.unknown)

    def empty_latent(self, width: int, height: int, batch: int = 1) -> Floats:
        """Return zeros for pictures of that size in pixels.

        Raises:
            ValueError: If the size is not a multiple of 32 from 64 to 512.
        """
        check_size(width, height)
        shape = (batch, self._channels, height // self._downscale, width // self._downscale)
        return np.zeros(shape, np.float32)

    def sample(
        self,
        latent: Floats,
        positive: Conditioning,
        negative: Conditioning,
        *,
        seed: int,
        steps: int = 16,
        cfg: float = 4.0,
        sampler: str = "dpmpp_2m",
        scheduler: str = "karras",
        denoise: float = 1.0,
        on_step: OnStep | None = None,
    ) -> Floats:
        """Denoise a latent, as ComfyUI's KSampler does.

        The same arguments give the same bits with one onnxruntime and number of threads.

        Args:
            latent: (batch, 8, h, w) float32 to start from; zeros for a new picture.
            positive: What to draw.
            negative: What to stay away from; of no effect at cfg 1.
            seed: 0 to 2**64 - 1. Every picture of a batch has noise of its own.
            steps: At least 1; 8 to 24 are useful.
            cfg: Guidance scale; 1 is no guidance and half the work, 3 to 5 are useful.
            sampler: One of `SAMPLERS`.
            scheduler: One of `SCHEDULES`.
            denoise: 0 to 1: how much of the latent may change. 0 returns it as it is.
            on_step: Called at each step with its number from 0, the number of steps and the
                clean latent as guessed now, (batch, 8, h, w) float32. May raise to stop.

        Returns:
            A new latent of the same shape.

        Raises:
            ValueError: If a name is unknown or a number or size is out of range.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, not {seed}")
        self._check_latent(latent)
        schedule = sigmas(scheduler, steps, self.levels, denoise=denoise)
        if not len(schedule):
            return latent.copy()
        generators = [
            np.random.default_rng(seed if i == 0 else (seed, i)) for i in range(len(latent))
        ]

        def noise() -> Floats:
            shape = latent.shape[1:]
            return np.stack([g.standard_normal(shape, np.float32) for g in generators])

        x = latent.astype(np.float64) + noise() * schedule[0]
        model = self._guided(positive, negative, cfg)
        clean = SAMPLERS[sampler](model, x, schedule, noise, on_step or _ignore)
        return clean.astype(np.float32)

    def decode(self, latent: Floats) -> Floats:
        """Turn latents into pictures.

        Args:
            latent: (batch, 8, h, w).

        Returns:
            (batch, 8 * h, 8 * w, 3) float32, 0 to 1.

        Raises:
            ValueError: If the shape does not fit the model.
        """
        self._check_latent(latent)
        images = [self._run("vae_decoder", latent=item[None]) for item in _float32(latent)]
        return np.clip(np.concatenate(images).transpose(0, 2, 3, 1), 0, 1)

    def encode(self, image: Floats) -> Floats:
        """Turn pictures into latents.

        Args:
            image: (batch, height, width, 3), 0 to 1.

        Returns:
            (batch, 8, height / 8, width / 8) float32.

        Raises:
            ValueError: If the shape does not fit the model.
        """
        if image.ndim != 4 or image.shape[3] != 3:
            raise ValueError(f"a picture must be (batch, height, width, 3), not {image.shape}")
        check_size(image.shape[2], image.shape[1])
        planes = _float32(image).transpose(0, 3, 1, 2)
        return np.concatenate([self._run("vae_encoder", image=item[None]) for item in planes])

    def preview(self, latent: Floats) -> NDArray[np.uint8]:
        """Show a latent roughly, by one matrix: (8, h, w) -> (h, w, 3) uint8."""
        rgb = np.tensordot(latent, self._rgb, (0, 0)) + self._rgb_bias
        pixels: NDArray[np.uint8] = (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
        return pixels

    def _guided(self, positive: Conditioning, negative: Conditioning, cfg: float) -> Denoise:
        """Make the denoiser with prompt and guidance filled in."""
        pair = [positive] if cfg == 1 else [positive, negative]
        tokens = max(c.mask.shape[1] for c in pair)
        cond = np.concatenate(
            [np.pad(c.cond, ((0, 0), (0, tokens - c.mask.shape[1]), (0, 0))) for c in pair]
        )
        mask = np.concatenate(
            [np.pad(c.mask, ((0, 0), (0, tokens - c.mask.shape[1]))) for c in pair]
        )

        def one(x: Floats, sigma: float) -> Floats:
            levels = np.full(len(pair), sigma, np.float32)
            copies = np.repeat(x[None], len(pair), axis=0)
            out = self._run("denoiser", latent=copies, sigma=levels, cond=cond, mask=mask)
            guess: Floats = out[0]
            if cfg != 1:
                guess = out[1] + (out[0] - out[1]) * np.float32(cfg)
            return guess

        return lambda x, sigma: np.stack([one(item, sigma) for item in _float32(x)])

    def _check_latent(self, latent: Floats) -> None:
        if latent.ndim != 4 or latent.shape[1] != self._channels:
            raise ValueError(
                f"a latent must be (batch, {self._channels}, h, w), not {latent.shape}"
            )
        check_size(latent.shape[3] * self._downscale, latent.shape[2] * self._downscale)

    def _run(self, name: str, **inputs: NDArray[Any]) -> Floats:
        with self._loading:
            if name not in self._graphs:
                self._graphs[name] = ort.InferenceSession(
                    self._folder / f"{name}.onnx",
                    self._options,
                    providers=["CPUExecutionProvider"],
                )
            graph = self._graphs[name]
        return cast("Floats", graph.run(None, inputs)[0])


def check_size(width: int, height: int) -> None:
    """Refuse sizes that the model cannot draw.

    Args:
        width: In pixels.
        height: In pixels.

    Raises:
        ValueError: If a side is not a multiple of 32 from 64 to 512.
    """
    for side in (width, height):
        if side % SIDE_MULTIPLE_PX or not SMALLEST_SIDE_PX <= side <= LARGEST_SIDE_PX:
            raise ValueError(
                f"tiny-scenes cannot draw {width} x {height}: each side must be a multiple of "
                f"{SIDE_MULTIPLE_PX} from {SMALLEST_SIDE_PX} to {LARGEST_SIDE_PX} pixels"
            )


def _float32(array: NDArray[Any]) -> Floats:
    return array.astype(np.float32, copy=False)


def _ignore(_step: int, _steps: int, _guess: NDArray[Any]) -> None:
    """Stand in for a missing `on_step`."""

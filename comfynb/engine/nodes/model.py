"""Nodes around the checkpoint: text, latents, sampling.

A MODEL, a CLIP and a VAE are all the one loaded checkpoint; a LATENT is `{"samples": array}` as in
ComfyUI, (batch, 8, height / 8, width / 8) float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from comfynb.engine import pictures
from comfynb.engine.execute import Call, Checkpoint
from comfynb.engine.files import Files
from comfynb.engine.pictures import Floats
from comfynb.engine.registry import Input, Node, Registry

if TYPE_CHECKING:
    from comfynb.engine.model import Conditioning, TinyScenes

SAMPLERS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "ddim")
SCHEDULERS = ("normal", "karras", "simple", "exponential")
SIDE_STEP_PX = 32  # equal to the model's, whose import would load onnxruntime; a test compares
SMALLEST_SIDE_PX = 64
LARGEST_SIDE_PX = 512
PIXELS_PER_LATENT = 8


class Latent(TypedDict):
    """The value of a LATENT link."""

    samples: Floats


def load_checkpoint(call: Call, ckpt_name: str) -> tuple[TinyScenes, TinyScenes, TinyScenes]:
    """Load the checkpoint."""
    del ckpt_name  # there is one, and validation knows its name
    model = call.model()
    return model, model, model


def encode_text(_call: Call, text: str, clip: TinyScenes) -> tuple[Conditioning]:
    """Turn a text into what guides the sampler."""
    return (clip.conditioning(text),)


def empty_latent(call: Call, width: int, height: int, batch_size: int) -> tuple[Latent]:
    """Start a new picture."""
    return ({"samples": call.model().empty_latent(width, height, batch_size)},)


def sample(
    call: Call,
    *,
    model: TinyScenes,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float = 1.0,
) -> tuple[Latent]:
    """Denoise a latent, showing each step."""

    def on_step(step: int, total: int, guess: Any) -> None:
        call.check()
        image = None
        if call.watched:
            small = model.preview(guess[0])
            size = small.shape[1] * PIXELS_PER_LATENT, small.shape[0] * PIXELS_PER_LATENT
            image = pictures.preview_jpeg(small, size)
        call.progress(step + 1, total, image)

    samples = model.sample(
        latent_image["samples"],
        positive,
        negative,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        on_step=on_step,
    )
    return ({"samples": samples},)


def decode(_call: Call, samples: Latent, vae: TinyScenes) -> tuple[Floats]:
    """Turn a latent into a picture."""
    return (vae.decode(samples["samples"]),)


def encode(_call: Call, pixels: Floats, vae: TinyScenes) -> tuple[Latent]:
    """Turn a picture into a latent, cutting its sides down to the step of the model."""
    height, width = (side // SIDE_STEP_PX * SIDE_STEP_PX for side in pixels.shape[1:3])
    y, x = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return ({"samples": vae.encode(pixels[:, y : y + height, x : x + width])},)


def _check_size(_files: Files, inputs: Mapping[str, Any]) -> tuple[str, str] | None:
    for name in ("width", "height"):
        side = inputs.get(name)
        if isinstance(side, int) and side % SIDE_STEP_PX:
            return name, f"{side} is not a multiple of {SIDE_STEP_PX} pixels"
    return None


def register(registry: Registry) -> None:
    """Add these nodes."""
    registry.add(
        Node(
            "CheckpointLoaderSimple",
            load_checkpoint,
            category="loaders",
            display_name="Load Checkpoint",
            description="Loads the model, its text encoder and its autoencoder.",
            outputs=("MODEL", "CLIP", "VAE"),
            output_tooltips=(
                "Denoises latents.",
                "Encodes text prompts.",
                "Turns pictures into latents and back.",
            ),
            inputs=(
                Input("ckpt_name", choices=(Checkpoint.NAME,), tooltip="The checkpoint to load."),
            ),
        )
    )
    registry.add(
        Node(
            "CLIPTextEncode",
            encode_text,
            category="conditioning",
            display_name="CLIP Text Encode (Prompt)",
            description="Encodes a text that guides the model towards certain pictures.",
            outputs=("CONDITIONING",),
            output_tooltips=("What guides the model.",),
            inputs=(
                Input(
                    "text",
                    "STRING",
                    multiline=True,
                    dynamicPrompts=True,
                    tooltip="The text to be encoded.",
                ),
                Input("clip", "CLIP", tooltip="The CLIP model that encodes the text."),
            ),
        )
    )
    side: dict[str, Any] = {
        "default": 256,
        "min": SMALLEST_SIDE_PX,
        "max": LARGEST_SIDE_PX,
        "step": SIDE_STEP_PX,
    }
    registry.add(
        Node(
            "EmptyLatentImage",
            empty_latent,
            category="latent",
            display_name="Empty Latent Image",
            description="Creates a batch of empty latents to be denoised.",
            outputs=("LATENT",),
            output_tooltips=("The empty latents.",),
            check=_check_size,
            inputs=(
                Input("width", "INT", **side, tooltip="Width in pixels."),
                Input("height", "INT", **side, tooltip="Height in pixels."),
                Input(
                    "batch_size", "INT", default=1, min=1, max=64, tooltip="Pictures in the batch."
                ),
            ),
        )
    )
    registry.add(
        Node(
            "KSampler",
            sample,
            category="sampling",
            description="Denoises a latent as the positive and negative conditioning say.",
            outputs=("LATENT",),
            output_tooltips=("The denoised latent.",),
            inputs=(
                Input("model", "MODEL", tooltip="Denoises the latent."),
                Input(
                    "seed",
                    "INT",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="The same seed makes the same noise.",
                ),
                Input(
                    "steps",
                    "INT",
                    default=16,
                    min=1,
                    max=10000,
                    tooltip="Denoising steps; 8 to 24 are useful.",
                ),
                Input(
                    "cfg",
                    "FLOAT",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How strictly to follow the prompt; 3 to 5 are useful.",
                ),
                Input(
                    "sampler_name",
                    choices=SAMPLERS,
                    default="dpmpp_2m",
                    tooltip="How each step is computed.",
                ),
                Input(
                    "scheduler",
                    choices=SCHEDULERS,
                    default="karras",
                    tooltip="How the noise falls from step to step.",
                ),
                Input("positive", "CONDITIONING", tooltip="What to draw."),
                Input("negative", "CONDITIONING", tooltip="What to stay away from."),
                Input("latent_image", "LATENT", tooltip="The latent to denoise."),
                Input(
                    "denoise",
                    "FLOAT",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 keeps some of the latent, for image to image.",
                ),
            ),
        )
    )
    registry.add(
        Node(
            "VAEDecode",
            decode,
            category="latent",
            display_name="VAE Decode",
            description="Turns latents into pictures.",
            outputs=("IMAGE",),
            output_tooltips=("The pictures.",),
            inputs=(
                Input("samples", "LATENT", tooltip="The latents."),
                Input("vae", "VAE", tooltip="The autoencoder."),
            ),
        )
    )
    registry.add(
        Node(
            "VAEEncode",
            encode,
            category="latent",
            display_name="VAE Encode",
            outputs=("LATENT",),
            inputs=(Input("pixels", "IMAGE"), Input("vae", "VAE")),
        )
    )

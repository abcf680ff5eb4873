"""Write a Stable Diffusion 1.5 checkpoint with random weights: `python checkpoint.py SERVER OUT`.

Run by the Python that ComfyUI runs in; SERVER is its folder. The family is real, so ComfyUI
detects and samples it as SD 1.5: a UNet of one level instead of four, a decoder of TAESD's shape,
and the text encoder in full, since ComfyUI fixes its configuration (123 M parameters, 303 MB in
all). A picture of 64 pixels in four steps takes about 1.5 s on a CPU once it is loaded.
"""

# ruff: noqa: E402 - ComfyUI reads its flags from argv when it is imported
from __future__ import annotations

import math
import sys
from pathlib import Path

server, out = sys.argv[1:]
sys.path[:0] = [server, str(Path(__file__).parent)]
sys.argv[1:] = ["--cpu"]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.sd1_clip import SD1ClipModel
from comfy.taesd.taesd import TAESD
from safetensors.torch import save_file

TEXT = "clip_l.transformer.text_model."


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of the checkpoint."""
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        num_heads=8,
        num_res_blocks=[1],
        channel_mult=[1],
        transformer_depth=[1],
        transformer_depth_output=[1, 1],
        transformer_depth_middle=1,
        use_spatial_transformer=True,
        use_linear_in_transformer=False,
        context_dim=768,
        legacy=False,
        dtype=torch.float16,
        device="meta",
        operations=comfy.ops.disable_weight_init,
    )
    clip = SD1ClipModel(device="meta", dtype=torch.float16)
    with torch.device("meta"):
        decoder = TAESD(latent_channels=4)
    named = {f"model.diffusion_model.{key}": v for key, v in unet.state_dict().items()}
    named |= {
        f"cond_stage_model.{key.removeprefix('clip_l.')}": value
        for key, value in clip.state_dict().items()
        if key.startswith(TEXT)
    }
    named |= {f"first_stage_model.{key}": v for key, v in decoder.state_dict().items()}
    return {name: tuple(tensor.shape) for name, tensor in named.items()}


def weights(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    """Return weights that keep the size of what passes through them."""
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(shape)
    if name.endswith(("vae_shift", "bias")):
        return torch.zeros(shape, dtype=torch.float16)
    if len(shape) <= 1:  # of normalisations, and the decoder's scale
        return torch.ones(shape, dtype=torch.float16)
    spread = 0.02 if "embedding" in name else math.prod(shape[1:]) ** -0.5
    return (torch.randn(shape, generator=random) * spread).to(torch.float16)


random = torch.Generator().manual_seed(0)
Path(out).parent.mkdir(parents=True, exist_ok=True)
save_file({name: weights(name, shape, random) for name, shape in shapes().items()}, out)

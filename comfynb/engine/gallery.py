"""Draw the contact sheet of twenty free prompts: `python -m comfynb.engine.gallery OUT.png`.

It shows what the model makes of sentences as people type them, good and bad: the seed of a
prompt is its place in the list, and every picture is kept. `samples/free_prompts.png` is the
sheet of the weights in this folder.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from comfynb.engine.model import TinyScenes

PROMPTS = (
    "a lighthouse at dawn",
    "a fox in a snowy forest",
    "a harbour at night",
    "three ducks on a pond in the rain",
    "a dragon above the mountains at sunset",
    "a ghost in the library at midnight",
    "an old windmill in a tulip field, watercolor",
    "a camel in the sahara, vintage photo",
    "close up of a tiger in the jungle",
    "a hot air balloon over the clouds at sunrise",
    "a taxi in the rainy city, neon",
    "a snowman under the northern lights",
    "a giant octopus in the deep sea",
    "a cat next to a cactus in the desert",
    "a vampire in front of a castle, full moon, comic",
    "a teapot on the kitchen table, oil painting",
    "a small green tractor on the farm in the morning mist",
    "a guitar on the stage, pixel art",
    "a panda reading a newspaper in the park",
    "blueprint of a spaceship",
)
COLUMNS = 5
TILE_PX = 160
CAPTION_PX = 30
GAP_PX = 6


def sheet(model: TinyScenes) -> Image.Image:
    """Draw every prompt once at the model's defaults, with the prompt below it."""
    rows = -(-len(PROMPTS) // COLUMNS)
    width = COLUMNS * (TILE_PX + GAP_PX) + GAP_PX
    page = Image.new("RGB", (width, rows * (TILE_PX + CAPTION_PX + GAP_PX) + GAP_PX), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    unconditional = model.conditioning("")
    for i, prompt in enumerate(PROMPTS):
        latent = model.sample(
            model.empty_latent(256, 256), model.conditioning(prompt), unconditional, seed=i
        )
        pixels = (model.decode(latent)[0] * 255 + 0.5).astype(np.uint8)
        tile = Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        left = GAP_PX + i % COLUMNS * (TILE_PX + GAP_PX)
        top = GAP_PX + i // COLUMNS * (TILE_PX + CAPTION_PX + GAP_PX)
        page.paste(tile, (left, top))
        caption = "\n".join(textwrap.wrap(prompt, 29))
        pen.multiline_text((left, top + TILE_PX + 1), caption, "black", font, spacing=1)
    return page


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Draw twenty free prompts on one sheet.")
    parser.add_argument("out", type=Path, help="PNG file to write")
    out = parser.parse_args().out
    page = sheet(TinyScenes())
    # a palette makes the file less than half as large; Pillow dithers only to a given one
    page.quantize(palette=page.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(
        out, "PNG", optimize=True
    )


if __name__ == "__main__":
    main()

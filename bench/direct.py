"""The model without a server: a process that draws what it reads and says how long it took.

Lines of JSON on standard input: {"prompt", "seed", "steps"}; a line with seconds for each.
"""

from __future__ import annotations

import json
import sys
import time

from comfynb.engine.model import TinyScenes


def main() -> None:
    model = TinyScenes()
    for line in sys.stdin:
        wanted = json.loads(line)
        begun = time.perf_counter()
        positive, negative = model.conditioning(wanted["prompt"]), model.conditioning("")
        latent = model.empty_latent(256, 256)
        clean = model.sample(
            latent, positive, negative, seed=wanted["seed"], steps=wanted["steps"], cfg=4.0
        )
        model.decode(clean)
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()

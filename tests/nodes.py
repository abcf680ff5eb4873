"""Nodes for tests, loaded into the engine with `--nodes`: one that takes its time, and fails.

Guard passes an image on after `seconds`, in steps of 10 ms that report progress and can be
interrupted. With a `message` it raises instead, after that time.
"""

import time

from comfynb.engine.registry import Input, Node

STEP = 0.01


def guard(call, *, image, seconds, message):
    steps = max(1, round(seconds / STEP))
    begun = time.monotonic()
    for step in range(1, steps + 1):
        call.check()
        time.sleep(max(0.0, begun + seconds * step / steps - time.monotonic()))
        call.progress(step, steps)
    if message:
        raise ValueError(message)
    return (image,)


def register(registry):
    registry.add(
        Node(
            "Guard",
            guard,
            category="test",
            inputs=(
                Input("image", "IMAGE"),
                Input("seconds", "FLOAT", default=0.0, min=0.0, max=600.0),
                Input("message", "STRING", default=""),
            ),
            outputs=("IMAGE",),
        )
    )

"""A node for the engine of the benchmarks: an image passes after some time.

As a GPU would, it leaves the processor alone meanwhile.
"""

import time

from comfynb.engine.registry import Input, Node


def wait(_call, *, image, seconds):
    time.sleep(seconds)
    return (image,)


def register(registry):
    registry.add(
        Node(
            "Wait",
            wait,
            category="bench",
            inputs=(
                Input("image", "IMAGE"),
                Input("seconds", "FLOAT", default=0.1, min=0.0, max=60.0),
            ),
            outputs=("IMAGE",),
        )
    )

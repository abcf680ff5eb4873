"""Nodes for tests, loaded into the engine with `--nodes`; real_comfyui/nodes/ has them likewise.

Guard passes an image on after `seconds`, in steps of 10 ms that report progress and can be
interrupted. With a `message` it raises instead, after that time; the message "refuse me" is
refused before anything runs, which no client can foresee. Noise gives random pictures,
Block forbids what is behind it to run, Words gives a text, Say sends one.
"""

import time

import numpy as np

from comfynb.engine.registry import Blocked, Input, Node

STEP = 0.01
REFUSED = "refuse me"
MODULE = "custom_nodes.comfynb_test_nodes"


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


def refuse(files, inputs):
    return ("message", REFUSED) if inputs.get("message") == REFUSED else None


def words(call, *, text):
    return (text,)


def noise(call, *, side, batch, seed, text):
    return (np.random.default_rng(seed).random((batch, side, side, 3), np.float32),)


def block(call, *, image, message):
    return (Blocked(message or None),)


def say(call, *, image, text):
    call.text(text)
    return (image,)


def register(registry):
    image = Input("image", "IMAGE")
    registry.add(
        Node(
            "Guard",
            guard,
            category="test",
            module=MODULE,
            inputs=(
                image,
                Input("seconds", "FLOAT", default=0.0, min=0.0, max=600.0),
                Input("message", "STRING", default=""),
            ),
            outputs=("IMAGE",),
            check=refuse,
        )
    )
    registry.add(
        Node(
            "Noise",
            noise,
            category="test",
            module=MODULE,
            inputs=(
                Input("side", "INT", default=64, min=8, max=4096),
                Input("batch", "INT", default=1, min=1, max=64),
                Input("seed", "INT", default=0, min=0, max=2**64 - 1),
                Input("text", "STRING", default=""),
            ),
            outputs=("IMAGE",),
        )
    )
    registry.add(
        Node(
            "Words",
            words,
            category="test",
            module=MODULE,
            inputs=(Input("text", "STRING", default=""),),
            outputs=("STRING",),
        )
    )
    registry.add(
        Node(
            "Block",
            block,
            category="test",
            module=MODULE,
            inputs=(image, Input("message", "STRING", default="blocked!")),
            outputs=("IMAGE",),
        )
    )
    registry.add(
        Node(
            "Say",
            say,
            category="test",
            module=MODULE,
            inputs=(image, Input("text", "STRING", default="hello")),
            outputs=("IMAGE",),
            hidden={"unique_id": "UNIQUE_ID"},
        )
    )

"""Nodes for tests: they wait, fail, block, talk, make noise, show text.

Given to an engine as `--nodes tests/engine/probe_nodes.py`. The recorded transcripts use the same
names and inputs.
"""

import math
import time

import numpy as np

from comfynb.engine.registry import Blocked, Input, Node, NodeResult


def sleep(call, image, seconds, steps, tag):
    if math.isnan(seconds):
        raise ValueError("Invalid value NaN (not a number)")
    for step in range(steps):
        time.sleep(seconds / steps)
        call.progress(step + 1, steps)
    return (image,)


def fail(call, image, message):
    raise ValueError(message)


def block(call, image, message, silent):
    return (Blocked(None if silent else message),)


def say(call, image, text):
    call.text(text)
    return (image,)


def noise(call, size, batch, seed):
    return (np.random.default_rng(seed).random((batch, size, size, 3), np.float32),)


def show(call, source):
    return NodeResult(ui={"text": [str(source)]})


def number(call, value):
    return (value,)


def register(registry):
    image = Input("image", "IMAGE")
    for node in (
        Node(
            "ProbeSleep",
            sleep,
            outputs=("IMAGE",),
            inputs=(
                image,
                Input("seconds", "FLOAT", default=1.0, min=0.0, max=600.0),
                Input("steps", "INT", default=4, min=1, max=1000),
                Input("tag", "STRING", default=""),
            ),
        ),
        Node(
            "ProbeRaise",
            fail,
            outputs=("IMAGE",),
            inputs=(image, Input("message", "STRING", default="boom")),
        ),
        Node(
            "ProbeBlock",
            block,
            outputs=("IMAGE",),
            inputs=(
                image,
                Input("message", "STRING", default="blocked!"),
                Input("silent", "BOOLEAN", default=False),
            ),
        ),
        Node(
            "ProbeText",
            say,
            outputs=("IMAGE",),
            inputs=(image, Input("text", "STRING", default="hello")),
        ),
        Node(
            "ProbeNoise",
            noise,
            outputs=("IMAGE",),
            inputs=(
                Input("size", "INT", default=64, min=8, max=4096),
                Input("batch", "INT", default=1),
                Input("seed", "INT", default=0),
            ),
        ),
        Node("PrimitiveInt", number, outputs=("INT",), inputs=(Input("value", "INT"),)),
        Node("PreviewAny", show, inputs=(Input("source", "INT"),), output_node=True),
    ):
        registry.add(node)

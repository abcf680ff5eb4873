"""The nodes of tests/nodes.py in ComfyUI's terms: same names, same inputs, same behaviour."""

import time

import comfy.utils
import torch
from comfy_execution.graph import ExecutionBlocker
from server import PromptServer

STEP = 0.01
REFUSED = "refuse me"


class Guard:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "image": ("IMAGE",),
                "seconds": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 600.0}),
                "message": ("STRING", {"default": ""}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, message=""):  # noqa: N802
        return message if message == REFUSED else True

    def run(self, image, seconds, message):
        steps = max(1, round(seconds / STEP))
        bar = comfy.utils.ProgressBar(steps)
        begun = time.monotonic()
        for step in range(1, steps + 1):
            time.sleep(max(0.0, begun + seconds * step / steps - time.monotonic()))
            bar.update(1)  # raises when it is interrupted
        if message:
            raise ValueError(message)
        return (image,)


class Wait:
    """The node of bench/nodes.py."""

    CATEGORY, FUNCTION, RETURN_TYPES = "bench", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        seconds = ("FLOAT", {"default": 0.1, "min": 0.0, "max": 60.0})
        return {"required": {"image": ("IMAGE",), "seconds": seconds}}

    def run(self, image, seconds):
        time.sleep(seconds)
        return (image,)


class Noise:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {
            "required": {
                "side": ("INT", {"default": 64, "min": 8, "max": 4096}),
                "batch": ("INT", {"default": 1, "min": 1, "max": 64}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
                "text": ("STRING", {"default": ""}),
            }
        }

    def run(self, side, batch, seed, text):
        random = torch.Generator().manual_seed(seed)
        return (torch.rand((batch, side, side, 3), generator=random),)


class Words:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("STRING",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"text": ("STRING", {"default": ""})}}

    def run(self, text):
        return (text,)


class Block:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {
            "required": {
                "image": ("IMAGE",),
                "message": ("STRING", {"default": "blocked!"}),
            }
        }

    def run(self, image, message):
        return (ExecutionBlocker(message or None),)


class Say:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {
            "required": {"image": ("IMAGE",), "text": ("STRING", {"default": "hello"})},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def run(self, image, text, unique_id):
        server = PromptServer.instance
        server.send_progress_text(text, unique_id, server.client_id)
        return (image,)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (Guard, Wait, Noise, Words, Block, Say)}

"""Nodes that give pictures to the client: as files, or as frames of the socket."""

from __future__ import annotations

from typing import Any

from comfynb.engine import pictures
from comfynb.engine.execute import Call
from comfynb.engine.messages import EncodedImage
from comfynb.engine.pictures import Floats
from comfynb.engine.registry import Input, Node, NodeResult, Registry

_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def save_image(call: Call, images: Floats, filename_prefix: str = "ComfyUI") -> NodeResult:
    """Write PNG files to the output folder."""
    return _save(call, images, "output", filename_prefix, compress_level=4)


def preview_image(call: Call, images: Floats) -> NodeResult:
    """Write PNG files to the temp folder."""
    return _save(call, images, "temp", call.files.temp_prefix, compress_level=1)


def _save(
    call: Call, images: Floats, folder: str, prefix: str, *, compress_level: int
) -> NodeResult:
    texts = {"prompt": call.graph, **call.extra_pnginfo}
    size = images.shape[2], images.shape[1]
    paths = call.files.reserve(folder, prefix, len(images), size)
    for path, image in zip(paths, images, strict=True):
        data = pictures.png(pictures.to_pixels(image), texts, compress_level=compress_level)
        path.write_bytes(data)
    ui: dict[str, Any] = {"images": [call.files.named(folder, path).to_dict() for path in paths]}
    if words := _unknown_words(call):
        ui["unknown_words"] = words
    return NodeResult(ui=ui)


def _unknown_words(call: Call) -> list[str]:
    """Return the words of the texts behind this picture that had no effect, each once."""
    encoded = (outputs[0] for outputs in call.upstream("CLIPTextEncode"))
    words = (word for conditioning in encoded for word in conditioning.unknown_words)
    return list(dict.fromkeys(words))


def send_images(call: Call, images: Floats) -> NodeResult:
    """Send PNG pictures over the client's socket, and store nothing."""
    for number, image in enumerate(images):
        data = pictures.png(pictures.to_pixels(image), compress_level=1)
        call.progress(number, len(images), EncodedImage("PNG", data))
    return NodeResult()


def register(registry: Registry) -> None:
    """Add these nodes."""
    registry.add(
        Node(
            "SaveImage",
            save_image,
            category="image",
            display_name="Save Image",
            description="Saves pictures to the output folder.",
            output_node=True,
            hidden=_HIDDEN,
            inputs=(
                Input("images", "IMAGE", tooltip="The images to save."),
                Input(
                    "filename_prefix",
                    "STRING",
                    default="ComfyUI",
                    tooltip="File name, with a subfolder if you like; %year%, %month%, %day%, "
                    "%hour%, %minute%, %second%, %width% and %height% are filled in.",
                ),
            ),
        )
    )
    registry.add(
        Node(
            "PreviewImage",
            preview_image,
            category="image",
            display_name="Preview Image",
            description="Saves pictures to the temp folder.",
            output_node=True,
            hidden=_HIDDEN,
            inputs=(Input("images", "IMAGE"),),
        )
    )
    registry.add(
        Node(
            "SaveImageWebsocket",
            send_images,
            category="api/image",
            output_node=True,
            module="custom_nodes.websocket_image_save",
            inputs=(Input("images", "IMAGE"),),
            changed=lambda _files, _inputs: None,  # its result is the sending
        )
    )

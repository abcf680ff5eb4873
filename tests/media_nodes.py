"""Nodes for tests of outputs, loaded into an engine with `--nodes`.

Give writes any bytes (base64) to a file and says its name under any key; Tell says a text. Both
may say anything else too, as JSON.
"""

import base64
import json
import uuid

from comfynb.engine.registry import Input, Node, NodeResult


def give(call, *, data, suffix, key, says):
    name = f"give-{uuid.uuid4().hex[:8]}{suffix}"
    (call.files.output / name).write_bytes(base64.b64decode(data))
    file = {"filename": name, "subfolder": "", "type": "output"}
    return NodeResult(ui={key: [file], **json.loads(says)})


def tell(call, *, words, says):
    return NodeResult(ui={"text": [words], **json.loads(says)})


def register(registry):
    says = Input("says", "STRING", default="{}")
    registry.add(
        Node(
            "Give",
            give,
            output_node=True,
            inputs=(
                Input("data", "STRING", default=""),
                Input("suffix", "STRING", default=".png"),
                Input("key", "STRING", default="images"),
                says,
            ),
        )
    )
    registry.add(
        Node("Tell", tell, output_node=True, inputs=(Input("words", "STRING", default=""), says))
    )

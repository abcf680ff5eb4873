"""What a hostile or broken ComfyUI may send, as strategies of hypothesis.

Most of it is almost right: noise alone never gets past the first check. Messages have the shape of
real ones with a field that is missing, of another type, endless, NaN, or names something else;
files are real ones that are cut, flipped, mislabelled, or claim a size that they have not.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from PIL import Image
from test_media import FILES
from test_pictures import animation, claiming

PROMPT = "p"
"""Id of the prompt that the messages are about."""


def effort(examples: int, *, shrink: bool = True) -> settings:
    """Say how many examples are tried: the same ones every time while they are few.

    Args:
        examples: How many.
        shrink: Whether a failing one is made smaller, which tries it again many times.
    """
    return settings(
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 1000,
        suppress_health_check=list(HealthCheck),
    )


# -- JSON

ELSEWHERE = "../../etc/passwd"
NUMBERS = st.one_of(
    st.integers(-(10**3), 10**3),
    st.sampled_from([2**31, 2**53 + 1, 2**64, -(2**63), 10**400]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", PROMPT, "2", "9", "2.0.1", "\ud800", "a\0b", ELSEWHERE, "/etc/passwd", "x" * 5000]
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def mostly(good: Any) -> st.SearchStrategy[Any]:
    """What a field should hold, or something else."""
    good = good if isinstance(good, st.SearchStrategy) else st.just(good)
    return st.one_of(good, good, good, JSON)


def fields(**known: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with these fields: each may be missing or wrong, and there may be more."""
    optional = {name: mostly(value) for name, value in known.items()}
    return st.fixed_dictionaries({}, optional=optional) | st.dictionaries(TEXTS, JSON, max_size=2)


NODES = st.sampled_from(["1", "2", "9", "2.0.0.1", "unknown"])
FILE = fields(
    filename=st.sampled_from(["a.png", "b.webm", "c.glb", ELSEWHERE, "x" * 3000, "a\0.png"]),
    subfolder=st.sampled_from(["", "..", "/etc", "\ud800"]),
    type=st.sampled_from(["output", "temp", "input", "nowhere"]),
)
OUTPUT = fields(
    images=st.lists(FILE, max_size=3),
    audio=st.lists(FILE, max_size=2),
    text=st.lists(TEXTS, max_size=3),
    unknown_words=st.lists(TEXTS, max_size=3),
    animated=st.just([True]),
)
EVENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "status": fields(status=fields(exec_info=fields(queue_remaining=NUMBERS)), sid=TEXTS),
    "execution_start": fields(prompt_id=PROMPT, timestamp=NUMBERS),
    "execution_cached": fields(prompt_id=PROMPT, nodes=st.lists(NODES, max_size=3)),
    "executing": fields(prompt_id=PROMPT, node=NODES | st.none()),
    "progress": fields(prompt_id=PROMPT, node=NODES, value=NUMBERS, max=NUMBERS),
    "progress_state": fields(prompt_id=PROMPT, nodes=st.dictionaries(NODES, JSON, max_size=2)),
    "executed": fields(prompt_id=PROMPT, node=NODES, output=OUTPUT),
    "execution_success": fields(prompt_id=PROMPT),
    "execution_error": fields(
        prompt_id=PROMPT, node_id=NODES, exception_type=TEXTS, exception_message=TEXTS
    ),
    "execution_interrupted": fields(prompt_id=PROMPT),
    "of a custom node": JSON,
}
EVENT = st.sampled_from(sorted(EVENTS)).flatmap(
    lambda kind: st.tuples(mostly(kind), mostly(EVENTS[kind]))
)
HISTORY = fields(
    prompt=JSON,
    outputs=st.dictionaries(NODES, mostly(OUTPUT), max_size=3),
    status=fields(
        status_str=st.sampled_from(["success", "error"]),
        completed=st.booleans(),
        messages=st.lists(mostly(EVENT.map(list)), max_size=4),
    ),
)


def written(value: Any) -> str:
    """Write JSON as Python does: with bare NaN, and halves of characters as escapes."""
    try:
        return json.dumps(value)
    except ValueError:  # an integer of thousands of digits
        return "{}"


@st.composite
def broken(draw: st.DrawFn, text: str) -> str:
    """A text as it is, cut off, with something put in, or nested without end."""
    how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "put in", "deep"]))
    at = draw(st.integers(0, len(text)))
    if how == "cut":
        return text[:at]
    if how == "put in":
        return text[:at] + draw(st.sampled_from(['"', "{", "NaN", "\0", "é", "]"])) + text[at:]
    return "[" * 5000 if how == "deep" else text


TEXT_FRAME = EVENT.map(lambda event: written({"type": event[0], "data": event[1]})).flatmap(broken)


# -- files


def picture(kind: str, size: tuple[int, int] = (16, 12)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(file, kind)
    return file.getvalue()


def swollen() -> bytes:
    """A PNG with a compressed text of 50 MB in 50 kB."""
    data = picture("PNG")
    text = b"zTXt" + b"prompt\0\0" + zlib.compress(b"x" * 50_000_000)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[:33] + chunk + data[33:]


GOOD_FILES = {
    "a.png": picture("PNG"), "a.jpg": picture("JPEG"), "a.webp": picture("WEBP"),
    "a.gif": picture("GIF"), "m.webp": animation("WEBP"), "m.png": animation("PNG"),
    "m.gif": animation("GIF"), **{name: data for name, (_, data) in FILES.items()},
}  # fmt: skip
BOMBS = (
    claiming(2**31 - 1, 2**31 - 1),
    claiming(20_000, 20_000),
    claiming(14_000, 14_000),
    swollen(),
    b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0" * 40,
    b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
)
PAGE = b"<!doctype html><html><script>alert(1)</script>"


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file: whole, cut, with a wrong byte, a bomb, a page, or noise behind a good beginning."""
    data = draw(st.sampled_from(sorted(GOOD_FILES.values())))
    how = draw(st.sampled_from(["whole", "cut", "flip", "flip", "bomb", "page", "noise"]))
    at = draw(st.integers(0, len(data) - 1))
    match how:
        case "cut":
            return data[:at]
        case "flip":
            return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        case "bomb":
            return draw(st.sampled_from(BOMBS))
        case "page":
            return PAGE
        case "noise":
            return data[: draw(st.integers(0, 16))] + draw(st.binary(max_size=64))
    return data


NAMES = st.sampled_from([*GOOD_FILES, "x.glb", "page.html", "bare", "..", ""]) | TEXTS


@st.composite
def binary_frames(draw: st.DrawFn) -> bytes:
    """A binary frame: its type and lengths may be wrong, its metadata no JSON, its end missing."""
    kind = draw(st.sampled_from([1, 1, 4, 4, 4, 0, 2, 3, 5, 2**32 - 1]))
    meta = draw(fields(node_id=NODES, prompt_id=PROMPT, display_node_id=NODES, image_type=TEXTS))
    text = draw(broken(written(meta))).encode()
    length = draw(st.one_of(st.just(len(text)), st.just(len(text)), st.integers(0, 2**32 - 1)))
    head = struct.pack(">II", kind, length if kind == 4 else draw(st.integers(0, 3)))
    frame = head + (text if kind == 4 else b"") + draw(files())
    return frame[: draw(st.just(len(frame)) | st.integers(0, len(frame)))]


BINARY_FRAME = binary_frames() | st.binary(max_size=40)

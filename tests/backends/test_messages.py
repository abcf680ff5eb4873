"""What a ComfyUI says on its socket: recorded traffic is understood, hostile frames are refused."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from comfynb.backends.comfyui import messages as m
from comfynb.backends.comfyui.messages import MalformedMessageError, parse_binary, parse_text

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "engine" / "transcripts").glob("*.jsonl"))
"""Recorded from ComfyUI 0.3.75; their README says how."""


def text(kind: str, **data) -> str:
    return json.dumps({"type": kind, "data": data})


def heard(path: Path):
    """What the server said on sockets, as frames."""
    for line in path.read_text("utf-8").splitlines():
        entry = json.loads(line)  # bare NaN included, as recorded
        if entry.get("direction") != "server->client":
            continue
        if entry["kind"] == "ws-text":
            yield json.dumps(entry["data"])
        elif entry["kind"] == "ws-binary" and "head_hex" in entry:
            # The pictures were cut out: fill up with what their length says.
            head = bytes.fromhex(entry["head_hex"])
            yield head.ljust(entry["length"], b"\0")


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_everything_that_was_recorded_is_understood(path):
    kinds = Counter()
    for frame in heard(path):
        if isinstance(frame, str):
            message = parse_text(frame)
            kinds[type(message).__name__] += 1
            if message is None:
                assert json.loads(frame)["type"] in ("feature_flags", "logs")
        elif struct.unpack_from(">I", frame) == (1,):
            assert parse_binary(frame).prompt_id is None
        elif struct.unpack_from(">I", frame) == (3,):
            assert parse_binary(frame) is None
    if path.stem.startswith("ws_"):
        assert kinds["ServerStatus"]


def test_the_recordings_hold_every_kind_of_message():
    kinds = {
        type(parse_text(frame))
        for path in TRANSCRIPTS
        for frame in heard(path)
        if isinstance(frame, str)
    }
    assert kinds >= set(m.Message.__args__) - {m.ImageFrame}


def test_bare_nan_is_taken():
    frames = [f for p in TRANSCRIPTS if p.stem == "ws_nan" for f in heard(p)]
    assert any("NaN" in f for f in frames if isinstance(f, str))
    assert parse_text('{"type": "execution_success", "data": {"prompt_id": "p", "x": NaN}}')


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (text("status", status={}, sid="s"), m.ServerStatus("s")),
        (text("status", status={}), m.ServerStatus(None)),
        (text("execution_start", prompt_id="p", timestamp=1), m.ExecutionStart("p")),
        (text("execution_cached", prompt_id="p", nodes=[1]), m.ExecutionCached("p", ("1",))),
        (text("execution_cached", prompt_id="p", nodes=None), m.ExecutionCached("p", ())),
        (text("executing", node="3", display_node="3", prompt_id="p"), m.Executing("p", "3")),
        (text("executing", node=None, prompt_id="p"), m.Executing("p", None)),
        (text("executing", node="2"), m.Executing(None, "2")),
        (text("progress", value=1, max=4, prompt_id="p", node="3"), m.NodeProgress("p", "3", 1, 4)),
        (text("progress_state", prompt_id="p", nodes={}), m.NodeStates("p")),
        (text("executed", node="3", prompt_id="p", output=None), m.Executed("p", "3", {})),
        (text("execution_success", prompt_id="p"), m.ExecutionSuccess("p")),
        (text("execution_interrupted", prompt_id="p"), m.ExecutionInterrupted("p")),
        (text("crystools.monitor", cpu=3), None),
        ('{"type": "logs", "data": null}', None),
    ],
)  # fmt: skip
def test_messages_become_values(frame, message):
    assert parse_text(frame) == message


def test_an_expanded_node_is_named_as_the_history_knows_it():
    frame = text("executed", node="2.0.0.1", display_node="2", prompt_id="p", output={"images": []})
    assert parse_text(frame).node == "2.0.0.1"


def test_an_error_keeps_its_text_but_not_its_tensor_dumps():
    failed = parse_text(
        text(
            "execution_error",
            prompt_id="p",
            node_id="2",
            node_type="KSampler",
            exception_type="ValueError",
            exception_message="boom " * 10_000 + "\n",
            current_inputs={"image": ["tensor" * 10_000]},
        )
    )
    assert failed.message.startswith("boom boom")
    assert len(failed.message) <= m.MAX_TEXT
    assert not failed.blocked
    assert "tensor" not in repr(failed)


def test_a_blocked_node_is_known():
    blocked = text("execution_error", prompt_id="p", exception_type="ExecutionBlocked")
    assert parse_text(blocked).blocked


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "null",
        "[]",
        '"executing"',
        "{}",
        '{"type": 3, "data": {}}',
        '{"type": "executing"}',
        '{"type": "executing", "data": []}',
        '{"type": "executing", "data": {"prompt_id": ["p"], "node": "1"}}',
        '{"type": "executing", "data": {"prompt_id": {"a": 1}, "node": "1"}}',
        '{"type": "execution_start", "data": {}}',
        '{"type": "execution_start", "data": {"prompt_id": null}}',
        '{"type": "progress", "data": {"node": "1", "value": "a", "max": 3}}',
        '{"type": "progress", "data": {"node": "1", "value": true, "max": 3}}',
        '{"type": "progress", "data": {"node": "1", "value": 1}}',
        '{"type": "executed", "data": {"prompt_id": "p"}}',
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"type": "progress", "data": {"node": "1", "max": 3, "value": ' + "9" * 5000 + "}}",
        "\ud800",
    ],
    ids=lambda frame: frame[:40],
)
def test_hostile_text_is_malformed_and_nothing_else(frame):
    with pytest.raises(MalformedMessageError):
        parse_text(frame)


# -- binary


def with_metadata(meta: object, image: bytes = b"IMG") -> bytes:
    packed = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    return struct.pack(">II", 4, len(packed)) + packed + image


def test_a_plain_preview_names_nobody():
    assert parse_binary(struct.pack(">II", 1, 2) + b"IMG") == m.ImageFrame(
        None, None, "image/png", b"IMG"
    )
    assert parse_binary(struct.pack(">II", 1, 1) + b"IMG").mime == "image/jpeg"


def test_a_preview_with_metadata_names_its_prompt_and_node():
    meta = {"node_id": "2.0.1", "display_node_id": "2", "prompt_id": "p", "image_type": "image/png"}
    assert parse_binary(with_metadata(meta)) == m.ImageFrame("p", "2", "image/png", b"IMG")


def test_what_metadata_says_of_the_type_is_on_a_list():
    for claimed in ("text/html", "image/svg+xml", ["image/png"], None, 3):
        assert parse_binary(with_metadata({"image_type": claimed})).mime == "image/jpeg"


def test_unknown_binary_events_are_passed_over():
    assert parse_binary(struct.pack(">II", 3, 1) + b"2hello") is None
    assert parse_binary(struct.pack(">I", 0xFFFFFFFF)) is None


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\0\0",
        struct.pack(">I", 1),
        struct.pack(">I", 4),
        struct.pack(">II", 4, 0),
        struct.pack(">II", 4, 0xFFFFFFFF) + b"{}",
        with_metadata(b"[1]"),
        with_metadata(b"3"),
        with_metadata(b"null"),
        with_metadata(b"\xff\xfe"),
        with_metadata(b"[" * 200_000),
        with_metadata({"prompt_id": ["p"]}),
        with_metadata({"node_id": {"a": 1}}),
    ],
    ids=lambda frame: frame[:16].hex(),
)
def test_hostile_frames_are_malformed_and_nothing_else(frame):
    with pytest.raises(MalformedMessageError):
        parse_binary(frame)


def test_no_mangled_frame_raises_anything_else():
    """Recorded text and made binary frames with bytes changed, cut and doubled."""
    chance = random.Random(1)
    texts = [f for p in TRANSCRIPTS for f in heard(p) if isinstance(f, str) and len(f) < 2000]
    binary = [with_metadata({"node_id": "2", "prompt_id": "p", "image_type": "image/png"})]
    understood = 0
    for _ in range(4000):
        source = chance.choice([chance.choice(texts).encode(), binary[0]])
        mangled = bytearray(source)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(mangled))
            mangled[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        mangled = (
            mangled[: chance.randrange(len(mangled) + 1)] if chance.random() < 0.3 else mangled
        )
        for parse, frame in (
            (parse_binary, bytes(mangled)),
            (parse_text, mangled.decode("utf-8", "replace")),
        ):
            with contextlib.suppress(MalformedMessageError):
                understood += parse(frame) is not None
    assert understood > 100, "most must still look like messages, or this tests nothing"

"""Whatever a server sends: no crash, no hang, and every refusal says what it is about.

The parts that look at what came, each by itself; test_fuzz_server.py has them all together behind
a real server. The same examples are tried each time; `make test-long` tries many more.
"""

# ruff: noqa: PT017 - an error is one of two good ends here

from __future__ import annotations

import asyncio
import json
import math
import warnings

import hostile
import pytest
from hostile import BINARY_FRAME, EVENT, HISTORY, JSON, NAMES, TEXT_FRAME, effort, written
from hypothesis import given
from hypothesis import strategies as st

from comfynb.backends.base import Given
from comfynb.backends.comfyui import messages
from comfynb.backends.comfyui.collected import LONGEST_TEXT, MOST_GIVEN, FileRef
from comfynb.backends.comfyui.prompt import Prompt
from comfynb.backends.comfyui.rejection import node_errors, rejection
from comfynb.errors import LogError, PromptRejectedError, ServerError
from comfynb.keyframes import Failure
from comfynb.log import thumbnails
from comfynb.media import UNKNOWN, look_at
from comfynb.pictures import BadPictureError
from comfynb.workflows import NodeTypes

FEW = pytest.mark.parametrize("examples", [80, pytest.param(1500, marks=pytest.mark.long)])
SHOWN = {"image", "video", "audio"}

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "Guard", "inputs": {"image": ["1", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
    "8": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}},
}


@FEW
def test_a_text_frame_is_a_message_or_is_refused(examples):
    @effort(examples)
    @given(TEXT_FRAME | JSON.map(written) | st.text(max_size=40))
    def check(frame):
        try:
            message = messages.parse_text(frame)
        except messages.MalformedMessageError as error:
            assert 0 < len(str(error)) < 300
        else:
            assert message is None or isinstance(message, messages.Message)

    check()


@FEW
def test_a_binary_frame_is_a_picture_or_is_refused(examples):
    @effort(examples)
    @given(BINARY_FRAME)
    def check(frame):
        try:
            message = messages.parse_binary(frame)
        except messages.MalformedMessageError as error:
            assert 0 < len(str(error)) < 300
        else:
            assert message is None or message.mime in ("image/jpeg", "image/png")

    check()


@FEW
def test_a_file_is_what_its_bytes_are_or_is_refused(examples):
    @effort(examples)
    @given(hostile.files(), NAMES)
    def check(data, name):
        try:
            looked, warning = look_at(data, name)
        except BadPictureError as error:
            assert 0 < len(str(error)) < 300
            return
        assert looked.mime == UNKNOWN or looked.mime.split("/")[0] in SHOWN
        assert "html" not in looked.mime
        assert len(warning) < 300
        if looked.mime.startswith("image/"):
            assert looked.width_px * looked.height_px > 0
            assert looked.frames > 0

    check()


@FEW
def test_a_thumbnail_is_made_or_refused(examples):
    @effort(examples // 2)
    @given(hostile.files())
    def check(data):
        try:
            assert thumbnails.make(data)[8:12] == b"WEBP"
        except LogError as error:
            assert "no thumbnail" in str(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd chunks
        check()


@FEW
def test_a_refusal_in_any_shape_is_an_error_of_bounded_length(examples):
    extra = hostile.fields(input_name=JSON, received_value=JSON, input_config=st.lists(JSON))
    errors = hostile.fields(
        errors=st.lists(
            hostile.fields(message=JSON, details=JSON, type=JSON, extra_info=extra), max_size=4
        ),
        class_type=JSON,
    )
    answer = hostile.fields(
        error=hostile.fields(type=JSON, message=JSON, details=JSON, extra_info=JSON),
        node_errors=st.dictionaries(hostile.NODES, errors, max_size=15),
    )

    @effort(examples)
    @given(hostile.mostly(answer).map(written).flatmap(hostile.broken), answer)
    def check(text, value):
        error = rejection(text.encode(), "server")
        assert isinstance(error, PromptRejectedError)
        assert 0 < len(str(error)) < 8000
        for complaint in node_errors(json.loads(written(value)).get("node_errors")):
            assert 0 < len(complaint.message) < 2000

    check()


@FEW
def test_node_types_of_any_shape_are_read_as_far_as_they_go(examples):
    options = hostile.fields(default=JSON, min=JSON, max=JSON, options=JSON, image_upload=JSON)
    inputs = st.dictionaries(hostile.TEXTS, hostile.mostly(st.tuples(JSON, options).map(list)))
    node = hostile.fields(
        input=hostile.fields(required=inputs, optional=inputs),
        input_order=JSON,
        output=JSON,
        output_name=JSON,
        output_node=JSON,
    )

    @effort(examples // 2)
    @given(st.dictionaries(hostile.TEXTS, hostile.mostly(node), max_size=3))
    def check(answer):
        for name, kind in NodeTypes.of(json.loads(written(answer))).items():
            assert kind.name == name

    check()


class Fed:
    """A prompt that is told what a test draws."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.told: list[object] = []
        self.files = files
        self.prompt = Prompt(hostile.PROMPT, GRAPH, self.told.append, self._fetch)
        self.prompt.send(1)

    async def _fetch(self, ref: FileRef) -> bytes:
        for part in (ref.filename, ref.subfolder, ref.type):
            part.encode()  # as a URL has it
        if ref.filename in self.files:
            return self.files[ref.filename]
        raise ServerError("404", status=404)

    def hear(self, frame: str | bytes) -> None:
        parse = messages.parse_text if isinstance(frame, str) else messages.parse_binary
        try:
            message = parse(frame)
        except messages.MalformedMessageError:
            return
        if message is not None and not isinstance(message, messages.ServerStatus):
            self.prompt.hear(message)


@FEW
def test_a_prompt_comes_to_an_end_whatever_is_said_of_it(examples):
    said = st.lists(TEXT_FRAME | BINARY_FRAME, max_size=10)

    @effort(examples)
    @given(said, HISTORY, st.dictionaries(st.sampled_from(["a.png", "c.glb"]), hostile.files()))
    def check(frames, entry, files):
        async def live():
            fed = Fed(files)
            for frame in frames:
                fed.hear(frame)
            fed.prompt.settle_from_history(json.loads(written(entry)))
            if not fed.prompt.done.is_set():
                fed.prompt.settle_lost()
            assert fed.prompt.released
            assert fed.prompt.done.is_set()
            try:
                return await fed.prompt.outcome()
            finally:
                await fed.prompt.drop_fetches()

        outcome = asyncio.run(live())
        assert outcome.status in ("done", "failed", "cancelled", "lost")
        assert (outcome.failure is None) == (outcome.status == "done")
        assert outcome.failure is None or isinstance(outcome.failure, Failure)
        assert len(outcome.given) <= MOST_GIVEN
        for given_ in outcome.given:
            assert isinstance(given_, Given)
            assert not given_.is_text or len(given_.data) <= 4 * LONGEST_TEXT
        for number in (outcome.queued_ms, outcome.executing_ms, outcome.fetch_ms):
            assert number is None or math.isfinite(number)

    check()


@FEW
def test_a_history_of_odd_events_is_read_as_far_as_it_goes(examples):
    @effort(examples)
    @given(EVENT)
    def check(event):
        kind, data = json.loads(written(list(event)))
        if isinstance(kind, str):
            try:
                messages.parse_event(kind, data)
            except messages.MalformedMessageError as error:
                assert str(error)

    check()

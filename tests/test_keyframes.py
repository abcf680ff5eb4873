"""Keyframes: plain values that know where their pictures are."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
import typing
from datetime import UTC, datetime

import pytest
from PIL import Image

from comfynb import keyframes
from comfynb.errors import KeyframeFailedError, LogError
from comfynb.keyframes import (
    EMPTY,
    ENDED,
    MADE,
    THUMBNAIL_PX,
    Failure,
    Keyframe,
    Output,
    Status,
    Timings,
    raise_for_failed,
)
from comfynb.log import MemoryStore
from comfynb.pictures import look
from comfynb.scenes import Scene


def png(colour: str = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    import io

    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def keyframe(**values) -> Keyframe:
    given = {
        "id": "id",
        "run": "run",
        "key": "0" * 64,
        "scene": Scene(id="fox", prompt="a fox"),
        "status": "done",
        **values,
    }
    return Keyframe(**given)


def kept(*pictures: bytes) -> Keyframe:
    outputs = []
    for index, data in enumerate(pictures):
        seen = look(data)
        outputs.append(
            Output("9", index, seen.sha256, seen.mime, len(data), seen.width_px, seen.height_px)
        )
    return MemoryStore().add_result(keyframe(outputs=tuple(outputs)), pictures)


def test_the_statuses_are_the_ones_that_are_named():
    assert ENDED | {"queued", "submitted", "running"} == set(typing.get_args(Status))
    assert MADE < ENDED


def test_a_keyframe_gives_its_pictures():
    first, second = png("red"), png("blue", (4, 4))
    made = kept(first, second)
    assert made.ok
    assert (made.read(), made.read(1)) == (first, second)
    assert made.image.size == (8, 6)
    assert made.path is None, "they are kept in memory"


def of_all_kinds() -> Keyframe:
    """A text, a sound, two pictures and a file, in this order."""
    mimes = ("text/plain", "audio/flac", "image/png", "image/png", "application/octet-stream")
    files = ("ein Fuchs ü".encode(), b"fLaC", png(), png("blue", (4, 4)), b"glTF")
    outputs = [
        Output("5", n, hashlib.sha256(data).hexdigest(), mime, len(data))
        for n, (mime, data) in enumerate(zip(mimes, files, strict=True))
    ]
    return MemoryStore().add_result(keyframe(outputs=tuple(outputs)), files)


def test_the_first_picture_stands_for_a_keyframe_that_gave_other_things_too():
    made = of_all_kinds()
    assert [o.kind for o in made.outputs] == ["text", "audio", "image", "image", "file"]
    assert made.picture is made.outputs[2]
    assert made.read() == png()
    assert made.read(1) == b"fLaC"
    assert made.image.size == (8, 6)
    assert [image.size for image in made.images] == [(8, 6), (4, 4)]
    assert made.text == "ein Fuchs ü"
    with pytest.raises(IndexError):
        made.read(5)


def test_a_keyframe_without_a_picture_says_what_it_gave_instead():
    words = [b"first", b"second"]
    outputs = [
        Output("5", n, hashlib.sha256(data).hexdigest(), "text/plain", len(data))
        for n, data in enumerate(words)
    ]
    made = MemoryStore().add_result(keyframe(outputs=tuple(outputs)), words)
    assert made.ok
    assert (made.picture, made.images, made.text) == (None, [], "first\nsecond")
    assert made.read() == b"first"
    with pytest.raises(KeyframeFailedError, match="no picture, it gave: text"):
        made.image  # noqa: B018


def test_a_thumbnail_comes_from_the_log_s_own_or_is_made_on_the_fly():
    large = kept(png(size=(1000, 500)))
    assert large.thumbnail.size == (THUMBNAIL_PX, THUMBNAIL_PX // 2)
    assert large.image.size == (1000, 500)
    large.pictures._pictures.clear()
    assert large.thumbnail.size == (384, 192), "the small copy is there still"
    assert kept(png()).thumbnail.size == (8, 6), "a smaller picture does not grow"

    class Shelf:
        def read(self, sha256: str) -> bytes:
            return data

    data = png(size=(1000, 500))
    assert dataclasses.replace(large, pictures=Shelf()).thumbnail.size == (384, 192)


def test_a_thumbnail_is_refused_as_the_picture_is():
    none = keyframe(status="failed", error=Failure("node_error", "boom"))
    for name in ("image", "thumbnail"):
        with pytest.raises(KeyframeFailedError, match="boom"):
            getattr(none, name)
    gone = kept(png())
    gone.pictures._pictures.clear()
    for name in ("image", "thumbnail"):
        with pytest.raises(LogError):
            getattr(gone, name)

    class Shelf:
        def read(self, sha256: str) -> bytes:
            return b"no picture"

    with pytest.raises(LogError, match="no thumbnail of fox"):
        dataclasses.replace(gone, pictures=Shelf()).thumbnail  # noqa: B018


def test_a_keyframe_that_failed_has_neither_pictures_nor_text():
    failed = keyframe(status="failed")
    assert (failed.picture, failed.images, failed.text) == (None, [], "")


@pytest.mark.parametrize(
    ("mime", "frames", "kind"),
    [
        ("image/png", 1, "image"),
        ("image/webp", 2, "animation"),
        ("video/mp4", 1, "video"),
        ("audio/ogg", 1, "audio"),
        ("text/plain", 1, "text"),
        ("application/octet-stream", 1, "file"),
        ("", 1, "file"),
    ],
)
def test_the_kind_of_an_output_follows_from_its_type(mime, frames, kind):
    output = Output("9", 0, "0" * 64, mime, 1, frames=frames)
    assert output.kind == kind
    assert output.is_picture == (kind in ("image", "animation"))


def test_asking_for_a_picture_that_is_not_there_says_why():
    failed = keyframe(status="failed", error=Failure("node_error", "boom", "3 (KSampler)", "retry"))
    for ask in (failed.read, lambda: failed.image):
        with pytest.raises(KeyframeFailedError, match=r"fox: node_error: boom \(node 3"):
            ask()
    assert failed.path is None
    with pytest.raises(KeyframeFailedError, match="cancelled"):
        keyframe(status="cancelled").read()


def test_a_picture_whose_bytes_are_gone_is_an_error_of_the_log():
    made = kept(png())
    made.pictures._pictures.clear()
    with pytest.raises(LogError, match="no picture"):
        made.read()


def test_seconds_are_those_of_the_server_where_they_were_seen():
    assert keyframe().seconds is None
    assert keyframe(timings=Timings(total_ms=1500.0)).seconds == 1.5
    assert keyframe(timings=Timings(executing_ms=500.0, total_ms=1500.0)).seconds == 0.5


def test_a_failure_reads_as_a_sentence():
    assert str(Failure("lost", "the server forgot it")) == "lost: the server forgot it"
    full = Failure("rejected", "Too small", "3 (KSampler)", "correct it")
    assert str(full) == "rejected: Too small (node 3 (KSampler)). correct it"


def test_raise_for_failed_names_every_failure_and_passes_what_is_made():
    raise_for_failed([])
    raise_for_failed([keyframe(), keyframe(status="cached")])
    bad = [keyframe(status="failed", error=Failure("a", "b")), keyframe(status="lost")]
    with pytest.raises(KeyframeFailedError) as raised:
        raise_for_failed([keyframe(), *bad])
    assert raised.value.failures == (("fox", "a: b"), ("fox", "lost"))


def test_keyframes_are_values():
    one = keyframe(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert one == dataclasses.replace(one, pictures=MemoryStore()), "where bytes are is no part"
    assert one == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.status = "failed"
    assert keyframe().created_at.tzinfo is UTC


def test_large_things_are_not_in_the_repr():
    one = kept(png())
    text = repr(dataclasses.replace(one, workflow={"1": {"class_type": "Secretive"}}))
    assert "Secretive" not in text
    assert "MemoryStore" not in text


def test_the_empty_mapping_is_one_and_cannot_change():
    assert EMPTY == {}
    assert (dict(EMPTY), len(EMPTY), repr(EMPTY)) == ({}, 0, "{}")
    assert pickle.loads(pickle.dumps(EMPTY)) == copy.deepcopy(EMPTY) == EMPTY
    with pytest.raises(KeyError):
        EMPTY["x"]
    with pytest.raises(TypeError):
        EMPTY["x"] = 1


def test_all_names_are_there():
    assert sorted(keyframes.__all__) == sorted(set(keyframes.__all__))
    for name in keyframes.__all__:
        assert hasattr(keyframes, name)

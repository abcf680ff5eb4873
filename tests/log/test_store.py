"""What both stores promise."""

import contextlib
import dataclasses
import hashlib

import pytest

from comfynb.errors import ClosedError, LogError
from comfynb.keyframes import Output
from comfynb.log import CellRecord, Log, RunRecord, Store


def test_each_store_is_a_store(store):
    methods = [name for name in vars(Store) if not name.startswith("_")]
    assert {"add_run", "add_submitted", "add_result", "find", "thumbnail"} <= set(methods)
    assert all(callable(getattr(store, name)) for name in methods)


def test_a_kept_keyframe_gives_its_bytes_back(store, make_keyframe, png):
    data = png()
    kept = store.add_result(make_keyframe("fox", [data]), [data])
    assert kept.pictures is store
    assert kept.read() == data
    assert kept.image.size == (64, 48)


def test_find_gives_a_done_keyframe_as_cached(store, make_keyframe, png):
    data = png()
    made = make_keyframe("fox", [data])
    store.add_result(made, [data])
    (found,) = store.find([made.key, "0" * 64]).values()
    assert found.status == "cached"
    assert (found.id, found.scene, found.seed, found.outputs) == (
        made.id,
        made.scene,
        made.seed,
        made.outputs,
    )
    assert found.read() == data


def test_find_takes_the_latest_done_keyframe(store, make_keyframe, png):
    pictures = [png(), png()]
    late = make_keyframe("fox", pictures[:1], seconds=9)
    early = make_keyframe("fox", pictures[1:], seconds=1)
    failed = make_keyframe("fox", seconds=20)
    store.add_result(late, pictures[:1])
    store.add_result(early, pictures[1:])
    store.add_result(failed)
    assert store.find([late.key])[late.key].id == late.id


def test_find_passes_over_what_was_not_done(store, make_keyframe):
    failed = make_keyframe("fox")
    store.add_result(failed)
    empty = make_keyframe("owl", status="done")
    store.add_result(empty)
    assert store.find([failed.key, empty.key]) == {}
    assert store.find([]) == {}


def test_several_pictures_of_one_keyframe_are_kept_in_order(store, make_keyframe, png):
    pictures = [png(), png(), png()]
    kept = store.add_result(make_keyframe("fox", pictures), pictures)
    assert [kept.read(i) for i in range(3)] == pictures
    assert [output.index for output in store.find([kept.key])[kept.key].outputs] == [0, 1, 2]


def test_images_that_are_not_described_are_refused(store, make_keyframe, png):
    data = png()
    keyframe = make_keyframe("fox", [data])
    for images in ([], [data, data], [b"other"]):
        with pytest.raises(ValueError, match="do not describe"):
            store.add_result(keyframe, images)
    assert store.find([keyframe.key]) == {}


def test_a_picture_that_is_not_there_is_an_error_that_names_it(store):
    sha256 = hashlib.sha256(b"nothing").hexdigest()
    for ask in (store.read, store.thumbnail):
        with pytest.raises(LogError, match=sha256):
            ask(sha256)
    assert store.path(sha256, "image/png") is None


def test_a_closed_store_refuses_writing_and_goes_on_reading(store, make_keyframe, png):
    data = png()
    kept = store.add_result(make_keyframe("fox", [data]), [data])
    store.close()
    store.close()
    run = RunRecord(id="run-1", storyboard={}, cells=(CellRecord(index=0, scene="fox", key="k"),))
    submitted = {"prompt_id": "p", "run": "r", "key": "k", "scene": "fox", "server": "s"}
    for write in (
        lambda: store.add_run(run),
        lambda: store.add_submitted(**submitted),
        lambda: store.add_result(dataclasses.replace(kept, id="other"), [data]),
    ):
        with pytest.raises(ClosedError, match="closed"):
            write()
    assert kept.read() == data
    assert kept.key in store.find([kept.key])


def test_a_thumbnail_is_a_small_webp(store, make_keyframe, png):
    from PIL import Image

    data = png(800, 400)
    kept = store.add_result(make_keyframe("fox", [data]), [data])
    small = store.thumbnail(kept.outputs[0].sha256)
    with Image.open(
        small if not isinstance(small, bytes) else __import__("io").BytesIO(small)
    ) as im:
        assert (im.format, im.size) == ("WEBP", (384, 192))


def test_bytes_that_are_no_picture_have_no_thumbnail(store, make_keyframe):
    data = b"\x89PNG\r\n\x1a\n but not really"
    kept = store.add_result(make_keyframe("fox", [data]), [data])
    with pytest.raises(LogError, match="cannot be decoded"):
        store.thumbnail(kept.outputs[0].sha256)


def test_a_picture_that_claims_a_huge_size_is_not_decoded(store, make_keyframe, png):
    import struct
    import zlib

    data = bytearray(png(1, 1))
    data[16:24] = struct.pack(">II", 9000, 9000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    data = bytes(data)
    output = Output("9", 0, hashlib.sha256(data).hexdigest(), "image/png", len(data), 9000, 9000)
    store.add_result(make_keyframe("fox", outputs=(output,), status="done"), [data])
    with pytest.raises(LogError, match="9000 x 9000"):
        store.thumbnail(output.sha256)


def test_what_is_no_picture_is_kept_under_its_own_suffix(tmp_path, make_keyframe):
    files = {"video/webm": b"\x1a\x45", "audio/flac": b"fLaC", "text/plain": b"", "model/x": b"gl"}
    outputs = tuple(
        Output("5", n, hashlib.sha256(data).hexdigest(), mime, len(data), frames=n + 1)
        for n, (mime, data) in enumerate(files.items())
    )
    with contextlib.closing(Log(tmp_path / "log")) as log:
        made = make_keyframe("fox", status="done", outputs=outputs)
        kept = log.add_result(made, list(files.values()))
        found = log.find([made.key])[made.key]
    assert found.outputs == outputs
    assert [found.read(n) for n in range(4)] == list(files.values())
    suffixes = [log.path(o.sha256, o.mime).suffix for o in kept.outputs]
    assert suffixes == [".webm", ".flac", ".txt", ".bin"]
    assert kept.path.suffix == ".webm"


def test_a_row_from_before_frames_were_counted_is_read(log, make_keyframe, png):
    data = png()
    log.add_result(make_keyframe("fox", [data]), [data])
    (segment,) = (log.folder / "seg").glob("*.jsonl*")
    segment.write_bytes(segment.read_bytes().replace(b',"frames":1', b""))
    (found,) = log.keyframes()
    assert found.outputs[0].frames == 1
    assert found.read() == data

"""What servers said of their nodes is kept beside the rows, and may be deleted or damaged."""

import hashlib
import json

import pytest

from comfynb.errors import ClosedError, LogWriteError
from comfynb.log import Log, MemoryStore, servers

SAID = {"KSampler": {"input": {"required": {"steps": ["INT", {"min": 1}]}}}}


def file_of(log, server="gpu:8188"):
    return log.folder / "servers" / f"{hashlib.sha256(server.encode()).hexdigest()}.json"


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path / "log")
    yield log
    log.close()


@pytest.mark.parametrize("make", [lambda path: Log(path / "log"), lambda _: MemoryStore()])
def test_what_is_kept_is_found_and_what_is_said_later_replaces_it(make, tmp_path):
    store = make(tmp_path)
    assert store.object_info("gpu:8188") is None
    store.keep_object_info("gpu:8188", {"Old": {}})
    store.keep_object_info("gpu:8188", SAID)
    store.keep_object_info("other:8188", {})
    assert store.object_info("gpu:8188") == SAID
    assert store.object_info("other:8188") == {}
    store.close()
    with pytest.raises(ClosedError):
        store.keep_object_info("gpu:8188", SAID)


def test_another_process_finds_it(log):
    log.keep_object_info("gpu:8188", SAID)
    assert Log(log.folder, read_only=True).object_info("gpu:8188") == SAID
    assert [path.name for path in (log.folder / "servers").iterdir()] == [file_of(log).name]


def test_a_label_is_never_a_path(log):
    for server in ("../../evil", "/etc/passwd", "gpu:8188\0", "\ud83d"):
        log.keep_object_info(server, SAID)
        assert log.object_info(server) == SAID
    assert len(list((log.folder / "servers").iterdir())) == 4


def test_names_that_json_can_hold_come_back(log):
    said = {"Bild ü": {"tooltip": "half \ud83d", "max": float("inf")}}
    log.keep_object_info("gpu:8188", said)
    found = log.object_info("gpu:8188")
    assert found["Bild ü"]["max"] == float("inf")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"], ids=range(6)
)
def test_a_damaged_file_counts_as_none_and_is_replaced(log, content):
    log.keep_object_info("gpu:8188", SAID)
    file_of(log).write_bytes(content)
    assert log.object_info("gpu:8188") is None
    log.keep_object_info("gpu:8188", SAID)
    assert log.object_info("gpu:8188") == SAID


def test_a_link_in_its_place_is_not_followed(log, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(SAID))
    log.keep_object_info("other:8188", {})
    file_of(log).symlink_to(outside)
    assert log.object_info("gpu:8188") is None


def test_more_than_is_sensible_is_not_kept_nor_read(log, monkeypatch):
    log.keep_object_info("gpu:8188", SAID)
    monkeypatch.setattr(servers, "LARGEST", 10)
    log.keep_object_info("gpu:8188", {"x" * 100: {}})
    assert log.object_info("gpu:8188") is None
    monkeypatch.undo()
    assert log.object_info("gpu:8188") == SAID


def test_a_log_for_reading_only_keeps_nothing(log):
    log.keep_object_info("gpu:8188", SAID)
    reader = Log(log.folder, read_only=True)
    with pytest.raises(LogWriteError):
        reader.keep_object_info("gpu:8188", {})
    assert reader.object_info("gpu:8188") == SAID

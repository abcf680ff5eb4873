"""Prompts that were sent and that nobody has finished: by dead sessions, and by living ones."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from comfynb.log import Log, MemoryStore, locks, orphans
from comfynb.log.records import result_id

CHILD = """
import sys
from comfynb.log import Log
log = Log(sys.argv[1])
for name in sys.argv[2:]:
    log.add_submitted(prompt_id=name, run=name[:5], key="k", scene="fox", server="gpu:8188")
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def session(tmp_path):
    """Start a process that has sent prompts and waits: `session("run-a1", ...)`."""
    processes = []

    def start(*prompt_ids):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "log", *prompt_ids],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "sent\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def send(log, prompt_id, run="run-a"):
    log.add_submitted(prompt_id=prompt_id, run=run, key="k", scene="fox", server="gpu:8188")


def ids(log, run=None):
    return [orphan.prompt_id for orphan in log.orphans(run)]


def test_what_a_killed_process_sent_is_an_orphan_and_what_a_living_one_sent_is_none(log, session):
    first, second = session("run-a1", "run-a2"), session("run-b1")
    assert ids(log) == []
    first.kill()
    first.wait()
    assert ids(log) == ["run-a1", "run-a2"]
    second.kill()
    second.wait()
    assert ids(log) == ["run-a1", "run-a2", "run-b1"]
    (orphan,) = log.orphans("run-b")
    assert (orphan.key, orphan.scene, orphan.server) == ("k", "fox", "gpu:8188")
    assert orphan.created_at.tzinfo is not None
    assert len(log.orphans(keys={"k", "other"})) == 3
    assert log.orphans("run-b", keys={"other"}) == []


def test_a_prompt_whose_keyframe_somebody_wrote_is_no_orphan(log, session, make_keyframe):
    process = session("run-a1", "run-a2")
    process.kill()
    process.wait()
    log.add_result(make_keyframe(id=result_id("run-a1")))
    assert ids(log) == ["run-a2"]


def test_open_logs_of_this_process_are_alive_and_closed_ones_are_dead(log):
    other = Log(log.folder)
    send(log, "mine")
    send(other, "other")
    assert ids(log) == ids(other) == []
    other.close()
    assert ids(log) == ["other"]


def test_a_session_lives_although_its_first_segment_was_taken_away(log):
    send(log, "first")
    (segment,) = (log.folder / "seg").iterdir()
    segment.rename(segment.with_suffix(".claimed.jsonl"))
    send(log, "second")
    assert ids(Log(log.folder)) == []


def test_without_locks_nothing_is_an_orphan(log, session, monkeypatch):
    process = session("run-a1")
    process.kill()
    process.wait()
    monkeypatch.setattr(locks, "fcntl", None)
    assert ids(log) == []


def test_memory_has_no_orphans():
    store = MemoryStore()
    send(store, "p")
    assert store.orphans() == []


def test_what_a_living_session_sent_is_under_way_until_something_comes(
    log, make_keyframe, monkeypatch
):
    assert log.under_way({"k"}) == set()
    other = Log(log.folder)
    send(other, "first")
    assert log.under_way({"k", "else"}) == {"k"}
    assert log.under_way({"else"}) == set()
    log.add_result(make_keyframe(key="k", created_at=datetime.now(UTC)))
    assert log.under_way({"k"}) == set(), "of whichever attempt"
    send(other, "second")
    assert log.under_way({"k"}) == {"k"}
    monkeypatch.setattr(orphans, "BELIEVED_SECONDS", 0.0)
    assert log.under_way({"k"}) == set()
    monkeypatch.undo()
    other.close()
    assert log.under_way({"k"}) == set(), "it is an orphan now"
    monkeypatch.setattr(locks, "fcntl", None)
    assert log.under_way({"k"}) == {"k"}, "nobody can be told dead"

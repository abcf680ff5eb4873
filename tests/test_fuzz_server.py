"""A whole run against a real server that answers with whatever hypothesis draws.

Every cell comes to an end in bounded time, nothing is written outside the log, what the log holds
can be read again, and comfynb's own code meets no error that it did not expect.
"""

# ruff: noqa: PT017 - an error is one of two good ends here

from __future__ import annotations

import hashlib
import itertools
import json
import logging

import hostile
import pytest
from hostile import BINARY_FRAME, HISTORY, JSON, TEXT_FRAME, effort, written
from hostile_server import HostileServer, Manners
from hypothesis import given
from hypothesis import strategies as st
from support import studio_on, wait_for

from comfynb.backends.comfyui import backend, uploads
from comfynb.errors import ComfynbError
from comfynb.keyframes import ENDED
from comfynb.workflows import Workflow

FLOW = Workflow.load(
    {
        "1": {"class_type": "Words", "inputs": {"text": "a"}, "_meta": {"title": "positive"}},
        "2": {"class_type": "Noise", "inputs": {"text": ["1", 0], "seed": 0}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
)
WITHIN = 15.0
"""Seconds that a run may take: it is to end, not to be quick."""
QUEUED = st.lists(hostile.mostly(st.tuples(JSON, st.just("p"), JSON, JSON, JSON).map(list)))
BODIES = {
    "/queue": hostile.fields(queue_running=QUEUED, queue_pending=QUEUED),
    "/history": HISTORY.map(lambda entry: {"p": entry}),
    "/prompt": hostile.fields(prompt_id="p", number=JSON, node_errors=JSON, error=JSON),
    "/object_info": hostile.fields(Words=JSON, Noise=JSON, SaveImage=JSON),
    "/system_stats": hostile.fields(system=JSON, devices=JSON),
}
STATUSES = st.sampled_from([200, 200, 200, 200, 400, 404, 500, 503])
HEADERS = st.sampled_from(
    [{}, {}, {"Content-Type": "text/html"}, {"Content-Encoding": "gzip"}, {"Set-Cookie": "=;;="}]
)
_number = itertools.count()


@st.composite
def manners(draw: st.DrawFn) -> Manners:
    """Most routes are answered well, so that what is behind them is reached too."""
    answers = {}
    for route, body in BODIES.items():
        if draw(st.integers(0, 3)) == 0:
            text = draw(hostile.mostly(body).map(written).flatmap(hostile.broken))
            answers[route] = draw(STATUSES), text.encode(), draw(HEADERS)
    if draw(st.integers(0, 3)) == 0:
        answers["/view"] = draw(STATUSES), draw(hostile.files()), draw(HEADERS)
    return Manners(
        answers,
        draw(st.lists(TEXT_FRAME | BINARY_FRAME, max_size=6)),
        draw(st.integers(0, 3)) > 0,
        draw(st.integers(0, 4)) == 0,
        draw(hostile.files()),
    )


@pytest.fixture
def impatient(monkeypatch):
    """Wait for nothing longer than a test can."""
    monkeypatch.setattr(backend, "ABSENT_SECONDS", 0.05)
    monkeypatch.setattr(backend, "LAST_ASK_SECONDS", 0.1)
    monkeypatch.setattr(backend, "FETCH_TRIES", 3)
    monkeypatch.setattr(uploads, "TRIES", 3)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("examples", [6, pytest.param(150, marks=pytest.mark.long)])
def test_every_run_ends_and_the_log_stays_whole(examples, impatient, tmp_path, caplog):
    folder = tmp_path / "log"

    @effort(examples, shrink=False)
    @given(manners())
    def check(drawn):
        server.manners = drawn
        caplog.clear()
        patience = {"reconnect_for": 0.3, "silence": 0.2, "dead_after": 0.5}
        with studio_on(server.url, workflow=FLOW, log=folder, **patience) as studio:
            run = studio.run([{"prompt": "x", "seed": next(_number)} for _ in range(2)])
            wait_for(lambda: run.ended, WITHIN)
            try:
                keyframes = run.result()
            except ComfynbError as error:
                assert 0 < len(str(error)) < 5000
                assert "comfynb's own" not in str(error)
                return
            assert {k.status for k in keyframes} <= ENDED
            for keyframe in keyframes:
                assert keyframe.ok or keyframe.error.message
                assert keyframe.error is None or keyframe.error.kind != "internal"
                for number, output in enumerate(keyframe.outputs):
                    data = keyframe.read(number)
                    assert hashlib.sha256(data).hexdigest() == output.sha256
            kept = {k.id for k in studio.log.keyframes()}
            assert {k.id for k in keyframes if k.ok} <= kept
        ours = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert not ours, [r.getMessage() for r in ours]

    with HostileServer() as server:
        check()
    assert {path.name for path in tmp_path.iterdir()} == {"log"}
    for path in (folder / "blobs").rglob("*.*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_the_server_itself_is_well_behaved_when_told_so(impatient, tmp_path):
    """Else the test above would prove little."""
    with HostileServer() as server:
        server.manners = Manners(file=hostile.GOOD_FILES["a.png"])
        with studio_on(server.url, workflow=FLOW, log=tmp_path / "log") as studio:
            keyframes = studio.run([{"prompt": "x", "seed": n} for n in range(2)]).wait()
    assert [k.status for k in keyframes] == ["done"] * 2, [str(k.error) for k in keyframes]
    assert keyframes[0].read() == hostile.GOOD_FILES["a.png"]


def test_a_socket_that_talks_nonsense_without_end_does_not_drown_the_picture(impatient, tmp_path):
    noise = [json.dumps({"type": "executed", "data": n}) for n in range(2000)] + ["{", b"\0"] * 500
    with HostileServer() as server:
        server.manners = Manners(frames=noise, file=hostile.GOOD_FILES["a.png"])
        with studio_on(server.url, workflow=FLOW, log=tmp_path / "log") as studio:
            (keyframe,) = studio.run({"prompt": "x"}).wait()
    assert keyframe.status == "done", str(keyframe.error)


@pytest.mark.parametrize(
    "answers",
    [
        {"/history": (200, b"[[[", {})},
        {"/prompt": (503, b"", {}), "/queue": (503, b"", {})},
    ],
    ids=["no JSON", "503 to all"],
)
def test_a_server_that_stands_and_cannot_be_asked_ends_its_cells(impatient, tmp_path, answers):
    with HostileServer() as server:
        server.manners = Manners(answers, ends=False)
        patience = {"reconnect_for": 0.3, "silence": 0.1}
        with studio_on(server.url, workflow=FLOW, log=tmp_path / "log", **patience) as studio:
            run = studio.run([{"prompt": "x", "seed": n} for n in range(3)])
            wait_for(lambda: run.ended, WITHIN)
            keyframes = run.result()
    assert {k.status for k in keyframes} == {"failed"}
    assert {k.error.kind for k in keyframes} == {"server_gone"}
    assert any("cannot be asked" in k.error.message for k in keyframes)

"""The ways in: which server `connect` takes, and what it leaves alone."""

from __future__ import annotations

import inspect
import json
import threading
import time

import psutil
import pytest
from fake_servers import HTML, STATS, FakeServer, RawServer, closed_port, dripping, silent
from support import scenes

import comfynb
from comfynb import connecting
from comfynb.errors import (
    BackendError,
    EngineMissingError,
    LogError,
    UnknownKnobError,
    WorkflowError,
)
from comfynb.servers import lanes

QUICK = {"steps": 1, "width": 64, "height": 64}


@pytest.fixture
def at_default(monkeypatch):
    """Put something where connect() looks when nobody says where."""

    def put(url: str) -> None:
        monkeypatch.setattr(connecting, "DEFAULT_URL", url)

    put(f"http://127.0.0.1:{closed_port()}")
    return put


def children() -> list[psutil.Process]:
    return [c for c in psutil.Process().children() if "--nodes" not in c.cmdline()]


def connect(**options) -> comfynb.Studio:
    return comfynb.connect(log=False, **options)


def test_a_url_wins_over_everything(monkeypatch, at_default, capsys):
    monkeypatch.setenv("COMFYUI_URL", "http://elsewhere:1")
    with connect(url="http://gpu:8188") as studio:
        assert studio.server == "gpu:8188"
    assert capsys.readouterr().err == ""


def test_the_environment_wins_over_looking(monkeypatch, at_default, capsys):
    with FakeServer({"/system_stats": STATS}) as server:
        at_default(server.url)
        monkeypatch.setenv("COMFYUI_URL", "http://ann:sekret@gpu:9000/base?key=sekret")
        with connect() as studio:
            assert studio.server == "gpu:9000/base"
            assert "sekret" not in repr(studio)
        assert server.requests == []
    assert "sekret" not in capsys.readouterr().err


def test_a_comfyui_at_the_default_port_is_taken_and_named(at_default, capsys):
    with FakeServer({"/system_stats": STATS}) as server:
        at_default(server.url)
        with connect(token="t") as studio:
            assert studio.server == server.url.removeprefix("http://")
        assert [path for _, path, _ in server.requests] == ["/system_stats"]
        assert server.requests[0][2]["authorization"] == "Bearer t"
    assert f"using the ComfyUI at {studio.server}" in capsys.readouterr().err


def other_answers():
    return {
        "html": lambda: FakeServer(default=HTML),
        "404": lambda: FakeServer(default=(404, HTML)),
        "401": lambda: FakeServer(default=(401, b"")),
        "another json": lambda: FakeServer(default={"system": "linux"}),
        "no http": lambda: RawServer(lambda c: c.sendall(b"220 mail ready\r\n")),
        "hangs up": lambda: RawServer(lambda c: c.close()),
        "silence": lambda: RawServer(silent),
        "a dripping body": lambda: RawServer(dripping(b" ", 0.05)),
        "dripping headers": lambda: RawServer(_dripping_headers),
    }


def _dripping_headers(connection) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    stop = threading.Event()
    while not stop.wait(0.05):
        connection.sendall(b"X: y\r\n")


@pytest.mark.parametrize("answer", other_answers())
def test_nothing_else_is_taken_for_a_comfyui_and_it_takes_half_a_second(answer, at_default, capsys):
    with other_answers()[answer]() as server:
        at_default(server.url)
        begun = time.monotonic()
        with connect() as studio:
            took = time.monotonic() - begun
            assert studio.server == "embedded engine"
    assert took < connecting.PROBE_SECONDS + 0.7
    assert f"no ComfyUI at {server.url.removeprefix('http://')}" in capsys.readouterr().err


def test_without_a_server_the_embedded_engine_is_taken_and_named(at_default, capsys):
    with connect() as studio:
        assert studio.server == "embedded engine"
        assert studio.checkpoint == "tiny-scenes.onnx"
    assert "pictures come from the embedded engine" in capsys.readouterr().err


def test_without_the_engines_packages_it_says_what_to_install(at_default, monkeypatch):
    monkeypatch.setattr(connecting, "missing", lambda: ["onnxruntime"])
    with pytest.raises(EngineMissingError) as raised:
        connect()
    place = connecting.DEFAULT_URL.removeprefix("http://")
    assert str(raised.value) == (
        f"No ComfyUI at {place} and the embedded engine is not installed (onnxruntime): "
        "pip install 'comfynb[engine]', or connect('http://...')"
    )


def test_nothing_is_started_before_a_picture_is_to_be_made(tmp_path, capsys):
    before = children()
    with comfynb.connect("embedded", log=tmp_path / "log") as studio:
        studio.plan(scenes(2), knobs=QUICK)
        assert studio.log.keyframes() == []
        assert children() == before
        studio.render(scenes(2), knobs=QUICK)
        assert len(children()) == len(before) + 1
    assert children() == before
    with comfynb.connect("embedded", log=tmp_path / "log") as studio:
        assert [k.status for k in studio.render(scenes(2), knobs=QUICK)] == ["cached"] * 2
        assert children() == before
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", ""), "what was asked for need not be said"


def test_connecting_to_an_unreachable_server_sends_nothing_and_works():
    with FakeServer() as server, connect(url=server.url) as studio:
        assert studio.server in server.url
        assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://gpu", "http://", "http://gpu:port"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(BackendError, match=r"http://127\.0\.0\.1:8188"):
        connect(url=url)


def test_studios_on_one_server_share_a_lane_and_those_with_other_tokens_do_not():
    with (
        connect(url="gpu:1") as one,
        connect(url="http://gpu:1/") as two,
        connect(url="gpu:1", token="t") as three,
    ):
        assert one._lanes[0] is two._lanes[0] is not three._lanes[0]
    assert not lanes._lanes


# -- workflows


def test_workflows_come_by_name_file_graph_or_ready_made(tmp_path):
    graph = comfynb.Workflow.load("txt2img").graph
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(dict(graph)))
    for workflow in ("txt2img", path, str(path), graph, comfynb.Workflow.load("txt2img")):
        with connect(url="gpu:1", workflow=workflow) as studio:
            assert "positive" in studio.workflow.knobs


EMPTY_UI_FORMAT = {"nodes": [], "links": [], "version": 0.4}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"mine\.json.*cannot be read.*No such file"),
        ("not json", r"mine\.json.*not JSON.*Export \(API\)"),
        (json.dumps(EMPTY_UI_FORMAT), r"mine\.json.*no nodes"),
        (json.dumps({"1": {"inputs": {}}}), r"mine\.json.*node '1'.*class_type"),
        ("[]", r"mine\.json.*mapping of nodes"),
    ],
)
def test_an_unreadable_workflow_is_named_with_what_to_do(tmp_path, content, says):
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    held = dict(lanes._lanes)
    with pytest.raises(WorkflowError, match=says):
        connect(url="gpu:1", workflow=path)
    assert lanes._lanes == held


def test_an_unknown_name_of_the_library_is_named():
    with pytest.raises(WorkflowError, match="txt2imgg"):
        connect(url="gpu:1", workflow="txt2imgg")


def test_an_unknown_knob_is_named_with_its_neighbours():
    with connect(url="gpu:1") as studio, pytest.raises(UnknownKnobError, match="'steps'"):
        studio.run(["a fox"], knobs={"step": 3})


def test_a_storyboard_file_that_is_not_there_is_named(tmp_path):
    with connect(url="gpu:1") as studio, pytest.raises(comfynb.ComfynbError, match=r"scenes\.yaml"):
        studio.run(tmp_path / "scenes.yaml")


# -- what fails leaves nothing held


def test_a_log_that_cannot_be_used_leaves_no_lane(tmp_path):
    (tmp_path / "comfynb-log.json").write_text("{}")
    with pytest.raises(LogError, match="not the marker of a log"):
        comfynb.connect("gpu:1", log=tmp_path)
    assert not lanes._lanes


def test_every_option_of_connect_is_documented():
    parameters = inspect.signature(comfynb.connect).parameters
    for name in parameters:
        assert f"{name}:" in comfynb.connect.__doc__

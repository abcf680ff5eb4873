"""The command: what it writes, what it says, how it exits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image
from support import guarded_graph, wait_for

import comfynb
from comfynb.backends.embedded import EmbeddedBackend
from comfynb.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def flow_file(here):
    path = here / "flow.json"
    path.write_text(json.dumps(guarded_graph()))
    return path


class Images(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img" and dict(attrs).get("src"):
            self.sources.append(dict(attrs)["src"])


def test_demo_draws_a_storyboard_and_the_second_time_starts_no_engine(here, capsys, monkeypatch):
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    folder = here / "comfynb-demo"
    for path in ("storyboard.png", "storyboard.html", "log"):
        assert f"comfynb-demo/{path}" in said
        assert (folder / path).exists()
    assert "made   9 done" in said
    assert "next   " in said
    with Image.open(folder / "storyboard.png") as sheet:
        assert sheet.width > 600
    sources = Images((folder / "storyboard.html").read_text("utf-8")).sources
    assert len([s for s in sources if s.startswith("data:image/")]) >= 9
    assert not [s for s in sources if not s.startswith("data:")]
    log = comfynb.open_log(folder / "log").log
    assert len(log.keyframes(status="done")) == 9
    assert log.runs()[0].checkpoint == "tiny-scenes.onnx"

    def no_engine(_):
        raise AssertionError("an engine was started")

    monkeypatch.setattr(EmbeddedBackend, "_start", no_engine)
    assert main(["demo"]) == 0
    assert "made   9 cached" in capsys.readouterr().out
    assert len(log.keyframes()) == 9


def test_render_takes_a_file_a_workflow_and_settings(here, engine, flow_file, capsys):
    (here / "mine.txt").write_text("a fox\n\n# not this one\nan owl\n")
    arguments = ["render", "mine.txt", "--server", engine.url, "--workflow", str(flow_file)]
    assert main([*arguments, "--log", "kept", "--set", "steps=2", "--set", "seed=5"]) == 0
    assert "made   2 done" in capsys.readouterr().out
    assert (here / "mine.png").exists()
    assert (here / "mine.html").exists()
    fox, owl = sorted(comfynb.open_log("kept").log.keyframes(), key=lambda k: k.scene.id)
    assert (fox.prompt, owl.prompt) == ("a fox", "an owl")
    assert (fox.seed, fox.knobs["steps"]) == (5, 2)


def test_render_exits_1_if_a_cell_failed_and_says_why(here, engine, flow_file, capsys):
    scenes = [{"prompt": "a fox"}, {"prompt": "an owl", "knobs": {"Guard.message": "boom"}}]
    (here / "mine.json").write_text(json.dumps({"scenes": scenes}))
    assert main(["render", "mine.json", "--server", engine.url, "--workflow", "flow.json"]) == 1
    said = capsys.readouterr().out
    assert "boom" in said
    assert "guard (Guard)" in said
    assert "made   1 done, 1 failed" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["render", "none.txt"], ["none.txt"]),
        (["render", "mine.txt", "--workflow", "none.json"], ["none.json"]),
        (["render", "mine.txt", "--set", "steps"], ["KNOB=VALUE"]),
        (["render", "mine.txt", "--set", "stepps=3"], ["stepps", "steps"]),
        (["render", "mine.txt", "--server", "http://127.0.0.1:9"], ["127.0.0.1:9"]),
        (["render", "mine.txt", "--server", "ftp://x"], ["ftp", "http://"]),
        (["render", "mine.txt", "--leave-out", "seeds"], ["leave out 'prompts' and", "'seeds'"]),
    ],
)
def test_what_cannot_be_carried_out_exits_2_in_one_sentence(here, capsys, arguments, words):
    (here / "mine.txt").write_text("a fox\n")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("comfynb:")
    assert "Traceback" not in said
    for word in words:
        assert word in said.replace("\n", " ")


def test_render_leaves_out_of_its_log_what_it_shall_and_the_log_stays_so(
    here, engine, flow_file, capsys
):
    command = ["render", "mine.txt", "--server", engine.url, "--workflow", str(flow_file)]
    (here / "mine.txt").write_text("a velvetine fox\n")
    assert main([*command, "--leave-out", "prompts"]) == 0
    (here / "mine.txt").write_text("a velvetine fox\na velvetine owl\n")
    assert main(command) == 0
    assert "made   1 cached, 1 done" in capsys.readouterr().out
    log = comfynb.open_log("comfynb-log").log
    assert log.leaves_out == ("prompts", "workflows")
    files = [path for path in log.folder.rglob("*") if path.is_file()]
    assert len(list(log.folder.glob("blobs/*/*.png"))) == 2
    assert not [path for path in files if b"velvetine" in path.read_bytes()]
    assert "velvetine" in (here / "mine.html").read_text("utf-8")


def test_interrupted_it_leaves_the_server_empty_and_keeps_what_was_made(here, engine):
    (here / "flow.json").write_text(json.dumps(guarded_graph(seconds=0.3)))
    (here / "mine.txt").write_text("\n".join(f"a fox {i}" for i in range(20)))
    command = [sys.executable, "-m", "comfynb", "render", "mine.txt", "--server", engine.url]
    process = subprocess.Popen(
        [*command, "--workflow", "flow.json", "--log", "kept"], stderr=subprocess.PIPE, text=True
    )
    log = comfynb.Log("kept", read_only=True)
    wait_for(lambda: log.keyframes(status="done"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "what was made is in the log" in said
    assert not engine.prompts()
    done = log.keyframes(status="done")
    assert 1 <= len(done) < 20
    assert all(k.path.exists() for k in done)


def test_the_engine_command_says_how_to_connect():
    command = [sys.executable, "-m", "comfynb", "engine", "--token", "t0p"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = ""
        while "connect(" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert 'token="t0p"' in said or "token='t0p'" in said
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stdout.close()

"""The engine as a process: what it prints, who owns it, what it leaves."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from comfynb._version import __version__
from comfynb.engine.process import parse


def wait_until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_owned_engine_tells_how_to_reach_it(start_engine):
    engine = start_engine()
    assert engine.facts == {
        "url": engine.url,
        "token": engine.token,
        "pid": engine.process.pid,
        "version": __version__,
    }
    assert len(engine.token) >= 24
    request = urllib.request.Request(
        f"{engine.url}/prompt", headers={"Authorization": f"Bearer {engine.token}"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert json.load(answer) == {"exec_info": {"queue_remaining": 0}}


def test_tokens_differ_from_process_to_process(start_engine):
    assert start_engine().token != start_engine().token


def test_closing_its_standard_input_ends_it_and_removes_its_folder(tmp_path):
    with started_in(tmp_path) as engine:
        engine.stdin.close()


@contextlib.contextmanager
def started_in(folder, *arguments, owned=True):
    """An engine whose temporary folder lies in `folder`; at the end it must be gone."""
    with subprocess.Popen(
        [sys.executable, "-m", "comfynb.engine", *(["--owned"] if owned else []), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as engine:
        try:
            engine.first_line = engine.stdout.readline()
            assert left_in(folder)
            yield engine
            assert engine.wait(20) == 0
            assert not left_in(folder)
        finally:
            engine.kill()


def left_in(folder):
    return list(folder.iterdir())


@pytest.mark.parametrize("owned", [True, False])
def test_sigterm_ends_it_cleanly(tmp_path, owned):
    with started_in(tmp_path, owned=owned) as engine:
        engine.terminate()


def test_an_interrupt_of_the_notebook_does_not_end_an_owned_engine(tmp_path):
    with started_in(tmp_path, "--no-token") as engine:
        engine.send_signal(signal.SIGINT)
        url = json.loads(engine.first_line)["url"]
        with urllib.request.urlopen(f"{url}/prompt", timeout=5) as answer:
            assert answer.status == 200
        assert engine.poll() is None
        engine.stdin.close()


def test_ctrl_c_ends_one_that_stands_alone(tmp_path):
    with started_in(tmp_path, "--no-token", owned=False) as engine:
        engine.send_signal(signal.SIGINT)


PARENT = """
import subprocess, sys, time
engine = subprocess.Popen(
    [sys.executable, "-m", "comfynb.engine", "--owned"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(engine.stdout.readline(), end="", flush=True)
time.sleep(600)
"""


def test_kill_9_of_its_parent_ends_it_and_removes_its_folder(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pid = json.loads(parent.stdout.readline())["pid"]
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not psutil.pid_exists(pid) or is_zombie(pid))
    assert not left_in(tmp_path)


def is_zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_it_ends_in_the_middle_of_a_picture(start_engine, graphs, owner_of):
    engine = start_engine()
    user = await owner_of(engine)
    socket = await user.connect("me")
    await user.submit(graphs.text_to_image(steps=10000), client_id="me")
    await socket.wait("progress", value=1)
    assert await asyncio.to_thread(engine.end) == 0  # long before the last of 10,000 steps


async def test_it_ends_though_a_client_does_not_read(start_engine, owner_of, stuck_socket):
    engine = start_engine()
    user = await owner_of(engine)
    stuck_socket(engine.url, "stuck", engine.token)
    noise = {"class_type": "ProbeNoise", "inputs": {"size": 1500, "batch": 1, "seed": 1}}
    send = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    await user.run({"1": noise, "2": send}, client_id="stuck")  # 6 MB that stay in the server
    assert await asyncio.to_thread(engine.end) == 0


def test_standing_alone_it_says_in_words_how_to_connect(tmp_path):
    with started_in(tmp_path, "--token", "secret-word", owned=False) as engine:
        assert "listens on http://127.0.0.1:" in engine.first_line
        assert "Authorization: Bearer secret-word" in engine.first_line
        assert "comfynb.connect('http://127.0.0.1:" in engine.stdout.readline()
        engine.terminate()


async def test_pictures_of_a_chosen_folder_stay(start_engine, tmp_path, graphs, owner_of):
    engine = start_engine("--output-directory", str(tmp_path / "kept"))
    user = await owner_of(engine)
    await user.run(graphs.image())
    assert engine.end() == 0
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["x_00001_.png"]


async def test_without_previews_no_latent_is_shown(start_engine, graphs, owner_of):
    user = await owner_of(start_engine("--no-previews", "--threads", "1"))
    socket = await user.connect("me")
    await user.run(graphs.text_to_image(steps=2), socket, client_id="me")
    assert len(socket.events("progress")) == 2
    assert socket.frames() == []


@pytest.mark.parametrize(
    "arguments",
    [["--host", "0.0.0.0"], ["--host", "example.org"], ["--threads", "0"], ["--port", "x"]],
)
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        parse(arguments)
    assert refused.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_token_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("COMFYNB_ENGINE_TOKEN", "from-outside")
    assert parse([]).token == "from-outside"
    assert parse(["--token", "given"]).token == "given"
    assert parse(["--no-token"]).token == ""


def test_an_empty_variable_does_not_open_the_engine(monkeypatch):
    monkeypatch.setenv("COMFYNB_ENGINE_TOKEN", "")
    assert len(parse([]).token) >= 24


def test_a_port_in_use_is_named_and_leaves_nothing(start_engine, tmp_path):
    port = start_engine().url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "comfynb.engine", "--port", port],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert second.returncode == 1
    assert port in second.stderr
    assert "Traceback" not in second.stderr
    assert not left_in(tmp_path)


def imported(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=20
    )
    return set(done.stdout.split())


def test_starting_does_not_import_the_model_or_the_client():
    modules = imported("import comfynb.engine.process")
    assert not modules & {"onnxruntime", "PIL", "pandas", "duckdb", "httpx", "anywidget"}
    ours = {name for name in modules if name.startswith("comfynb.")}
    assert ours - {"comfynb._version"} == {n for n in ours if n.startswith("comfynb.engine")}

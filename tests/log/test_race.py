"""Writers, compactors, readers and a follower on one log; the first two killed at random."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comfynb.log import Log

PROCESS = Path(__file__).with_name("race.py")
SECONDS = float(os.environ.get("COMFYNB_RACE_SECONDS", "60"))


class Race:
    """The processes, and what the writers said."""

    def __init__(self, folder):
        self.folder, self.output = folder, folder.with_name("said")
        self.output.mkdir()
        self.processes = []

    def start(self, role, *names):
        said = (self.output / f"{role}-{len(self.processes)}").open("wb")
        command = [sys.executable, str(PROCESS), role, str(self.folder), *names]
        self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said))
        said.close()
        return self.processes[-1]

    def said(self, role):
        return [
            line.split()
            for path in sorted(self.output.glob(f"{role}-*"))
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def kill(self, process):
        process.kill()
        process.communicate()


@pytest.fixture
def race(tmp_path):
    made = Race(tmp_path / "log")
    yield made
    for process in made.processes:
        made.kill(process)


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.filterwarnings("ignore:.*damaged line")  # torn by a kill, never acknowledged
def test_no_row_is_lost_doubled_or_ever_vanishes_while_processes_are_killed(race, record_property):
    draw = random.Random(20261122)
    readers = [race.start("reader") for _ in range(2)] + [race.start("follower")]
    roles = {
        n: race.start(role, *([f"w{n}"] if role == "writer" else []))
        for n, role in enumerate(("writer", "writer", "compactor", "compactor"))
    }
    kills, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(draw.uniform(0.3, 1.2))
        n = draw.randrange(4)
        assert roles[n].poll() is None, "a process ended by itself"
        race.kill(roles[n])
        kills += 1
        role = "writer" if n < 2 else "compactor"
        roles[n] = race.start(role, *([f"w{n}-{kills}"] if n < 2 else []))
    for process in roles.values():
        race.kill(process)
    for reader in readers:
        reader.communicate()
    found = [json.loads(" ".join(words)) for words in race.said("reader")]
    (followed,) = (json.loads(" ".join(words)) for words in race.said("follower"))
    acked = dict(race.said("writer"))

    log = Log(race.folder)
    print(f"\n{kills} kills, {len(acked)} acknowledged rows, readers: {found}")
    assert kills > SECONDS / 3
    assert len(acked) > 10 * SECONDS
    for reading in found:
        assert reading["reads"] > SECONDS / 4
        assert (reading["vanished"], reading["doubled"], reading["errors"]) == (0, 0, [])
    assert followed["errors"] == []
    assert len(followed["ids"]) == len(set(followed["ids"])), "a row was news twice"
    assert acked.keys() <= set(followed["ids"]), "a row was never news"
    for _ in range(2):  # as it was left, and tidy
        made = {keyframe.id: keyframe for keyframe in log.keyframes()}
        assert acked.keys() <= made.keys()
        rows = log.sql("select count(*) - count(distinct id) as doubled from log_rows")
        assert rows["doubled"].tolist() == [0]
        log.compact(force=True)
    for keyframe_id, sha256 in acked.items():
        assert hashlib.sha256(made[keyframe_id].read()).hexdigest() == sha256
    assert not list((log.folder / "seg").glob("*.jsonl"))

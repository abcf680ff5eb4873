"""A process that appends until it is killed, and says what was acknowledged.

usage: writer.py FOLDER NAME [COUNT]
Prints "run", then one line "ID SHA256" after each append returned.
"""

import hashlib
import itertools
import os
import sys
import uuid

from comfynb.keyframes import Keyframe, Output
from comfynb.log import CellRecord, Log, RunRecord
from comfynb.scenes import Scene


def append(log, name, number, *, size):
    """Append a keyframe with a picture of `size` random bytes; print "ID SHA256" after it."""
    data = os.urandom(size)
    sha256 = hashlib.sha256(data).hexdigest()
    keyframe = Keyframe(
        id=str(uuid.uuid4()),
        run=name,
        key=f"key-{name}-{number}",
        scene=Scene(id=f"{name}-{number}", prompt="a fox"),
        status="done",
        outputs=(Output("9", 0, sha256, "image/png", len(data), 64, 64),),
        workflow={"3": {"class_type": "KSampler", "inputs": {"text": "x" * 3000}}},
    )
    log.add_result(keyframe, [data])
    print(keyframe.id, sha256, flush=True)


def main(folder, name, count=None):
    log = Log(folder)
    cells = tuple(CellRecord(index=i, scene=f"{name}-{i}", key=f"key-{name}-{i}") for i in range(9))
    log.add_run(RunRecord(id=name, storyboard={"scenes": []}, cells=cells))
    print("run", flush=True)
    for i in itertools.count() if count is None else range(int(count)):
        log.add_submitted(
            prompt_id=f"prompt-{name}-{i}", run=name, key=f"key-{name}-{i}", scene="s", server="s"
        )
        append(log, name, i, size=20_000)


if __name__ == "__main__":
    main(*sys.argv[1:])

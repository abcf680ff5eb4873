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

folder, name = sys.argv[1:3]
count = int(sys.argv[3]) if len(sys.argv) > 3 else None
log = Log(folder)
cells = tuple(CellRecord(index=i, scene=f"{name}-{i}", key=f"key-{name}-{i}") for i in range(9))
log.add_run(RunRecord(id=name, storyboard={"scenes": []}, cells=cells))
print("run", flush=True)
for i in itertools.count() if count is None else range(count):
    data = os.urandom(20_000)
    sha256 = hashlib.sha256(data).hexdigest()
    log.add_submitted(
        prompt_id=f"prompt-{name}-{i}", run=name, key=f"key-{name}-{i}", scene="s", server="s"
    )
    keyframe = Keyframe(
        id=str(uuid.uuid4()),
        run=name,
        key=f"key-{name}-{i}",
        scene=Scene(id=f"{name}-{i}", prompt="a fox"),
        status="done",
        outputs=(Output("9", 0, sha256, "image/png", len(data), 64, 64),),
        workflow={"3": {"class_type": "KSampler", "inputs": {"text": "x" * 3000}}},
    )
    log.add_result(keyframe, [data])
    print(keyframe.id, sha256, flush=True)

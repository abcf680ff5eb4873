"""A process of the race: appends, compacts or reads until it is killed or told to stop.

usage: race.py writer FOLDER NAME | compactor FOLDER | reader FOLDER
A writer prints "ID SHA256" after each append returned. A reader prints one JSON line at the end,
when its standard input is closed.
"""

import hashlib
import itertools
import json
import os
import random
import sys
import threading
import time
import uuid
import warnings

from comfynb.keyframes import Keyframe, Output
from comfynb.log import Log, merging, upkeep
from comfynb.scenes import Scene

upkeep.SEAL_ROWS, upkeep.WORTH_ROWS, upkeep.FIRST_DELAY = 50, 5, 0.0
merging.FILES = 6
# A line that is read while it is being written, or was torn by a kill.
warnings.filterwarnings("ignore", ".*damaged line")


def write(folder, name):
    log = Log(folder)
    for i in itertools.count():
        data = os.urandom(2000)
        sha256 = hashlib.sha256(data).hexdigest()
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
        time.sleep(0.004)  # some time for the readers


def compact(folder):
    log = Log(folder)
    while True:
        log.compact()
        time.sleep(random.uniform(0, 0.15))


def read(folder):
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    log, seen = Log(folder), set()
    found = {"reads": 0, "vanished": 0, "doubled": 0, "errors": []}
    while not stop.is_set():
        try:
            ids = log.sql("select id from keyframes")["id"].tolist()
        except Exception as exc:  # noqa: BLE001 - the test judges it
            found["errors"].append(repr(exc)[:300])
            continue
        found["reads"] += 1
        found["doubled"] += len(ids) - len(set(ids))
        found["vanished"] += len(seen - set(ids))
        seen |= set(ids)
    print(json.dumps(found))


{"writer": write, "compactor": compact, "reader": read}[sys.argv[1]](*sys.argv[2:])

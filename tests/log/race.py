"""A process of the race: appends, compacts, reads or follows until it is killed or told to stop.

usage: race.py writer FOLDER NAME | compactor FOLDER | reader FOLDER | follower FOLDER
A writer prints "ID SHA256" after each append returned. A reader and a follower print one JSON line
at the end, when their standard input is closed.
"""

import itertools
import json
import random
import sys
import threading
import time
import warnings
from pathlib import Path

from writer import append

from comfynb.log import Log, merging, upkeep
from comfynb.log.following import Follower

upkeep.SEAL_ROWS, upkeep.WORTH_ROWS, upkeep.FIRST_DELAY = 50, 5, 0.0
merging.FILES = 6
# A line that is read while it is being written, or was torn by a kill.
warnings.filterwarnings("ignore", ".*damaged line")


def write(folder, name):
    log = Log(folder)
    for i in itertools.count():
        append(log, name, i, size=2000)
        time.sleep(0.004)  # some time for the readers


def compact(folder):
    log = Log(folder)
    while True:
        log.compact()
        time.sleep(random.uniform(0, 0.15))


def told_to_stop():
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    return stop


def follow(folder):
    stop, last = told_to_stop(), False
    follower, found = Follower(Path(folder), Log(folder), {}), {"ids": [], "errors": []}
    while not last:
        last = stop.wait(0.05)  # and one more look, at what was written until then
        try:
            news = follower.look()
        except Exception as exc:  # noqa: BLE001 - the test judges it
            found["errors"].append(repr(exc)[:300])
            continue
        found["ids"] += [k.id for k in news.keyframes] if news is not None else []
    print(json.dumps(found))


def read(folder):
    stop = told_to_stop()
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


ROLES = {"writer": write, "compactor": compact, "reader": read, "follower": follow}
ROLES[sys.argv[1]](*sys.argv[2:])

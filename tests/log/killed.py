"""Seals or merges, and dies at a step: `killed.py seal|merge FOLDER`, steps on standard input.

For each line with a number, a forked child begins and ends itself, without any cleaning up, before
its n-th change of a name or opening of a file. Prints each child's exit code: 0 if it was done.
"""

import os
import sys
from pathlib import Path

import duckdb  # noqa: F401 - before the fork; it has no threads before it is used

from comfynb.log import merging, sealing

work, folder = sys.argv[1], Path(sys.argv[2])
merging.FILES = 4
left = 0


def count(event, arguments):
    global left  # noqa: PLW0603 - a script
    if event in {"os.rename", "os.remove", "os.scandir", "os.listdir", "open"}:
        left -= 1
        if left == 0:
            os._exit(9)


for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        with sealing.database() as connection:
            sys.addaudithook(count)
            left = int(line)
            if work == "seal":
                sealing.adopt(folder / "seg", connection)
            else:
                merging.merge(folder, connection)
            os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

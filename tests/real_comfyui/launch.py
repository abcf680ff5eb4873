"""Run ComfyUI as its `main.py` would, until standard input ends: `launch.py SERVER [FLAG...]`.

The operating system closes that pipe with the test process, whatever way that dies. So no server
outlives its tests.
"""

import os
import runpy
import sys
import threading


def end_with_parent() -> None:
    """End hard when there is nobody any more."""
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_parent, daemon=True).start()
server = sys.argv.pop(1)
sys.path[0] = server
sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - torchvision
os.chdir(server)
runpy.run_path(os.path.join(server, "main.py"), run_name="__main__")  # noqa: PTH118

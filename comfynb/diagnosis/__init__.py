"""How is that server, and what is to be done: `comfynb.diagnose` and `comfynb doctor`.

values   what was found, as plain values
notes    taking notes while a part is examined; a server's words are cut and cleaned here
visit    what the parts share
reach    is anybody there, who, and who else may get in
server   release, devices, node classes, models
work     socket, queue, history, one file
trip     one small prompt, and nothing left of it
examine  one part after the other, each for itself and all within a time
table    for a terminal
page     for a notebook
"""

from comfynb.diagnosis.examine import diagnose
from comfynb.diagnosis.values import Diagnosis, Finding, Part

__all__ = ["Diagnosis", "Finding", "Part", "diagnose"]

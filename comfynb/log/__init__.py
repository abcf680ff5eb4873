"""The log: every picture ever made, in a folder that any process may read and append to.

`Log` is that folder and `MemoryStore` stands in for it where nothing shall be kept; both are a
`Store`. log.py tells how a picture gets into the folder and out again.
"""

from comfynb.log.base import Store
from comfynb.log.log import Log
from comfynb.log.marks import Mark
from comfynb.log.memory import MemoryStore
from comfynb.log.news import News
from comfynb.log.records import CellRecord, RunRecord, SubmittedRecord

__all__ = [
    "CellRecord",
    "Log",
    "Mark",
    "MemoryStore",
    "News",
    "RunRecord",
    "Store",
    "SubmittedRecord",
]

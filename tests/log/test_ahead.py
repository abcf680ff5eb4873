"""A row is encoded while the disk is at work on its picture."""

import threading

import pytest

from comfynb.log.ahead import Ahead


def test_it_is_worked_out_once_by_whoever_is_first():
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def work():
        calls.append(threading.current_thread())
        begun.set()
        assert go_on.wait(10)
        return "row"

    value = Ahead(work)
    other = threading.Thread(target=value.prepare)
    other.start()
    assert begun.wait(10)
    threading.Timer(0, go_on.set).start()
    assert value.get() == value.get() == "row"
    other.join()
    assert calls == [other]


def test_who_needs_it_is_told_why_it_could_not_be_made():
    value = Ahead(lambda: 1 // 0)
    value.prepare()
    with pytest.raises(ZeroDivisionError):
        value.get()

"""What is said about keyframes: ratings, tags, picks, notes and comparisons."""

import json
import math
import subprocess
import sys
import uuid

import pandas as pd
import pytest

from comfynb.errors import ClosedError, LogWriteError, MarkError
from comfynb.log import Log, MemoryStore
from comfynb.log import marks as marks_module
from comfynb.log.records import line

NEWER = "2031-01-01T00:00:00.000000"


@pytest.fixture
def fox(log, make_keyframe, png):
    data = png(color="red")
    return log.add_result(make_keyframe("fox", [data], seconds=1, seed=2**64 - 1), [data])


@pytest.fixture
def owl(log, make_keyframe):
    return log.add_result(make_keyframe("owl", seconds=2))


@pytest.fixture
def foreign_row(log, fox):
    """Append a row as another writer would: `foreign_row(field, value, **columns)`."""

    def append(field, value, **columns):
        row = {
            "id": str(uuid.uuid4()),
            "kind": "mark",
            "v": 1,
            "created_at": NEWER,
            "target": fox.id,
            "field": field,
            "value": value,
        }
        with (log.folder / "seg" / "1795349433039-0000abcd.jsonl").open("ab") as file:
            file.write(line({**row, **columns}))

    return append


def read(log, keyframe):
    """Return the keyframe as the log gives it now."""
    (found,) = log.keyframes(where="id = $id", params={"id": keyframe.id})
    return found


def said(log, keyframe):
    found = read(log, keyframe)
    return found.rating, found.tags, found.picked, found.note


NOTHING = (None, (), False, "")


def test_what_was_said_is_read_with_the_keyframe(log, fox, owl):
    log.rate(fox, 4)
    log.tag(fox, "night", " keep ")
    log.pick(fox.id)
    log.note(fox, 'the "left" ear\nis 狐')
    assert said(log, fox) == (4, ("keep", "night"), True, 'the "left" ear\nis 狐')
    assert said(log, owl) == NOTHING
    assert read(log, fox).seed == 2**64 - 1
    assert [keyframe.rating for keyframe in log.latest()] == [4, None]
    assert [keyframe.rating for keyframe in log.takes("fox")] == [4]


def test_the_last_word_on_each_field_counts_and_all_stay_as_history(log, fox):
    for rating in (2, 5, 3):
        log.rate(fox, rating)
    log.note(fox, "first")
    log.note(fox, "second")
    assert said(log, fox) == (3, (), False, "second")
    history = [(mark.field, mark.value) for mark in log.marks(fox)]
    assert history == [
        ("rating", 2), ("rating", 5), ("rating", 3), ("note", "first"), ("note", "second"),
    ]  # fmt: skip


def test_what_was_said_can_be_taken_back(log, fox):
    log.rate(fox, 4)
    log.tag(fox, "a", "b", "c")
    log.pick(fox)
    log.note(fox, "n")
    log.rate(fox, None)
    log.untag(fox, "a", "c", "never there")
    log.pick(fox, picked=False)
    log.note(fox, "")
    assert said(log, fox) == (None, ("b",), False, "")
    log.tag(fox, "a")
    assert said(log, fox)[1] == ("a", "b")


def test_a_clock_that_is_set_back_does_not_hide_what_is_said_later(log, fox, monkeypatch):
    class Back(marks_module.datetime):
        hours = 12

        @classmethod
        def now(cls, zone=None):
            cls.hours -= 1
            return cls(2040, 1, 1, cls.hours, tzinfo=zone)

    monkeypatch.setattr(marks_module, "_last", marks_module._last)
    monkeypatch.setattr(marks_module, "datetime", Back)
    for rating in (1, 2, 3):
        log.rate(fox, rating)
    assert read(log, fox).rating == 3
    assert [mark.value for mark in log.marks()] == [1, 2, 3]


def test_of_two_marks_of_the_same_time_every_reader_takes_the_same(log, foreign_row, fox):
    foreign_row("rating", "5", id="a" * 8)
    foreign_row("rating", "2", id="b" * 8)
    foreign_row("rating", "4", id="a" * 7)
    assert read(log, fox).rating == 2


def test_comparisons_are_counted_and_the_last_verdict_on_a_pair_stands(log, make_keyframe):
    a, b, c = (log.add_result(make_keyframe(name, seconds=i)) for i, name in enumerate("abc"))

    def scores():
        frame = log.df()
        return list(zip(frame["wins"].tolist(), frame["losses"].tolist(), strict=True))

    log.compare(a, b)
    log.compare(a, c.id)
    log.compare(b, c)
    assert scores() == [(2, 0), (1, 1), (0, 2)]
    log.compare(b, a)
    assert scores() == [(1, 1), (2, 0), (0, 2)]
    log.compare(a, b, stands=False)
    assert scores() == [(1, 0), (1, 0), (0, 2)]
    assert len(log.marks(a)) == 4
    assert len(log.marks(c)) == 2


def test_views_and_frames_have_marks_with_pinned_types_with_and_without_any(log, fox, owl):
    types = {"rating": "Int8", "picked": "boolean", "wins": "Int32", "losses": "Int32"}
    sql_types = {
        "rating": "TINYINT",
        "tags": "VARCHAR[]",
        "picked": "BOOLEAN",
        "note": "VARCHAR",
        "wins": "INTEGER",
        "losses": "INTEGER",
    }

    def check(columns):
        frame = log.df()
        assert {name: str(frame[name].dtype) for name in types} == types
        for view in ("keyframes", "latest"):
            described = log.sql(f"describe {view}").set_index("column_name")["column_type"]
            assert {name: described[name] for name in sql_types} == sql_types
        assert list(frame) == columns
        return frame

    columns = list(log.df())
    frame = check(columns)
    assert frame["rating"].tolist() == [pd.NA, pd.NA]
    assert [list(tags) for tags in frame["tags"]] == [[], []]
    log.rate(fox, 5)
    log.tag(fox, "keep")
    frame = check(columns)
    assert frame["rating"].tolist() == [5, pd.NA]
    assert frame["picked"].tolist() == [False, False]
    assert [list(tags) for tags in frame["tags"]] == [["keep"], []]
    assert frame["seed"].tolist() == [2**64 - 1, 7]


def test_keyframes_are_found_by_what_was_said(log, fox, owl):
    log.rate(fox, 4)
    log.tag(owl, "night")
    assert [k.scene.id for k in log.keyframes(where="rating >= 4")] == ["fox"]
    assert [k.scene.id for k in log.keyframes(where="NOT picked")] == ["fox", "owl"]
    assert [k.scene.id for k in log.keyframes(where="list_contains(tags, 'night')")] == ["owl"]
    best = log.sql("select scene, max(rating) as best from latest group by scene order by best")
    assert best["scene"].tolist() == ["fox", "owl"]


def test_marks_stay_when_segments_are_sealed_and_merged(log, fox, owl):
    log.rate(fox, 2)
    log.compare(fox, owl)
    log.close()
    log.compact()
    second = Log(log.folder)
    second.rate(fox, 3)
    second.tag(owl, "keep")
    second.close()
    second.compact(force=True)
    endings = [path.suffix for path in (log.folder / "seg").iterdir()]
    assert endings.count(".parquet") == 1
    assert ".jsonl" not in endings
    assert read(log, fox).rating == 3
    assert read(log, owl).tags == ("keep",)
    assert [mark.value for mark in log.marks(fox)] == [2, fox.id, 3]
    assert log.sql("select wins from keyframes where wins > 0")["wins"].tolist() == [1]


def test_two_processes_mark_at_once_and_nothing_is_lost(log, fox):
    code = """
import sys
from comfynb.log import Log
folder, keyframe, name = sys.argv[1:]
log = Log(folder)
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    log.tag(keyframe, f"{name}-{i}")
    log.rate(keyframe, i % 5 + 1)
log.close()
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(log.folder), fox.id, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n", "ready\n"]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        process.communicate()
        assert process.returncode == 0
    log.rate(fox, 2)
    expected = sorted(f"{name}-{i}" for name in "ab" for i in range(20))
    assert said(log, fox) == (2, tuple(expected), False, "")
    assert len(log.marks()) == 81


DAMAGED = {
    "a rating that is too high": ("rating", "6"),
    "a rating of 64 bits": ("rating", str(2**64)),
    "half a rating": ("rating", "4.5"),
    "a rating in words": ("rating", '"great"'),
    "no json": ("rating", "{"),
    "a pick that is a number": ("pick", "7"),
    "a tag that is a list": ("tag:x", '["y"]'),
    "a note that is a number": ("note", "5"),
    "a note that is no json": ("note", '"cut of'),
    "a verdict for a third": ("versus:" + str(uuid.uuid4()), json.dumps(str(uuid.uuid4()))),
    "a field that is not known": ("mood", '"blue"'),
    "no field": (None, '"blue"'),
}


@pytest.mark.parametrize(("field", "value"), DAMAGED.values(), ids=DAMAGED)
def test_what_a_field_does_not_know_is_passed_over(log, fox, foreign_row, field, value):
    log.rate(fox, 3)
    log.note(fox, "sound")
    foreign_row(field, value)
    assert said(log, fox) == (3, (), False, "sound")
    assert log.df()["wins"].tolist() == [0]
    assert len(log.marks()) == 3


def test_a_verdict_on_a_keyframe_and_itself_is_passed_over(log, fox, foreign_row):
    foreign_row(f"versus:{fox.id}", json.dumps(fox.id))
    assert log.df()[["wins", "losses"]].to_numpy().tolist() == [[0, 0]]


def test_marks_of_keyframes_that_are_not_here_wait_for_them(log, fox, make_keyframe):
    later = make_keyframe("later", seconds=5)
    log.rate(later.id, 5)
    assert [keyframe.scene.id for keyframe in log.keyframes()] == ["fox"]
    log.add_result(later)
    assert read(log, later).rating == 5


def test_marks_that_a_newer_comfynb_means_otherwise_are_left_out(log, fox, foreign_row):
    log.rate(fox, 3)
    foreign_row("rating", "1", v=2)
    with pytest.warns(UserWarning, match="newer comfynb"):
        assert read(log, fox).rating == 3


def test_the_edges_of_what_can_be_said(log, fox):
    import numpy as np

    log.rate(fox, np.int64(1))
    log.tag(fox, "x" * 100, "a, b", "versus:c", "it's")
    log.note(fox, "n" * 10_000)
    assert said(log, fox) == (
        1, ("a, b", "it's", "versus:c", "x" * 100), False, "n" * 10_000,
    )  # fmt: skip


@pytest.mark.parametrize("rating", [0, 6, -1, 2**64, 3.5, 4.0, math.nan, True, "4", [4]])
def test_a_rating_is_a_whole_number_from_1_to_5(store, make_keyframe, rating):
    with pytest.raises(MarkError, match="whole number from 1 to 5, or None to take it back"):
        store.rate(make_keyframe(), rating)
    assert store.marks() == []


@pytest.mark.parametrize("tag", ["", "  ", "two\nlines", "x" * 101, "\x00", 7, None, b"x"])
def test_a_tag_is_one_short_line_and_with_a_bad_one_none_is_put_on(store, make_keyframe, tag):
    with pytest.raises(MarkError, match="tag"):
        store.tag(make_keyframe(), "good", tag)
    assert store.marks() == []


@pytest.mark.parametrize("keyframe", ["fox", "", 7, None, "1234", b"x" * 16])
def test_what_is_no_keyframe_and_no_id_is_refused(store, keyframe):
    with pytest.raises(MarkError, match="is no keyframe and no id of one"):
        store.rate(keyframe, 4)
    assert store.marks() == []


def test_other_things_that_cannot_be_said(store, make_keyframe):
    fox = make_keyframe()
    with pytest.raises(MarkError, match="which tags"):
        store.tag(fox)
    with pytest.raises(MarkError, match="10001 characters"):
        store.note(fox, "n" * 10_001)
    with pytest.raises(MarkError, match="a note is a text"):
        store.note(fox, 5)
    with pytest.raises(MarkError, match="True or False"):
        store.pick(fox, picked="yes")
    with pytest.raises(MarkError, match="compared with itself"):
        store.compare(fox, fox.id)
    assert store.marks() == []


def test_every_store_keeps_the_history(store, make_keyframe):
    fox, owl = make_keyframe("fox"), make_keyframe("owl")
    store.rate(fox, 4)
    store.rate(fox, None)
    store.tag(owl, "a", "b", "a")
    store.compare(owl, fox)
    assert [mark.value for mark in store.marks(fox)] == [4, None, owl.id]
    assert [mark.field for mark in store.marks(owl.id)][:2] == ["tag:a", "tag:b"]
    assert [mark.created_at for mark in store.marks()] == sorted(
        mark.created_at for mark in store.marks()
    )
    store.close()
    with pytest.raises(ClosedError):
        store.rate(fox, 4)


def test_a_log_that_is_only_read_is_not_marked(log, fox):
    with pytest.raises(LogWriteError, match="read_only=True"):
        Log(log.folder, read_only=True).rate(fox, 4)
    assert log.marks() == []


def test_a_mark_is_durable_before_the_call_returns(log, fox, monkeypatch):
    from comfynb.log import segments

    synced, sync = [], segments.sync_data
    monkeypatch.setattr(segments, "sync_data", lambda fd: (synced.append(fd), sync(fd)))
    log.rate(fox, 4)
    assert len(synced) == 1


def test_memory_keeps_marks_beside_its_keyframes(make_keyframe):
    store, fox = MemoryStore(), make_keyframe()
    store.rate(fox, 4)
    assert [(mark.keyframe, mark.field, mark.value) for mark in store.marks()] == [
        (fox.id, "rating", 4)
    ]

"""Whether a log can have a key at all is told from its bytes, without DuckDB."""

import subprocess
import sys
import time

import pytest

from comfynb.log import Log
from comfynb.log.peek import may_have

ASK = """
import sys
from comfynb.log import Log
print(Log(sys.argv[1]).find(sys.argv[2:]), "duckdb" in sys.modules)
"""


def _ask(log, *keys):
    command = [sys.executable, "-c", ASK, str(log.folder), *keys]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_nothing_to_find_needs_no_duckdb(log, make_keyframe, png):
    log.add_result(made := make_keyframe("fox", [data := png()]), [data])
    assert _ask(log, "0" * 64) == "{} False"
    assert _ask(log, made.key).endswith("True")


@pytest.mark.parametrize("key", ["0" * 64, 'a "key"', "back\\slash\\", "schlüssel", "line\nfeed"])
def test_every_key_that_was_written_is_found(log, make_keyframe, png, key):
    log.add_result(make_keyframe("fox", [data := png()], key=key), [data])
    assert log.find([key, "1" * 64]).keys() == {key}


def test_a_key_that_stands_only_in_texts_is_not_looked_for(log, make_keyframe, png):
    prompt = '"key":"' + "0" * 64 + '"'
    log.add_result(make_keyframe("fox", [data := png()], prompt=prompt), [data])
    assert not may_have(log.folder, ["0" * 64])


def test_what_is_no_text_or_not_whole_is_left_to_the_reader(log, make_keyframe, png):
    log.add_result(make_keyframe("fox", [data := png()]), [data])
    assert not may_have(log.folder, ["0" * 64])
    (log.folder / "seg" / "1795349433039-a30489cb.parquet").write_bytes(b"PAR1 and no more")
    assert may_have(log.folder, ["0" * 64])


def test_a_log_that_is_not_there_has_nothing(tmp_path):
    assert not may_have(tmp_path / "none", ["0" * 64])
    assert Log(tmp_path / "none").find(["0" * 64]) == {}


def test_garbage_is_looked_through_in_no_time(log, make_keyframe, png):
    log.add_result(make_keyframe("fox", [data := png()]), [data])
    garbage = b'"key":"' + b"a" * 4_000_000 + b"\\" * 4_000_001
    (log.folder / "seg" / "1795349433039-a30489cb.jsonl").write_bytes(garbage)
    begun = time.process_time()
    assert not may_have(log.folder, ["0" * 64])
    assert time.process_time() - begun < 20, "quadratic it would take hours"

"""`df()` and `sql()`: what they give, and what they refuse."""

import subprocess
import sys

import pandas as pd
import pytest

from comfynb.errors import QueryError
from comfynb.log import Log


@pytest.fixture
def sealed_too(log, make_keyframe):
    """A log whose other segment is sealed already."""
    before = Log(log.folder)
    before.add_result(make_keyframe("elk"))
    before.close()
    before.compact()


@pytest.fixture
def filled(log, make_keyframe, png):
    data = png()
    log.add_result(make_keyframe("fox", [data], seconds=1, seed=2**64 - 1), [data])
    log.add_result(make_keyframe("owl", seconds=2, knobs={"steps": "many", "cfg": 7}))
    return log


def test_df_has_the_same_types_whatever_is_missing(log, filled):
    expected = {
        "seed": "UInt64",
        "take": "Int64",
        "steps": "Int32",
        "width": "Int32",
        "cfg": "float64",
        "seconds": "float64",
        "server_cached": "boolean",
        "created_at": "datetime64[us]",
    }
    frame = filled.df()
    assert {name: str(frame[name].dtype) for name in expected} == expected
    empty = type(log)(log.folder.parent / "none").df()
    assert {name: str(empty[name].dtype) for name in expected} == expected
    assert list(empty) == list(frame)


def test_df_gives_common_knobs_as_typed_columns(filled):
    frame = filled.df()
    assert frame["steps"].tolist() == [16, pd.NA]
    assert frame["cfg"].tolist() == [4.0, 7.0]
    assert frame["sampler"].tolist()[0] == "dpmpp_2m"
    assert frame["seed"].tolist() == [2**64 - 1, 7]
    assert frame["created_at"][0] == pd.Timestamp("2026-11-22 12:00:01.123456")
    assert frame["seconds"].tolist() == [k.seconds for k in filled.keyframes()]
    assert frame["executing_ms"].tolist() == [2.0, 2.0]
    assert frame["knobs"][1]["cfg"] == 7
    assert "workflow" not in frame


def test_sql_takes_parameters_by_place_and_by_name(filled):
    by_place = filled.sql("select scene from keyframes where cfg > ?", [5])
    by_name = filled.sql("select scene from keyframes where cfg > $cfg", {"cfg": 5})
    assert by_place["scene"].tolist() == by_name["scene"].tolist() == ["owl"]


@pytest.mark.parametrize(
    "query",
    [
        "with a as (from keyframes) select count(*) from a",
        "from latest",
        "select id, cells from runs -- a comment",
        "select outputs[1].sha256 from keyframes where status = 'done';",
        "describe keyframes",
    ],
)
def test_sql_answers_any_one_select(filled, query):
    filled.sql(query)


REFUSED = {
    "two statements": "select 1; select 2",
    "none": "",
    "copy of the log": "copy keyframes to '{dir}/out.parquet'",
    "copy over a segment": "copy (select 1) to '{segment}'",
    "attach": "attach '{dir}/x.db'",
    "install": "install httpfs",
    "load": "load httpfs",
    "drop": "drop view keyframes",
    "create": "create table t as select 1",
    "insert": "insert into log_rows select * from log_rows",
    "set": "set enable_external_access = true",
    "pragma": "pragma enable_profiling",
    "call": "call pragma_version()",
    "export": "export database '{dir}/x'",
    "prepare": "prepare p as select 1",
    "pivot that makes types": "pivot keyframes on status using count(*)",
    "explain analyze": "explain analyze select 1",
    "a text file": "select * from read_text('{secret}')",
    "a csv file": "select * from read_csv('{secret}')",
    "a binary file": "select * from read_blob('{secret}')",
    "a file as a table": "select * from '{secret}'",
    "a json file": "select * from read_json('{secret}')",
    "a look at a folder": "select * from glob('{dir}/*')",
    "a guess at a csv": "select * from sniff_csv('{secret}')",
    "another log": "select * from read_json('{dir}/other.jsonl')",
    "an address": "select * from read_csv('https://127.0.0.1:9/x.csv')",
    "a hidden drop": "select * from query('drop view keyframes')",
    "a variable of the caller": "select * from frame_of_the_caller",
    "a setting as a function": "select set_config('threads', '1')",
    "a table that is not there": "select * from keyfarmes",
    "no sql": "selec * from keyframes",
    "copy over a sealed segment": "copy (select 1) to '{sealed}' (format parquet)",
    "a stray parquet": "select * from read_parquet('{dir}/stray.parquet')",
    "every parquet": "select * from read_parquet('{dir}/**/*.parquet')",
    "a database": "attach '{sealed}' as other",
    "update": "update results set status = 'done'",
    "delete": "delete from log_rows",
    "use": "use other",
    "checkpoint": "checkpoint",
    "detach": "detach memory",
    "an environment variable": "select getenv('HOME')",
}


@pytest.mark.parametrize("query", REFUSED.values(), ids=REFUSED)
def test_sql_refuses(sealed_too, filled, tmp_path, query):
    frame_of_the_caller = pd.DataFrame({"a": [1]})
    secret = tmp_path / "secret.csv"
    secret.write_text('{"a": 1}\n')
    (tmp_path / "other.jsonl").write_text('{"id": "x"}\n')
    sealed, segment = sorted((filled.folder / "seg").iterdir())
    (tmp_path / "stray.parquet").write_bytes(sealed.read_bytes())
    before = segment.read_bytes(), sealed.read_bytes(), sorted(tmp_path.iterdir())
    with pytest.raises(QueryError, match="one SELECT over the views keyframes, latest, runs"):
        filled.sql(query.format(dir=tmp_path, segment=segment, sealed=sealed, secret=secret))
    after = segment.read_bytes(), sealed.read_bytes(), sorted(tmp_path.iterdir())
    assert after == before
    assert len(filled.df()) == 3
    assert len(frame_of_the_caller) == 1


def test_a_log_needs_none_of_the_heavy_modules_to_be_opened_and_appended_to(tmp_path):
    code = f"""
import sys
from comfynb.log import CellRecord, Log, RunRecord
log = Log({str(tmp_path / "log")!r})
log.add_run(RunRecord(id="r", storyboard={{}}, cells=()))
heavy = {{"duckdb", "pandas", "numpy", "PIL", "httpx", "anywidget"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_do_not_need_pyarrow(filled):
    code = f"""
import sys
sys.modules["pyarrow"] = None
from comfynb.log import Log
log = Log({str(filled.folder)!r})
assert len(log.df()) == 2 and len(log.sql("select scene, axes, outputs from keyframes")) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)

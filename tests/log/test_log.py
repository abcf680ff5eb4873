"""Keyframes and runs into the folder and out again."""

import dataclasses
import math
import threading
from datetime import UTC, datetime

import pytest

from comfynb.errors import LogError, LogWriteError, QueryError
from comfynb.keyframes import Failure, Timings
from comfynb.log import CellRecord, Log, RunRecord
from comfynb.scenes import Scene, Storyboard


def reopened(log):
    return Log(log.folder)


def test_a_keyframe_comes_back_as_it_was(log, make_keyframe, png):
    data = png()
    scene = Scene(
        id="fox",
        prompt="a fox",
        title="Fox",
        negative="blur",
        seed=2**64 - 1,
        knobs={"cfg": 3.5, "tiling": True},
        notes="the first of them",
    )
    made = make_keyframe(
        "fox",
        [data],
        scene=scene,
        seed=2**64 - 1,
        negative="blur, text",
        axes={"seed": "3", "cfg": "high"},
        knobs={"steps": 16, "cfg": 3.5, "sampler": "euler", "tiling": True, "image": None},
        warnings=("the second node failed",),
        unknown_words=("zeppelin",),
        measures={"sharpness": 0.25},
        server_version="0.3.71",
        server_cached=True,
    )
    log.add_result(made, [data])
    (back,) = reopened(log).keyframes()
    assert back == dataclasses.replace(made, take=1, workflow=None)
    assert back.read() == data
    assert back.path.suffix == ".png"


def test_a_failed_keyframe_comes_back_with_its_reason(log, make_keyframe):
    error = Failure("node_error", "out of memory", "3 (KSampler)", "make it smaller")
    made = make_keyframe("fox", error=error, timings=Timings(), workflow=None)
    log.add_result(made)
    assert reopened(log).keyframes() == [dataclasses.replace(made, take=1)]


def test_the_workflow_is_in_the_view(log, make_keyframe):
    log.add_result(make_keyframe("fox"))
    frame = log.sql("select workflow::JSON -> '$.\"3\".class_type' as node from keyframes")
    assert frame["node"].tolist() == ['"KSampler"']


def test_a_run_comes_back_as_it_was(log):
    run = RunRecord(
        id="run-1",
        storyboard={"scenes": [{"id": "fox", "prompt": "a fox"}], "seed": 0},
        axes={"cfg": {"values": [3, 5], "labels": ["3", "5"]}},
        cells=(
            CellRecord(index=0, scene="fox", key="a" * 64, seed=2**64 - 1, axes={"cfg": "3"}),
            CellRecord(index=1, scene="fox", key="b" * 64, prompt="a fox", knobs={"cfg": 5}),
        ),
        workflow={"3": {"class_type": "KSampler", "inputs": {}}},
        checkpoint="tiny-scenes.onnx",
        server="127.0.0.1:8188",
        versions={"comfynb": "0.1"},
        created_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
    )
    log.add_run(run)
    assert reopened(log).runs() == [run]


def test_a_submitted_prompt_can_be_looked_up(log):
    log.add_submitted(prompt_id="p-1", run="run-1", key="k", scene="fox", server="gpu:8188")
    (row,) = log.sql("select * from submitted").to_dict("records")
    assert {name: row[name] for name in ("prompt_id", "run", "key", "scene", "server")} == {
        "prompt_id": "p-1",
        "run": "run-1",
        "key": "k",
        "scene": "fox",
        "server": "gpu:8188",
    }
    assert log.keyframes() == []


def test_a_log_that_does_not_exist_is_empty_and_is_not_made(tmp_path):
    log = Log(tmp_path / "none")
    assert (log.keyframes(), log.latest(), log.runs(), log.find(["k"])) == ([], [], [], {})
    assert len(log.df()) == 0
    assert log.sql("select count(*) as n from keyframes")["n"].tolist() == [0]
    assert not log.folder.exists()


def test_keyframes_come_in_order_of_making(log, make_keyframe):
    for seconds in (5, 1, 3):
        log.add_result(make_keyframe("fox", seconds=seconds, seed=seconds))
    assert [k.seed for k in log.keyframes()] == [1, 3, 5]
    assert log.df()["seed"].tolist() == [1, 3, 5]


def test_keyframes_can_be_narrowed(log, make_keyframe):
    log.add_result(make_keyframe("fox", run="a", seconds=1))
    log.add_result(make_keyframe("owl", run="b", seconds=2, status="cancelled"))
    log.add_result(make_keyframe("owl", run="a", seconds=3))
    assert [k.scene.id for k in log.keyframes(run="a")] == ["fox", "owl"]
    assert [k.run for k in log.keyframes(scene="owl", status="cancelled")] == ["b"]
    assert log.keyframes(scene="fox' or 'x' = 'x") == []


def test_keyframes_can_be_narrowed_by_a_condition(log, make_keyframe):
    for i in range(4):
        log.add_result(make_keyframe("fox", seconds=i, seed=i, knobs={"cfg": i}))
    chosen = log.keyframes(scene="fox", where="cfg >= $low or seed = 0", params={"low": 2})
    assert [k.seed for k in chosen] == [0, 2, 3]
    assert [k.seed for k in log.keyframes(where="take = 1 -- a comment")] == [0, 1, 2, 3]
    assert log.keyframes(where="scene = 'owl' or 1 = 2") == []
    for strange in ("cgf > 1", "true; drop view results", "true) union select 1 --", "exists("):
        with pytest.raises(QueryError):
            log.keyframes(where=strange)


def test_every_take_of_a_scene_is_listed(log, make_keyframe):
    for seconds in (2, 1):
        log.add_result(make_keyframe("fox", seconds=seconds))
    log.add_result(make_keyframe("owl", seconds=3))
    log.add_result(make_keyframe("fox", seconds=4, seed=8))
    assert [(k.seed, k.take) for k in log.takes("fox")] == [(7, 1), (7, 2), (8, 1)]


def test_the_storyboard_of_a_run_comes_back(log):
    storyboard = Storyboard.of(["a fox", "an owl"], style="watercolor")
    log.add_run(RunRecord(id="run-1", storyboard=storyboard.to_dict(), cells=()))
    assert log.storyboard("run-1") == storyboard
    with pytest.raises(LogError, match=r"no run 'run-2'; log.runs\(\) lists"):
        log.storyboard("run-2")


def test_takes_are_numbered_by_place_and_time(log, make_keyframe):
    log.add_result(make_keyframe("fox", seconds=3))
    log.add_result(make_keyframe("fox", seconds=1))
    log.add_result(make_keyframe("fox", seconds=2, seed=8))
    log.add_result(make_keyframe("fox", seconds=4, axes={"cfg": "3", "size": "s"}))
    log.add_result(make_keyframe("fox", seconds=5, axes={"size": "s", "cfg": "3"}))
    log.add_result(make_keyframe("owl", seconds=6))
    assert [k.take for k in log.keyframes()] == [1, 1, 2, 1, 2, 1]
    latest = log.latest()
    assert [(k.scene.id, k.seed, k.take) for k in latest] == [
        ("fox", 8, 1),
        ("fox", 7, 2),
        ("fox", 7, 2),
        ("owl", 7, 1),
    ]


def test_the_same_id_twice_is_one_keyframe_and_done_wins(log, make_keyframe, png):
    data = png()
    made = make_keyframe("fox", [data], seconds=2)
    other = reopened(log)
    other.add_result(dataclasses.replace(made, status="lost", outputs=()))
    log.add_result(made, [data])
    log.add_result(made, [data])
    other.close()
    assert [k.status for k in log.keyframes()] == ["done"]
    assert len(log.df()) == 1


def test_find_passes_over_a_keyframe_whose_picture_is_gone(log, make_keyframe, png):
    old, new = png(), png()
    made = make_keyframe("fox", [old], seconds=1)
    log.add_result(made, [old])
    kept = log.add_result(make_keyframe("fox", [new], seconds=2), [new])
    kept.path.unlink()
    assert log.find([made.key])[made.key].id == made.id
    log.keyframes()[0].path.write_bytes(old[:-1])
    assert log.find([made.key]) == {}


def test_a_deleted_picture_comes_back_when_it_is_made_again(log, make_keyframe, png):
    data = png()
    kept = log.add_result(make_keyframe("fox", [data]), [data])
    kept.path.write_bytes(b"")
    assert log.add_result(make_keyframe("fox", [data]), [data]).read() == data


def test_the_same_picture_is_stored_once(log, make_keyframe, png):
    data = png()
    for scene in ("fox", "owl"):
        log.add_result(make_keyframe(scene, [data]), [data])
    assert len(list((log.folder / "blobs").glob("*/*"))) == 1


def test_numbers_and_texts_that_json_has_no_word_for_do_not_lose_the_row(log, make_keyframe):
    log.add_result(
        make_keyframe(
            "fox",
            knobs={"cfg": math.nan, "steps": 3, "nested": {"a": [math.inf]}},
            measures={"sharpness": math.nan, "noise": 0.5},
            timings=Timings(total_ms=math.inf),
            prompt="half a pair \ud800, a whole \ud83e\udd8a, a nul \0, a line\u2028end\n",
            error=Failure("node_error", "\udfff"),
        )
    )
    (back,) = log.keyframes()
    assert back.knobs == {"cfg": None, "steps": 3, "nested": {"a": [None]}}
    assert back.measures == {"sharpness": None, "noise": 0.5}
    assert back.timings.total_ms is None
    assert back.prompt == "half a pair \ufffd, a whole 🦊, a nul \0, a line\u2028end\n"
    assert log.skipped_lines == {}


def test_values_of_numpy_are_kept_as_plain_ones(log, make_keyframe):
    import numpy as np

    log.add_result(make_keyframe("fox", knobs={"steps": np.int64(5), "cfg": np.float32(0.5)}))
    assert log.keyframes()[0].knobs == {"steps": 5, "cfg": 0.5}


def test_many_threads_append_to_one_segment_and_lose_nothing(log, make_keyframe, png, segments):
    made = [(make_keyframe(f"scene-{i}", [data]), data) for i, data in enumerate([png()] * 64)]
    threads = [
        threading.Thread(target=lambda n=n: [log.add_result(k, [d]) for k, d in made[n::8]])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {k.id for k in log.keyframes()} == {k.id for k, _ in made}
    assert len(segments()) == 1


def test_a_row_too_large_to_be_read_again_is_refused(log, make_keyframe):
    with pytest.raises(LogWriteError, match="several runs"):
        log.add_result(make_keyframe("fox", workflow={"1": "x" * (128 * 2**20)}))
    log.add_result(make_keyframe("fox", workflow={"1": "x" * (20 * 2**20)}))
    assert len(log.keyframes()) == 1

"""Deleting: hidden at once and everywhere, gone with the next collection, back until then."""

import os
import time

import pytest

from comfynb.errors import LogWriteError
from comfynb.log import CellRecord, Log, RunRecord, sealing
from comfynb.log.records import result_id


@pytest.fixture
def made(log, png, make_keyframe):
    """A log of two runs with two scenes each; gives it and its keyframes by run and scene."""
    kept = {}
    for run in ("run-1", "run-2"):
        cells = (CellRecord(index=0, scene="fox", key="k"),)
        log.add_run(RunRecord(id=run, storyboard={"scenes": []}, cells=cells))
        for scene in ("fox", "owl"):
            image = png()
            keyframe = make_keyframe(
                scene, [image], run=run, seconds=len(kept), key=f"{run}-{scene}"
            )
            kept[run, scene] = log.add_result(keyframe, [image])
    return log, kept


def shown(log):
    return [(keyframe.run, keyframe.scene.id) for keyframe in log.keyframes()]


def old(keyframe):
    os.utime(keyframe.path, (time.time() - 200_000,) * 2)
    return keyframe.path


ALL = [("run-1", "fox"), ("run-1", "owl"), ("run-2", "fox"), ("run-2", "owl")]


def test_a_dry_run_returns_what_would_go_and_hides_nothing(made):
    log, kept = made
    would = log.delete(scene="fox")
    assert [k.id for k in would] == [kept["run-1", "fox"].id, kept["run-2", "fox"].id]
    assert shown(log) == ALL


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ({"scene": "fox"}, [("run-1", "owl"), ("run-2", "owl")]),
        ({"run": "run-1"}, [("run-2", "fox"), ("run-2", "owl")]),
    ],
)
def test_a_scene_or_a_run_is_hidden_from_every_view(made, what, left):
    log, kept = made
    log.delete(**what, dry_run=False)
    other = Log(log.folder)
    assert shown(log) == shown(other) == left
    assert len(other.df()) == 2
    assert other.sql("select count(*) as n from keyframes")["n"][0] == 2
    assert {k.scene.id for k in other.latest()} == {scene for _, scene in left}
    assert set(other.find(k.key for k in kept.values())) == {f"{r}-{s}" for r, s in left}
    assert [run.id for run in other.runs()] == [r for r in ("run-1", "run-2") if what != {"run": r}]


def test_single_keyframes_go_by_themselves_or_by_id(made):
    log, kept = made
    log.delete(keyframes=[kept["run-1", "fox"], kept["run-2", "owl"].id], dry_run=False)
    assert log.delete(keyframes=[], dry_run=False) == []
    assert shown(log) == [("run-1", "owl"), ("run-2", "fox")]
    assert log.delete(keyframes=[kept["run-1", "fox"]]) == []


def test_takes_are_numbered_without_the_deleted(made):
    log, kept = made
    assert [k.take for k in log.takes("fox")] == [1, 2]
    log.delete(keyframes=[kept["run-1", "fox"]], dry_run=False)
    assert [k.take for k in log.takes("fox")] == [1]


def test_deleted_pictures_go_with_the_next_collection(made):
    log, kept = made
    paths = {name: old(keyframe) for name, keyframe in kept.items()}
    log.delete(run="run-1", dry_run=False)
    assert set(log.gc(dry_run=False).pictures) == {paths["run-1", "fox"], paths["run-1", "owl"]}
    assert paths["run-2", "fox"].exists()
    assert log.verify().ok


def test_a_picture_that_another_keyframe_shows_too_stays(log, png, make_keyframe):
    image = png()
    first = log.add_result(make_keyframe("fox", [image]), [image])
    log.add_result(make_keyframe("owl", [image]), [image])
    old(first)
    log.delete(scene="fox", dry_run=False)
    assert len(log.gc(dry_run=False)) == 0


def test_until_then_it_can_be_taken_back_and_deleted_again(made):
    log, _ = made
    for _ in range(3):
        gone = log.delete(run="run-1", dry_run=False)
        assert shown(log) == ALL[2:]
        log.restore([*gone, "run-1"])
        assert shown(log) == ALL
        assert len(log.runs()) == 2


def test_it_holds_when_segments_are_sealed_and_merged(made):
    log, _ = made
    log.delete(scene="fox", dry_run=False)
    log.close()
    with sealing.database() as connection:
        sealing.adopt(log.folder / "seg", connection)
    assert not list((log.folder / "seg").glob("*.jsonl"))
    assert shown(Log(log.folder)) == [("run-1", "owl"), ("run-2", "owl")]


def test_a_deleted_keyframe_is_no_orphan_that_would_be_adopted(log, make_keyframe):
    log.add_submitted(prompt_id="p", run="run-1", key="k", scene="fox", server="s")
    log.add_result(make_keyframe("fox", id=result_id("p"), key="k"))
    log.delete(scene="fox", dry_run=False)
    log.close()
    assert Log(log.folder).orphans() == []


@pytest.mark.parametrize("what", [{}, {"run": "a", "scene": "b"}])
def test_exactly_one_thing_is_deleted_at_a_time(log, what):
    with pytest.raises(ValueError, match="one of them"):
        log.delete(**what)


def test_what_is_read_only_is_not_deleted(made):
    log, _ = made
    reader = Log(log.folder, read_only=True)
    assert len(reader.delete(scene="fox")) == 2
    with pytest.raises(LogWriteError, match="read_only"):
        reader.delete(scene="fox", dry_run=False)

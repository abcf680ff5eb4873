"""What a browser says is checked, field by field."""

from __future__ import annotations

import typing

import pytest

from comfynb.widgets import wire


def kinds(union) -> set[str]:
    """The kinds of a union of messages."""
    hints = (typing.get_type_hints(message) for message in typing.get_args(union))
    return {typing.get_args(hint["kind"])[0] for hint in hints}


def message(kind: str = "hello", **fields) -> dict:
    return {"v": 1, "kind": kind, "client": "abc", **fields}


GOOD = [
    message("hello", have=0),
    message("ack", seq=12),
    message("see", **{"from": 0, "to": 9}),
    message("get", req="r1", cell=3, output=0),
    message("do", req="r2", name="stop"),
    message("do", req="r2", name="retry", cells=[1, 2]),
    message("rate", req="r3", cell=0, keyframe="k-1", rating=5),
    message("rate", req="r3", cell=0, keyframe="k-1", rating=0),
    message("pick", req="r4", cell=0, keyframe="k-1", picked=False),
]


@pytest.mark.parametrize("good", GOOD, ids=lambda m: m["kind"])
def test_a_good_message_is_taken_as_it_is(good):
    assert wire.parse(good) == good
    assert wire.parse({**good, "more": "of a newer front end"}) == good


def test_every_kind_of_the_browser_is_checked():
    assert kinds(wire.FromBrowser) == {good["kind"] for good in GOOD}
    assert kinds(wire.ToBrowser) == {"batch", "about", "thumb", "full", "reply", "notice"}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "hello",
        [],
        {},
        message("dance"),
        message(kind=["hello"], have=0),
        {**message(have=0), "v": 2},
        {**message(have=0), "client": "x" * 65},
        {**message(have=0), "client": "<b>"},
        {**message(have=0), "client": 7},
        message("hello"),
        message("hello", have=-1),
        message("hello", have=True),
        message("hello", have=1.5),
        message("hello", have=10**5000),
        message("see", **{"from": 0}),
        message("see", **{"from": 0, "to": 2**31}),
        message("get", req="r", cell="0", output=0),
        message("get", req="", cell=0, output=0),
        message("do", req="r", name="format_disk"),
        message("do", req="r", name="retry", cells=[0, "1"]),
        message("do", req="r", name="retry", cells=[0] * 100_001),
        message("do", req="r", name="retry", cells={"0": 1}),
        message("rate", req="r", cell=0, keyframe="k"),
        message("rate", req="r", cell=0, keyframe="k", rating=6),
        message("rate", req="r", cell=0, keyframe="k", rating=-1),
        message("rate", req="r", cell=0, keyframe="k", rating=4.0),
        message("rate", req="r", cell=0, keyframe="k", rating="4"),
        message("rate", req="r", cell=0, keyframe="k", rating=True),
        message("rate", req="r", cell=0, keyframe="k", rating=None),
        message("rate", req="r", cell=0, rating=4),
        message("rate", req="r", cell=0, keyframe="../k", rating=4),
        message("rate", cell=0, keyframe="k", rating=4),
        message("rate", req="r", keyframe="k", rating=4),
        message("pick", req="r", cell=0, keyframe="k", picked=1),
        message("pick", req="r", cell=0, keyframe="k", picked=None),
    ],
)
def test_a_bad_message_is_refused_in_a_few_words(bad):
    with pytest.raises(wire.WireError) as caught:
        wire.parse(bad)
    assert 10 < len(str(caught.value)) < 200


def test_a_refusal_knows_whom_to_answer():
    with pytest.raises(wire.WireError) as caught:
        wire.parse(message("do", req="r9", name="dance"))
    assert (caught.value.client, caught.value.req) == ("abc", "r9")

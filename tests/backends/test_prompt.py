"""One prompt as a state machine, fed by hand: messages in odd orders, histories of any shape."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from pathlib import Path

import pytest

from comfynb.backends.base import Preview, Progress, Released, Started, Warned
from comfynb.backends.comfyui import messages as m
from comfynb.backends.comfyui.collected import FileRef
from comfynb.backends.comfyui.messages import parse_binary, parse_text
from comfynb.backends.comfyui.prompt import Prompt
from comfynb.errors import ServerError, ServerGoneError, ServerUnreachableError
from comfynb.keyframes import Failure

ENGINES = Path(__file__).parents[1] / "engine" / "transcripts"
OWN = Path(__file__).parent / "transcripts"

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "Guard", "inputs": {"image": ["1", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}
TWO = {**GRAPH, "8": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
SOCKET = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "5": {"class_type": "KSampler", "inputs": {"x": ["1", 0]}},
    "9": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["5", 0]}},
}


class Fed:
    """A prompt, what it told, and what it fetched."""

    def __init__(self, graph=GRAPH, fails: dict[str, Exception] | None = None) -> None:
        self.events, self.fetched, self.fails = [], [], fails or {}
        self.prompt = Prompt("p", graph, self.events.append, self._fetch)
        self.prompt.send(1)

    async def _fetch(self, ref: FileRef) -> bytes:
        await asyncio.sleep(0)
        self.fetched.append(ref.filename)
        if ref.filename in self.fails:
            raise self.fails[ref.filename]
        return ref.filename.encode()

    def hear(self, *messages) -> Fed:
        for message in messages:
            self.prompt.hear(message)
        return self

    async def outcome(self):
        assert self.prompt.done.is_set()
        try:
            return await self.prompt.outcome()
        finally:
            await self.prompt.drop_fetches()

    def told(self, kind) -> list:
        return [event for event in self.events if isinstance(event, kind)]


START = m.ExecutionStart("p")
CACHED = m.ExecutionCached("p", ())
SUCCESS = m.ExecutionSuccess("p")
LEFT = m.Executing("p", None)
INTERRUPTED = m.ExecutionInterrupted("p")


def at(node: str) -> m.Executing:
    return m.Executing("p", node)


def images(*names: str, kind: str = "output") -> dict:
    return {"images": [{"filename": name, "subfolder": "", "type": kind} for name in names]}


def executed(node: str, *names: str) -> m.Executed:
    return m.Executed("p", node, images(*names))


def error(node: str = "2", text: str = "boom", exception: str = "ValueError") -> m.ExecutionFailed:
    return m.ExecutionFailed("p", node, "Guard", exception, text)


NORMAL = (START, CACHED, at("1"), at("2"), at("9"), executed("9", "a"), SUCCESS, LEFT)


def data(outcome) -> list[tuple[str, int, bytes]]:
    return [(given.node, given.index, given.data) for given in outcome.given]


# -- as it usually goes


async def test_the_usual_order():
    fed = Fed().hear(*NORMAL)
    outcome = await fed.outcome()
    assert outcome.status == "done"
    assert data(outcome) == [("9", 0, b"a")]
    assert [type(event) for event in fed.events] == [Started, Released]
    assert min(outcome.queued_ms, outcome.executing_ms, outcome.fetch_ms) >= 0
    assert not outcome.server_cached


async def test_the_picture_does_not_wait_until_the_worker_is_free():
    fed = Fed().hear(*NORMAL[:-2])
    assert (await fed.outcome()).status == "done"
    assert not fed.told(Released)
    fed.hear(SUCCESS)
    assert len(fed.told(Released)) == 1, "nothing else can come behind it"
    fed.hear(LEFT)
    assert len(fed.told(Released)) == 1


async def test_progress_and_previews_are_passed_on():
    fed = Fed().hear(START, at("2"), m.NodeProgress("p", "2", 1, 4))
    fed.hear(
        m.ImageFrame("p", "2", "image/jpeg", b"J"), m.ImageFrame(None, None, "image/png", b"P")
    )
    assert fed.told(Progress) == [Progress("2", 1, 4)]
    assert fed.told(Preview) == [Preview("2", b"J", "image/jpeg"), Preview("2", b"P", "image/png")]


async def test_a_prompt_that_the_server_had_whole_is_marked():
    everything = m.ExecutionCached("p", ("1", "2", "9"))
    fed = Fed().hear(START, everything, executed("9", "old"), SUCCESS, LEFT)
    assert (await fed.outcome()).server_cached
    some = Fed().hear(START, m.ExecutionCached("p", ("1", "2")), executed("9", "new"), LEFT)
    assert not (await some.outcome()).server_cached


async def test_pictures_are_in_the_order_of_the_graph_with_all_of_a_batch():
    fed = Fed(TWO).hear(START, executed("8", "c", "d"), executed("9", "a", "b"), SUCCESS, LEFT)
    assert data(await fed.outcome()) == [
        ("9", 0, b"a"), ("9", 1, b"b"), ("8", 0, b"c"), ("8", 1, b"d"),
    ]  # fmt: skip


async def test_files_are_found_under_any_key_and_nothing_else_is_taken_for_one():
    output = {
        "gifs": [{"filename": "movie.webp", "type": "temp", "subfolder": "x"}],
        "text": ["5"],
        "animated": [True],
        "odd": [{"filename": 3}, {"name": "no"}, None],
        "number": 7,
    }
    fed = Fed().hear(START, m.Executed("p", "9", output), LEFT)
    assert data(await fed.outcome()) == [("9", 0, b"movie.webp"), ("9", 1, b"5")]


async def test_unknown_words_are_passed_on_bounded():
    words = {"unknown_words": ["x" * 500] + ["wombat"] * 500, **images("a")}
    outcome = await Fed().hear(START, m.Executed("p", "9", words), LEFT).outcome()
    assert len(outcome.unknown_words) == 100
    assert outcome.unknown_words[1] == "wombat"
    assert len(outcome.unknown_words[0]) == 80


# -- messages lost, doubled, late


async def test_a_lost_start_is_made_up_for_by_any_node():
    fed = Fed().hear(at("1"), at("2"), executed("9", "a"), LEFT)
    assert len(fed.told(Started)) == 1
    assert (await fed.outcome()).executing_ms is not None


async def test_executed_twice_gives_its_picture_once():
    fed = Fed(TWO).hear(START, executed("9", "a"), executed("9", "a"), executed("8", "b"), LEFT)
    assert [p.data for p in (await fed.outcome()).given] == [b"a", b"b"]
    assert sorted(fed.fetched) == ["a", "b"]


async def test_a_lost_end_is_made_up_for_by_success():
    fed = Fed().hear(*NORMAL[:-1])
    assert (await fed.outcome()).status == "done"
    assert fed.told(Released)


async def test_success_without_executed_asks_the_history():
    fed = Fed().hear(START, at("9"), SUCCESS, LEFT)
    assert fed.prompt.ask
    assert not fed.prompt.done.is_set()
    assert fed.told(Released), "the worker is free all the same"
    fed.prompt.settle_from_history(history(outputs={"9": images("a")}))
    assert data(await fed.outcome()) == [("9", 0, b"a")]


async def test_one_of_two_messages_lost_asks_and_fetches_nothing_twice():
    fed = Fed(TWO).hear(START, executed("8", "b"), LEFT)
    assert fed.prompt.ask
    fed.prompt.settle_from_history(history(outputs={"8": images("b"), "9": images("a")}))
    assert [p.data for p in (await fed.outcome()).given] == [b"a", b"b"]
    assert sorted(fed.fetched) == ["a", "b"]


async def test_nodes_that_a_leaf_expands_to_give_all_their_pictures():
    """The leaf's own id is never reported, so the first of them must not end the prompt."""
    parts = [m.Executed("p", f"9.0.0.{n}", images(f"part {n}")) for n in (1, 2)]
    fed = Fed().hear(START, at("9"), *parts, SUCCESS, LEFT)
    assert fed.prompt.ask
    outputs = {part.node: dict(part.output) for part in parts}
    fed.prompt.settle_from_history(history(outputs=outputs))
    assert [p.data for p in (await fed.outcome()).given] == [b"part 1", b"part 2"]
    assert sorted(fed.fetched) == ["part 1", "part 2"]


async def test_any_order_ends_once_with_each_picture_once():
    for seed in range(300):
        chance = random.Random(seed)
        heard = [
            START, CACHED, at("1"), at("9"), SUCCESS, LEFT,
            executed("9", "a"), executed("8", "b"), executed("9", "a"),
        ]  # fmt: skip
        chance.shuffle(heard)
        heard = heard[: chance.randrange(len(heard) + 1)]
        fed = Fed(TWO).hear(*heard)
        if not fed.prompt.done.is_set():
            fed.prompt.settle_from_history(history(outputs={"9": images("a"), "8": images("b")}))
        else:
            fed.prompt.release()
        outcome = await fed.outcome()
        assert outcome.status == "done", heard
        assert [p.data for p in outcome.given] == [b"a", b"b"], heard
        assert len(fed.told(Released)) == 1, heard
        assert len(fed.told(Started)) <= 1
        assert not fed.told(Warned)


# -- errors


async def test_a_node_that_raises_is_named_with_what_to_do():
    fed = Fed().hear(START, at("2"), error(text="boom\n"), LEFT)
    outcome = await fed.outcome()
    assert outcome.status == "failed"
    assert outcome.failure == Failure(
        "node_error",
        "boom\n",
        "2 (Guard)",
        "look at this node's inputs; the server's log has the full traceback",
    )


@pytest.mark.parametrize(
    "failed",
    [
        error(exception="torch.cuda.OutOfMemoryError", text="Allocation on device"),
        error(text="CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
async def test_out_of_memory_has_advice_of_its_own(failed):
    outcome = await Fed().hear(START, failed, LEFT).outcome()
    assert "smaller size or batch" in outcome.failure.hint


async def test_an_error_after_the_last_picture_is_a_warning_told_once():
    for judged_first in (True, False):
        fed = Fed().hear(START, executed("9", "a"))
        if judged_first:
            outcome = await fed.outcome()
        fed.hear(error(text="late"), LEFT)
        if not judged_first:
            outcome = await fed.outcome()
        fed.prompt.settle_from_history(
            history(
                outputs={"9": images("a")},
                status="error",
                messages=[["execution_error", failure("late")]],
            )
        )
        assert outcome.status == "done"
        (warned,) = fed.told(Warned)
        assert "late" in warned.message
        assert "2 (Guard)" in warned.message


async def test_an_error_between_two_pictures_keeps_the_first_but_is_a_failure():
    fed = Fed(TWO).hear(START, executed("8", "b"), at("2"), error(), LEFT)
    outcome = await fed.outcome()
    assert (outcome.status, [p.data for p in outcome.given]) == ("failed", [b"b"])
    assert str(outcome.failure) == (
        "node_error: boom (node 2 (Guard)). look at this node's inputs; "
        "the server's log has the full traceback"
    )


async def test_a_blocked_node_is_not_the_end():
    blocked = error(exception="ExecutionBlocked", text="not today")
    fed = Fed(TWO).hear(START, blocked)
    assert not fed.prompt.done.is_set()
    fed.hear(executed("8", "b"), SUCCESS, LEFT)
    assert fed.prompt.ask, "the other leaf said nothing"
    fed.prompt.settle_from_history(history(outputs={"8": images("b")}))
    outcome = await fed.outcome()
    assert (outcome.status, [p.data for p in outcome.given]) == ("done", [b"b"])
    assert "not today" in fed.told(Warned)[0].message


async def test_a_graph_that_gives_nothing_says_what_is_missing():
    fed = Fed().hear(START, SUCCESS, LEFT)
    fed.prompt.settle_from_history(history())
    outcome = await fed.outcome()
    assert (outcome.status, outcome.failure.kind) == ("failed", "no_output")
    assert "SaveImage" in outcome.failure.hint


async def test_interrupted_is_cancelled_by_somebody():
    fed = Fed().hear(START, at("2"), INTERRUPTED, LEFT)
    outcome = await fed.outcome()
    assert (outcome.status, outcome.failure.kind) == ("cancelled", "interrupted")


async def test_what_was_saved_comes_before_what_was_only_looked_at():
    looked_at = executed("8", "b")
    (image,) = looked_at.output["images"]
    image["type"] = "temp"
    preview_first = {name: TWO[name] for name in ("1", "2", "8", "9")}
    outcome = await Fed(preview_first).hear(START, looked_at, executed("9", "a"), LEFT).outcome()
    assert [p.data for p in outcome.given] == [b"a", b"b"]


async def test_interrupted_behind_a_picture_keeps_it_but_is_cancelled():
    fed = Fed(TWO).hear(START, executed("8", "b"), INTERRUPTED, LEFT)
    outcome = await fed.outcome()
    assert (outcome.status, [p.data for p in outcome.given]) == ("cancelled", [b"b"])


# -- fetching


async def test_a_picture_that_cannot_be_read_is_a_failure_that_names_its_node():
    fed = Fed(fails={"a": ServerError("500", status=500)}).hear(*NORMAL)
    outcome = await fed.outcome()
    assert (outcome.status, outcome.failure.kind) == ("failed", "fetch")
    assert outcome.failure.node == "9 (SaveImage)"
    assert "retry" in outcome.failure.hint


async def test_one_picture_of_two_that_cannot_be_read_is_a_failure_with_the_other():
    fails = {"b": ServerUnreachableError("broke off")}
    fed = Fed(TWO, fails).hear(START, executed("9", "a"), executed("8", "b"), LEFT)
    outcome = await fed.outcome()
    assert data(outcome) == [("9", 0, b"a")]
    assert (outcome.status, outcome.failure.kind) == ("failed", "fetch")
    assert "broke off" in outcome.failure.message


async def test_a_file_that_a_restarted_server_has_no_more_counts_as_lost():
    fed = Fed(fails={"a": ServerError("404", status=404)}).hear(*NORMAL)
    assert (await fed.outcome()).status == "lost"


async def test_a_server_that_is_gone_while_fetching_raises():
    fed = Fed(fails={"a": ServerGoneError("gone")}).hear(*NORMAL)
    with pytest.raises(ServerGoneError):
        await fed.outcome()


# -- ends that come from asking


def history(outputs=None, *, status: str = "success", messages=()) -> dict:
    return {
        "prompt": [1, "p", GRAPH, {}, ["9"]],
        "outputs": outputs or {},
        "status": {"status_str": status, "completed": status == "success", "messages": messages},
    }


def failure(text: str = "boom") -> dict:
    return {
        "prompt_id": "p",
        "node_id": "2",
        "node_type": "Guard",
        "exception_type": "ValueError",
        "exception_message": text,
    }


async def test_history_tells_an_interrupt_from_an_error():
    interrupt = [
        ["execution_start", {"prompt_id": "p"}],
        ["execution_interrupted", {"prompt_id": "p"}],
    ]
    fed = Fed()
    fed.prompt.settle_from_history(history(status="error", messages=interrupt))
    assert (await fed.outcome()).status == "cancelled"
    fed = Fed()
    fed.prompt.settle_from_history(
        history(status="error", messages=[["execution_error", failure()]])
    )
    outcome = await fed.outcome()
    assert (outcome.status, outcome.failure.node) == ("failed", "2 (Guard)")


async def test_history_alone_is_enough():
    fed = Fed()
    fed.prompt.settle_from_history(
        history(
            {"9": images("a")},
            messages=[["execution_cached", {"prompt_id": "p", "nodes": ["1", "2", "9"]}]],
        )
    )
    outcome = await fed.outcome()
    assert (outcome.status, outcome.server_cached) == ("done", True)
    assert outcome.queued_ms is None, "it was not seen to begin"
    assert len(fed.told(Released)) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"outputs": None, "status": None},
        {"outputs": [], "status": []},
        {"outputs": {"9": None, "8": [1]}, "status": {"messages": None}},
        {"outputs": {"9": {"images": None}}, "status": {"messages": [None, [], [1], ["a", "b"]]}},
        {"outputs": {"9": {"images": [None, 3, {}]}}, "status": {"messages": [["executing"]]}},
        history(messages=[["execution_error", None], ["execution_cached", {"prompt_id": []}]]),
    ],
)
async def test_a_history_of_any_shape_ends_it(entry):
    fed = Fed()
    fed.prompt.settle_from_history(entry)
    assert (await fed.outcome()).status == "failed"


async def test_ends_by_asking():
    for settle, status, kind in (
        (lambda p: p.settle_lost(), "lost", "lost"),
        (lambda p: p.settle_cancelled(), "cancelled", "interrupted"),
    ):
        fed = Fed()
        settle(fed.prompt)
        settle(fed.prompt)
        outcome = await fed.outcome()
        assert (outcome.status, outcome.failure.kind) == (status, kind)
        assert len(fed.told(Released)) == 1


async def test_ends_by_asking_change_nothing_once_the_pictures_are_here():
    for settle in (
        lambda p: p.settle_lost(),
        lambda p: p.settle_cancelled(),
        lambda p: p.settle_gone(ServerGoneError("gone")),
    ):
        fed = Fed().hear(START, executed("9", "a"))
        settle(fed.prompt)
        assert data(await fed.outcome()) == [("9", 0, b"a")]


async def test_a_server_that_is_gone_raises():
    fed = Fed()
    fed.prompt.settle_gone(ServerGoneError("gone"))
    with pytest.raises(ServerGoneError):
        await fed.outcome()
    assert fed.told(Released)


# -- results over the socket


@pytest.mark.parametrize("named", [True, False])
async def test_results_over_the_socket_are_told_from_previews(named):
    def frame(node: str, content: bytes) -> m.ImageFrame:
        return m.ImageFrame("p" if named else None, node if named else None, "image/png", content)

    fed = Fed(SOCKET).hear(START, at("5"), frame("5", b"rough"), at("9"))
    fed.hear(frame("9", b"one"), m.NodeProgress("p", "9", 0, 2), frame("9", b"two"), SUCCESS, LEFT)
    outcome = await fed.outcome()
    assert data(outcome) == [("9", 0, b"one"), ("9", 1, b"two")]
    assert [preview.data for preview in fed.told(Preview)] == [b"rough"]


# -- recorded prompts


def parsed(raw: object):
    """A body that was sent as text, some of them no JSON on purpose."""
    try:
        return json.loads(raw)
    except (TypeError, ValueError):
        return None


def recorded(path: Path):
    """Prompts of a transcript: id -> (graph, history entry or None), and what sockets heard."""
    graphs, histories, frames, asked = {}, {}, [], None
    for line in path.read_text("utf-8").splitlines():
        entry = json.loads(line)
        content = entry.get("data")
        if entry["kind"] == "http" and entry["direction"] == "request":
            if content["path"] == "/prompt":
                asked = content.get("json") or parsed(content.get("raw"))
        elif entry["kind"] == "http" and isinstance(body := content.get("json"), dict):
            if entry["req"] == "POST /prompt" and "prompt_id" in body and isinstance(asked, dict):
                graphs[body["prompt_id"]] = asked["prompt"]
            elif entry["req"].startswith("GET /history/"):
                histories.update(body)
        elif entry.get("direction") == "server->client" and entry.get("conn") == "A":
            if entry["kind"] == "ws-text":
                frames.append(parse_text(json.dumps(content)))
            elif entry["kind"] == "ws-binary" and isinstance(content, str):
                frames.append(parse_binary(base64.b64decode(content)))
    return graphs, histories, [frame for frame in frames if frame is not None]


async def replay(path: Path) -> list:
    graphs, histories, frames = recorded(path)
    prompts = {}
    for prompt_id, graph in graphs.items():
        fed = prompts[prompt_id] = Fed(graph)
        fed.prompt.id = prompt_id
    running = None
    for message in frames:
        named = getattr(message, "prompt_id", None)
        running = named or running
        if running in prompts and not isinstance(message, m.ServerStatus):
            prompts[running].hear(message)
    outcomes = []
    for prompt_id, fed in prompts.items():
        if not fed.prompt.done.is_set():
            fed.prompt.settle_from_history(histories.get(prompt_id, {}))
        outcomes.append(await fed.outcome())
    return outcomes


@pytest.mark.parametrize(
    ("path", "ends"),
    [
        (ENGINES / "ws_normal_and_cached.jsonl", ["done 1", "done 1 cached", "done 1"]),
        (ENGINES / "ws_error.jsonl", ["failed 1", "failed 1", "failed node_error"]),
        (ENGINES / "ws_nan.jsonl", ["failed node_error"]),
        (ENGINES / "ws_previewimage.jsonl", ["done 4"]),
        (OWN / "ws_saveimagewebsocket_previewmeta.jsonl", ["done 3", "done 3"]),
        (OWN / "ws_saveimagewebsocket_nofeatures.jsonl", ["done 3", "done 3"]),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
async def test_recorded_prompts_end_as_they_did(path, ends):
    told = []
    for outcome in await replay(path):
        text = outcome.status
        text += f" {len(outcome.given)}" if outcome.given else f" {outcome.failure.kind}"
        told.append(text + " cached" * outcome.server_cached)
    assert told == ends


@pytest.mark.parametrize("path", sorted(ENGINES.glob("*.jsonl")), ids=lambda path: path.stem)
async def test_every_recorded_prompt_ends(path):
    for outcome in await replay(path):
        assert outcome.status in ("done", "failed", "cancelled")


# -- what is not a file


async def test_texts_are_given_behind_the_files_of_their_node():
    output = {**images("a"), "text": ["one", 2, None, {"no": 1}]}
    fed = Fed().hear(START, m.Executed("p", "9", output), LEFT)
    given = (await fed.outcome()).given
    assert [(g.data, g.is_text, g.name) for g in given] == [
        (b"a", False, "a"), (b"one", True, ""), (b"2", True, ""),
    ]  # fmt: skip


async def test_a_text_alone_is_enough():
    fed = Fed().hear(START, m.Executed("p", "9", {"text": "bare"}), LEFT)
    outcome = await fed.outcome()
    assert (outcome.status, data(outcome)) == ("done", [("9", 0, b"bare")])


async def test_files_that_cannot_be_asked_for_are_said_and_left_out():
    fed = Fed().hear(START, executed("9", "a", "x" * 2000, "half \ud800", "b"), LEFT)
    assert [g.data for g in (await fed.outcome()).given] == [b"a", b"b"]
    assert len([w for w in fed.told(Warned) if "cannot exist" in w.message]) == 2


async def test_no_prompt_gives_more_than_a_thousand_things():
    fed = Fed().hear(START, executed("9", *map(str, range(3000))), LEFT)
    assert len((await fed.outcome()).given) == 1000
    assert len([w for w in fed.told(Warned) if "more than 1,000" in w.message]) == 1


def frame(number: int) -> m.ImageFrame:
    return m.ImageFrame("p", "9", "image/png", b"part %d" % number)


async def test_pictures_that_got_lost_on_the_socket_are_counted():
    steps = [m.NodeProgress("p", "9", n, 4) for n in range(2)]
    fed = Fed(SOCKET).hear(START, steps[0], frame(0), steps[1], frame(1))
    fed.prompt.settle_from_history({"outputs": {}, "status": {"status_str": "success"}})
    outcome = await fed.outcome()
    assert (outcome.status, len(outcome.given)) == ("done", 2)
    assert "2 of 4 pictures of node 9" in fed.told(Warned)[0].message


async def test_when_all_of_them_got_lost_it_says_what_to_use_instead():
    fed = Fed(SOCKET).hear(START, m.NodeProgress("p", "9", 0, 4))
    fed.prompt.settle_from_history({"outputs": {}, "status": {"status_str": "success"}})
    outcome = await fed.outcome()
    assert (outcome.status, outcome.failure.kind) == ("failed", "no_output")
    assert "SaveImage or PreviewImage" in outcome.failure.hint

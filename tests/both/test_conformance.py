"""The engine answers as a real ComfyUI does: the same is said to both, and the notes compared.

tests/engine/test_transcripts.py replays what was recorded once; this one asks a server that runs,
with the same nodes, so that texts, values and every key are compared too. Where the engine differs
for a reason, DIFFERENCES says where and why; one that is no longer there fails the test as well.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import plain
import pytest
from both.talking import Talk, differences, merged, unordered
from plain import node
from support import wait_for

from comfynb.engine.nodes import builtin
from comfynb.workflows import Workflow

pytestmark = pytest.mark.comfyui

Scenario = Callable[[Talk, int], None]
SCENARIOS: dict[str, Scenario] = {}
_seeds = itertools.count(1)


def scenario(function: Scenario) -> Scenario:
    """Register what is said to both servers: a function of a talk and a seed that is new."""
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


SIZES = "the engine's model draws from 64 to 512 pixels, in steps of 32"
PREVIEWS = "the engine's previews have the size of the picture, and are not blown up to 512 pixels"
SAMPLERS = "those that the engine's model draws well with"
DEFAULTS = "what suits the engine's model"
DIFFERENCES: dict[str, dict[str, str]] = {
    "the nodes": {
        "/*/EmptyLatentImage/input/required/*/1/max": SIZES,
        "/*/EmptyLatentImage/input/required/*/1/min": SIZES,
        "/*/EmptyLatentImage/input/required/*/1/step": SIZES,
        "/*/EmptyLatentImage/input/required/*/1/default": SIZES,
        "/*/KSampler/input/required/sampler_name/0": SAMPLERS,
        "/*/KSampler/input/required/scheduler/0": SAMPLERS,
        "/*/KSampler/input/required/sampler_name/1/default": DEFAULTS,
        "/*/KSampler/input/required/scheduler/1/default": DEFAULTS,
        "/*/KSampler/input/required/steps/1/default": DEFAULTS,
        "/*/KSampler/input/required/cfg/1/default": DEFAULTS,
    },
    "sampler": {"/*/picture": PREVIEWS},
    "sampler with metadata": {"/*/picture": PREVIEWS},
}
PREPARED = {
    "several outputs": unordered,
    "a node that is blocked": unordered,
    "a node that is blocked silently": unordered,
    "sampler": merged,
    "sampler with metadata": merged,
}
"""Scenario -> what of its notes is compared, where that is not all."""
"""Scenario -> where in its notes (with wildcards) -> why."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_engine_answers_as_comfyui_does(name, engine, comfyui):
    seed = next(_seeds)
    notes = []
    for server in (engine, comfyui):
        talk = Talk(server)
        try:
            SCENARIOS[name](talk, seed)
        finally:
            talk.close()
        notes.append(PREPARED.get(name, list)(talk.notes))
    listed, found = DIFFERENCES.get(name, {}), dict(differences(*notes))
    new = {path: what for path, what in found.items() if not matches(path, listed)}
    assert not new, "\n" + "\n".join(f"{path}: {what}" for path, what in new.items())
    gone = [pattern for pattern in listed if not any(matches(path, [pattern]) for path in found)]
    assert not gone, "the engine does not differ here any more: take it off the list"


def matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


# -- prompts


@scenario
def a_picture(talk, seed):
    talk.listen()
    talk.run(plain.picture(seed))


@scenario
def a_picture_with_steps(talk, seed):
    talk.listen()
    talk.run(plain.picture(seed, seconds=0.03))


@scenario
def the_same_again(talk, seed):
    talk.listen()
    talk.run(plain.picture(seed))
    talk.run(plain.picture(seed))


@scenario
def partly_the_same(talk, seed):
    talk.listen()
    talk.run(plain.picture(seed))
    talk.run(plain.picture(seed, seconds=0.02))


@scenario
def an_unknown_input_is_kept_and_counts(talk, seed):
    talk.listen()
    graph = plain.picture(seed)
    talk.run(graph)
    graph["guard"]["inputs"]["surplus"] = 5
    talk.run(graph)


@scenario
def several_outputs(talk, seed):
    talk.listen()
    prompt = talk.run(plain.several(seed))
    talk.ask("GET", f"/history/{prompt}")


@scenario
def some_targets_only(talk, seed):
    talk.listen()
    prompt = talk.run(plain.several(seed), partial_execution_targets=["show"])
    talk.ask("GET", f"/history/{prompt}")
    talk.post(plain.several(seed), partial_execution_targets=[])


@scenario
def a_picture_over_the_socket(talk, seed):
    talk.listen()
    prompt = talk.run(plain.by_socket(seed))
    talk.ask("GET", f"/history/{prompt}")


@scenario
def a_picture_over_the_socket_with_metadata(talk, seed):
    talk.listen(supports_preview_metadata=True)
    talk.run(plain.by_socket(seed))
    talk.run(plain.by_socket(seed))


@scenario
def a_text(talk, seed):
    talk.listen()
    graph = plain.picture(seed)
    graph["say"] = node("Say", image=["noise", 0], text="h\u00e9llo")
    graph["guard"]["inputs"]["image"] = ["say", 0]
    talk.run(graph)


@scenario
def two_at_once(talk, seed):
    talk.listen()
    first = talk.post(plain.picture(seed, seconds=0.3))
    second = talk.post(plain.picture(seed))
    talk.hear_end(first)
    talk.hear_end(second)


@scenario
def without_a_client(talk, seed):
    talk.listen()
    prompt = talk.post(plain.picture(seed), client_id="somebody else")
    wait_for(lambda: talk.quietly("GET", f"/history/{prompt}").json())
    talk.run(plain.picture(seed))


@scenario
def without_any_client(talk, seed):
    talk.listen()
    prompt = talk.post(plain.picture(seed, seconds=0.02), client_id=None)
    wait_for(lambda: talk.quietly("GET", f"/history/{prompt}").json())
    talk.run(plain.picture(seed + 1))


@scenario
def a_socket_that_comes_late(talk, seed):
    prompt = talk.post(plain.picture(seed, seconds=20))
    wait_for(lambda: talk.quietly("GET", "/queue").json()["queue_running"])
    talk.listen()
    talk.hear("executing", node="guard")
    talk.quietly("POST", "/interrupt", json={"prompt_id": prompt})
    talk.hear_end(prompt)
    talk.leave_out("progress", "progress_state")


@scenario
def features(talk, seed):
    talk.listen(supports_preview_metadata=True)
    talk.say('{"type": "feature_flags", "data": {"supports_preview_metadata": false}}')
    talk.run(plain.by_socket(seed))


@scenario
def features_that_come_too_late(talk, seed):
    talk.listen()
    for frame in ("no JSON", "[1]", b"binary", '{"type": "hello"}'):
        talk.say(frame)
    talk.say('{"type": "feature_flags", "data": {"supports_preview_metadata": true}}')
    talk.run(plain.by_socket(seed))


@scenario
def features_after_what_is_no_message(talk, seed):
    talk.listen()
    for frame in ("no JSON", b"binary"):
        talk.say(frame)
    talk.say('{"type": "feature_flags", "data": {"supports_preview_metadata": true}}')
    talk.hear("feature_flags")
    talk.run(plain.by_socket(seed))


# -- what goes wrong


@scenario
def a_node_that_fails(talk, seed):
    talk.listen()
    prompt = talk.run(plain.picture(seed, message="no more film", seconds=0.01))
    talk.ask("GET", f"/history/{prompt}")


@scenario
def a_node_that_fails_after_a_picture(talk, seed):
    talk.listen()
    graph = plain.picture(seed)
    graph["bad"] = node("Guard", image=["noise", 0], seconds=0.0, message="late")
    graph["never"] = node("SaveImage", images=["bad", 0], filename_prefix="never")
    talk.run(plain.picture(seed))
    prompt = talk.run(graph)  # what is cached comes before what runs
    talk.ask("GET", f"/history/{prompt}")


@scenario
def a_node_that_is_blocked(talk, seed):
    talk.listen()
    prompt = talk.run(plain.blocked(seed))
    talk.ask("GET", f"/history/{prompt}")


@scenario
def a_node_that_is_blocked_silently(talk, seed):
    talk.listen()
    graph = plain.blocked(seed)
    graph["block"]["inputs"]["message"] = ""
    talk.run(graph)


@scenario
def interrupted_by_id(talk, seed):
    talk.listen()
    prompt = talk.post(plain.picture(seed, seconds=20))
    talk.hear("executing", node="guard")
    talk.quietly("POST", "/interrupt", json={"prompt_id": "another"})
    talk.ask("POST", "/interrupt", json={"prompt_id": prompt})
    talk.hear_end(prompt)
    talk.leave_out("progress", "progress_state")
    talk.ask("GET", f"/history/{prompt}")


@scenario
def interrupted_whatever_runs(talk, seed):
    talk.listen()
    prompt = talk.post(plain.picture(seed, seconds=20))
    talk.hear("executing", node="guard")
    talk.ask("POST", "/interrupt")
    talk.hear_end(prompt)
    talk.leave_out("progress", "progress_state")


@scenario
def taken_off_the_queue(talk, seed):
    first = talk.post(plain.picture(seed, seconds=20))
    waiting = [talk.post(plain.picture(seed + 1)) for _ in range(3)]
    wait_for(lambda: talk.quietly("GET", "/queue").json()["queue_running"])
    talk.ask("GET", "/queue")
    talk.ask("GET", "/prompt")
    for prompt in (first, waiting[0]):
        talk.ask("GET", f"/history/{prompt}")
    talk.ask("POST", "/queue", json={"delete": [waiting[1], first, "another"]})
    talk.ask("GET", "/queue")
    talk.ask("POST", "/queue", json={"clear": True})
    talk.ask("GET", "/queue")
    talk.ask("GET", f"/history/{waiting[1]}")
    talk.ask("POST", "/interrupt", json={"prompt_id": first})


@scenario
def in_front_of_the_others(talk, seed):
    prompts = [talk.post(plain.picture(seed, seconds=20))]
    wait_for(lambda: talk.quietly("GET", "/queue").json()["queue_running"])
    prompts.append(talk.post(plain.picture(seed + 1)))
    prompts.append(talk.post(plain.picture(seed + 2), front=True))
    pending = talk.quietly("GET", "/queue").json()["queue_pending"]
    talk.notes.append([prompts.index(item[1]) for item in sorted(pending)])
    talk.quietly("POST", "/queue", json={"clear": True})
    talk.quietly("POST", "/interrupt", json={"prompt_id": prompts[0]})


def changed(number: int, of: str, /, **inputs: Any) -> dict[str, Any]:
    graph = plain.picture(number)
    graph[of]["inputs"] |= inputs
    return graph


def without(seed: int, of: str, *names: str) -> dict[str, Any]:
    graph = plain.picture(seed)
    for name in names:
        del graph[of]["inputs"][name]
    return graph


def refused(seed: int) -> Iterator[Any]:
    """Graphs that are refused, or of which a part is."""
    picture = plain.picture(seed)
    yield {}
    yield {name: entry for name, entry in picture.items() if name != "save"}
    yield {**picture, "strange": node("NoSuchNode", x=1)}
    yield {**picture, "save": node("NoSuchNode", images=["guard", 0])}
    yield {**picture, "guard": {"inputs": picture["guard"]["inputs"]}}
    yield {**picture, "guard": {"class_type": "Guard"}}
    yield {**picture, "_meta": {"made": "by hand"}}
    yield without(seed, "guard", "image")
    yield without(seed, "guard", "seconds", "message")
    yield without(seed, "save", "images", "filename_prefix")
    yield changed(seed, "guard", seconds=-1)
    yield changed(seed, "guard", seconds=1e9)
    yield changed(seed, "guard", seconds="soon")
    yield changed(seed, "noise", side=7, seed=-1)
    yield changed(seed, "noise", side=5000, batch=65)
    yield changed(seed, "noise", side=None)
    yield changed(seed, "noise", side="wide")
    yield changed(seed, "noise", side=[1, 2, 3])
    yield changed(seed, "guard", image=["missing", 0])
    yield changed(seed, "guard", image=["noise", 7])
    yield changed(seed, "guard", image=["words", 0])
    yield changed(seed, "guard", image=["noise"])
    yield changed(seed, "guard", image=[1, 0])
    yield changed(seed, "guard", image="noise")
    yield changed(seed, "guard", message="refuse me")
    yield changed(seed, "guard", message=["words", 0])
    yield changed(seed, "words", text=5)
    yield changed(seed, "guard", image=["guard", 0])
    scaled = node(
        "ImageScale", image=["noise", 0], upscale_method="by magic", width=8, height=8, crop="no"
    )
    yield {**picture, "scale": scaled, "save": node("SaveImage", images=["scale", 0])}
    yield {**picture, "load": node("LoadImage", image="nope.png"),
           "show": node("PreviewImage", images=["load", 0])}  # fmt: skip


@scenario
def graphs_that_are_refused(talk, seed):
    for graph in refused(seed):
        prompt = talk.post(graph)
        talk.quietly("POST", "/queue", json={"delete": [prompt]})  # the rest of some is accepted
    wait_for(lambda: not talk.quietly("GET", "/queue").json()["queue_running"])


@scenario
def values_that_are_made_to_fit(talk, seed):
    graph = changed(seed, "noise", side="32", batch=1.9, seed="7")
    graph["guard"]["inputs"]["seconds"] = "0.01"
    graph["words"]["inputs"]["text"] = 12
    talk.listen()
    prompt = talk.run(graph)
    talk.ask("GET", f"/history/{prompt}")


@scenario
def bodies_that_are_no_prompt(talk, seed):
    for body in (
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"5",
        b'{"prompt": []}',
        b'{"prompt": [1]}',
        b'{"prompt": ""}',
        b'{"prompt": "x"}',
        b'{"prompt": null}',
    ):
        talk.ask("POST", "/prompt", content=body)
    for more in ({"number": "many"}, {"extra_data": None}, {"partial_execution_targets": ["x"]}):
        talk.post(plain.picture(seed), **more)


# -- the rest of HTTP


@scenario
def the_history(talk, seed):
    talk.ask("POST", "/history", json={"clear": True})
    talk.ask("GET", "/history")
    talk.listen()
    prompts = [talk.run(plain.picture(seed + n)) for n in range(3)]
    for query in ("", "?max_items=2", "?max_items=0", "?max_items=1&offset=1", "?max_items=x"):
        talk.ask("GET", f"/history{query}")
    talk.ask("GET", "/history/unknown")
    talk.ask("POST", "/history", json={"delete": [prompts[0], "unknown"]})
    talk.ask("GET", f"/history/{prompts[0]}")
    talk.ask("POST", "/history", content=b"{")


@scenario
def the_nodes(talk, seed):
    ours = [node.name for node in builtin()]
    for name in ("NoSuchNode", "Guard", "Noise", "Words", "Block", "Say", *ours):
        info = talk.quietly("GET", f"/object_info/{name}").json()
        if name == "LoadImage":  # what others have uploaded
            info[name]["input"]["required"]["image"][0] = "<files>"
        talk.note(info)


@scenario
def what_there_is(talk, seed):
    for path in ("/features", "/models/checkpoints", "/models/unknown", "/prompt", "/queue"):
        talk.ask("GET", path)
        talk.ask("GET", f"/api{path}")


@scenario
def what_there_is_not(talk, seed):
    for method, path in (
        ("GET", "/nowhere"),
        ("GET", "/api/nowhere"),
        ("POST", "/nowhere"),
        ("GET", "/interrupt"),
        ("POST", "/view"),
        ("GET", "/upload/image"),
        ("DELETE", "/queue"),
        ("POST", "/prompt/"),
        ("GET", "/api/jobs"),
    ):
        talk.ask(method, path)


@scenario
def commands(talk, seed):
    for path in ("/queue", "/history", "/free", "/interrupt"):
        for body in (
            b"{}",
            b"",
            b"{",
            b"[]",
            b'["clear"]',
            b"5",
            b"null",
            b'{"delete": null}',
            b'{"delete": "x"}',
            b'"x"',
        ):
            talk.ask("POST", path, content=body)


@scenario
def uploads(talk, seed):
    def send(name, data, **fields):
        files = {"image": (name, data, "application/octet-stream")}
        return talk.ask("POST", "/upload/image", files=files, data=fields)

    own = f"upload-{talk.client_id}"  # the folder lives longer than this test
    for data in (b"one", b"one", b"two", b"three"):
        send(f"{own}.png", data)
    for overwrite in ("true", "1", "True", "false"):
        send(f"{own}.png", b"four", overwrite=overwrite)
    send("in.png", b"five", subfolder=own)
    send("in.png", b"five", subfolder=f"./{own}/../{own}")
    send("in.png", b"five", subfolder="../outside")
    send("../../outside.png", b"six")
    send(f"{own}.png", b"seven", type="output")
    send(f"{own}.png", b"seven", type="temp")
    send(f"{own}.png", b"seven", type="nowhere")
    talk.ask("POST", "/upload/image", data={"image": "no file"})
    talk.ask("POST", "/upload/image", files={"other": ("x.png", b"x")})
    talk.ask("GET", f"/view?filename={own}.png&type=input")
    talk.ask("GET", f"/view?filename=in.png&type=input&subfolder={own}")


@scenario
def files(talk, seed):
    talk.listen()
    prompt = talk.run(plain.picture(seed, side=32))
    entry = talk.quietly("GET", f"/history/{prompt}").json()[prompt]
    name = entry["outputs"]["save"]["images"][0]["filename"]
    for query in (
        f"filename={name}",
        f"filename={name}&type=output&subfolder=",
        f"filename={name}&preview=webp;50",
        f"filename={name}&preview=jpeg",
        f"filename={name}&preview=strange;x",
        f"filename={name}&channel=rgb",
        f"filename={name}&channel=a",
        f"filename={name}+[output]&type=input",
        f"filename=sub/{name}",
        f"filename={name}&type=nowhere",
        f"filename={name}&subfolder=../..",
        f"filename=../{name}",
        "filename=/etc/passwd",
        "filename=",
        "filename=missing.png",
        "",
    ):
        talk.ask("GET", f"/view?{query}")
    talk.ask("HEAD", f"/view?filename={name}")
    talk.ask("GET", f"/view?filename={name}", headers={"Range": "bytes=0-0"})
    tag = talk.quietly("GET", f"/view?filename={name}").headers["ETag"]
    talk.ask("GET", f"/view?filename={name}", headers={"If-None-Match": tag})


@scenario
def strangers_pages(talk, seed):
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        talk.ask("GET", "/queue", headers={"Origin": origin})


# -- sampler


def sampled(talk: Talk, seed: int) -> dict[str, Any]:
    names = talk.quietly("GET", "/models/checkpoints").json()
    quick = {"width": 64, "height": 64, "steps": 3, "seed": seed, "checkpoint": names[0]}
    flow = Workflow.load("txt2img").with_knobs({"positive": "a fox", **quick})
    return {key: {**entry, "inputs": dict(entry["inputs"])} for key, entry in flow.graph.items()}


@scenario
def sampler(talk, seed):
    talk.listen()
    prompt = talk.run(sampled(talk, seed))
    talk.ask("GET", f"/history/{prompt}")


@scenario
def sampler_with_metadata(talk, seed):
    talk.listen(supports_preview_metadata=True)
    talk.run(sampled(talk, seed))

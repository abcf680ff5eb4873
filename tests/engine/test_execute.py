"""Order of nodes, the output cache, the queue, errors."""

import math

import pytest

from comfynb.engine.nodes import builtin
from comfynb.engine.order import Order, upstream
from comfynb.engine.queue import MAX_HISTORY, Job, Outcome, PromptQueue
from comfynb.engine.registry import Node, NodeResult


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def cached(entry):
    return entry["status"]["messages"][1][1]["nodes"]


def order_of(graph, outputs, known=()):
    order = Order(graph, builtin(), set(known).__contains__)
    for output in outputs:
        order.add(output)
    taken = []
    while (node_id := order.take()) is not None:
        taken.append(node_id)
        order.done(node_id)
    return taken


def test_text_to_image_runs_in_comfyuis_order(graphs):
    assert order_of(graphs.text_to_image(), ["9"]) == ["4", "5", "7", "6", "3", "8", "9"]


def test_an_output_goes_before_other_ready_nodes():
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="x"),
        "4": node("PreviewImage", images=["1", 0]),
    }
    assert order_of(graph, ["3", "4"]) == ["1", "4", "2", "3"]


def test_known_nodes_are_not_visited_unless_they_are_outputs(graphs):
    graph = graphs.text_to_image()
    assert order_of(graph, ["9"], known=["4", "5", "6", "7"]) == ["3", "8", "9"]
    assert order_of(graph, ["9"], known=list(graph)) == ["9"]


def test_a_node_is_visited_once_however_many_need_it():
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
        "3": node("SaveImage", images=["1", 0], filename_prefix="y"),
    }
    assert order_of(graph, ["2", "3"]) == ["1", "2", "3"]


def test_upstream_names_nearest_nodes_first(graphs):
    assert upstream(graphs.text_to_image(), builtin(), "9")[:2] == ["8", "3"]


async def test_an_unchanged_graph_is_not_run_again_and_names_the_old_file(user, graphs):
    socket = await user.connect("me")
    first = await user.run(graphs.image(), socket, client_id="me")
    second = await user.run(graphs.image(), socket, client_id="me")
    assert cached(second) == ["1", "2"]
    assert second["outputs"] == first["outputs"]
    assert len(socket.events("executed")) == 2


async def test_only_what_depends_on_a_change_is_run_again(user, graphs):
    await user.run(graphs.slow(seconds=0.01, steps=1))
    assert cached(await user.run(graphs.slow(seconds=0.01, steps=1, prefix="y"))) == ["1", "2"]
    assert cached(await user.run(graphs.slow(seconds=0.02, steps=1, prefix="y"))) == ["1"]


async def test_results_are_found_under_other_node_ids(user, graphs):
    await user.run(graphs.image())
    renamed = {
        "a": graphs.image()["1"],
        "b": node("SaveImage", images=["a", 0], filename_prefix="x"),
    }
    assert cached(await user.run(renamed)) == ["a", "b"]


async def test_only_results_of_the_last_prompt_are_kept(user, graphs):
    await user.run(graphs.image(1))
    await user.run(graphs.image(2))
    assert cached(await user.run(graphs.image(1))) == []


async def test_a_failed_prompt_leaves_what_it_finished(user, graphs):
    graph = graphs.image()
    graph["2"] = node("ProbeRaise", image=["1", 0], message="no")
    graph["3"] = node("PreviewImage", images=["2", 0])
    assert cached(await user.run(graph)) == []
    entry = await user.run(graph)
    assert cached(entry) == ["1"]
    assert entry["status"]["status_str"] == "error"


async def test_a_file_with_new_bytes_is_loaded_again(server, user):
    graph = {"1": node("LoadImage", image="x.png"), "2": node("PreviewImage", images=["1", 0])}
    for color, expected in [("red", []), ("red", ["1", "2"]), ("blue", [])]:
        from PIL import Image

        Image.new("RGB", (8, 8), color).save(server.files.input / "x.png")
        assert cached(await user.run(graph)) == expected


async def test_free_memory_forgets_results(user, graphs):
    await user.run(graphs.image())
    await user.post("/free", {"free_memory": True})
    assert cached(await user.run(graphs.image())) == []


async def test_unloading_the_model_makes_the_next_prompt_load_it_again(server, user, graphs):
    await user.run(graphs.text_to_image())
    before = server.server.checkpoint.load()
    await user.post("/free", {"unload_models": True})
    entry = await user.run(graphs.text_to_image())
    assert cached(entry) == []
    assert entry["status"]["status_str"] == "success"
    assert server.server.checkpoint.load() is not before


async def test_equal_nodes_of_one_prompt_run_once(user):
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("PreviewImage", images=["1", 0]),
        "3": node("PreviewImage", images=["1", 0]),
    }
    socket = await user.connect("me")
    entry = await user.run(graph, socket, client_id="me")
    assert entry["outputs"]["2"] == entry["outputs"]["3"]
    assert [d["node"] for d in socket.events("executing")] == ["1", "2", None]
    assert [d["node"] for d in socket.events("executed")] == ["2", "3"]


async def test_outputs_before_an_error_are_in_the_history(user):
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("PreviewImage", images=["1", 0]),
        "3": node("ProbeRaise", image=["1", 0], message="boom"),
        "4": node("PreviewImage", images=["3", 0]),
    }
    entry = await user.run(graph)
    assert list(entry["outputs"]) == ["2"]
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    assert data["exception_message"] == "boom\n"
    assert data["exception_type"] == "ValueError"
    assert data["node_id"] == "3"
    assert data["executed"] == ["1", "2"]
    assert data["current_inputs"]["message"] == ["boom"]


@pytest.mark.parametrize("client", [{}, {"client_id": "me"}])
async def test_a_result_that_json_cannot_hold_is_an_error_of_its_node(server, user, graphs, client):
    server.server.registry.add(
        Node("Odd", lambda call: NodeResult(ui={"x": object()}), output_node=True)
    )
    entry = await user.run({"1": node("Odd")}, **client)
    kind, data = entry["status"]["messages"][-1]
    assert (kind, data["exception_type"]) == ("execution_error", "TypeError")
    assert (await user.run(graphs.image()))["status"]["status_str"] == "success"


async def test_delete_and_interrupt_stop_a_prompt_wherever_it_is(server, user, graphs):
    """In ComfyUI an interrupt right after POST /prompt may be lost; here the prompt runs 50 s."""
    for _ in range(20):
        prompt_id = await user.submit(graphs.slow())
        await user.post("/queue", {"delete": [prompt_id]})
        await user.post("/interrupt", {"prompt_id": prompt_id})
        await user.until(lambda: server.server.queue.remaining() == 0)


async def test_an_interrupt_of_an_idle_server_does_not_hit_the_next_prompt(user, graphs):
    await user.post("/interrupt")
    entry = await user.run(graphs.slow(seconds=0.01, steps=2))
    assert entry["status"]["status_str"] == "success"


async def test_lower_numbers_run_first_and_front_goes_before_all(server, user, graphs):
    blocker = await user.submit(graphs.slow())
    await user.until(lambda: server.node == "2")
    names = {}
    for color, more in enumerate([{}, {"number": 2.5}, {"front": True}, {"front": True}, {}]):
        names[await user.submit(graphs.image(color), **more)] = color
    await user.post("/interrupt", {"prompt_id": blocker})
    for prompt_id in names:
        await user.finished(prompt_id)
    _, history = await user.get("/history")
    # The blocker was number 0, so the first of these is 1 and the last is 4.
    assert [names[prompt_id] for prompt_id in history if prompt_id in names] == [3, 2, 0, 1, 4]


def job(number=0, prompt_id="id", **extra_data):
    return Job(number, prompt_id, {}, extra_data, [])


def test_two_jobs_with_one_number_and_id_keep_the_order_they_came_in():
    queue = PromptQueue()
    first, second = job(), job()
    queue.put(second)
    queue.put(first)
    assert queue.take() is first
    queue.finish(first, Outcome())
    assert queue.take() is second


def test_a_number_that_is_nan_does_not_stop_the_queue():
    queue = PromptQueue()
    jobs = [job(number, str(number)) for number in (math.nan, 1, math.nan, 0)]
    for each in jobs:
        queue.put(each)
    taken = []
    for _ in jobs:
        taken.append(queue.take())
        queue.finish(taken[-1], Outcome())
    assert set(taken) == set(jobs)


def test_the_history_keeps_ten_thousand_entries():
    queue = PromptQueue()
    for number in range(MAX_HISTORY + 2):
        queue.finish(job(prompt_id=f"id-{number}"), Outcome())
    assert queue.history_of("id-1") == "{}"
    assert queue.history_of("id-2") != "{}"


def test_a_second_job_of_an_id_replaces_the_first_in_the_history():
    queue = PromptQueue()
    queue.finish(job(1), Outcome())
    queue.finish(job(2), Outcome(success=True))
    assert queue.history().count('"status_str"') == 1
    assert '"success"' in queue.history_of("id")

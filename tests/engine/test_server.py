"""HTTP answers, beyond the recorded ones."""

import asyncio

import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/system_stats",
        "/features",
        "/object_info",
        "/object_info/KSampler",
        "/models",
        "/models/checkpoints",
        "/embeddings",
        "/extensions",
        "/prompt",
        "/queue",
        "/history",
        "/history/x",
    ],
)
async def test_every_route_is_also_under_api(user, path):
    plain, twin = await user.get(path), await user.get(f"/api{path}")
    assert plain[0] == twin[0] == 200
    if path != "/system_stats":  # free memory moves
        assert plain == twin


async def test_the_checkpoint_is_listed_where_clients_look(user):
    assert await user.get("/models/checkpoints") == (200, ["tiny-scenes.onnx"])
    _, info = await user.get("/object_info/CheckpointLoaderSimple")
    spec = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    assert spec[0] == ["tiny-scenes.onnx"]


async def test_it_says_that_it_is_the_engine(user):
    _, stats = await user.get("/system_stats")
    assert stats["system"]["comfyui_version"] == "0.3.75"
    assert stats["system"]["comfynb_engine"]
    assert stats["system"]["ram_total"] > stats["system"]["ram_free"] > 0


async def test_a_long_node_does_not_hold_up_requests(user, graphs):
    prompt_id = await user.submit(graphs.slow())
    for _ in range(20):
        await asyncio.gather(*(user.get(path) for path in ("/queue", "/history", "/object_info")))
    assert [item[1] for item in (await user.get("/queue"))[1]["queue_running"]] == [prompt_id]
    await user.post("/interrupt", {"prompt_id": prompt_id})


async def test_the_answer_names_the_id_that_was_chosen(user, graphs, new_id):
    prompt_id = new_id()
    assert await user.submit(graphs.image(), prompt_id=prompt_id) == prompt_id


async def test_history_pages_run_from_oldest_to_newest(user, graphs):
    ids = [await user.submit(graphs.image(color)) for color in range(5)]
    await user.finished(ids[-1])

    async def page(query):
        return [ids.index(prompt_id) for prompt_id in (await user.get(f"/history?{query}"))[1]]

    assert await page("") == [0, 1, 2, 3, 4]
    assert await page("max_items=2") == [3, 4]
    assert await page("max_items=2&offset=1") == [1, 2]
    assert await page("offset=3") == [3, 4]
    assert await page("max_items=9&offset=4") == [4]
    assert await page("max_items=0") == []
    assert await page("max_items=-1") == []
    assert await page("max_items=-1&offset=0") == []


async def test_a_deleted_prompt_is_neither_queued_nor_remembered(server, user, graphs):
    blocker = await user.submit(graphs.slow())
    await user.until(lambda: server.node == "2")
    waiting = await user.submit(graphs.image())
    await user.post("/queue", {"delete": [waiting, 5, None]})
    _, queue = await user.get("/queue")
    assert queue["queue_pending"] == []
    assert (await user.get(f"/history/{waiting}"))[1] == {}
    await user.post("/interrupt", {"prompt_id": blocker})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/queue", "x"),
        ("/queue", '["clear"]'),
        ("/history", "null"),
        ("/history", '{"delete": 5}'),
        ("/free", ""),
        ("/interrupt", "5"),
        ("/prompt", "5"),
        ("/prompt", "null"),
        ("/prompt", '{"prompt": {"1": 5}}'),
        ("/prompt", '{"prompt": {"1": null}}'),
        ("/prompt", '{"prompt": {"1": {"class_type": []}}}'),
    ],
)
async def test_malformed_bodies_are_a_500_in_plain_text(user, path, body):
    async with user.http.post(path, data=body) as answer:
        assert answer.status == 500
        assert answer.content_type == "text/plain"
        assert "Server got itself in trouble" in await answer.text()


async def test_secrets_are_not_shown_again(user, graphs):
    extra = {"api_key_comfy_org": "hidden", "auth_token_comfy_org": "hidden", "note": 1}
    entry = await user.run(graphs.image(), extra_data=extra)
    assert set(entry["prompt"][3]) == {"note", "create_time"}


async def test_uploaded_pages_are_never_shown_as_pages(server, user):
    for name in ("x.html", "x.svg", "x.js", "x.xml"):
        (server.files.input / name).write_text("<script>")
        async with user.http.get(f"/view?type=input&filename={name}") as answer:
            assert answer.content_type == "application/octet-stream"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_link_out_of_the_folder_is_not_followed(server, user, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (server.files.output / "link.png").symlink_to(tmp_path / "secret.png")
    assert (await user.get("/view?filename=link.png"))[0] == 403


async def test_an_undecodable_picture_has_no_preview(server, user):
    (server.files.input / "x.png").write_bytes(b"no picture")
    status, _ = await user.get("/view?type=input&filename=x.png&preview=webp;90")
    assert status == 500


async def test_a_full_url_of_bad_characters_is_refused_not_crashed(user):
    assert (await user.get("/view?type=input&filename=a%00b"))[0] == 400
    assert (await user.get("/view?type=input&filename=a&subfolder=%00"))[0] == 400

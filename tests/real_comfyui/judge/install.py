"""Install the judge of conversions: `python install.py FOLDER`; again only when it changes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("install.py", "requirements.txt")


def digest() -> str:
    """Return a digest of all that the installation follows from."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()


def is_installed(folder: Path) -> bool:
    """Whether the folder holds what these files would install."""
    ready = folder / "ready"
    return ready.is_file() and ready.read_text() == digest()


def install(folder: Path) -> None:
    """Make a virtual environment of its own: comfy-cli brings much that comfynb must not have."""
    venv.create(folder / "venv", with_pip=True, clear=True)
    pip = [
        folder / "venv" / "bin" / "python",
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
    ]
    requirements = HERE / "requirements.txt"
    subprocess.run([*map(str, pip), "install", "--requirement", str(requirements)], check=True)
    (folder / "ready").write_text(digest())


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute()
    if not is_installed(target):
        print(f"installing the judge of conversions into {target} (once) ...", flush=True)
        install(target)

"""A real ComfyUI as a process: what tests/real_comfyui installed, on a port of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import yaml
from real_comfyui import install
from support import Server

HERE = Path(__file__).parent / "real_comfyui"
FOLDER = Path(os.environ.get("COMFYNB_COMFYUI", Path(__file__).parent.parent / ".comfyui"))
NODES = "comfynb_test_nodes.py"
CHECKPOINT = "tiny-random.safetensors"
START_WITHIN = 90.0
"""Seconds: about five where nothing else runs, 25 under load."""
MISSING = "there is no real ComfyUI to test against: make test-comfyui installs it"


@functools.cache
def is_installed() -> bool:
    """Whether `make test-comfyui` was here, with the files as they are now."""
    return install.SERVER.is_in(FOLDER)


class RealComfyUI(Server):
    """A ComfyUI 0.3.75 on the CPU with the test nodes; it can be killed and started again.

    Its folders are its own, and stay when it is started again.

    Args:
        *flags: More of the command line, such as "--preview-method", "latent2rgb".
    """

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self.folder = Path(tempfile.mkdtemp(prefix="comfynb-comfyui-"))
        for name in ("output", "temp", "input", "user"):
            (self.folder / name).mkdir()
        # Names the test nodes where they stand, so that they are never an old copy.
        paths = {"tests": {"custom_nodes": str(HERE / "nodes")}}
        (self.folder / "paths.yaml").write_text(yaml.safe_dump(paths))
        super().__init__()

    @property
    def log(self) -> str:
        """What it printed, since its first start."""
        return (self.folder / "log.txt").read_text(errors="replace")

    def start(self) -> None:
        self.port = self.port or free_port()
        command = [FOLDER / "venv" / "bin" / "python", HERE / "launch.py", FOLDER / "server"]
        command += ["--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--disable-all-custom-nodes", "--disable-api-nodes"]
        command += ["--fp32-unet", "--fp32-text-enc", "--fp32-vae"]  # processors are slow at fp16
        command += ["--whitelist-custom-nodes", "websocket_image_save.py", NODES]
        command += ["--extra-model-paths-config", self.folder / "paths.yaml"]
        command += ["--front-end-root", FOLDER / "web"]
        for name in ("output", "temp", "input", "user"):
            command += [f"--{name}-directory", self.folder / name]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self._flags],
                stdin=subprocess.PIPE,  # it ends with this process: see launch.py
                stdout=log,
                stderr=log,
                # Threads that wait for each other take ten times as long beside other processes.
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + START_WITHIN
        while not self._answers():
            if not self.runs or time.monotonic() > deadline:
                tail = self.log[-4000:]
                self.stop()
                raise AssertionError(f"ComfyUI did not start; its log ends:\n{tail}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self._http.get(f"{self.url}/system_stats").is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.runs:
            self.process.terminate()
        self._reap()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody uses, and nobody is given while the server is down.

    Ports that the system hands out begin at 32768 (Linux) or 49152.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            return probe.getsockname()[1]

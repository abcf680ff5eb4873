"""The same grid on the kernels that people have: each hears a button at another time.

While a cell runs, ipykernel 6 hears nothing; 7.0 to 7.3 hear on a thread of their own; 7.4 hears
between the steps of a cell that awaits, and not while one blocks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab.driver import LabServer
from lab.test_grid_in_lab import (
    begin,
    clean,
    show,
    stop,
    test_a_grid_and_a_generator_are_right_after_a_blocking_render,
    test_interrupt_ends_the_wait_and_takes_only_our_prompts_away,
    test_stop_while_a_cell_blocks_acts_without_the_main_thread,
    test_stop_works_while_the_kernel_is_idle,
    test_the_seeds_bug_nine_scenes_and_the_server_dies_after_the_fifth,
    test_tiles_are_there_at_once_and_fill_in_one_by_one_while_other_cells_run,
    tiles,
    wait_tiles,
)
from support import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

THE_SAME = (  # collected here too, and run on the kernels of this module
    test_a_grid_and_a_generator_are_right_after_a_blocking_render,
    test_interrupt_ends_the_wait_and_takes_only_our_prompts_away,
    test_stop_while_a_cell_blocks_acts_without_the_main_thread,
    test_stop_works_while_the_kernel_is_idle,
    test_the_seeds_bug_nine_scenes_and_the_server_dies_after_the_fifth,
    test_tiles_are_there_at_once_and_fill_in_one_by_one_while_other_cells_run,
)

KERNELS = Path(__file__).parents[2] / ".venv" / "kernels"
VERSIONS = (
    "6.31",
    # Up to 7.3 a kernel may not see a message until there is a new connection, of which the grid's
    # hello can be one (https://github.com/ipython/ipykernel/issues/1554; about 1 of 50 pages here).
    pytest.param("7.3", marks=pytest.mark.flaky(reruns=2)),
    "7.4",
)
DEAF_WHILE_AWAITING = "6.31"


@pytest.fixture(scope="module", params=VERSIONS)
def kernel(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def lab_server(kernel, lab_root):
    server = LabServer(lab_root, overlay=overlay(kernel))
    yield server
    server.stop()


def overlay(version: str) -> Path:
    """Return a folder with one ipykernel, installed the first time."""
    folder = KERNELS / version
    if not folder.is_dir():
        fresh = KERNELS / f"{version}.{os.getpid()}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += [
            "--disable-pip-version-check",
            "--target",
            str(fresh),
            f"ipykernel=={version}.*",
        ]
        pip = subprocess.run(command, capture_output=True, text=True, check=False)
        if pip.returncode:
            pytest.fail(f"pip cannot install ipykernel {version}: {pip.stderr[-2000:]}")
        fresh.rename(folder)
    return folder


def test_the_kernel_is_of_the_version_that_is_meant(lab, kernel):
    page = lab("")
    said = page.python("import ipykernel; print(ipykernel.__version__)").strip()
    assert said.startswith(f"{kernel}."), said


def test_stop_while_a_cell_awaits_acts_as_soon_as_the_message_arrives(lab, engine, kernel):
    page = lab(begin(engine.url), show(6, 1.0), "await asyncio.sleep(3)")
    page.run(0)
    page.run(1)
    wait_tiles(page, 1, "running")
    page.run(2, wait=False)
    wait_for(lambda: page.page.wait_for_timeout(20) or page.busy(2))
    stop(page)
    if kernel == DEAF_WHILE_AWAITING:
        page.wait_ran(2)
    wait_for(lambda: not engine.prompts(), 2)
    assert page.busy(2) == (kernel != DEAF_WHILE_AWAITING)
    page.wait_ran(2)
    wait_tiles(page, 6, "done", "cancelled")
    assert tiles(page, "cancelled") >= 1
    assert clean(page)


def test_awaiting_the_grid_shows_every_tile_at_the_end(lab, engine):
    page = lab(begin(engine.url), show(6, 0.5), "print([k.status for k in await grid])")
    for cell in range(3):
        page.run(cell)
    assert page.text(2).count("done") == 6
    wait_tiles(page, 6, "done")
    assert clean(page)

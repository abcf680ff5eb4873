"""The notebooks as they are saved: what people see before they run anything.

`make test` also runs them, each cell (nbval).
"""

import getpass
import re
import socket
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
LARGEST = 600_000
"""Bytes of a notebook; a repository keeps every version of it."""


@pytest.fixture(params=sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def path(request):
    return request.param


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_a_notebook_is_saved_as_it_ran_from_top_to_bottom_without_an_error(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        said = [out for out in cell.outputs if out.get("name") == "stderr"]
        errors = [out for out in cell.outputs if out.output_type == "error"]
        assert not said + errors, cell.source


def test_a_notebook_shows_pictures_without_a_kernel_and_stays_small(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < LARGEST


def test_a_notebook_names_no_folder_and_no_machine_of_who_saved_it(path):
    text = path.read_text("utf-8")
    places = re.findall(r"(?:/home/|/root/|/Users/|/tmp/|/work/|C:\\\\)\S{0,40}", text)
    assert not places
    name = re.escape(socket.gethostname())
    assert len(name) < 6 or not re.search(rf"\b{name}\b", text)
    user = re.escape(getpass.getuser())
    assert not re.search(rf"\b{user}@", text)

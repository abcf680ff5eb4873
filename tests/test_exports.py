"""What `import comfynb` gives, and what it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import comfynb

ROOT = Path(comfynb.__file__).parent
HEAVY = (
    "duckdb", "PIL", "pandas", "numpy", "anywidget", "ipywidgets", "onnxruntime", "httpx",
    "websockets", "aiohttp", "rich", "yaml", "nest_asyncio2", "asyncio", "concurrent.futures",
)  # fmt: skip


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_names_are_sorted_and_are_those_that_are_loaded_lazily():
    assert comfynb.__all__ == sorted(comfynb.__all__)
    assert set(comfynb.__all__) == {*comfynb._HOMES, "__version__"}


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == {name: f"comfynb.{home}" for name, home in comfynb._HOMES.items()}


@pytest.mark.parametrize("name", comfynb.__all__)
def test_every_name_can_be_had_and_says_what_it_is(name):
    value = getattr(comfynb, name)
    assert name in dir(comfynb)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (value.__doc__ or "").strip()


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        _ = comfynb.conect


def test_importing_loads_nothing_heavy():
    code = f"import sys; import comfynb; print([n for n in {HEAVY} if n in sys.modules])"
    assert python(code) == "[]"


def test_values_without_a_server_load_no_client_libraries():
    """Scenes, workflows and keyframes are values: they need no sockets and no pictures."""
    code = (
        "import sys, comfynb; comfynb.Scene, comfynb.Keyframe, comfynb.Storyboard.of(['a fox']); "
        "comfynb.Workflow.load('txt2img'); "
        "print([n for n in ('duckdb', 'PIL', 'pandas', 'httpx', 'websockets') if n in sys.modules])"
    )
    assert python(code) == "[]"


def test_importing_starts_no_thread_and_patches_nothing():
    code = (
        "import asyncio, sys, threading; before = asyncio.run, asyncio.Task, sys.excepthook; "
        "import comfynb; comfynb.connect, comfynb.Log, comfynb.Board; "
        "print(threading.active_count(), before == (asyncio.run, asyncio.Task, sys.excepthook))"
    )
    assert python(code) == "1 True"


def public(tree: ast.Module):
    """Classes, functions and methods that have no underscore anywhere in their name."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, kinds) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


OWN_SOURCES = sorted(
    path for path in ROOT.rglob("*.py") if not {"train", "node_modules"} & set(path.parts)
)


def test_everything_public_has_a_docstring():
    """Methods may leave it to the class they implement: those have a class with bases."""
    missing = []
    for path in OWN_SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        if not ast.get_docstring(tree):
            missing.append(f"{path.relative_to(ROOT)}: the module")
        with_bases = {
            n.name for n in tree.body if isinstance(n, ast.ClassDef) and (n.bases or n.keywords)
        }
        for name, node in public(tree):
            inherited = "." in name and name.partition(".")[0] in with_bases
            if not ast.get_docstring(node) and not inherited:
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert not missing, "\n".join(missing)


def test_client_and_engine_import_nothing_of_each_other():
    wrong = []
    for path in OWN_SOURCES:
        of_engine = "engine" in path.relative_to(ROOT).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                to_engine = name.startswith("comfynb.engine")
                ours = name.startswith("comfynb") and name not in ("comfynb._version", "comfynb")
                if ours and to_engine is not of_engine:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)

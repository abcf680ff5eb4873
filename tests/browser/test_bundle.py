"""The committed bundle, without a browser and without Node."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import comfynb.widgets
from comfynb.keyframes import Status

WIDGETS = Path(comfynb.widgets.__file__).parent
FRONTEND, STATIC = WIDGETS / "frontend", WIDGETS / "static"
SOURCES = {".ts", ".tsx", ".css", ".mjs", ".json"}

pytestmark = pytest.mark.skipif(not FRONTEND.exists(), reason="the sources are not in the wheel")


def _hashes(folder: Path, names: list[str]) -> dict[str, str]:
    # Git may have given them Windows' line ends.
    bodies = {name: (folder / name).read_bytes().replace(b"\r\n", b"\n") for name in names}
    return {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}


def _listed(name: str, text: str) -> set[str]:
    """Return the strings of a list in protocol.ts."""
    found = re.search(rf"\b{name}(?:: | = )\[(.*?)\]", text, re.DOTALL)
    assert found, f"protocol.ts has no {name}"
    return set(re.findall(r'"(\w+)"', found[1]))


def test_the_bundle_was_built_from_these_sources():
    built = json.loads((STATIC / "BUILD.json").read_text())
    names = sorted(path.name for path in FRONTEND.iterdir() if path.suffix in SOURCES)
    assert "package-lock.json" in names
    assert built["sources"] == _hashes(FRONTEND, names), "sources have changed: make frontend"


def test_the_bundle_is_as_it_was_built():
    built = json.loads((STATIC / "BUILD.json").read_text())
    outputs = sorted(path.name for path in STATIC.iterdir() if path.name != "BUILD.json")
    assert built["outputs"] == _hashes(STATIC, outputs), "the bundle was edited: make frontend"


def test_the_bundle_is_small_and_complete():
    script = (STATIC / "scene_grid.js").read_text(encoding="utf-8")
    styles = (STATIC / "scene_grid.css").read_text(encoding="utf-8")
    assert len(script.encode()) + len(styles.encode()) <= 120_000
    assert not re.search(r"https?://(?!www\.w3\.org/)", script + styles)
    assert "customElements" not in script
    assert "@import" not in styles
    assert "url(" not in styles


def test_the_licences_of_all_that_is_bundled_are_with_it():
    needed = json.loads((FRONTEND / "package.json").read_text())["dependencies"]
    text = (STATIC / "LICENSES.txt").read_text(encoding="utf-8")
    for name, version in needed.items():
        assert f"{name} {version} (MIT)" in text
        assert re.fullmatch(r"[\d.]+", version), "pinned exactly"


def test_both_sides_list_the_same_kinds_statuses_and_actions():
    from comfynb.widgets import twin, wire

    text = (FRONTEND / "protocol.ts").read_text(encoding="utf-8")

    def kinds(messages: object) -> set[str]:
        hints = [get_type_hints(message)["kind"] for message in get_args(messages)]
        return {get_args(hint)[0] for hint in hints}

    assert _listed("browser", text) == kinds(wire.FromBrowser)
    assert _listed("kernel", text) == kinds(wire.ToBrowser)
    assert _listed("STATUSES", text) == set(get_args(Status))
    actions = text.split("type Action")[1].split(";")[0]
    assert set(re.findall(r'"(\w+)"', actions)) == set(get_args(wire.Action))
    assert f'"{twin.MARK}"' in (FRONTEND / "twin.ts").read_text(encoding="utf-8")

"""The benchmarks run and say what they should; their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_a_quick_run_measures_beside_the_yardstick_and_writes_json(tmp_path):
    report = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "images", "import", "--quick", "--json", str(report)]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert answer.returncode == 0, answer.stderr
    rows = {row["what"]: row for row in json.loads(report.read_text())["rows"]}
    instant = next(row for what, row in rows.items() if what.startswith("instant graph, a picture"))
    assert instant["limit"] == 1.3
    assert len(instant["ours"]) == len(instant["beside"]) == 1
    requests = next(row for what, row in rows.items() if what.startswith("requests"))
    assert requests["ours"] == [2.0]
    assert "import comfynb, over bare Python" in answer.stdout


def test_without_a_browser_it_says_so_and_measures_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYNB_CHROMIUM", str(tmp_path / "no-browser"))
    command = [sys.executable, "-m", "bench", "browser", "--quick"]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "the grid is not measured in a browser: " in answer.stderr
    assert "COMFYNB_CHROMIUM" in answer.stderr
    assert "a thumbnail of a 1024x1024 PNG" in answer.stdout


@pytest.mark.comfyui
def test_a_real_comfyui_is_measured_beside_the_raw_loop(start_comfyui, tmp_path):
    report = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "comfyui", "--quick", "--json", str(report)]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert answer.returncode == 0, answer.stderr
    rows = {row["what"]: row for row in json.loads(report.read_text())["rows"]}
    for share in ("p50", "p95"):
        row = rows[f"ComfyUI 0.3.75, instant graph, executed to yielded, {share}"]
        assert len(row["ours"]) == len(row["beside"]) == 1
    requests = next(row for what, row in rows.items() if "requests a picture" in what)
    assert requests["ours"] == [2.0]

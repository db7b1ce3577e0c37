"""The benchmark of GPUs runs without one, and says what it leaves out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_does_what_it_can_and_says_what_it_left_out(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--cpu", "--out", str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "CPU"
    parts = ("tests", "quickstart", "images_per_second", "networks_per_hour")
    assert all("no GPU" in found[part]["skipped"] for part in parts)
    assert found["quickstart"]["status"] == {"ok": 12}
    assert all(size["plain"] > 0 for size in found["images_per_second"]["sizes"])
    assert list(found["networks_per_hour"]["processes"]) == ["1", "2"]
    table = (tmp_path / "gpu.md").read_text()
    assert table in done.stdout
    assert table.count("**Skipped**") == 4
    assert "the figures show only that this program runs" in table

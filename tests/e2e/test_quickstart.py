"""What the first run promises: the main job, whole, and the benchmarks' bounds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.slow


def command(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_quickstart_ends_with_a_front_and_a_winner_of_96_percent(tmp_path: Path) -> None:
    out = tmp_path / "quickstart"
    shown = command("-m", "evonas", "run", ROOT / "experiments" / "quickstart.yaml", "--out", out)
    for key in pd.read_csv(out / "front.csv")["key"]:
        assert key in shown
    finalists = pd.read_csv(out / "finalists.csv")
    assert finalists["winner"].sum() == 1
    assert 1 - finalists["test_error"][0] >= 0.96
    share = re.search(r"both: training ([\d.]+)%", command("benchmarks/worker_time.py", out))
    assert share is not None
    assert float(share[1]) >= 80


def test_a_free_evaluator_is_answered_a_thousand_times_a_second() -> None:
    told = command("benchmarks/free_evaluator.py", "--evaluations", "4000")
    rate = re.search(r"([\d,]+) per second", told)
    assert rate is not None
    assert int(rate[1].replace(",", "")) >= 1000

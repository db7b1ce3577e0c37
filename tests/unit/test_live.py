"""What a terminal shows of a run while it goes on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from evonas import display, following, live
from evonas.live import Panel, plot, sparkline

COLUMNS = {"generation": [0, 1, 2], "evaluations": 4, "trained": 4, "hits": 0, "faults": [0, 1, 1]}
BEST = {"val_error_best": [0.3, 0.1, 0.2], "diversity": [4.0, 3.0, 2.0]}
VOLUMES = {"hypervolume": [0.5, 0.6, 0.8]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three generations of four, of which two have failed."""
    (tmp_path / "config.yaml").write_text(
        "evaluator: {name: train}\ndata: {name: digits}\nstop: {generations: 6}\nconstraints: []\n"
        "objectives: [{name: val_error, goal: min}, {name: params, goal: min}]\n"
        "finalists: {top: 0}\n"
    )
    rows = pd.DataFrame({"generation": np.arange(12) // 4, "key": [f"g{i}" for i in range(12)]})
    rows = rows.assign(seed=0, status=["ok"] * 10 + ["crashed", "timeout"], cached=False)
    rows = rows.assign(deterministic=True, worker=np.arange(12) % 2, phase="search", seconds=1.0)
    rows["message"], rows["val_error"] = None, np.linspace(0.9, 0.1, 12)
    rows["params"] = np.arange(12) * 1000 + 1000
    rows.to_csv(tmp_path / "evaluations.csv", index=False)
    rows.to_csv(tmp_path / "timings.csv", index=False)
    front = rows[["key", "seed", "val_error", "params"]]
    front.iloc[[0, 9]].to_csv(tmp_path / "front.csv", index=False)
    pd.DataFrame({**COLUMNS, **BEST, **VOLUMES}).to_csv(tmp_path / "generations.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(("columns", "rows"), [(40, 40), (120, 40), (80, 10)])
def test_the_panel_has_front_dynamics_faults_and_workers(
    run: Path, columns: int, rows: int
) -> None:
    lines = [line.plain for line in Panel(run).lines(columns, rows)]
    assert max(map(len, lines)) <= columns
    assert sum(line.count("o") for line in lines if line.startswith("│")) == 2 * (rows == 40)
    assert lines[-4].split() == ["best", "val_error", "█▁▁", "0.1000"]
    assert lines[-3].split() == ["hypervolume", "▁▃█", "0.8000"]
    assert lines[-2].split() == ["diversity", "█▅▁", "2"]
    assert lines[-1] == "faults: 1 crashed, 1 timeout; 2 workers"


def test_the_tables_are_read_again_only_when_they_have_grown(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    panel, read = Panel(run), []
    tables_read = live.tables.read
    monkeypatch.setattr(live.tables, "read", lambda *a, **k: read.append(a) or tables_read(*a, **k))
    for clock[0] in (0.0, 0.5, 5.0):
        assert panel.lines(80, 40)
    assert len(read) == 4  # each table once
    with (run / "generations.csv").open("a") as file:
        file.write("3,4,4,0,0,0.05,1.0,0.9\n")
    clock[0] = 5.5
    panel.lines(80, 40)
    assert len(read) == 4  # too soon
    clock[0] = 6.5
    assert "0.0500" in panel.lines(80, 40)[-4].plain
    assert len(read) == 8


def test_there_is_no_panel_before_the_first_generation_nor_of_damaged_tables(
    run: Path, tmp_path: Path
) -> None:
    (run / "front.csv").write_text("nothing\n")
    assert Panel(run).lines(80, 40) == []
    (run / "generations.csv").unlink()
    assert Panel(run).lines(80, 40) == []


def test_a_sparkline_has_gaps_and_no_more_columns_than_there_are() -> None:
    assert sparkline(np.array([1.0, np.nan, 2.0]), 8) == "▁ █"
    assert sparkline(np.array([3.0, 3.0]), 8) == "▁▁"
    assert len(sparkline(np.arange(1000.0), 8)) == 8
    assert sparkline(np.array([np.nan]), 8) == ""
    assert list(plot(np.empty((0, 2)), np.empty((0, 2)), ("x", "y"), 40)) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_is_followed_until_no_process_holds_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=200, height=40)
    monkeypatch.setattr(display, "_Console", lambda **_: console)
    held = iter([True, True, False, False])
    monkeypatch.setattr(following, "is_locked", lambda path: next(held))
    monkeypatch.setattr(following.time, "sleep", lambda seconds: None)
    following.follow(run)
    text = written.getvalue()
    assert "12/24 evaluations" in text
    assert "generation 3/6 · best val_error 0.1000 · 2 faults" in text
    assert ("▁▃█" in text) == terminal
    assert terminal or text.count("12/24 evaluations") == 1
    assert "front of" in text  # at its end, it is shown

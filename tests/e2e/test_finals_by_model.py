"""Finalists that are the best by what a model expects, on real images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from evonas.cli import app

EXPERIMENT = """
name: expected
space: {name: nasbench201, channels: 2, cells: 1}
data: {name: digits}
strategy: {name: random, population: 14}
evaluator: {name: train, recipe: {recalibrate: 0}}
budget: {steps: 8}
objectives: [{name: val_loss}]
stop: {generations: 1}
finalists: {top: 2, seeds: 1, by: model}
parallel: {workers: 1}
"""


def command(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_finalists_are_the_best_by_the_model_and_show_has_both(tmp_path: Path) -> None:
    path, run = tmp_path / "expected.yaml", tmp_path / "run"
    path.write_text(EXPERIMENT)
    command("run", path, "--out", run)
    model = pd.read_csv(run / "posterior.csv").set_index("key")
    measured = pd.read_csv(run / "evaluations.csv").set_index("key")
    assert set(model.index) == set(measured.index)
    finalists = set(pd.read_csv(run / "finalists.csv")["key"])
    by_model = model["val_loss"].sort_values()
    low = by_model.iloc[0]
    near = model.index[model["val_loss"] - model["val_loss_std"] <= low]
    assert by_model.index[0] in finalists
    assert finalists <= {*near, *by_model.index[:2]}
    assert len(set(model["val_loss_noise"])) == 1

    shown = command("show", run)
    assert "model: expected from all trainings" in shown
    assert f"val_loss of one training varies by ± {model['val_loss_noise'].iloc[0]:.2g}" in shown

    before = (run / "finalists.csv").read_bytes(), (run / "posterior.csv").read_bytes()
    (run / "finalists.csv").unlink()
    (run / "posterior.csv").unlink()
    command("resume", run)
    assert ((run / "finalists.csv").read_bytes(), (run / "posterior.csv").read_bytes()) == before

"""The experiment that makes a table of digits: values after each epoch, and those of `train`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from evonas.cli import app

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path) -> pd.DataFrame:
    out = Path(arguments[-1])
    result = CliRunner().invoke(app, ["run", *map(str, arguments[:-1]), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return pd.read_csv(out / "evaluations.csv").set_index("key")


@pytest.mark.slow
def test_the_table_has_each_epoch_and_ends_with_what_train_measures(tmp_path: Path) -> None:
    settings = [
        *("--workers", "1", "--set", "stop.evaluations=3", "--set", "strategy.population=3"),
        *("--set", "space.channels=2"),
    ]
    path = ROOT / "experiments" / "benchmarks" / "digits_table.yaml"
    made = run(path, *settings, "--set", "evaluator.epochs=2", tmp_path / "table")
    plain = path.read_text().replace("by_epoch.py:ByEpoch", "train").replace("epochs: 6, ", "")
    beside = tmp_path / "train.yaml"
    beside.write_text(f"{plain}\nbudget: {{epochs: 2}}\nfinalists: {{top: 0}}\n")
    trained = run(beside, *settings, tmp_path / "train")
    same = ["val_error", "val_loss", "val_top5_error", "params", "flops", "seed"]
    assert made[same].equals(trained[same])
    assert (made["val_loss_1"] != made["val_loss"]).any()
    assert made[["test_loss", "test_error"]].notna().all(axis=None)

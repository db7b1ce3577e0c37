"""The benchmark of recipes, in its smallest setting."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evonas.training.recipe import Recipe
from tests.helpers import ROOT


@pytest.fixture
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "benchmarks/recipes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_trains_what_is_missing_and_tells_how_far_recipes_are_from_plain(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = ["recipes.py", "--networks", "chain", "--epochs", "1", "--images", "120"]
    arguments += ["--out", str(tmp_path), "--seeds", "2", "--recipes", "plain"]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    first = (tmp_path / "trainings.csv").read_text()
    assert len(first.splitlines()) == 3
    monkeypatch.setattr(sys, "argv", [*arguments, "strong+all"])
    benchmark.main()
    assert (tmp_path / "trainings.csv").read_text().startswith(first)
    rows = pd.read_csv(tmp_path / "trainings.csv")
    assert rows["recipe"].tolist() == ["plain", "plain", "strong+all", "strong+all"]
    error = rows["test_error"].to_numpy()
    text = (tmp_path / "digits-120-1.md").read_text()
    assert text in capsys.readouterr().out
    assert f" {100 - 50 * (error[0] + error[1]):.2f} ± " in text
    assert f" {50 * (error[0] + error[1] - error[2] - error[3]):+.2f} ± " in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits-120-1.md", "trainings.csv"]


def test_its_recipes_are_valid_and_differ(benchmark: Any) -> None:
    recipes = {name: Recipe(**given) for name, given in benchmark.RECIPES.items()}
    assert len({recipe.model_dump_json() for recipe in recipes.values()}) == len(recipes)

"""Every experiment that ships is valid, and each on digits runs to its end, cut short."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from evonas import config, registry, yamlfile
from evonas.cli import app
from evonas.data.idx import STEMS, FashionMnist

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
QUICKSTART = EXPERIMENTS / "quickstart.yaml"
DIGITS = sorted(EXPERIMENTS.glob("digits_*.yaml"))
# Variants of what the quick tests, here and elsewhere, search with already.
VARIANTS = (
    *("digits_exhaustive", "digits_random", "digits_supernet_learned"),
    *("digits_darts_second", "digits_genetic_numbers", "digits_nsga3", "digits_pso_front"),
    *("digits_space_chain", "digits_space_channels", "digits_space_darts", "digits_space_macro"),
    *("digits_gdas", "digits_halving", "digits_local_search", "digits_spos_chain"),
    *("digits_aging", "digits_controller", "digits_warm_start"),
    *("digits_supernet_dropout", "digits_supernet_fair"),
)
SHORT = (
    *("budget={epochs: 1}", "stop={evaluations: 8}", "data.subset=300"),
    *("finalists={top: 1, seeds: 1, budget: {epochs: 1}}", "parallel.workers=1"),
)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_reports_its_result(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stem in STEMS:
        (tmp_path / stem).touch()
    monkeypatch.setattr(FashionMnist, "packaged", (str(tmp_path),))
    document = yamlfile.read(path)
    if "cifar" in document["data"]["name"]:
        pytest.skip("needs CIFAR-10")
    assert config.load(path).name == document["name"]
    head = path.read_text().split("name:")[0]
    assert "Shows:" in head
    assert "Result" in head


@pytest.mark.figures
@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in VARIANTS else [])
        for path in DIGITS
    ],
)
def test_each_strategy_searches_digits_and_draws_its_figures(path: Path, tmp_path: Path) -> None:
    document = yamlfile.read(path)
    strategy = document["strategy"]
    size = next((key for key in ("population", "particles", "initial") if key in strategy), None)
    short = [*SHORT, *([f"strategy.{size}=4"] if size else [])]
    supernet = document["evaluator"]["name"] == "supernet"
    if supernet:  # whose candidates are not trained
        short[0] = "evaluator.epochs=1"
    if strategy["name"] == "halving":
        short = ["budget.epochs=3", *short[1:], "strategy.strategy.population=6"]
    if "warm_start" in document:
        short.append("warm_start.pool=6")
    words = [word for setting in short for word in ("--set", setting)]
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["run", str(path), "--out", str(out), *words])
    assert done.exit_code == 0, done.output
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert len(evaluations) >= 8
    assert evaluations["status"].isin(["ok", "infeasible"]).all()
    assert (evaluations["status"] == "ok").all() or "constraints" in document
    assert pd.read_csv(out / "finalists.csv")["winner"].sum() == 1
    figures = {figure.stem for figure in (out / "figures").glob("*.png")}
    assert {"objectives", "ops", "cell", "cost"} <= figures
    assert ("swarm" in figures) == (strategy["name"] == "pso")
    assert ("predictor" in figures) == (strategy["name"] == "predictor")
    assert ("relaxation" in figures) == (strategy["name"] in ("darts", "gdas"))
    assert ("controller" in figures) == (strategy["name"] == "controller")
    assert ("supernet" in figures) == supernet


def test_every_space_has_an_experiment_on_digits() -> None:
    searched = {yamlfile.read(path)["space"]["name"] for path in (*DIGITS, QUICKSTART)}
    assert searched == set(registry.names("spaces")) - {"table"}


def test_every_strategy_has_an_experiment() -> None:
    searched = {yamlfile.read(path)["strategy"]["name"] for path in EXPERIMENTS.glob("*.yaml")}
    assert searched == set(registry.names("strategies")) - {"auto"}  # which picks one of them

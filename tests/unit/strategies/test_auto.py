"""`strategy: {name: auto}`: what it picks, and that the run keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evonas import config
from evonas.core import Objective, Params, Stop
from evonas.protocols import Setting
from evonas.strategies.aging import AgingParams
from evonas.strategies.auto import Auto, AutoParams
from evonas.strategies.nsga2 import NSGA2Params
from evonas.strategies.predictor import Predictor, PredictorParams
from genomes import NASBench201

EXPERIMENT = """
name: picked
space: {name: nasbench201, channels: 2, cells: 1}
data: {name: digits}
strategy: {name: auto, seeds: [3-3-3-1-3-2]}
evaluator: {name: train}
budget: {epochs: 1}
objectives: [{name: val_error}]
stop: {evaluations: 20}
"""


@pytest.mark.parametrize(
    ("objectives", "stop", "kind"),
    [
        (1, {"evaluations": 100}, PredictorParams),
        (3, {"generations": 10_000}, PredictorParams),
        (1, {"networks": 5000}, AgingParams),
        (2, {"evaluations": 5000}, NSGA2Params),
    ],
)
def test_it_picks_by_objectives_and_by_the_size_of_the_search(
    objectives: int, stop: dict[str, int], kind: type[Params]
) -> None:
    seeds = ("0-0-0-3-0-0",)
    chosen = AutoParams(seeds=seeds).chosen(objectives, Stop.model_validate(stop))
    assert isinstance(chosen, kind)
    assert dict(chosen)["seeds"] == seeds


def test_the_experiment_has_what_was_picked_so_a_longer_resume_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "picked.yaml"
    path.write_text(EXPERIMENT)
    loaded = config.load(path)
    assert loaded.strategy == PredictorParams(seeds=("3-3-3-1-3-2",))
    path.write_text(config.dump(loaded).replace("evaluations: 20", "evaluations: 5000"))
    assert isinstance(config.load(path).strategy, PredictorParams)


def test_in_a_benchmark_it_is_the_strategy_that_it_picks() -> None:
    setting = Setting(NASBench201(), (Objective(name="val_error"),), seed=1)
    chosen = Predictor(PredictorParams(), Setting(NASBench201(), setting.objectives, seed=1))
    assert Auto(AutoParams(), setting).ask() == chosen.ask()

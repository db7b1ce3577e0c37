"""Metrics, evaluators and strategies of one's own, by file and by entry point, as a user has them.

Those of the documentation are run through the command; a space and a data set beside them have
just the members that their protocols declare.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

import evonas
from evonas import plugins, registry
from evonas.cli import app
from evonas.testing import evaluators, strategies
from tests.e2e.test_own import CONTRACTS, EVALUATOR, METRICS, STRATEGY, forget

FILES = {
    "my_metrics.py": METRICS,
    "my_evaluator.py": EVALUATOR,
    "my_strategy.py": STRATEGY,
    "my_trainer.py": """
from evonas.evaluators.train import TrainEvaluator


class Mine(TrainEvaluator):
    pass
""",
    "my_parts.py": """
from typing import Literal

import numpy as np
from torch import nn

from evonas.core import Blueprint, Params
from evonas.data.dataset import DataParams, Images
from genomes import Gene, SearchSpace


class PairParams(Params):
    name: Literal["pair"] = "pair"
    channels: int = 4


class Pair(SearchSpace):
    def __init__(self):
        super().__init__("pair/v1", [Gene(name, ("conv1", "conv3")) for name in "ab"])


def pair(pick, *, in_channels, classes, channels):
    def conv(kernel):
        return lambda: nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    ops = {"conv1": conv(1), "conv3": conv(3)}
    layers = nn.Conv2d(in_channels, channels, 1), pick("a", ops), nn.ReLU(), pick("b", ops)
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(*layers, *ends)


PAIR = Blueprint(PairParams, Pair, pair)


class StripesParams(DataParams):
    name: Literal["stripes"] = "stripes"
    count: int = 60


class Stripes:
    Params = StripesParams
    flippable = False
    statistics = None

    def __init__(self, params):
        self.count = params.count

    def check(self):
        pass

    def load(self):
        labels = np.arange(self.count) % 2
        images = np.zeros((self.count, 1, 6, 6), np.uint8)
        images[labels == 1, :, ::2] = 200
        return Images(images, labels.astype(np.int64)), None
""",
}
ENTRY_POINTS = """
[evonas.strategies]
walk = my_strategy:Walk
[evonas.evaluators]
gradient = my_evaluator:Gradient
[evonas.metrics]
depth = my_metrics:depth
overconfidence = my_metrics:overconfidence
[evonas.spaces]
pair = my_parts:PAIR
[evonas.data]
stripes = my_parts:Stripes
"""
SCORED: dict[str, Any] = {
    "name": "scored",
    "space": {"name": "nasbench201", "channels": 2, "cells": 1},
    "data": {"name": "digits", "subset": 100},
    "strategy": {"name": "my_strategy.py:Walk", "steps": 3},
    "evaluator": {"name": "my_evaluator.py:Gradient", "images": 8},
    "objectives": [{"name": "gradient", "goal": "max"}, {"name": "weights"}],
    "stop": {"generations": 2},
    "parallel": {"workers": 1},
}
TRAINED: dict[str, Any] = {
    **SCORED,
    "name": "trained",
    "evaluator": {"name": "train"},
    "budget": {"steps": 2},
    "metrics": ["my_metrics.py:depth", "my_metrics.py:overconfidence"],
    "objectives": [{"name": "val_error"}, {"name": "overconfidence"}, {"name": "depth"}],
    "finalists": {"top": 1, "seeds": 1},
}
TABLES = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget(monkeypatch)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def written(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / f"{settings['name']}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def ran(*words: str | Path) -> str:
    done = command(*words)
    assert done.exit_code == 0, done.output
    return done.output


def test_an_evaluator_and_a_strategy_in_files_are_run_and_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = written(folder, SCORED)
    ran("validate", experiment)
    assert not any(name.startswith("evonas_plugin_") for name in sys.modules)
    whole, cut, more = folder / "whole", folder / "cut", ("--set", "stop.generations=3")
    ran("run", experiment, "--out", whole, *more)
    ran("run", experiment, "--out", cut)
    forget(monkeypatch)
    refused = command("resume", cut, *more)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 2)  # what it does, and why not
    assert "add --plugin FILE, with the same content" in refused.stderr
    files = ("my_strategy.py", "my_evaluator.py")
    ran("resume", cut, *more, *(word for file in files for word in ("--plugin", folder / file)))
    for table in TABLES:
        assert (cut / table).read_text() == (whole / table).read_text()
    evaluations = pd.read_csv(whole / "evaluations.csv")
    assert (evaluations["status"] == "ok").all()
    assert (evaluations["gradient"] > 0).all()
    forget(monkeypatch)
    for words in (("show", cut), ("plot", cut)):
        ran(*words)
    assert not any(name.startswith("evonas_plugin_") for name in sys.modules)


@pytest.mark.usefixtures("no_workers")
def test_metrics_in_a_file_are_objectives_and_constraints(folder: Path) -> None:
    bounded = [{"name": "depth", "max": 13}, {"name": "overconfidence", "max": -1}]
    experiment = written(folder, {**TRAINED, "constraints": bounded, "stop": {"generations": 3}})
    out = folder / "run"
    ran("run", experiment, "--out", out)
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert (evaluations["status"] == "infeasible").all()
    deep = evaluations["depth"] > 13
    assert 0 < deep.sum() < len(deep)
    assert evaluations.loc[deep, "val_error"].isna().all(), "it was trained all the same"
    assert evaluations.loc[~deep, "val_error"].notna().all()
    assert (evaluations.loc[~deep, "overconfidence"] > -1).all()


@pytest.mark.usefixtures("no_workers")
def test_an_evaluator_in_a_file_may_train_finalists(folder: Path) -> None:
    evaluator = {"name": "my_trainer.py:Mine"}
    out = folder / "run"
    ran("run", written(folder, {**TRAINED, "evaluator": evaluator}), "--out", out)
    finalists = pd.read_csv(out / "finalists.csv")
    assert finalists["winner"].tolist() == [True]
    assert {"depth", "overconfidence", "test_error"} <= set(finalists)


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files as modules of a distribution with entry points, on the path."""
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(folder)
    registry.table.cache_clear()
    yield folder
    registry.table.cache_clear()
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({**TRAINED, "metrics": ["depth", "overconfidence"]}, marks=pytest.mark.slow),
        {**SCORED, "evaluator": {"name": "gradient", "images": 4}},
    ],
    ids=["metrics", "evaluator"],
)
def test_parts_with_entry_points_are_run_like_those_of_evonas(
    installed: Path, settings: dict[str, Any]
) -> None:
    parts = {
        "space": {"name": "pair"},
        "data": {"name": "stripes", "count": 50},
        "strategy": {"name": "walk", "steps": 2},
    }
    out = installed / "run"
    ran("run", written(installed, {**settings, **parts}), "--out", out)
    ran("resume", out, "--set", "stop.generations=3")
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert len(evaluations) == 6
    assert (evaluations["status"] == "ok").all()
    assert {goal["name"] for goal in settings["objectives"]} <= set(evaluations)
    ran("show", out)


def test_parts_with_entry_points_are_listed_in_a_process_of_its_own(installed: Path) -> None:
    here = Path(evonas.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "evonas", "list"],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{installed}{os.pathsep}{here}",
        },
    )
    assert all(name in done.stdout for name in ("walk", "gradient", "pair", "stripes", "depth"))


def test_what_a_part_with_an_entry_point_lacks_is_said(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed / "my_strategy.py").write_text("class Walk:\n    pass\n")
    refused = command("validate", written(installed, {**SCORED, "strategy": {"name": "walk"}}))
    assert refused.exit_code == 2
    assert "walk has no Params, needs; evonas.protocols.StrategyClass says" in refused.stderr


BROKEN = """
from evonas.core import Evaluation, Metric, Params


class P(Params):
    count: int = 1


class Four:
    metrics = (Metric("ones"),)
    fingerprint = ""

    def cheap(self, genome):
        return {}

    def evaluate(self, candidate, seed):
        return Evaluation(candidate, {"ones": float(candidate.genome.genes.count(1))})


class Declared(Four):
    Params = P
    needs = frozenset()

    def __init__(self, params, setting):
        pass

    @staticmethod
    def metrics_of(params):
        return (Metric("ones"),)


class Blurred(Declared):
    fingerprint = property()


class Other(Declared):
    metrics = (Metric("twos"),)


class Named(Declared):
    metrics = (Metric("ones"), Metric("seed"))

    @staticmethod
    def metrics_of(params):
        return Named.metrics


class Twice(Named):
    metrics = (Metric("ones"), Metric("ones"))


def status(network):
    return 1.0


def weather(network, weather):
    return 1.0


def failing(network):
    raise ValueError("no such layer")
"""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"evaluator": {"name": "b.py:Four"}}, "b.py:Four has no Params, needs, metrics_of; "),
        ({"evaluator": {"name": "b.py:Blurred"}}, "b.py:Blurred has no fingerprint; "),
        ({"evaluator": {"name": "b.py:Other"}}, "b.py:Other declares ones, which is not in its"),
        ({"evaluator": {"name": "b.py:Named"}}, "evaluator.name: seed is a column"),
        ({"evaluator": {"name": "b.py:Twice"}}, "evaluator.name: ones is named twice"),
        ({"constraints": [{"name": "twos", "max": 1}]}, "constraints.0.name: unknown metric"),
        ({"evaluator": {"name": "b.py:Declared", "cuont": 2}}, "cuont"),
        ({"evaluator": {"name": "b.py:Absent"}}, "b.py has no function Absent"),
        ({"strategy": {"name": "b.py:Declared"}}, "b.py:Declared has no ask, tell, state_dict"),
        ({"objectives": [{"name": "twos"}]}, "unknown metric 'twos'"),
        ({"metrics": ["my_metrics.py:depth"]}, "builds no networks"),
    ],
)
def test_what_a_part_lacks_is_said_and_no_folder_is_left(
    folder: Path, settings: dict[str, Any], told: str
) -> None:
    (folder / "b.py").write_text(BROKEN)
    plain = {key: value for key, value in SCORED.items() if key != "data"}
    plain |= {"evaluator": {"name": "b.py:Declared"}, "objectives": [{"name": "ones"}]}
    refused = command("run", written(folder, {**plain, **settings}), "--out", folder / "run")
    assert refused.exit_code == 2, refused.output
    assert told in refused.stderr
    assert not (folder / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("b.py:weather", "weather"),
        ("b.py:status", "metrics.0: status is a column that the tables have already"),
        ("b.py:absent", "b.py has no function absent"),
        ("depth", "unknown metric 'depth'"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said(folder: Path, metric: str, told: str) -> None:
    (folder / "b.py").write_text(BROKEN)
    settings = {**TRAINED, "metrics": [metric], "objectives": [{"name": "val_error"}]}
    refused = command("run", written(folder, settings), "--out", folder / "run")
    assert (refused.exit_code, told in refused.stderr) == (2, True), refused.output


def test_a_metric_that_its_evaluator_does_not_compute_is_refused(folder: Path) -> None:
    settings = {**SCORED, "metrics": ["my_metrics.py:depth"]}
    refused = command("run", written(folder, settings), "--out", folder / "run")
    assert refused.exit_code == 2
    assert "my_evaluator.py:Gradient does not compute metrics of your own" in refused.stderr


@pytest.mark.usefixtures("no_workers")
def test_a_metric_that_fails_is_a_crash_of_the_network(folder: Path) -> None:
    (folder / "b.py").write_text(BROKEN)
    settings = {**TRAINED, "metrics": ["b.py:failing"], "objectives": [{"name": "val_error"}]}
    out = folder / "run"
    failed = command("run", written(folder, settings), "--out", out)
    assert failed.exit_code == 3, failed.output
    assert "the 6 evaluations all failed, 6 of them: crashed: ValueError" in failed.stderr
    assert (pd.read_csv(out / "evaluations.csv")["status"] == "crashed").all()
    assert "crashed: ValueError: no such layer" in (out / "log.txt").read_text()


def test_the_documentations_contracts_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.syspath_prepend(folder)
    for name in ("my_evaluator", "my_strategy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    names: dict[str, Any] = {}
    exec(CONTRACTS, names)
    for contract in strategies.CONTRACTS:
        names["test_walk_keeps_its_promises"](contract)
    for kept in evaluators.CONTRACTS:
        names["test_gradient_keeps_its_promises"](kept, tmp_path_factory.mktemp("run"))
    for name in ("my_evaluator", "my_strategy"):
        monkeypatch.delitem(sys.modules, name)


def test_a_file_is_found_in_workers_by_what_it_was_hashed_as(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a worker: nothing of the driver's is imported yet, but for what it permits."""
    file = str(folder / "my_strategy.py")
    plugins.allow([file])
    sent = pickle.dumps(plugins.load(f"{file}:WalkParams")(steps=3))
    files = plugins.all_allowed()
    forget(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(sent)
    plugins.allow_in_worker(files)
    assert pickle.loads(sent).steps == 3

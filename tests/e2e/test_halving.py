"""Halving on real images: what goes on, what it costs, and what a kill or a lost file changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import LocalCluster
from typer.testing import CliRunner

from evonas.cli import app
from tests.e2e.test_kill import TABLES, Search
from tests.helpers.here import instead_of_workers

EXPERIMENT = """
name: halved
seed: 3
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits, subset: 300}
strategy: {name: halving, factor: 2, strategy: STRATEGY}
evaluator: {name: train, recipe: {lr: 0.1, batch_size: 64, pad_crop: 1}}
budget: {epochs: 4}
objectives: [{name: val_error}, {name: params}]
stop: {evaluations: 24}
finalists: {top: 1, seeds: 1}
"""
STRATEGIES = {
    "genetic": "{name: genetic, population: 6, elites: 2}",
    "aging": "{name: aging, population: 6, lag: 3}",
}
RUNGS = ["epochs=1/4", "epochs=2/4", "epochs=4"]


def experiment(strategy: str) -> str:
    return EXPERIMENT.replace("STRATEGY", STRATEGIES[strategy])


def run(folder: Path, strategy: str, *settings: str) -> Path:
    path = folder / "halved.yaml"
    path.write_text(experiment(strategy))
    done(["run", str(path), "--out", str(folder / "run"), *sets(settings)])
    return folder / "run"


def sets(settings: tuple[str, ...]) -> list[str]:
    return [part for each in settings for part in ("--set", each)]


def done(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output


def held(run_dir: Path) -> dict[str, bytes]:
    return {name: (run_dir / name).read_bytes() for name in TABLES}


def searched(run_dir: Path) -> pd.DataFrame:
    timings = pd.read_csv(run_dir / "timings.csv")
    return timings[timings["phase"] == "search"]


@pytest.fixture(scope="module", params=["genetic", pytest.param("aging", marks=pytest.mark.slow)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go, in this process."""
    with instead_of_workers():
        return run(tmp_path_factory.mktemp(request.param), request.param)


def strategy_of(run_dir: Path) -> str:
    return next(name for name in STRATEGIES if name in run_dir.parent.name)


def test_some_go_on_and_cost_only_what_they_add(whole: Path) -> None:
    rows = pd.read_csv(whole / "evaluations.csv")
    counts = rows.drop_duplicates(["key", "budget"])["budget"].value_counts()
    assert set(counts.index) == set(RUNGS)
    assert counts[RUNGS[0]] > counts[RUNGS[1]] > counts[RUNGS[2]]
    timings = searched(whole)
    added = timings["budget"].map({RUNGS[0]: 1, RUNGS[1]: 1, RUNGS[2]: 2})
    assert (timings["epochs"] == added).all()
    assert set(rows.loc[rows["budget"] != RUNGS[0], "origin"]) == {"promoted"}
    assert set(pd.read_csv(whole / "front.csv")["budget"]) == {RUNGS[2]}
    assert not list(whole.rglob("*.state"))


@pytest.mark.usefixtures("no_workers")
def test_a_search_resumed_twice_is_the_one_in_one_go(whole: Path, tmp_path: Path) -> None:
    """The states are deleted when a search ends, so what goes on then begins anew."""
    cut = run(tmp_path, strategy_of(whole), "stop.evaluations=7")
    assert not list(cut.rglob("*.state"))
    for evaluations in (13, 24):
        done(["resume", str(cut), "--set", f"stop.evaluations={evaluations}"])
    assert held(cut) == held(whole)
    assert searched(cut)["epochs"].sum() >= searched(whole)["epochs"].sum()


@pytest.mark.slow
def test_a_killed_search_of_two_workers_ends_with_the_tables_of_one(
    whole: Path, tmp_path: Path
) -> None:
    search = Search(tmp_path, 2, experiment(strategy_of(whole)))
    for place in ("after_journal_line:9", "after_evaluations:2"):
        assert search.start(place).wait(timeout=120) == -9, (tmp_path / "stderr").read_text()
    states = list(search.run_dir.rglob("*.state"))
    assert states
    states[0].unlink()
    assert search.start().wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
    assert held(search.run_dir) == held(whole)
    assert not list(search.run_dir.rglob("*.state"))


@pytest.mark.slow
def test_a_search_on_a_cluster_has_the_same_tables_and_leaves_no_states(
    whole: Path, tmp_path: Path
) -> None:
    """There, what goes on begins anew."""
    options: dict[str, Any] = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    path = tmp_path / "halved.yaml"
    path.write_text(experiment(strategy_of(whole)))
    with LocalCluster(n_workers=2, threads_per_worker=1, silence_logs=50, **options) as dask:
        command = ["run", str(path), "--out", str(tmp_path / "run")]
        done([*command, "--address", dask.scheduler_address])
    assert held(tmp_path / "run") == held(whole)
    timings = searched(tmp_path / "run")
    assert (
        timings["epochs"] == timings["budget"].map(dict(zip(RUNGS, (1, 2, 4), strict=True)))
    ).all()

"""Searches that end by the clock, or once nothing is gained, on real images."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from evonas import config
from evonas.cli import app
from evonas.core import UserError
from evonas.jobs.estimate import estimate

EXPERIMENT = """
name: ended
space: {name: nasbench201, channels: 2, cells: 1}
data: {name: digits}
strategy: {name: genetic, population: 4, elites: 1}
evaluator: {name: train, recipe: {recalibrate: 0}}
budget: {steps: 1}
objectives: [{name: val_error}]
stop: {STOP}
finalists: {top: 1, seeds: 1}
parallel: {workers: 1}
"""


def command(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def begun(folder: Path, stop: str) -> Path:
    path = folder / "ended.yaml"
    path.write_text(EXPERIMENT.replace("{STOP}", stop))
    return path


def tables(run: Path) -> dict[str, bytes]:
    names = ("evaluations", "generations", "fronts", "front")
    return {name: (run / f"{name}.csv").read_bytes() for name in names}


def test_a_limit_in_seconds_counts_all_resumes_and_ends_where_the_journal_says(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    command("run", begun(tmp_path, "{seconds: 0.5}"), "--out", run)
    noted = json.loads((run / "environment.json").read_text())
    assert (noted["deterministic"], noted["end"]) == (True, {"deterministic": False})
    assert pd.read_csv(run / "evaluations.csv")["deterministic"].all()
    shown = command("show", run)
    assert "where the search ended depends on the clock" in shown
    assert "not reproducible" not in shown

    ended = tables(run)
    arrived = [json.loads(line)["arrived"] for line in (run / "journal").read_text().splitlines()]
    assert arrived == sorted(arrived)
    before_last = len(pd.read_csv(run / "evaluations.csv")) - 4
    assert before_last == 0 or arrived[before_last - 1] < 0.5
    command("resume", run)
    shutil.rmtree(run / "checkpoints")
    command("resume", run)  # made anew from the journal
    assert tables(run) == ended

    command("resume", run, "--set", f"stop.seconds={arrived[-1] + 0.3}")
    assert tables(run)["evaluations"].startswith(ended["evaluations"])
    later = [json.loads(line)["arrived"] for line in (run / "journal").read_text().splitlines()]
    assert len(later) > len(arrived)
    assert later[len(arrived)] >= arrived[-1]


@pytest.mark.usefixtures("no_workers")
def test_hours_are_divided_among_search_and_finals_and_more_of_them_anew(tmp_path: Path) -> None:
    path, run = begun(tmp_path, "{generations: 2}"), tmp_path / "run"
    text = path.read_text().replace("budget: {steps: 1}", "budget: {steps: 1}\nhours: 0.002")
    path.write_text(text.replace("top: 1, seeds: 1", "top: 2, seeds: 2"))
    command("run", path, "--out", run)
    settings = config.load_run(run)
    assert (settings.hours, settings.stop.seconds, settings.stop.generations) == (0.002, 4.32, 2)
    planned = settings.finalists.budget
    assert planned is not None
    assert planned.seconds is not None
    ended = tables(run)
    command("resume", run)
    assert config.load_run(run).finalists.budget == planned
    assert len(pd.read_csv(run / "finalists.csv")) == 2
    assert (run / "finalists.csv").read_text().count("True") == 1
    assert tables(run) == ended

    command("resume", run, "--set", "hours=0.004", "--set", "stop.generations=3")
    later = config.load_run(run)
    assert (later.hours, later.stop.generations) == (0.004, 3)
    assert tables(run)["evaluations"].startswith(ended["evaluations"])
    assert later.finalists.budget is not None
    timings = pd.read_csv(run / "timings.csv")
    finals = timings[timings["phase"] == "finalists"]
    assert len(finals) == later.finalists.top * later.finalists.seeds
    assert set(finals["budget"]) == {later.finalists.budget.text}


TABLE = """
name: stagnant
space: {name: table, genes: {a: [0, 1, 2, 3], b: [0, 1, 2, 3], c: [0, 1, 2, 3]}}
evaluator: {name: tabular, path: table.csv, metrics: {loss: loss}}
strategy: {name: STRATEGY}
objectives: [{name: loss, reference: 64}]
stop: {stagnation: 2, generations: 60}
"""


@pytest.mark.parametrize("strategy", ["genetic, population: 4", "aging, population: 4, lag: 3"])
def test_a_search_ends_after_generations_without_a_gain_also_if_it_is_resumed(
    tmp_path: Path, strategy: str
) -> None:
    rows = [f"{a}{b}{c},{a * 16 + b * 4 + c}" for a in range(4) for b in range(4) for c in range(4)]
    (tmp_path / "table.csv").write_text("\n".join(["genome,loss", *rows]) + "\n")
    path, run = tmp_path / "stagnant.yaml", tmp_path / "run"
    path.write_text(TABLE.replace("STRATEGY", strategy))
    command("run", path, "--out", run)
    volumes = pd.read_csv(run / "generations.csv", dtype=str)["hypervolume"].tolist()
    assert 4 <= len(volumes) < 60
    gains = [a != b for a, b in pairwise(volumes)]
    assert gains[-2:] == [False, False]
    assert all(any(gains[i : i + 2]) for i in range(len(gains) - 2))

    for generations in range(1, len(volumes)):
        halfway = tmp_path / f"{generations}"
        command("run", path, "--out", halfway, "--set", f"stop.generations={generations}")
        command("resume", halfway, "--set", "stop.generations=60")
        assert tables(halfway) == tables(run)


@pytest.mark.slow
def test_an_estimate_knows_the_clock_and_asks_for_a_limit_that_it_can_foresee(
    tmp_path: Path,
) -> None:
    assert estimate(config.load(begun(tmp_path, "{seconds: 0.001}"))).trainings == 5
    with pytest.raises(UserError, match=r"stop\.stagnation.*another limit"):
        estimate(config.load(begun(tmp_path, "{stagnation: 3}")))

"""Whole runs that share a cache: nothing trained twice, and the tables of runs without one."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from evonas import config
from evonas.cli import app
from evonas.core import Status
from evonas.evaluators.cached import Cached, create
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from tests.helpers import ROOT
from tests.helpers.caching import CANDIDATE, Kept
from tests.helpers.here import instead_of_workers

TABLES = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv", "finalists.csv")
EXPERIMENT = """
name: shared
seed: 5
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits}
strategy: {name: genetic, population: 6, elites: 2}
evaluator: {name: train}
budget: {steps: 10}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 2}
finalists: {top: 1, seeds: 2, budget: {steps: 15}}
parallel: {workers: 1, device: cpu}
"""


def evonas(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the experiment, and the run folder `plain` of a run without a cache."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "plain.yaml").write_text(EXPERIMENT)
    (folder / "cached.yaml").write_text(f"{EXPERIMENT}cache: cache\n")
    with instead_of_workers():
        evonas("run", folder / "plain.yaml", "--out", folder / "plain")
    return folder


def assert_as_plain(folder: Path, run: str, plain: str = "plain") -> None:
    """The run's tables and weights are, byte for byte, those of the run without a cache."""
    held = [path.name for path in (folder / plain / "weights").iterdir()]
    assert sorted(path.name for path in (folder / run / "weights").iterdir()) == sorted(held)
    for name in (*TABLES, *(f"weights/{name}" for name in held)):
        assert (folder / run / name).read_bytes() == (folder / plain / name).read_bytes(), name


def timings(folder: Path, run: str) -> pd.DataFrame:
    return pd.read_csv(folder / run / "timings.csv")


def test_a_second_run_trains_nothing_and_writes_the_tables_of_one_without_a_cache(
    folder: Path,
) -> None:
    first = evonas("run", folder / "cached.yaml", "--out", folder / "first")
    with instead_of_workers():
        shown = evonas("run", folder / "cached.yaml", "--out", folder / "second")
    assert list((folder / "cache").glob("*.json"))
    trained, found = timings(folder, "first"), timings(folder, "second")
    assert not trained["from_cache"].any()
    assert found["from_cache"].all()
    assert set(found["phase"]) == {"search", "finalists"}
    assert found["training_seconds"].eq(0).all()
    same = ["phase", "generation", "index", "key", "seed", "budget", "status", "epochs", "steps"]
    assert found[same].equals(trained[same])
    for run in ("first", "second"):
        assert_as_plain(folder, run)
    assert f"; {len(trained)} trainings" in first
    assert "from the cache" not in first
    assert "; 0 trainings" in shown
    assert f"; {len(trained)} more trainings from the cache" in shown


@pytest.mark.slow
def test_a_resume_may_set_a_cache_and_outlives_it(folder: Path) -> None:
    out, cache = folder / "resumed", folder / "other"
    one = ("--set", "stop.generations=1", "--set", "finalists.top=0")
    evonas("run", folder / "plain.yaml", "--out", out, *one)
    evonas("run", folder / "cached.yaml", "--set", f"cache={cache}", "--out", folder / "filled")
    for record in cache.glob("*.json"):  # nor can one be written in its place
        record.unlink()
        record.mkdir()
    further = (
        "--set",
        "stop.generations=2",
        "--set",
        "finalists={top: 1, seeds: 2, budget: {steps: 15}}",
    )
    evonas("resume", out, "--set", f"cache={cache}", *further)
    assert config.load(out / "config.yaml").cache == str(cache)
    assert_as_plain(folder, "resumed")
    told = (out / "log.txt").read_text()
    assert told.count("the cache is no longer used: ") == 1
    assert "is a folder, not a plain file" in told


@pytest.mark.usefixtures("no_workers")
def test_a_run_whose_cache_is_that_of_version_0_1_0_goes_on_with_a_folder(folder: Path) -> None:
    out, old = folder / "older", folder / "trainings.sqlite"
    one = ("--set", "stop.generations=1", "--set", "finalists.top=0")
    evonas("run", folder / "plain.yaml", "--out", out, *one)
    with sqlite3.connect(old) as db:
        db.execute("CREATE TABLE trainings (key TEXT PRIMARY KEY)")
    db.close()
    config_file = out / "config.yaml"
    config_file.write_text(f"{config_file.read_text()}cache: {old}\n")
    refused = CliRunner().invoke(app, ["resume", str(out)])
    assert refused.exit_code == 2
    assert f"cache: {old} is an SQLite file, a cache of evonas 0.1.0" in refused.stderr
    assert "name a new folder" in refused.stderr
    evonas("resume", out, "--set", f"cache={folder / 'newer'}")


def test_a_wait_for_another_process_is_no_timeout(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    inner = Kept(ours)
    create(tmp_path / "cache")
    cached = Cached(inner, tmp_path / "cache", ours)
    workers = Workers(ours / "scratch", 1)
    dispatcher = InWorkers(cached, workers, timeout=1.0)
    command = [sys.executable, "-m", "tests.helpers.caching", str(tmp_path / "cache"), str(theirs)]
    with subprocess.Popen([*command, "1", "5"], cwd=ROOT) as other:
        while not Kept(theirs).trained:
            assert other.poll() is None
        dispatcher.submit(CANDIDATE, 0)
        found = dispatcher.next_done().result()
        workers.close()
    assert other.returncode == 0
    assert found.status is Status.OK
    assert found.cost.from_cache
    assert found.cost.seconds > 1.0
    assert inner.trained == []


@pytest.mark.slow
def test_two_runs_of_a_seed_at_once_train_nothing_twice(folder: Path) -> None:
    """Whatever is in hand in one is waited for in the other, so not even that is."""
    longer = EXPERIMENT.replace("steps: 10", "steps: 80")  # than their starts are apart
    (folder / "longer.yaml").write_text(longer)
    (folder / "at_once.yaml").write_text(f"{longer}cache: at_once\n")
    evonas("run", folder / "longer.yaml", "--out", folder / "longer")
    names = ("at_once_1", "at_once_2")
    command = [sys.executable, "-m", "evonas", "run", folder / "at_once.yaml", "--workers", "2"]
    runs = [
        subprocess.Popen(
            [*command, "--out", folder / name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{name}.stderr").open("wb"),
        )
        for name in names
    ]
    for run, name in zip(runs, names, strict=True):
        assert run.wait(timeout=300) == 0, (folder / f"{name}.stderr").read_text()
    each = [timings(folder, name) for name in names]
    ends = [(rows["started"] + rows["seconds"]).max() for rows in each]
    assert max(rows["started"].min() for rows in each) < min(ends), "they were not at once"
    rows = pd.concat(each)
    trained = rows[~rows["from_cache"]]
    training = ["key", "seed", "budget"]
    assert len(trained) == len(rows[training].drop_duplicates())
    assert len(rows) == 2 * len(trained)
    for name in names:
        assert_as_plain(folder, name, "longer")
        log = (folder / name / "log.txt").read_text() + (folder / f"{name}.stderr").read_text()
        assert "locked" not in log
        assert "cache" not in log

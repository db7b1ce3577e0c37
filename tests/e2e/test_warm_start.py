"""A search that begins with the best of a pool, on images and on a table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import rankdata
from typer.testing import CliRunner, Result

from evonas import config, registry
from evonas.cli import app
from evonas.core import UserError
from evonas.experiment import can_be_warm_started
from tests.e2e.test_kill import EXPERIMENT, Search, kill_at_random

TRAINED = EXPERIMENT.replace(
    "evaluator:",
    "warm_start: {by: [nwot, synflow, -params], pool: 9, share: 0.7}\nevaluator:",
).replace("generations: 6", "generations: 2")
SCORED = """
name: scored
seed: 1
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits, subset: 300}
strategy: {name: genetic, population: 6}
evaluator: {name: proxy, batch_size: 32}
objectives: [{name: synflow, goal: max}, {name: flops}]
constraints: [{name: nwot, min: 100}]
stop: {generations: 2}
parallel: {workers: 1}
"""
LOOKED_UP = {
    "name": "looked",
    "seed": 5,
    "space": {"name": "table", "genes": {f"g{i}": ["a", "b", "c"] for i in range(5)}},
    "strategy": {"name": "aging", "population": 10, "lag": 2},
    "warm_start": {"by": ["good", "-size"], "pool": 40, "share": 0.5},
    "evaluator": {
        "name": "tabular",
        "path": "table.csv",
        "metrics": {"loss": "loss", "good": "good", "size": "size"},
        "cheap": ["good", "size"],
    },
    "objectives": [{"name": "loss"}],
    "stop": {"evaluations": 30},
}
TABLES = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv", "finalists.csv")


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def left(folder: Path) -> dict[str, bytes]:
    tables = (*TABLES, "warm_start.csv")
    return {name: (folder / name).read_bytes() for name in tables if (folder / name).exists()}


def founders(folder: Path) -> pd.DataFrame:
    rows = pd.read_csv(folder / "evaluations.csv")
    return rows[rows["generation"] == 0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = Search(tmp_path_factory.mktemp("warm"), workers=2, experiment=TRAINED)
    assert search.start().wait(timeout=300) == 0, (search.folder / "stderr").read_text()
    return search


def test_a_search_begins_with_the_best_of_its_pool(undisturbed: Search) -> None:
    pool = pd.read_csv(undisturbed.run_dir / "warm_start.csv")
    assert len(pool) == len(set(pool["key"])) == 9
    assert (pool["status"] == "ok").all()
    values = np.column_stack([-pool["nwot"], -pool["synflow"], pool["params"]])
    assert pool["mean_rank"].tolist() == rankdata(values, axis=0).mean(axis=1).tolist()
    chosen = pool[pool["chosen"]].sort_values("mean_rank", kind="stable")
    assert len(chosen) == 4, "0.7 of 6"
    assert chosen["mean_rank"].max() <= pool[~pool["chosen"]]["mean_rank"].min()
    first = founders(undisturbed.run_dir)
    assert first["origin"].tolist() == ["warm_start"] * 4 + ["sampled"] * 2
    assert first["key"].tolist()[:4] == chosen["key"].tolist()


def test_the_pool_is_not_trained_and_no_column_of_the_search(undisturbed: Search) -> None:
    budgets = [budget for _, _, budget in undisturbed.questions()]
    assert budgets.count("") == 9
    rows = pd.read_csv(undisturbed.run_dir / "evaluations.csv")
    assert not {"nwot", "synflow"} & set(rows.columns)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_killed_in_its_pool_and_after_it_ends_as_one_that_was_not(
    undisturbed: Search, tmp_path: Path, workers: int
) -> None:
    search = Search(tmp_path, workers, TRAINED)
    for moment in ("in_journal_line:4", "after_journal_line:5", "before_checkpoint:1"):
        assert search.start(moment).wait(timeout=120) == -9, (tmp_path / "stderr").read_text()
        if moment.endswith("5"):
            assert 4 < search.journaled() < 12, "this was to be within the pool, or just after it"
    assert search.start().wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
    assert left(search.run_dir) == left(undisturbed.run_dir)
    questions = search.questions()
    assert len(questions) == len(set(questions)), "something was journaled twice"
    assert set(questions) == set(undisturbed.questions())


@pytest.mark.slow
def test_a_search_killed_at_random_ends_as_one_that_was_not(
    undisturbed: Search, tmp_path: Path
) -> None:
    import random

    search, rng = Search(tmp_path, 2, TRAINED), random.Random(0)
    while kill_at_random(search, rng):
        pass
    assert search.start().wait(timeout=300) == 0
    assert left(search.run_dir) == left(undisturbed.run_dir)


@pytest.mark.slow
def test_on_a_cluster_the_pool_is_ranked_as_here(undisturbed: Search, tmp_path: Path) -> None:
    from distributed import LocalCluster

    (tmp_path / "there.yaml").write_text(TRAINED)
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with LocalCluster(n_workers=1, threads_per_worker=2, silence_logs=50, **options) as dask:  # type: ignore[no-untyped-call]  # Dask has no types
        words = ("--out", tmp_path / "run", "--address", dask.scheduler_address)
        done = evonas("run", tmp_path / "there.yaml", *words)
    assert done.exit_code == 0, done.output
    assert left(tmp_path / "run") == left(undisturbed.run_dir)


@pytest.mark.slow
def test_resumed_with_more_generations_it_goes_on_as_if_it_had_had_them(
    undisturbed: Search, tmp_path: Path
) -> None:
    (tmp_path / "short.yaml").write_text(TRAINED)
    out = tmp_path / "run"
    once = ("--set", "stop.generations=1", "--workers", "1")
    assert evonas("run", tmp_path / "short.yaml", "--out", out, *once).exit_code == 0
    done = evonas("resume", out, "--set", "stop.generations=2", "--workers", "1")
    assert done.exit_code == 0, done.output
    assert left(out) == left(undisturbed.run_dir)


def test_scored_by_proxies_alone_a_search_trains_nothing(tmp_path: Path) -> None:
    file, out = tmp_path / "scored.yaml", tmp_path / "run"
    file.write_text(SCORED)
    done = evonas("run", file, "--out", out)
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(out / "evaluations.csv")
    measured = [*rows.columns[rows.columns.get_loc("deterministic") + 1 :]]
    assert measured == ["nwot", "synflow", "params", "flops"]
    assert not (out / "finalists.csv").exists()
    assert not list((out / "weights").glob("*"))
    ok = rows[rows["status"] == "ok"]
    assert len(ok) > 6
    assert (ok["nwot"] > 100).all()
    told = evonas("estimate", file)
    assert told.exit_code == 0, told.output


@pytest.mark.slow
def test_a_training_measures_its_proxies_as_the_evaluator_of_proxies_does(tmp_path: Path) -> None:
    trained = SCORED.replace("{name: proxy, batch_size: 32}", "{name: train}")
    trained += "budget: {steps: 2}\nfinalists: {top: 0}\n"
    scored = SCORED.replace(", batch_size: 32", "")
    for name, text in (("trained", trained), ("scored", scored)):
        (tmp_path / f"{name}.yaml").write_text(text)
        done = evonas("run", tmp_path / f"{name}.yaml", "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    one, other = (
        pd.read_csv(tmp_path / name / "evaluations.csv") for name in ("trained", "scored")
    )
    columns = ["key", "status", "nwot", "synflow", "params"]
    assert one[columns].equals(other[columns])


def test_a_bound_on_a_proxy_spares_the_training(tmp_path: Path) -> None:
    text = SCORED.replace("{name: proxy, batch_size: 32}", "{name: train}")
    text = text.replace("{name: nwot, min: 100}", "{name: nwot, min: 360}")
    text = text.replace("[{name: synflow, goal: max}, {name: flops}]", "[{name: val_error}]")
    text += "budget: {steps: 2}\nfinalists: {top: 1, seeds: 1}\n"
    (tmp_path / "bound.yaml").write_text(text)
    done = evonas("run", tmp_path / "bound.yaml", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(tmp_path / "run" / "evaluations.csv")
    below = rows["nwot"] < 360
    assert 0 < below.sum() < len(rows)
    assert (rows["status"] == np.where(below, "infeasible", "ok")).all()
    assert rows["val_error"].isna().equals(below)
    generations = pd.read_csv(tmp_path / "run" / "generations.csv")
    assert generations["trained"].sum() == (~below).sum()
    assert len(pd.read_csv(tmp_path / "run" / "finalists.csv")) == 1


def test_a_network_without_a_way_through_is_told_and_not_trained(tmp_path: Path) -> None:
    text = SCORED.replace(
        "{name: genetic, population: 6}",
        "{name: genetic, population: 2, elites: 1, seeds: [0-0-0-0-0-0]}",
    ).replace("generations: 2", "generations: 1")
    (tmp_path / "dead.yaml").write_text(text)
    done = evonas("run", tmp_path / "dead.yaml", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(tmp_path / "run" / "evaluations.csv")
    assert rows["status"].tolist() == ["diverged", "ok"]
    assert "nwot is nan: it has no ReLUs" in (tmp_path / "run" / "log.txt").read_text()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table without the genomes that begin with c, whose sum is the loss, and nearly `good`."""
    genomes = [g for g in itertools.product(range(3), repeat=5) if g[0] < 2]
    rng = np.random.default_rng(0)
    rows = {
        "genome": ["".join(map(str, genes)) for genes in genomes],
        "loss": [sum(genes) for genes in genomes],
        "good": [-sum(genes) + rng.normal() for genes in genomes],
        "size": [genes[0] for genes in genomes],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    path = tmp_path / "looked.yaml"
    path.write_text(yaml.safe_dump(LOOKED_UP))
    return path


@pytest.mark.parametrize(
    "name", ["aging", "genetic", "local_search", "nsga2", "nsga3", "predictor", "pso"]
)
def test_every_strategy_with_seeds_begins_with_the_best_of_a_table(
    name: str, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    sizes = {
        "pso": "particles: 10",
        "local_search": "batch: 1",
        "predictor": "offspring: 50",
    }.get(name, "population: 10")
    change = f"strategy={{name: {name}, {sizes}}}"
    done = evonas("run", table, "--out", out, "--set", change)
    assert done.exit_code == 0, done.output
    pool = pd.read_csv(out / "warm_start.csv")
    missing = pool["genes"].str.startswith("2")
    assert missing.any()
    assert (pool["status"] == np.where(missing, "crashed", "ok")).all()
    chosen = pool[pool["chosen"]].sort_values("mean_rank", kind="stable")
    count = 1 if name == "local_search" else 5
    assert len(chosen) == count
    assert chosen["mean_rank"].tolist() == np.sort(pool["mean_rank"].dropna())[:count].tolist()
    rows = pd.read_csv(out / "evaluations.csv")
    assert rows["origin"].tolist()[:count] == ["warm_start"] * count
    assert rows["key"].tolist()[:count] == chosen["key"].tolist()
    assert rows["origin"].isin(["seed", "warm_start"]).sum() == count


def test_seeds_of_the_user_s_come_first_and_are_not_in_the_pool(
    table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    seeds = "strategy.seeds=[0-0-0-0-0, 1-1-1-1-1]"
    changes = (seeds, "warm_start.share=1", "warm_start.pool=1000")
    done = evonas("run", table, "--out", out, *(word for c in changes for word in ("--set", c)))
    assert done.exit_code == 0, done.output
    pool = pd.read_csv(out / "warm_start.csv")
    assert len(pool) == 3**5 - 2, "the whole space but for the seeds"
    first = founders(out)
    assert first["genes"].tolist()[:2] == ["0-0-0-0-0", "1-1-1-1-1"]
    assert first["origin"].tolist() == ["seed"] * 2 + ["warm_start"] * 8


def test_a_pool_of_which_nothing_is_known_is_told(table: Path, tmp_path: Path) -> None:
    empty = pd.read_csv(tmp_path / "table.csv", dtype={"genome": str}).assign(good="")
    empty.to_csv(tmp_path / "table.csv", index=False)
    done = evonas("run", table, "--out", tmp_path / "run")
    assert done.exit_code == 3
    assert "none of the 40 networks of the pool can be ranked" in done.output
    assert "rank them by something else in warm_start.by" in done.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("warm_start.by=[loss]", "warm_start.by.0: unknown metric to rank by 'loss'; allowed: go"),
        ("warm_start.by=[good, good]", "; name each once"),
        ("warm_start.by=[good, -good]", "; name each once"),
        ("warm_start.by=[]", "warm_start.by: is empty; give at least 1"),
        ("warm_start.by=[--good]", "warm_start.by.0: unknown metric to rank by '-good'"),
        ("warm_start.share=0", "warm_start.share: is 0; must be more than 0"),
        ("warm_start.pool=0", "warm_start.pool: is 0; must be at least 1"),
        ("evaluator.cheap=[]", "good is not known without training; list metrics of the table"),
        ("strategy={name: random}", "warm_start: the strategy does not take the networks that it"),
        ("strategy={name: random}", "with seeds: aging, auto, genetic, local_search, nsga2, "),
    ],
)
def test_mistakes_are_told_with_their_key(change: str, told: str, table: Path) -> None:
    with pytest.raises(UserError) as raised:
        config.load(table, [change])
    assert told in str(raised.value)


def test_with_images_only_what_is_known_without_training_ranks(tmp_path: Path) -> None:
    file = tmp_path / "trained.yaml"
    file.write_text(TRAINED)
    with pytest.raises(UserError, match="unknown metric to rank by 'val_error'; allowed: nwot, "):
        config.load(file, ["warm_start.by=[val_error]"])


def test_every_strategy_with_seeds_says_how_many_candidates_it_begins_with() -> None:
    for name in registry.names("strategies"):
        strategy = registry.strategy(name)
        if "seeds" in strategy.Params.model_fields:
            assert can_be_warm_started(strategy), f"{name} has no founders"

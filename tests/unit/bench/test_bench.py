"""`evonas bench`: its figures against the table, and a kill in the middle."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from evonas import pareto
from evonas.bench import runs, spec
from evonas.bench.summary import Traces, _median
from evonas.cli import app
from evonas.core import UserError

BENCH = {
    "name": "toy",
    "space": {"name": "table", "genes": {f"g{i}": ["a", "b", "c"] for i in range(4)}},
    "table": {
        "path": "table.csv",
        "metrics": {"loss": "loss", "size": "size", "test": "100 - loss"},
        "simulated_seconds": "size + 10",
    },
    "objectives": [{"name": "loss"}],
    "report": ["test"],
    "protocol": {"queries": 40, "at": [10]},
    "seeds": 6,
    "strategies": {
        "aging": {"name": "aging", "population": 5, "tournament_size": 3, "lag": 1},
        "ga": {"name": "genetic", "population": 6},
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = []
    for genes in itertools.product(range(3), repeat=4):
        rows.append(("".join(map(str, genes)), 20 - sum(genes) + 0.1 * genes[0], sum(genes) ** 2))
    table = pd.DataFrame(rows, columns=["genome", "loss", "size"])
    table.to_csv(tmp_path / "table.csv", index=False)
    path = tmp_path / "bench.yaml"
    path.write_text(yaml.safe_dump(BENCH))
    return path


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_strategy_runs_with_every_seed_random_search_among_them(
    file: Path, tmp_path: Path
) -> None:
    result = evonas("bench", file, "--out", tmp_path / "out", "--workers", "1")
    assert result.exit_code == 0, result.output
    made = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert made.groupby("strategy").size().to_dict() == {"random": 6, "aging": 6, "ga": 6}
    found_it = made["queries_to_optimum"].notna()
    assert (made.loc[~found_it, "queries"] == 40).all()
    assert (made.loc[found_it, "queries"] == made.loc[found_it, "queries_to_optimum"]).all()
    assert (made["asks"] >= made["queries"]).all()
    assert (made["test"] == 100 - made["best"]).all()
    found = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("strategy")
    for label, group in made.groupby("strategy"):
        row = found.loc[label]
        assert row["value"] == pytest.approx(group["best"].mean())
        assert row["value_se"] == pytest.approx(group["best"].std() / 6**0.5)
        needed = group["queries_to_optimum"].fillna(math.inf)
        assert row["found"] == np.isfinite(needed).mean()
        assert row["median_queries"] == np.median(needed)
    assert math.isnan(found.loc["random", "p_random"])
    assert "| aging    |" in result.output
    assert (tmp_path / "out" / "best.png").stat().st_size > 10_000


def test_a_trace_is_the_best_so_far(file: Path) -> None:
    bench = spec.load(file)
    table = runs.read_table(bench)
    done = runs.run(bench, table, "ga", 3)
    assert done.trace[-1][2] == done.best
    assert [value for *_, value in done.trace] == sorted((v for *_, v in done.trace), reverse=True)
    text = pd.Series([" ".join(f"{q}:{s}:{v}" for q, s, v in done.trace)])
    traces = Traces(text, 0)
    first = done.trace[0]
    assert math.isnan(traces.at(first[0] - 1)[0])
    assert traces.at(first[0])[0] == first[2]
    assert traces.at(math.inf)[0] == done.best


def test_simulated_seconds_limit_a_run(file: Path) -> None:
    bench = spec.load(file, ["protocol={simulated_seconds: 300}"])
    table = runs.read_table(bench)
    for label in bench.strategies:
        done = runs.run(bench, table, label, 0)
        assert 200 < done.seconds <= 300
        assert done.queries < 30


def test_an_arm_that_is_halved_counts_what_its_trainings_add_and_is_judged_by_whole_ones(
    file: Path,
) -> None:
    halving = "{name: halving, factor: 4, strategy: {name: genetic, population: 8}}"
    short = "{metrics: {loss: loss + 50}, simulated_seconds: (size + 10) / 4}"
    settings = [
        *("budget={epochs: 8}", f"strategies={{halving: {halving}}}"),
        "protocol={simulated_seconds: 300}",
        f"table.fidelities={{epochs=2: {short}}}",
    ]
    bench = spec.load(file, settings)
    table = runs.read_table(bench)
    for label in bench.strategies:
        done = runs.run(bench, table, label, 1)
        assert done.seconds <= 300
        assert done.best < 50  # not what is known of a short training
    halved, plain = (runs.run(bench, table, label, 1) for label in ("halving", "random"))
    assert halved.queries > plain.queries
    for without in ("budget", "table.fidelities"):
        rest = [each for each in settings if not each.startswith(without)]
        with pytest.raises(UserError, match=without):
            spec.load(file, rest)


def test_two_objectives_are_told_as_a_share_of_the_exact_front(file: Path, tmp_path: Path) -> None:
    goals = "objectives=[{name: loss}, {name: size, reference: 65}]"
    everything = ("--set", "protocol.queries=81", "--set", "strategies={all: {name: exhaustive}}")
    result = evonas("bench", file, "--out", tmp_path / "out", "--set", goals, *everything)
    assert result.exit_code == 0, result.output
    found = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("strategy")
    assert found.loc["all", "value"] == pytest.approx(1.0)
    assert 0 < found.loc["random", "value_at_10"] < 1
    table = pd.read_csv(file.with_name("table.csv"))[["loss", "size"]].to_numpy(dtype=float)
    bench = spec.load(file, [goals])
    exact = pareto.hypervolume(table, (table[:, 0].max(), 65.0))
    assert runs.read_table(bench).front == pytest.approx(exact)


SCORED = [
    "table.metrics={loss: loss, size: size, test: loss + (size - 30) ** 2 / 400, g: 30 - loss}",
    *("report=[]", "objectives=[{name: loss}, {name: size}]", "protocol={queries: 25, at: [10]}"),
    *("score={loss: test}", "reference=nadir", "strategies={all: {name: exhaustive}}"),
]


def test_an_archive_is_scored_by_other_metrics_than_the_search_sees(
    file: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(file.with_name("table.csv"), dtype={"genome": str})
    table["test"] = table["loss"] + (table["size"] - 30) ** 2 / 400
    points = table.sort_values("genome")[["test", "size"]].to_numpy(dtype=float)
    exact = points[pareto.is_on_front(points)]
    nadir = exact.max(axis=0)
    whole = pareto.hypervolume(exact, nadir)
    out = tmp_path / "out"
    settings = [word for change in SCORED for word in ("--set", change)]
    for _ in range(2):  # the second time, the folder is found complete
        result = evonas("bench", file, "--out", out, "--workers", "1", *settings)
        assert result.exit_code == 0, result.output
    found = pd.read_csv(out / "summary.csv").set_index("strategy")
    for name, count in (("value_at_10", 10), ("value", 25)):  # exhaustive search, in order
        share = pareto.hypervolume(points[:count], nadir) / whole
        assert 0 < share < 1
        assert found.loc["all", name] == pytest.approx(share)
    filled = whole / np.prod(nadir - exact.min(axis=0))
    assert f"{len(exact)} genomes are on this front; it dominates {filled:.4f}" in result.output
    assert "exact front, with test for loss." in result.output


def test_a_reference_of_an_objectives_own_comes_before_the_nadir(file: Path) -> None:
    own = "objectives=[{name: loss}, {name: size, reference: 70}]"
    table = runs.read_table(spec.load(file, [*SCORED, own]))
    assert table.reference == (table.exact[:, 0].max(), 70.0)


def test_a_maximised_objective_is_scored_by_a_metric_to_maximise(file: Path) -> None:
    change = "objectives=[{name: g, goal: max}, {name: size}]"
    table = runs.read_table(spec.load(file, [*SCORED, change, "score={g: test}"]))
    assert table.signs == (-1.0, 1.0)
    assert table.scored == ("test", "size")
    largest = -table.exact[:, 0].min()
    assert largest == pytest.approx(max(table.evaluator.rows.values["test"]))


def test_what_no_run_can_find_is_not_the_optimum(file: Path) -> None:
    """An evaluation that lacks a metric has failed, whichever it is."""
    path = file.with_name("table.csv")
    rows = pd.read_csv(path, dtype={"genome": str}).sort_values("loss")
    rows.iloc[0, 2] = np.nan  # the size of the best
    rows.to_csv(path, index=False)
    cost = "table.simulated_seconds=loss"
    assert runs.read_table(spec.load(file, [cost])).optimum == rows["loss"].iloc[1]
    rows.assign(size="").to_csv(path, index=False)
    with pytest.raises(
        UserError, match=r"table\.metrics: no row of the table has a value for each"
    ):
        runs.read_table(spec.load(file, [cost]))


def test_a_run_ends_after_so_many_asks_a_query(file: Path) -> None:
    """A swarm that never asks for more than it knows: 20 asks a query, not for ever."""
    few = ["space={name: table, genes: {a: [x, y]}}", "strategies={pso: {name: pso}}"]
    file.with_name("table.csv").write_text("genome,loss,size\n0,1.0,1\n1,2.0,2\n")
    bench = spec.load(file, [*few, "objectives=[{name: loss}, {name: size}]"])
    done = runs.run(bench, runs.read_table(bench), "pso", 0)
    assert done.queries == 2
    assert done.asks == 40 * 20
    seconds = ["protocol={simulated_seconds: 1e6}", "objectives=[{name: loss}, {name: size}]"]
    bench = spec.load(file, [*few, *seconds])
    done = runs.run(bench, runs.read_table(bench), "pso", 0)
    assert (done.queries, done.asks) == (2, 100 * 20)


def test_networks_are_counted_where_the_file_says_so(file: Path) -> None:
    """Spellings of one network are one query then, answered by the first spelling."""
    rows = ["genome,loss,size"]
    rows += [f"{''.join(g)},1.0,1" for g in itertools.product("01234", repeat=6)]
    file.with_name("table.csv").write_text("\n".join(rows) + "\n")
    asked = {}
    for distinct in ("genomes", "networks"):
        bench = spec.load(
            file,
            [
                *("space={name: nasbench201}", f"distinct={distinct}", "protocol.queries=400"),
                "strategies={ls: {name: local_search, improvement: first}}",
                "objectives=[{name: loss}, {name: size}]",  # one alone would be found at once
            ],
        )
        done = runs.run(bench, runs.read_table(bench), "ls", 0)
        assert done.queries == 400
        asked[distinct] = done.asks
    assert asked["networks"] > asked["genomes"]


def warm(by: str) -> list[str]:
    strategies = "strategies={cold: {name: genetic, population: 6}, "
    return [
        "table.cheap=[size]",
        strategies + "warm: {name: genetic, population: 6}}",
        f"warm_start={{warm: {{by: [{by}], pool: 60, share: 0.5}}}}",
    ]


def test_a_warm_start_is_no_query_and_only_of_the_strategy_that_has_one(
    file: Path, tmp_path: Path
) -> None:
    bench = spec.load(file, warm("size"))  # the largest have the least loss
    table = runs.read_table(bench)
    plain = spec.load(file, ["strategies={cold: {name: genetic, population: 6}}"])
    for seed in range(4):
        done = runs.run(bench, table, "warm", seed)
        queries, _, loss = done.trace[0]
        assert queries == 1
        assert loss < 14, "the best of 60 of 81 by size"
        assert runs.run(bench, table, "cold", seed) == runs.run(plain, table, "cold", seed)
    worst = spec.load(file, warm("-size"))
    assert runs.run(worst, table, "warm", 0).trace[0][2] > 17
    changes = [word for change in warm("size") for word in ("--set", change)]
    for _ in range(2):  # the second time it is found complete
        done_all = evonas("bench", file, "--out", tmp_path / "out", "--workers", "1", *changes)
        assert done_all.exit_code == 0, done_all.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("table.cheap=[]", "warm_start.warm.by.0: size is not known without training; list"),
        ("warm_start={wram: {by: [size]}}", "warm_start.wram: unknown label of a strategy 'wram'"),
        ("warm_start={warm: {by: [loss]}}", "unknown metric to rank by 'loss'; allowed: size"),
        ("warm_start={random: {by: [size]}}", "warm_start.random: the strategy does not take"),
        ("warm_start={warm: {pool: 3}}", "warm_start.warm.by: is missing"),
    ],
)
def test_mistakes_of_a_warm_start_are_told_with_their_key(
    change: str, told: str, file: Path
) -> None:
    with pytest.raises(UserError) as raised:
        spec.load(file, [*warm("size"), change])
    assert told in str(raised.value)


def test_a_killed_benchmark_goes_on_and_ends_the_same(file: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    one = ("--workers", "1")  # is of no account
    assert evonas("bench", file, "--out", whole, "--workers", "2").exit_code == 0
    assert evonas("bench", file, "--out", cut, *one).exit_code == 0
    lines = (cut / "runs.csv").read_text().splitlines(keepends=True)
    (cut / "runs.csv").write_text("".join(lines[:9]) + lines[9][:20])  # a torn line at the end
    for name in ("summary.csv", "summary.md", "best.png"):
        (cut / name).unlink()
    assert evonas("bench", file, "--out", cut, *one).exit_code == 0
    for name in ("runs.csv", "summary.csv", "summary.md", "best.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    table = file.with_name("table.csv")
    before = table.read_text()
    table.write_text(before.replace("0000,20.0", "0000,21.0"))
    changed = evonas("bench", file, "--out", cut, *one)
    assert changed.exit_code == 2
    assert "the data changed since this run started" in changed.stderr
    table.write_text(before)
    (cut / "runs.csv").write_text("")
    assert evonas("bench", file, "--out", cut, *one).exit_code == 0
    assert (cut / "runs.csv").read_bytes() == (whole / "runs.csv").read_bytes()
    other = evonas("bench", file, "--out", cut, *one, "--set", "seeds=7")
    assert other.exit_code == 2
    assert "holds another benchmark" in other.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("table.path=away.csv", "No such file"),
        ("objectives=[{name: error}]", "unknown metric 'error'"),
        ("report=[accuracy]", "unknown metric 'accuracy'"),
        ("strategies={a: {name: agin}}", "did you mean 'aging'"),
        ("strategies={a: {name: aging, popultion: 3}}", "did you mean 'population'"),
        ("strategies={random: {name: aging}}", "the label of random search"),
        ("protocol={queries: 10, simulated_seconds: 3}", "queries or simulated_seconds"),
        ("protocol={queries: 10, at: [20]}", "protocol.at: is [20]; must be at most queries, 10"),
        ("score={loss: size}", "score: needs several objectives; leave it out; report names"),
        ("reference=nadir", "reference: needs several objectives"),
        ("reference=zenith", "reference: is 'zenith'; allowed: 'worst' or 'nadir'"),
        ("seeds=0", "at least 1"),
        ("sedes=3", "did you mean 'seeds'"),
    ],
)
def test_mistakes_are_told_in_a_line(change: str, told: str, file: Path, tmp_path: Path) -> None:
    result = evonas("bench", file, "--out", tmp_path / "out", "--set", change)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("score={size: los}", "score.size: unknown metric 'los' (did you mean 'loss'?)"),
        ("score={test: size}", "score.test: unknown objective 'test'"),
    ],
)
def test_mistakes_of_a_score_are_told_with_their_key(change: str, told: str, file: Path) -> None:
    with pytest.raises(UserError) as caught:
        spec.load(file, ["objectives=[{name: loss}, {name: size}]", change])
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["best", "n", "value_std", "value_at_10", "median_low", "test_se"])
def test_what_is_reported_is_no_other_column_of_the_tables(name: str, file: Path) -> None:
    report = ["test", name]
    metrics = {**BENCH["table"]["metrics"], name: "size"}  # type: ignore[dict-item]
    file.write_text(yaml.safe_dump({**BENCH, "table": {**BENCH["table"], "metrics": metrics}}))  # type: ignore[dict-item]
    assert spec.load(file).table.metrics[name] == "size"
    with pytest.raises(UserError, match=f"report.1: {name} is a column that the tables have"):
        spec.load(file, [f"report=[{', '.join(report)}]"])


@pytest.mark.parametrize("runs", [2, 5, 30])
def test_the_band_holds_the_mean_in_95_percent_also_with_few_runs(runs: int) -> None:
    rng, held = np.random.default_rng(0), 0
    for values in rng.normal(size=(2000, runs)):
        texts = pd.Series([f"1:0:{value!r}" for value in values.tolist()])
        curve = Traces(texts, 0).curve(np.array([1.0]))
        held += bool(curve.low[0] <= 0 <= curve.high[0])
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_medians_interval_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        _, low, high = _median(rng.exponential(size=40))
        held += low <= math.log(2) <= high
    assert held >= 940


def test_a_medians_interval_of_few_runs_goes_from_the_least_to_the_most() -> None:
    assert _median(np.array([3.0, 1.0, 2.0, 5.0, math.inf])) == (3, 1, math.inf)
    assert _median(np.array([3.0])) == (3, 3, 3)
    six = np.array([3.0, 1.0, 2.0, 5.0, 4.0, math.inf])  # holds it with 1 - 2 / 2^6 = 97 %
    assert _median(six) == (3.5, 1, math.inf)


def test_a_median_of_runs_that_never_found_it_is_infinite_and_so_may_be_an_end() -> None:
    assert _median(np.full(40, math.inf)) == (math.inf, math.inf, math.inf)
    half = np.array([*range(1, 13), *[math.inf] * 8], float)
    assert _median(half) == (10.5, 6, math.inf)
    assert _median(np.array([*range(1, 16), *[math.inf] * 5], float)) == (10.5, 6, 15)

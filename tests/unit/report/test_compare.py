"""Comparisons: tables made by hand, and every number worked out beside them."""

from __future__ import annotations

import copy
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from evonas import pareto
from evonas.cli import app
from evonas.core import Candidate, Cost, Evaluation, Metric, Objective, Stop
from evonas.loop import Desk, evolve
from evonas.protocols import Setting
from evonas.records.run import RunFolder
from evonas.report import arms
from evonas.report.arms import Arm, Run, arms_of, load
from evonas.report.compare import FILES, Comparison
from evonas.report.curves import Band, Box, Curve, band, curve
from evonas.strategies.random import Random, RandomParams
from evonas.training.recipe import Recipe
from genomes import Genome, NASBench201

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 0,
    "space": {"name": "nasbench201", "channels": 8},
    "data": {"name": "npz", "path": "/data/a.npz", "val": 0.2},
    "strategy": {"name": "genetic", "population": 4},
    "evaluator": {"name": "train", "recipe": {"lr": 0.1}},
    "budget": {"epochs": 3},
    "objectives": [
        {"name": "val_error", "goal": "min", "reference": 1.0},
        {"name": "params", "goal": "min", "reference": 100.0},
    ],
    "constraints": [],
    "stop": {"generations": 2},
    "finalists": {"top": 0, "seeds": 3},
    "parallel": {"workers": 2, "device": "cpu", "timeout": 100.0},
}
# status, cached, val_error, params, epochs of its timing (None: it has none)
Row = tuple[str, bool, float | None, float | None, float | None]
ROWS: list[Row] = [
    ("ok", False, 0.5, 60, 3.0),
    ("diverged", False, None, 5, 1.5),  # its params are known, but it is no network
    ("ok", False, 0.4, 80, 3.0),
    ("ok", True, 0.5, 60, None),
    ("infeasible", False, 0.01, 10, None),  # good, but outside a constraint
    ("ok", False, 0.45, 40, 3.0),
]


def folder(path: Path, rows: list[Row] | None = None, **changes: Any) -> Path:
    """A run folder of CONFIG, with values by dotted key, `strategy__population=8`, put in."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *sections, last = key.split("__")
        where: Any = config
        for section in sections:
            where = where[int(section) if section.isdecimal() else section]
        where[last] = value
    rows = ROWS if rows is None else rows
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "environment.json").write_text(json.dumps({"data": "d1", "processor": "p", "gpus": []}))
    names = ["status", "cached", *(each["name"] for each in config["objectives"])]
    evaluations = pd.DataFrame([row[:-1] for row in rows], columns=names)
    evaluations.insert(0, "index", np.arange(len(rows)))
    evaluations["budget"] = "epochs=3"
    evaluations.to_csv(path / "evaluations.csv", index=False)
    timed = [(i, row[0], row[-1]) for i, row in enumerate(rows) if row[-1] is not None]
    timings = pd.DataFrame(timed, columns=["index", "status", "epochs"])
    timings = timings.assign(phase="search", seconds=900.0)
    finals = pd.DataFrame({"phase": ["finalists"], "seconds": [7.0], "epochs": [50.0]})
    pd.concat([timings, finals]).to_csv(path / "timings.csv", index=False)
    return path


def errors(*values: float) -> list[Row]:
    """Networks of the same size and these errors."""
    return [("ok", False, value, 50, 3.0) for value in values]


def named(paths: list[Path]) -> list[Arm]:
    return arms_of([load(path) for path in paths])


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def compare(paths: list[Path], out: Path) -> None:
    Comparison.of(paths).write(out)


def text_of(paths: list[Path]) -> str:
    return Comparison.of(paths).text()


def refusal(paths: list[Path], out: Path) -> str:
    """The one line that the command refuses with."""
    result = evonas("compare", *paths, "--out", out)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def table(text: str, number: int = 0) -> dict[str, dict[str, str]]:
    """A Markdown table, a mapping of columns an arm."""
    blocks = [block for block in text.split("\n\n") if block.startswith("| arm")]
    lines = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in blocks[number].split("\n")
    ]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


# Arms


def test_runs_that_differ_in_what_changes_no_value_are_one_arm(tmp_path: Path) -> None:
    free = {
        "name": "other",
        "parallel__workers": 7,
        "parallel__timeout": 5.0,
        "stop__generations": 9,
        "finalists__top": 3,
        "cache": {"path": "/a"},
        "data__path": "/elsewhere/a.npz",
        "objectives__0__reference": 2.0,
    }
    paths = [folder(tmp_path / "first", seed=100)]
    paths += [folder(tmp_path / k, seed=i, **{k: v}) for i, (k, v) in enumerate(free.items())]
    (arm,) = named(paths)
    assert arm.name == "tiny"
    assert [run.seed for run in arm.runs] == [*range(len(free)), 100]


@pytest.mark.parametrize(
    "change",
    [
        {"strategy__population": 8},
        {"evaluator__recipe__lr": 0.2},
        {"budget__epochs": 4},
        {"parallel__device": "cuda"},
        {"constraints": [{"name": "flops", "max": 5.0}]},
    ],
)
def test_runs_that_differ_in_anything_else_are_two_arms(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    one, other = named([folder(tmp_path / "a"), folder(tmp_path / "b", **change)])
    assert one.name != other.name
    assert one.name.startswith("tiny (")


def test_arms_are_named_by_the_experiment_else_by_what_differs(tmp_path: Path) -> None:
    paths = [
        folder(tmp_path / "a"),
        folder(tmp_path / "b", strategy={"name": "random", "population": 9}),
        folder(tmp_path / "c", name="own", strategy__population=5),
    ]
    assert [arm.name for arm in named(paths)] == [
        "tiny (strategy genetic)",
        "tiny (strategy random)",
        "own",
    ]
    paths = [folder(tmp_path / "d"), folder(tmp_path / "e", strategy__population=5)]
    assert [arm.name for arm in named(paths)] == ["tiny (population 4)", "tiny (population 5)"]


def test_the_same_seed_twice_in_an_arm_is_refused(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", name="other")]
    assert "same seed, 0); give only one of them" in refusal(paths, tmp_path / "out")


# What cannot be compared


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"objectives__0__goal": "max"}, "give runs with the same objectives"),
        ({"objectives__1__name": "flops"}, "give runs with the same objectives"),
        ({"space__channels": 16}, "name nasbench201) and"),
        ({"space__name": "other"}, "give runs with the same space"),
    ],
)
def test_runs_of_other_goals_or_spaces_are_refused(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", **change)]
    assert told in refusal(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_on_other_data_are_refused_wherever_the_data_lie(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", seed=1)]
    (paths[1] / "environment.json").write_text('{"data": "d2"}')
    assert "give runs with the same data" in refusal(paths, tmp_path / "out")


def test_what_is_no_finished_generation_of_a_run_is_refused(tmp_path: Path) -> None:
    good, out = folder(tmp_path / "good"), tmp_path / "out"
    assert "two run folders or more" in refusal([good], out)
    assert "is not a run folder" in refusal([good, tmp_path], out)
    empty = folder(tmp_path / "empty", [], seed=1)
    assert "no generation is finished yet" in refusal([good, empty], out)
    (empty / "timings.csv").unlink()
    assert "no generation is finished yet" in refusal([good, empty], out)
    damaged = folder(tmp_path / "damaged", seed=1)
    (damaged / "evaluations.csv").write_text("index,key\n0,g0\n")
    assert "damaged" in refusal([good, damaged], out)
    (damaged / "config.yaml").write_text("name: [tiny\n")
    assert "config.yaml: line" in refusal([good, damaged], out)
    (damaged / "config.yaml").write_text("name: tiny\n")
    assert "lacks seed" in refusal([good, damaged], out)


def test_a_folder_that_compare_has_not_made_is_left_alone(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", seed=1)]
    out = tmp_path / "out"
    compare(paths, out)
    (out / "mine.txt").write_text("precious")
    assert "name a new or empty folder with --out" in refusal(paths, out)
    (out / "mine.txt").unlink()
    (out / "compare.md").write_text("my own notes")
    assert "not a folder that compare has made" in refusal(paths, out)
    assert (out / "compare.md").read_text() == "my own notes"
    assert "not a folder that compare has made" in refusal(paths, paths[0])
    assert "not a folder that compare has made" in refusal(paths, paths[0] / "config.yaml")


# Curves


def test_best_so_far_counts_every_evaluation_and_no_failed_value(tmp_path: Path) -> None:
    found = curve(load(folder(tmp_path / "a")), None, "evaluations")
    assert found.x.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.y[:, 0].tolist() == [0.5, 0.5, 0.4, 0.4, 0.4, 0.4]
    assert found.y[:, 1].tolist() == [60, 60, 60, 60, 60, 40]


def test_epochs_are_those_trained_and_cached_rows_cost_nothing(tmp_path: Path) -> None:
    found = curve(load(folder(tmp_path / "a")), None, "epochs")
    assert found.x.tolist() == [3, 4.5, 7.5, 10.5]  # 3 + 1.5 (diverged half way) + 3 + 3
    assert found.y[:, 0].tolist() == [0.5, 0.5, 0.4, 0.4]
    assert found.y[:, 1].tolist() == [60, 60, 60, 40]
    at = found.at(np.array([0, 3, 4.4, 100]))
    assert np.isnan(at[0]).all()
    assert at[1:, 0].tolist() == [0.5, 0.5, 0.4]


def test_what_a_cache_answered_counts_as_if_it_had_been_trained(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    before = load(path)
    timings = pd.read_csv(path / "timings.csv")
    timings.assign(from_cache=True).to_csv(path / "timings.csv", index=False)
    after = load(path)
    assert after.epochs.tolist() == before.epochs.tolist() == [3, 1.5, 3, 0, 0, 3]
    assert after.trained == 4
    assert (before.from_cache, after.from_cache) == (0, 4)
    assert (before.hours > 0, after.hours) == (True, 0.0)  # none were spent
    other = folder(tmp_path / "b", strategy__population=8)
    assert "taken from a cache (4 of " in Comparison.of([path, other]).text()


def test_a_goal_of_max_is_best_at_its_largest(tmp_path: Path) -> None:
    rows: list[Row] = [("ok", False, 0.3, 60, 1.0), ("ok", False, 0.8, 60, 1.0)]
    rows += [("ok", False, 0.7, 20, 1.0)]
    run = load(
        folder(tmp_path / "a", rows, objectives__0__goal="max", objectives__0__reference=0.0)
    )
    box = Box.around([run])
    assert box is not None
    found = curve(run, box, "evaluations")
    assert found.y[:, 0].tolist() == [0.3, 0.8, 0.8]
    # The box: accuracy 0 to 0.8, params 100 to 20. Of its area the first network dominates
    # 3/8 x 40/80, the second 40/80, and the third 7/8 of all, of which it shares 7/16.
    assert found.y[:, 2] == pytest.approx([3 / 16, 1 / 2, 1 / 2 + 7 / 8 - 7 / 16])


def test_values_that_are_not_finite_are_none(tmp_path: Path) -> None:
    rows: list[Row] = [("ok", False, float("inf"), 5, 3.0), ("ok", False, 0.5, 60, 3.0)]
    found = curve(load(folder(tmp_path / "a", rows)), None, "evaluations")
    assert np.isnan(found.y[0]).all()
    assert found.y[1, :2].tolist() == [0.5, 60]


def test_a_running_folder_is_read_as_far_as_it_is_written(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    timings = (path / "timings.csv").read_text().splitlines(keepends=True)
    (path / "timings.csv").write_text("".join(timings[:3]))  # of rows 0 and 1
    with (path / "evaluations.csv").open("a") as file:
        file.write("6,ok,False,0.0")
    run = load(path)
    assert len(run.losses) == 6
    assert run.epochs.tolist() == [3, 1.5, 3, 0, 0, 3]  # the budget's, where no timing is yet


def test_a_curve_is_kept_by_its_steps() -> None:
    y = np.array([[np.nan], [2.0], [2.0], [1.0], [1.0], [1.0]])
    steps = Curve(np.arange(6.0), y).steps()
    assert steps.x.tolist() == [0, 1, 3, 5]
    assert steps.y[1:, 0].tolist() == [2, 1, 1]


# Hypervolume


def run_of(losses: Any, references: list[float]) -> Run:
    """A run of these losses and no folder."""
    losses = np.asarray(losses, dtype=np.float64)
    objectives = tuple(
        Objective(name=f"o{i}", reference=float(each)) for i, each in enumerate(references)
    )
    ones = np.ones(len(losses))
    empty: frozenset[str] = frozenset()
    ranks = np.zeros(len(losses), np.int64)
    return Run(
        Path(),
        CONFIG,
        {},
        objectives,
        losses,
        ranks,
        ones,
        empty,
        len(losses),
        0.0,
        0,
        0,
        None,
        False,
    )


def test_hypervolume_is_the_share_of_cells_that_are_dominated() -> None:
    rng = np.random.default_rng(3)
    points = rng.integers(0, 7, (40, 3)).astype(float)
    points[:3] = np.diag([-9.0, -9.0, -9.0]) + 9  # each axis' best is 0
    points[5] = np.nan
    points[6] = [0, 0, 6]  # at the reference: adds nothing
    box = Box.around([run_of(points, [6, 6, 6])])
    assert box is not None
    found = box.hypervolumes(points)
    cells = np.array(list(itertools.product(range(6), repeat=3)))
    dominated = np.zeros(len(cells), dtype=bool)
    for i, point in enumerate(points):
        dominated |= (point <= cells).all(axis=1)
        assert found[i] == pytest.approx(dominated.mean()), i


def test_all_runs_are_measured_against_the_worst_reference(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", errors(0.5, 0.2), objectives__0__reference=0.5)
    other = folder(tmp_path / "b", errors(0.4), seed=1, objectives__1__reference=150.0)
    box = Box.around([load(one), load(other)])
    assert box is not None
    assert (box.reference.tolist(), box.best.tolist()) == ([1, 150], [0.2, 50])
    # The box: val_error 1 to 0.2, params 150 to 50, which both have: 0.8/0.8 and 0.6/0.8.
    mean, spread = statistics.fmean([1, 0.75]), statistics.stdev([1, 0.75])
    assert table(text_of([one, other]))["tiny"]["hypervolume"] == f"{mean:.4f} ± {spread:.4f}"


def test_without_a_reference_or_a_value_there_is_no_hypervolume(tmp_path: Path) -> None:
    failed: list[Row] = [("crashed", False, None, None, 0.0)] * 2
    out = tmp_path / "out"
    good = [folder(tmp_path / "c"), folder(tmp_path / "d", seed=1)]
    compare(good, out)
    assert (out / "hypervolume.png").exists()
    paths = [folder(tmp_path / f"{i}", failed, seed=i) for i in range(2)]
    compare(paths, out)
    text = text_of(paths)
    row = table(text)["tiny"]
    assert (row["best val_error"], row["hypervolume"], row["faults"]) == ("-", "-", "2")
    assert "No hypervolume" in text
    assert not (out / "hypervolume.png").exists()


def test_a_hundred_thousand_evaluations_need_few_hypervolumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = np.random.default_rng(0).random((100_000, 2))
    run = run_of(points, [1.0, 1.0])
    box = Box.around([run])
    assert box is not None
    expected = pareto.hypervolume((points - box.best) / (1 - box.best), [1.0, 1.0])
    calls = []
    measure = pareto.hypervolume

    def counted(*arguments: Any) -> float:
        calls.append(len(arguments[0]))
        return measure(*arguments)

    monkeypatch.setattr(pareto, "hypervolume", counted)
    found = curve(run, box, "evaluations")
    assert found.y[-1, -1] == pytest.approx(expected)
    assert len(calls) < 500  # of 100,000
    assert max(calls) < 100


class Free:
    """Two objectives from genes and seed, and three epochs, at no cost."""

    metrics = (Metric("val_error"), Metric("params"))
    fingerprint = ""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"params": 1 + sum(genome.genes)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        values = {"val_error": (seed % 997) / 997, **self.cheap(candidate.genome)}
        return Evaluation(candidate, values, cost=Cost(epochs=3))


def test_hypervolume_is_that_of_the_run_s_own_tables(tmp_path: Path) -> None:
    space, objectives = NASBench201(), (Objective(name="val_error"), Objective(name="params"))
    paths = [folder(tmp_path / f"{seed}", [], seed=seed) for seed in range(2)]
    for seed, path in enumerate(paths):
        for name in ("evaluations.csv", "timings.csv"):
            (path / name).unlink()
        records = RunFolder(
            path,
            space=space,
            metrics=("val_error", "params"),
            objectives=objectives,
            references=(1.0, 100.0),
        )
        strategy = Random(RandomParams(population=8), Setting(space, objectives, seed=seed))
        for generation in evolve(
            strategy,
            Desk(Free(), space, answers=records.journal, seed=seed),
            stop=Stop(generations=5),
        ):
            records.record(generation, strategy.state_dict())
        records.close()
    runs = [load(path) for path in paths]
    box = Box.around(runs)
    assert box is not None
    for run in runs:
        recorded = pd.read_csv(run.path / "generations.csv")
        found = curve(run, box, "evaluations").y[7::8]
        size = np.prod(box.reference - box.best)
        assert found[:, 2] * size == pytest.approx(recorded["hypervolume"].to_numpy())
        assert found[:, 0] == pytest.approx(recorded["val_error_best"].cummin().to_numpy())
        assert curve(run, box, "epochs").x[-1] == 3 * recorded["trained"].sum()


# Bands


def test_a_band_is_the_mean_and_the_extremes_up_to_the_shortest(tmp_path: Path) -> None:
    one = load(folder(tmp_path / "a", errors(0.8, 0.4, 0.4, 0.2)))
    other = load(folder(tmp_path / "b", errors(0.6, 0.5, 0.1), seed=1))
    found = band([curve(run, None, "epochs") for run in (one, other)])
    assert found.x.tolist() == [3, 6, 9]
    assert found.mean[:, 0] == pytest.approx([0.7, 0.45, 0.25])
    assert found.low[:, 0].tolist() == [0.6, 0.4, 0.1]
    assert found.high[:, 0].tolist() == [0.8, 0.5, 0.4]
    assert found.kind == "smallest to largest"


def test_a_band_of_five_seeds_is_the_standard_error() -> None:
    ends = [0.1, 0.2, 0.3, 0.5, 0.9]
    found = band([Curve(np.array([1.0]), np.array([[end]])) for end in ends])
    error = statistics.stdev(ends) / 5**0.5
    assert found.mean[0, 0] == pytest.approx(0.4)
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((0.4 - error, 0.4 + error))
    assert "standard error" in found.kind


def test_one_seed_has_no_band_and_the_mean_waits_for_all_seeds() -> None:
    late = Curve(np.array([1.0, 2.0]), np.array([[np.nan], [4.0]]))
    soon = Curve(np.array([1.0, 2.0]), np.array([[3.0], [2.0]]))
    assert band([late]).kind == ""
    found: Band = band([late, soon])
    assert np.isnan(found.mean[0, 0])
    assert found.mean[1, 0] == 3


# What a person reads


def test_the_table_has_a_row_an_arm(tmp_path: Path) -> None:
    paths = [
        folder(tmp_path / "a"),
        folder(tmp_path / "b", errors(0.3, 0.6), seed=1),
        folder(tmp_path / "c", errors(0.7), strategy__population=9, name="big"),
    ]
    for path, error in ((paths[0], 0.10), (paths[1], 0.20)):
        pd.DataFrame(
            {
                "winner": [False, True],
                "test_error": [0.9, error],
                "test_error_se": [0.5, error / 10],
            }
        ).to_csv(path / "finalists.csv", index=False)
    text = text_of(paths)
    spread = statistics.stdev([0.4, 0.3])
    assert table(text)["tiny"] == {
        "arm": "tiny",
        "n": "2",
        "evaluations": "4",  # (6 + 2) / 2
        "trained": "3",  # (4 + 2) / 2
        "epochs": "8.2",  # (10.5 + 6) / 2 is 8.25, rounded to even
        "worker hours": "0.75",  # (4 + 2) / 2 quarters
        "best val_error": f"0.3500 ± {spread:.4f}",
        "best params": f"45.00 ± {statistics.stdev([40, 50]):.2f}",
        "hypervolume": table(text)["tiny"]["hypervolume"],  # tested above
        "faults": "0.5",
        "test error": f"0.1500 ± {statistics.stdev([0.1, 0.2]):.4f}",  # not the images' error
    }
    assert table(text)["big"]["best val_error"] == "0.7000"
    assert table(text)["big"]["test error"] == "-"
    equal = table(text, 1)
    spread = statistics.stdev([0.5, 0.3])
    assert equal["tiny"]["val_error, 1 evaluation"] == f"0.4000 ± {spread:.4f}"
    assert equal["tiny"]["val_error, 3 epochs"] == f"0.4000 ± {spread:.4f}"
    assert "n=1 in big: one seed proves nothing" in text
    assert "number of evaluations differs between seeds (tiny 2 to 6)" in text


def test_notes_say_what_makes_a_comparison_unfair(tmp_path: Path) -> None:
    fair = [folder(tmp_path / f"{i}", seed=i) for i in range(5)]
    quiet = text_of(fair)
    for word in ("n=1", "Fewer than", "Fidelity", "more than their", "machines", "finals differ"):
        assert word not in quiet, word
    assert "Fewer than 5 seeds" in text_of(fair[:3])
    other = folder(tmp_path / "other", evaluator__recipe__lr=0.2, finalists__top=3)
    rows = pd.read_csv(other / "evaluations.csv")
    rows.assign(budget="epochs=1").to_csv(other / "evaluations.csv", index=False)
    (other / "environment.json").write_text('{"data": "d1", "processor": "q", "gpus": []}')
    for path in (other, fair[0]):
        pd.DataFrame({"winner": [True], "test_error": [0.5], "test_error_se": [0.1]}).to_csv(
            path / "finalists.csv", index=False
        )
    told = text_of([*fair, other])
    assert "Fidelity differs (tiny (lr 0.1) epochs=3; tiny (lr 0.2) epochs=1)" in told
    assert "more than their strategy: evaluator.recipe.lr 0.1 / 0.2." in told
    assert "different machines" in told
    assert "The finals differ" in told


def test_the_command_prints_the_table_and_writes_tables_and_figures(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", errors(0.3, 0.2), seed=1)]
    result = evonas("compare", *paths, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = (tmp_path / "out" / "compare.md").read_text()
    assert written.startswith(result.stdout.rstrip("\n"))
    long = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert "box val_error from 1 to 0.2; params from 100 to 40" in written
    assert f"- tiny, seed 1: `{paths[1]}`" in written
    rows = long[(long["seed"] == 0) & (long["by"] == "epochs")]
    assert rows["x"].tolist() == [3, 7.5, 10.5]  # at 4.5 nothing changes
    assert rows["val_error"].tolist() == [0.5, 0.4, 0.4]
    assert rows["params"].tolist() == [60, 60, 40]
    assert set(long["arm"]) == {"tiny"}


def test_the_same_runs_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [folder(tmp_path / f"{i}", seed=i, strategy__population=i % 2 + 2) for i in range(4)]
    first, again = tmp_path / "first", tmp_path / "again"
    compare(paths, first)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    compare(paths, again)
    assert {path.name for path in first.iterdir()} == set(FILES)
    for name in FILES:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    width = int.from_bytes((first / "best.png").read_bytes()[16:20], "big")
    assert width == pytest.approx(8.5 / 2.54 * 300, abs=2)  # 8.5 cm at 300 dots an inch


def test_runs_that_train_no_epochs_are_compared_by_evaluations_alone(tmp_path: Path) -> None:
    rows: list[Row] = [("ok", False, 0.5, 60, 0.0), ("ok", False, 0.4, 60, 0.0)]
    paths = [folder(tmp_path / f"{i}", rows, seed=i) for i in range(2)]
    compare(paths, tmp_path / "out")
    assert "no comparison by epochs" in text_of(paths)
    assert set(pd.read_csv(tmp_path / "out" / "compare.csv")["by"]) == {"evaluations"}


def test_comparing_loads_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, evonas.report.compare; "
        "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("where", ["strategy", "evaluator"])
def test_a_recipe_of_an_older_run_has_the_keys_that_it_would_have_today(where: str) -> None:
    names = {"strategy": "darts", "evaluator": "train"}
    old: dict[str, Any] = {section: {"name": name} for section, name in names.items()}
    new = copy.deepcopy(old)
    old[where]["recipe"] = {"lr": 0.05}
    new[where]["recipe"] = {**Recipe(lr=0.05).model_dump(exclude_none=True), "recalibrate": 0}
    today = arms._as_of_today(old)[where]["recipe"]
    assert today.items() <= new[where]["recipe"].items()
    assert {"ema", "mixup", "cutmix", "rand_augment", "recalibrate"} <= today.keys()

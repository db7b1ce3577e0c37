"""A search that asks at several budgets: what its front is, and that only equals are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evonas import pareto
from evonas.core import (
    Budget,
    Candidate,
    Evaluation,
    Generation,
    Metric,
    Objective,
    Question,
    SearchFailed,
    State,
    Status,
    Stop,
)
from evonas.loop import Desk, evolve
from evonas.plots.dynamics import objectives as draw_objectives
from evonas.plots.tables import Tables
from evonas.records.archive import Archive, budget_ranks
from evonas.records.run import RunFolder
from evonas.report.arms import Run
from evonas.report.curves import Box, curve
from genomes import Genome, NASBench201

SPACE = NASBench201()
ERROR, SIZE = Objective(name="val_error", reference=1.0), Objective(name="params", reference=25.0)
TABLES = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv")
SHORT, LONG = Budget(epochs=1, horizon=3), Budget(epochs=3, horizon=3)
POPULATION = 6

HORIZONS = st.none() | st.integers(1000, 9999) | st.floats(1000, 9999)
BUDGETS = st.one_of(
    st.builds(Budget, epochs=st.integers(1, 1000), horizon=HORIZONS),
    st.builds(Budget, steps=st.integers(1, 1000), horizon=HORIZONS),
    st.builds(Budget, seconds=st.floats(1e-9, 1000), horizon=HORIZONS),
)


class Promoting:
    """Asks for random networks at a short budget; from the third generation on, also for the best
    of those at a long one."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)
        self.generation = 0
        self.seen: list[tuple[float, tuple[int, ...]]] = []

    def ask(self) -> list[Candidate]:
        fresh = [Candidate(SPACE.sample(self.rng), budget=SHORT) for _ in range(POPULATION)]
        if self.generation < 2:
            return fresh
        best = sorted(self.seen)[2 * self.generation - 4 :][:2]
        long = [Candidate(SPACE.genome(genes), budget=LONG) for _, genes in best]
        return [*long, *fresh[2:]]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.generation += 1
        self.seen += [
            (each.values["val_error"], each.candidate.genome.genes)
            for each in evaluations
            if each.candidate.budget == SHORT
        ]

    def state_dict(self) -> State:
        return {
            "generation": self.generation,
            "seen": list(self.seen),
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: State) -> None:
        self.generation, self.seen = state["generation"], list(state["seen"])
        self.rng.bit_generator.state = state["rng"]


class Trained:
    """A long training has a larger error than a short one, and leaves weights that name both."""

    metrics = (Metric("val_error"), Metric("params"))
    fingerprint = ""

    def __init__(self, run_dir: Path) -> None:
        self.scratch = run_dir / "scratch"

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"params": 1 + sum(genome.genes)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        assert candidate.budget is not None
        error = (seed % 97) / 200 + candidate.budget.amount / 10
        name = f"{seed}-{candidate.budget.epochs}.safetensors"
        (self.scratch / name).write_text(f"{SPACE.key(candidate.genome)} {candidate.budget.text}")
        values = {"val_error": error, **self.cheap(candidate.genome)}
        return Evaluation(candidate, values, weights=name)


def search(folder: Path, generations: int) -> RunFolder:
    """Runs, or resumes, the search; each generation's weights are looked at on the way."""
    folder.mkdir(exist_ok=True)
    run = RunFolder(
        folder,
        space=SPACE,
        metrics=("val_error", "params"),
        objectives=(ERROR, SIZE),
        references=(1.0, 25.0),
    )
    strategy = Promoting()
    if run.strategy is not None:
        strategy.load_state_dict(run.strategy)
    desk = Desk(Trained(folder), SPACE, answers=run.journal)
    stop = Stop(generations=generations)
    for generation in evolve(strategy, desk, stop=stop, since=run.archive.position):
        run.record(generation, strategy.state_dict())
        kept = {file.stem: file.read_text() for file in (folder / "weights").iterdir()}
        assert kept == {
            entry.question.key: f"{entry.question.key} {entry.question.budget}"
            for entry in run.archive.front
        }
    run.close()
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def test_the_front_begins_anew_with_the_first_longer_training(tmp_path: Path) -> None:
    run = search(tmp_path, 4)
    table = pd.read_csv(tmp_path / "evaluations.csv")
    fronts = pd.read_csv(tmp_path / "fronts.csv")
    assert table.groupby("generation")["budget"].nunique().tolist() == [1, 1, 2, 2]
    for generation in range(4):
        budget = SHORT.text if generation < 2 else LONG.text
        counted = table[(table["generation"] <= generation) & (table["budget"] == budget)]
        counted = counted[~counted["cached"]]
        expected = counted[pareto.is_on_front(counted[["val_error", "params"]].to_numpy(float))]
        front = fronts[fronts["generation"] == generation]
        assert set(front["key"]) == set(expected["key"]), generation
    assert set(pd.read_csv(tmp_path / "front.csv")["budget"]) == {LONG.text}
    short = table[table["budget"] == SHORT.text]
    best = run.archive.best(ERROR)
    assert best is not None
    assert best.evaluation.values["val_error"] > short["val_error"].min(), "else it shows nothing"
    rows = pd.read_csv(tmp_path / "generations.csv")
    assert rows["trained"].sum() == (~table["cached"]).sum()
    assert (
        rows["val_error_best"].tolist() == table.groupby("generation")["val_error"].min().tolist()
    )


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_search_at_two_budgets_is_resumed_to_the_same_tables(tmp_path: Path, done: int) -> None:
    search(tmp_path / "whole", 4)
    search(tmp_path / "resumed", done)
    resumed = search(tmp_path / "resumed", 4)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    assert {entry.question.budget for entry in resumed.archive.front} == {LONG.text}


def test_the_figure_of_the_best_so_far_begins_anew_too(tmp_path: Path) -> None:
    search(tmp_path, 4)
    document = "objectives: [{name: val_error}, {name: params}]\n"
    (tmp_path / "config.yaml").write_text(document)
    drawn = draw_objectives(Tables(tmp_path)).data
    drawn = drawn[drawn["objective"] == "val_error"].set_index("generation")["best_so_far"]
    fronts = pd.read_csv(tmp_path / "fronts.csv")
    assert drawn.to_dict() == fronts.groupby("generation")["val_error"].min().to_dict()


def test_a_comparisons_curve_begins_anew_too() -> None:
    losses = np.array([[3.0, 1.0], [1.0, 3.0], [9.0, 9.0], [4.0, 2.0], [0.0, 0.0], [5.0, 1.0]])
    losses[2] = np.nan  # a longer training that failed
    ranks = np.array([1, 1, 2, 2, 1, 2])
    objectives = (Objective(name="a", reference=6.0), Objective(name="b", reference=6.0))
    run = Run(
        Path(), {}, {}, objectives, losses, ranks, np.ones(6), frozenset(), 6, 0, 0, 0, None, False
    )
    box = Box.around([run])
    assert box is not None
    y = curve(run, box, "evaluations").y
    assert y[:, 0].tolist() == [3, 1, 1, 4, 4, 4]
    assert y[:, 1].tolist() == [1, 1, 1, 2, 2, 1]
    parts = [losses[:3], losses[[3]], losses[[3, 3]], losses[[3, 3, 5]]]
    expected = [*box.hypervolumes(parts[0]), *(box.hypervolumes(part)[-1] for part in parts[1:])]
    assert y[:, 2].tolist() == expected


def evaluation(budget: Budget, error: float, size: float, status: Status = Status.OK) -> Evaluation:
    candidate = Candidate(SPACE.genome([0] * 6), budget=budget)
    return Evaluation(candidate, {"val_error": error, "params": size}, status)


def generation(index: int, evaluations: Sequence[Evaluation]) -> Generation:
    questions = tuple(
        Question(f"g{index}-{i}", 0, each.candidate.budget.text if each.candidate.budget else "")
        for i, each in enumerate(evaluations)
    )
    return Generation(index, questions, tuple(evaluations), (False,) * len(evaluations))


VALUES = st.floats(0, 1)
ANSWERS = st.builds(
    evaluation,
    st.sampled_from([Budget(epochs=1), Budget(epochs=3), Budget(epochs=9)]),
    VALUES,
    VALUES.map(lambda share: 25 * share),
    st.sampled_from([Status.OK, Status.OK, Status.DIVERGED, Status.INFEASIBLE]),
)


@given(st.lists(st.lists(ANSWERS, min_size=1, max_size=4), min_size=1, max_size=8))
def test_hypervolume_never_falls_while_the_budget_stays(answers: list[list[Evaluation]]) -> None:
    archive = Archive((ERROR, SIZE), [1.0, 25.0])
    budget, volume = 0.0, 0.0
    for index, each in enumerate(answers):
        archive.add(generation(index, each))
        budgets = [e.candidate.budget for e in each if e.status is Status.OK]
        largest = max([budget, *(each.amount for each in budgets if each)])
        assert {entry.question.budget for entry in archive.front} <= {f"epochs={largest:.0f}"}
        if largest == budget:
            assert archive.hypervolume() >= volume
        budget, volume = largest, archive.hypervolume()


def test_a_longer_training_that_fails_leaves_the_front_as_it_is() -> None:
    archive = Archive((ERROR, SIZE), [1.0, 25.0])
    archive.add(generation(0, [evaluation(SHORT, 0.5, 10)]))
    before = archive.hypervolume()
    archive.add(generation(1, [evaluation(LONG, math.nan, 10, Status.DIVERGED)]))
    archive.add(generation(2, [evaluation(LONG, 0.1, 30, Status.INFEASIBLE)]))
    assert archive.hypervolume() == before > 0


def test_budgets_of_two_units_end_the_search() -> None:
    archive = Archive((ERROR, SIZE), [1.0, 25.0])
    archive.add(generation(0, [evaluation(Budget(epochs=1), 0.5, 10)]))
    with pytest.raises(SearchFailed, match="budgets in epochs and in steps cannot be compared"):
        archive.add(generation(1, [evaluation(Budget(steps=100), 0.5, 10)]))


def test_budgets_are_ranked_by_length_then_by_horizon() -> None:
    texts = ["epochs=3", "epochs=10", "", "epochs=3/10", "epochs=10/10", "epochs=3"]
    assert budget_ranks(texts).tolist() == [1, 3, 0, 2, 3, 1]
    assert budget_ranks([]).tolist() == []
    with pytest.raises(ValueError, match="epochs and in steps"):
        budget_ranks(["epochs=3", "steps=3"])


@given(BUDGETS)
def test_a_budget_is_read_from_its_text(budget: Budget) -> None:
    assert Budget.from_text(budget.text) == budget


@pytest.mark.parametrize("text", ["", "epochs", "epochs=", "epochs=x", "hours=3", "epochs=3/2"])
def test_a_text_that_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Budget"):
        Budget.from_text(text)

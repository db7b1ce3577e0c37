"""The finals of a search that trains nothing: who gets there, who wins, how sure the score is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evonas import config
from evonas.core import Candidate, Evaluation, Generation, Metric, Objective, Status
from evonas.experiment import Experiment
from evonas.jobs.finalists import run_finals
from evonas.loop import Desk
from evonas.records.run import RunFolder
from genomes import Gene, Genome, SearchSpace

SPACE = SearchSpace("row/v1", [Gene("width", tuple("abcdefgh"))])
ERROR, SIZE = Objective(name="val_error", reference=1.0), Objective(name="params", reference=9.0)
Values = Sequence[tuple[float, int]]  # error and size of each network, by its gene
FINALS = ("key", "failed", "winner")


class Told:
    """An error, or a failure, for each training of a network, by its gene; then 0.9."""

    metrics = (Metric("val_error"), Metric("params"))
    fingerprint = ""

    def __init__(self, scratch: Path, finals: Mapping[int, Sequence[float | Status]]) -> None:
        self.scratch, self.left = scratch, {gene: list(each) for gene, each in finals.items()}

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        gene = candidate.genome.genes[0]
        value = self.left[gene].pop(0) if self.left.get(gene) else 0.9
        if isinstance(value, Status):
            return Evaluation(candidate, {}, value, message="so it goes")
        (self.scratch / f"{seed}.safetensors").write_text("weights")
        values = {"val_error": value, "params": gene}
        return Evaluation(candidate, values, weights=f"{seed}.safetensors")


def experiment(objectives: Sequence[Objective], **finals: Any) -> Experiment:
    document = {
        "name": "row",
        "space": {"name": "chain"},
        "data": {"name": "digits"},
        "strategy": {"name": "random"},
        "evaluator": {"name": "train"},
        "budget": {"epochs": 1},
        "objectives": [each.model_dump(exclude_none=True) for each in objectives],
        "stop": {"generations": 1},
        "finalists": finals,
    }
    return config.check(document, Path(), Experiment)


def searched(
    path: Path, values: Values, objectives: Sequence[Objective], *, images: int = 100
) -> RunFolder:
    """A run folder after one generation that has found these values, the second network twice."""
    path.mkdir()
    parts = {"val": {"images": images, "majority": 0.5}}
    (path / "environment.json").write_text(json.dumps({"parts": parts}))
    folder = RunFolder(
        path, space=SPACE, metrics=("val_error", "params"), objectives=objectives,
        references=[each.reference for each in objectives],
    )  # fmt: skip
    desk = Desk(Told(path, {}), SPACE, answers=folder.journal)
    genes = [*range(len(values)), 1]
    asked = [desk.question(Candidate(SPACE.genome([gene]))) for gene in genes]
    answers = []
    for each, gene in zip(asked, genes, strict=True):
        found = {"val_error": values[gene][0], "params": values[gene][1]}
        answers.append(Evaluation(each.candidate, found))
        folder.journal.add(each.question, answers[-1])
    cached = (*(False for _ in values), True)
    folder.record(Generation(0, tuple(a.question for a in asked), tuple(answers), cached), {})
    return folder


def finals(
    folder: RunFolder, settings: Experiment, told: Mapping[int, Sequence[float | Status]]
) -> pd.DataFrame:
    evaluator = Told(folder.path / "scratch", told)
    desk = Desk(evaluator, SPACE, seed=3, answers=folder.journal)
    run_finals(folder, settings, desk, lambda genome, weights: (0.0, 40))
    return pd.read_csv(folder.path / "finalists.csv")


def finalists(folder: RunFolder, objectives: Sequence[Objective], top: int) -> list[str]:
    for name in ("finalists.csv", "weights/winner.safetensors"):
        (folder.path / name).unlink(missing_ok=True)
    settings = experiment(objectives, top=top, seeds=1)
    return sorted(finals(folder, settings, {})["key"])


@pytest.mark.parametrize("top", [1, 3, 9])
def test_one_objective_sends_the_best_distinct_networks_to_the_finals(
    tmp_path: Path, top: int
) -> None:
    values = [(0.5, 1), (0.2, 5), (0.4, 2), (0.3, 3)]
    folder = searched(tmp_path / "run", values, [ERROR])
    assert finalists(folder, [ERROR], top) == sorted(["g1", "g3", "g2", "g0"][:top])


def test_a_near_tie_behind_the_front_may_win_and_what_is_clearly_worse_comes_last(
    tmp_path: Path,
) -> None:
    # Network 1 is beaten by network 0, but by less than one standard error of 100 images.
    values = [(0.20, 2), (0.21, 3), (0.30, 1), (0.29, 4)]
    few = searched(tmp_path / "few", values, [ERROR, SIZE])
    many = searched(tmp_path / "many", values, [ERROR, SIZE], images=100_000)
    assert finalists(few, [ERROR, SIZE], 2) == ["g0", "g1"]
    assert finalists(many, [ERROR, SIZE], 2) == ["g0", "g2"]
    for folder in (few, many):
        assert finalists(folder, [ERROR, SIZE], 3) == ["g0", "g1", "g2"]
        assert finalists(folder, [ERROR, SIZE], 9) == ["g0", "g1", "g2", "g3"]


def test_a_finalist_whose_other_seeds_failed_does_not_win_by_the_one_that_survived(
    tmp_path: Path,
) -> None:
    folder = searched(tmp_path / "run", [(0.1, 1), (0.2, 1), (0.3, 1)], [ERROR])
    settings = experiment([ERROR], top=3, seeds=3)
    lucky = [0.01, Status.DIVERGED, Status.CRASHED]
    table = finals(folder, settings, {0: lucky, 1: [0.2, 0.2, 0.2], 2: [Status.TIMEOUT, 0.3, 0.3]})
    assert table[list(FINALS)].to_numpy().tolist() == [
        ["g1", 0, True],
        ["g2", 1, False],
        ["g0", 2, False],
    ]


def test_a_test_without_a_mistake_has_a_standard_error_above_zero(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run", [(0.1, 1), (0.2, 1)], [ERROR])
    row = finals(folder, experiment([ERROR], top=1, seeds=1), {}).iloc[0]
    assert (row["test_error"], row["test_images"]) == (0, 40)
    assert row["test_error_se"] == pytest.approx(1 / 82)


def test_finalists_are_of_the_largest_budget_alone(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run", [(0.1, 1), (0.2, 1)], [ERROR])
    table = folder.path / "evaluations.csv"
    rows = pd.read_csv(table, dtype=str)
    rows.loc[1, "budget"] = "epochs=2"
    rows.to_csv(table, index=False)
    [entry] = folder.archive.front
    longer = replace(entry.question, key="g1", seed=int(rows["seed"][1]), budget="epochs=2")
    folder.journal.add(longer, entry.evaluation)
    assert finalists(folder, [ERROR], 2) == ["g1"]

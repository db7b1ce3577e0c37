"""By how much a winner is better than what the search began with."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from evonas.records.seeds import compared

SEED = {"key": "g1", "genome": "vgg", "origin": "seed", "winner": False}
WINNER = {"key": "g2", "genome": "mine", "origin": "crossover", "winner": True}


def finals(path: Path, winner: str, seed: str, goal: str = "min") -> str:
    rows = [{**WINNER, "val_error_by_seed": winner}, {**SEED, "val_error_by_seed": seed}]
    pd.DataFrame(rows).to_csv(path / "finalists.csv", index=False)
    document = {"objectives": [{"name": "val_error", "goal": goal}]}
    (path / "config.yaml").write_text(yaml.safe_dump(document))
    return compared(path)


def test_the_difference_is_that_of_the_means_with_its_standard_error(tmp_path: Path) -> None:
    """The differences are 0.1, 0.2 and 0.3: a mean of 0.2, and a deviation of 0.1 / sqrt(3)."""
    text = finals(tmp_path, "0.1 0.2 0.3", "0.2 0.4 0.6")
    assert text.startswith("val_error 0.2000 ± 0.0577 better than that of the best seed, vgg ")
    assert "(3 trainings each, p = 0.074, which may be chance)" in text


@pytest.mark.parametrize(
    ("winner", "seed", "goal", "told"),
    [
        ("0.10 0.11 0.12", "0.30 0.32 0.31", "min", "0.2000 ± 0.0058 better"),
        ("0.3 0.3", "0.1 0.2", "min", "0.1500 ± 0.0500 worse"),
        ("0.3 0.3", "0.1 0.2", "max", "0.1500 ± 0.0500 better"),
        ("0.3 0.3", "0.3 0.3", "min", "0.0000 ± 0.0000 different"),
        ("0.3", "0.4 0.5", "min", "val_error 0.1500 better than that of the best seed, vgg"),
    ],
)
def test_what_is_better_follows_the_goal(
    tmp_path: Path, winner: str, seed: str, goal: str, told: str
) -> None:
    assert told in finals(tmp_path, winner, seed, goal)


def test_a_seed_that_wins_is_told_and_a_run_without_seeds_says_nothing(tmp_path: Path) -> None:
    finals(tmp_path, "0.1", "0.2")
    frame = pd.read_csv(tmp_path / "finalists.csv")
    frame.assign(winner=[False, True]).to_csv(tmp_path / "finalists.csv", index=False)
    assert compared(tmp_path).startswith("it is one of the seeds: the search found nothing better")
    frame[:1].to_csv(tmp_path / "finalists.csv", index=False)
    assert compared(tmp_path) == ""
    frame.drop(columns="origin").to_csv(tmp_path / "finalists.csv", index=False)
    assert compared(tmp_path) == ""

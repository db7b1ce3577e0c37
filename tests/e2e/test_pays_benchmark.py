"""The benchmark of whether a search pays: its comparison, and its smallest setting."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers import ROOT


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("pays_answer")


def test_networks_are_chosen_on_validation_alone(answer: Any) -> None:
    trained = pd.DataFrame(
        {
            "params": [1_000, 10_000, 20_000],
            "val_error": [0.15, 0.10, 0.12],
            "test_error": [0.16, 0.14, 0.02],  # the last one is best here, but dominated there
        }
    )
    assert np.isnan(answer.error_at(trained, 500))
    assert answer.error_at(trained, 5_000) == 0.16
    assert answer.error_at(trained, 100_000) == 0.14
    assert answer.volume(trained, 0.20) == pytest.approx(4 * 1 + 6 * 1)


def test_sign_flips_weigh_all_data_sets_alike_and_count_every_flip(answer: Any) -> None:
    gains = [np.full(5, 1e-3), np.full(5, 7.0), np.full(5, 0.2)]
    assert answer.sign_flips(gains) == 2 / 2**15
    assert answer.sign_flips([-each for each in gains]) == 2 / 2**15
    assert answer.sign_flips([np.array([1.0, 2.0]), np.array([-1.0, 0.5, 0.1])]) > 0.1
    assert answer.sign_flips([np.zeros(5)]) == 1.0
    assert answer.sign_flips([np.ones(5)] * 4) < 1e-3  # drawn at random


def test_the_answer_is_of_the_pairs_that_are_there(answer: Any) -> None:
    rows = []
    for data, arm, seed in product(("cifar10", "pneumonia"), ("evonas", "hand_made"), range(2)):
        if (data, arm, seed) == ("pneumonia", "evonas", 1):
            continue  # not done yet
        error = 0.1 if arm == "evonas" else 0.12
        about = {"data": data, "arm": arm, "seed": seed, "evaluations": 9, "search_seconds": 1.0}
        result = {"params": 20_000, "val_error": error, "test_error": error + 0.01}
        rows.append({**about, "genome": "a", **result})
    arms = answer.scores(pd.DataFrame(rows))
    gains = answer.differences(arms, "hand_made")
    assert {data: len(each) for data, each in gains.items()} == {"cifar10": 2, "pneumonia": 1}
    assert gains["cifar10"] == pytest.approx(2 * np.log10(5))
    text = answer.answer(arms)
    assert "than hand_made on each of 2 data sets, p < 0.01 over 3 pairs: does not hold." in text
    assert "(cifar10 -2.00, pneumonia -2.00): holds." in text
    _, numbers = answer.figure(pd.DataFrame(rows))
    assert numbers.groupby(["data", "arm"])["n"].first()["pneumonia", "evonas"] == 1


@pytest.mark.slow
def test_a_second_call_does_only_what_is_missing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {"images": rng.integers(0, 256, (120, 12, 12), dtype=np.uint8)}
    parts |= {"labels": np.arange(120) % 2, "test_images": parts["images"][:20]}
    np.savez(tmp_path / "some.npz", **parts, test_labels=np.arange(20) % 2)
    command = [sys.executable, "benchmarks/pays.py", "--data", "pneumonia", "--pneumonia"]
    command += [str(tmp_path / "some.npz"), "--minutes", "1", "--finals", "2", "--seeds", "1"]
    command += ["--final-seeds", "1", "--final-steps", "3", "--out", str(tmp_path / "out")]

    def rows(*arms: str) -> pd.DataFrame:
        subprocess.run([*command, "--arms", *arms], cwd=ROOT, check=True)
        return pd.read_csv(tmp_path / "out" / "rows.csv")

    first = rows("random", "optuna")
    assert set(first["arm"]) == {"random", "optuna"}
    again = rows("random", "optuna", "hand_made")
    pd.testing.assert_frame_equal(again[again["arm"] != "hand_made"].reset_index(drop=True), first)

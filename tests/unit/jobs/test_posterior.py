"""What a model expects of networks, beside what one noisy training of each measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evonas.core import Objective
from evonas.jobs.posterior import LEAST, expected
from genomes import Genome, NASBench201

SPACE = NASBench201()
ERROR, SIZE = Objective(name="val_error"), Objective(name="params")
ACCURACY = Objective(name="accuracy", goal="max")
NOISE = 0.03


def true_error(genome: Genome) -> float:
    """An error that falls with convolutions on paths to the output, with a surprise or two."""
    counts = np.bincount(SPACE.canonical(genome).genes, minlength=5)
    return float(0.5 - 0.05 * counts[3] - 0.03 * counts[2] + 0.02 * (counts[4] > 2))


def search(seed: int, count: int = 100) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows of distinct networks, their true errors, and those that a training measures."""
    rng = np.random.default_rng(seed)
    genomes = list({SPACE.key(g): g for g in (SPACE.sample(rng) for _ in range(count))}.values())
    true = np.array([true_error(genome) for genome in genomes])
    rows = pd.DataFrame({"genes": [genome.text for genome in genomes]})
    return rows, true, true + NOISE * rng.standard_normal(len(true))


def test_the_best_by_the_model_are_better_than_the_best_by_one_training() -> None:
    gains, noises, covered = [], [], []
    for seed in range(8):
        rows, true, measured = search(seed)
        model = expected(rows, measured[:, None], [ERROR], SPACE, exact=())
        assert model is not None
        by_model, by_luck = (np.argsort(x)[:3] for x in (model.means[:, 0], measured))
        gains.append(true[by_luck].mean() - true[by_model].mean())
        noises.append(model.noise[0])
        covered.append(np.mean(np.abs(model.means[:, 0] - true) <= 2 * model.stds[:, 0]))
    assert np.mean(covered) > 0.8
    assert np.mean(gains) > 0.005
    assert min(gains) > -0.01
    assert NOISE / 2 < np.median(noises) < NOISE * 2


def test_objectives_without_noise_stay_as_they_are() -> None:
    rows, _, measured = search(0)
    losses = np.column_stack([measured, np.arange(len(rows), dtype=float)])
    model = expected(rows, losses, [ERROR, SIZE], SPACE, exact={"params"})
    assert model is not None
    assert (model.means[:, 1] == losses[:, 1]).all()
    assert list(model.columns([ERROR, SIZE])) == ["val_error", "val_error_std", "val_error_noise"]


def test_what_is_maximised_is_told_in_its_own_unit() -> None:
    rows, _, measured = search(0)
    minimised = expected(rows, measured[:, None], [ERROR], SPACE, exact=())
    maximised = expected(rows, measured[:, None] - 1.0, [ACCURACY], SPACE, exact=())
    assert minimised is not None
    assert maximised is not None
    told = maximised.columns([ACCURACY])["accuracy"]
    assert told == pytest.approx(1.0 - minimised.columns([ERROR])["val_error"], abs=1e-4)


def test_few_networks_or_none_with_noise_have_no_model() -> None:
    rows, _, measured = search(0)
    assert expected(rows[: LEAST - 1], measured[: LEAST - 1, None], [ERROR], SPACE, ()) is None
    assert expected(rows, measured[:, None], [SIZE], SPACE, {"params"}) is None

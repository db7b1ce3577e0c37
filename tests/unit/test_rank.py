"""The networks that `evonas rank` draws, and what it says of their order."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evonas.core import Constraint
from evonas.jobs.rank import MAX_NETWORKS, agreement, draw
from genomes import Gene, SearchSpace

TINY = SearchSpace("tiny/v1", [Gene("a", ("x", "y")), Gene("b", ("x", "y", "z"))])


def test_a_space_with_fewer_networks_gives_all_of_them() -> None:
    found, why = draw(TINY, 10, 0)
    assert {genome.genes for genome in found} == set(itertools.product(range(2), range(3)))
    assert why == "the space has only 6 networks"
    assert draw(TINY, 4, 0)[0] == found[:4]
    most = (Constraint(name="sum", max=1.0),)
    some, why = draw(TINY, 10, 0, most, lambda genome: {"sum": sum(genome.genes)})
    assert some == [genome for genome in found if sum(genome.genes) <= 1]
    assert why == "the space has only 3 networks that meet the constraints"


def test_draws_are_uniform_over_genomes() -> None:
    firsts = [draw(TINY, 1, seed)[0][0].genes for seed in range(600)]
    counts = pd.Series(firsts).value_counts()
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_intervals_are_percentiles_of_resampled_pairs_in_which_not_all_are_tied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evonas.jobs.rank.RESAMPLES", 400)
    rng = np.random.default_rng(1)
    scores = rng.integers(3, size=5) / 5  # so few that in some resamples all are tied
    errors = (scores + rng.normal(size=5)).round(1)
    picks = np.random.default_rng(7).integers(5, size=(400, 5))
    assert any(len(set(scores[pick])) == 1 for pick in picks)
    for each, measure in zip(
        agreement(scores, errors, 7), (stats.kendalltau, stats.spearmanr), strict=True
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            values = [measure(scores[pick], errors[pick]).statistic for pick in picks]
        ends = np.nanpercentile(values, [2.5, 97.5])
        assert (each.low, each.high) == pytest.approx(tuple(ends))
        assert each.value == pytest.approx(measure(scores, errors).statistic)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evonas.jobs.rank.RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    scores, errors = rng.random(20), rng.random(20)
    first = agreement(scores, errors, 3)
    assert agreement(scores, errors, 3) == first
    for one, other in zip(first, agreement(scores, errors, 4), strict=True):
        assert one.value == other.value
        assert (one.low, one.high) != (other.low, other.high)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.1)


def test_where_all_are_tied_nothing_is_said_and_no_warning_given(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("evonas.jobs.rank.RESAMPLES", 100)
    for each in agreement(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.5, 0.5]), 0):
        assert np.isnan([each.value, each.low, each.high]).all()
    assert not recwarn.list


def test_intervals_hold_what_they_should_about_as_often_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of independent measures the statistics are 0."""
    monkeypatch.setattr("evonas.jobs.rank.RESAMPLES", 150)
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(120):
        tau, _ = agreement(rng.random(30), rng.random(30), seed)
        covered += tau.low <= 0 <= tau.high
    assert 0.87 < covered / 120 < 0.99


def test_the_most_networks_cost_fewer_resamples_and_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    bootstrap = stats.bootstrap

    def fewer(*data: object, n_resamples: int, **settings: object) -> object:
        asked.append(n_resamples)
        return bootstrap(*data, n_resamples=120, **settings)

    monkeypatch.setattr(stats, "bootstrap", fewer)
    rng = np.random.default_rng(0)
    scores = rng.random(MAX_NETWORKS)
    tracemalloc.start()
    tau, rho = agreement(scores, scores + 0.5 * rng.random(MAX_NETWORKS), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert asked == [1000, 1000]
    assert peak < 200e6
    assert 0 < tau.low < tau.value < tau.high < rho.low < rho.value < rho.high < 1

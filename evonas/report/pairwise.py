"""Each arm against each other one, over seeds: effect size, and a test corrected for their number.

The effect size is Vargha and Delaney's A (2000): how likely a run of one arm is better than one of
the other, where a tie counts half; 0.5 says that neither is. The test is a two-sided Mann-Whitney
test, which takes runs for independent, though those of the same seed may begin with the same
networks. The p-values are corrected by Holm's method (1979) for the number of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import mannwhitneyu

from evonas.pareto import Array

LEAST_SEEDS = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms compared.

    Attributes:
        one, other: their places among the arms.
        effect: how likely a run of `one` is better than one of `other`.
        p: of a Mann-Whitney test.
        corrected: the same, corrected for the number of pairs.
        least: the smallest p that so many seeds can give.
    """

    one: int
    other: int
    effect: float
    p: float
    corrected: float
    least: float


def pairs(values: Sequence[Array]) -> list[Pair]:
    """Compare each arm with each later one that has two seeds or more, as it has itself.

    Args:
        values: the values of each arm's runs, of which more is better; NaN, for a run that has
            found nothing, is the worst.
    """
    ranked = [np.where(np.isnan(each), -np.inf, each) for each in values]
    chosen = [
        (i, k)
        for i, k in combinations(range(len(values)), 2)
        if min(len(values[i]), len(values[k])) >= LEAST_SEEDS
    ]
    tests = [_p(ranked[i], ranked[k]) for i, k in chosen]
    return [
        Pair(i, k, effect(ranked[i], ranked[k]), p, corrected, _least(values[i], values[k]))
        for (i, k), p, corrected in zip(chosen, tests, holm(tests), strict=True)
    ]


def effect(one: Array, other: Array) -> float:
    """Return Vargha and Delaney's A: the share of pairs that `one` wins, with half of the ties."""
    wins = (one[:, None] > other).mean() + (one[:, None] == other).mean() / 2
    return float(wins)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method, in the same order."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(each) for each in corrected]


def _p(one: Array, other: Array) -> float:
    if len(np.unique(np.concatenate([one, other]))) == 1:
        return 1.0
    return float(mannwhitneyu(one, other, alternative="two-sided").pvalue)


def _least(one: Array, other: Array) -> float:
    return 2 / math.comb(len(one) + len(other), len(one))

"""What a model expects of a run's networks: less of it is luck than in one training of each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evonas.core import Objective
from evonas.pareto import Array, Losses
from evonas.surrogate import GaussianProcess
from genomes import SearchSpace

LEAST = 10  # networks, below which there is nothing to learn a model from


@dataclass(frozen=True, slots=True)
class Expected:
    """The losses of n networks as a Gaussian process expects them, given those measured.

    Attributes:
        means: (n, m); the measured losses where an objective has no noise.
        stds: (n, m), how uncertain the means are; 0 where an objective has no noise.
        noise: (m,), the standard deviation of one measurement around a network's mean.
    """

    means: Losses
    stds: Losses
    noise: Array

    def columns(self, objectives: Sequence[Objective]) -> dict[str, Array]:
        """Return the columns of `posterior.csv`: of each objective with noise, in its own unit."""
        found: dict[str, Array] = {}
        for i, goal in enumerate(objectives):
            if self.stds[:, i].any():
                found[goal.name] = goal.sign * self.means[:, i]
                found[f"{goal.name}_std"] = self.stds[:, i]
                found[f"{goal.name}_noise"] = np.full(len(self.means), self.noise[i])
        return found


def expected(
    rows: pd.DataFrame,
    losses: Losses,
    objectives: Sequence[Objective],
    space: SearchSpace,
    exact: Collection[str],
) -> Expected | None:
    """Return what a model expects of networks; None if there are too few to learn one from.

    Args:
        rows: one for each network, with its `genes`.
        losses: (n, m), as measured, finite.
        exact: the names of the metrics that have no noise, such as params.
    """
    noisy = [i for i, goal in enumerate(objectives) if goal.name not in exact]
    if len(rows) < LEAST or not noisy:
        return None
    genomes = (space.genome(map(int, genes.split("-"))) for genes in rows["genes"])
    features = np.stack([space.features(genome) for genome in genomes])
    means, stds, noise = losses.copy(), np.zeros_like(losses), np.zeros(losses.shape[1])
    for i in noisy:
        model = GaussianProcess()
        model.fit(features, losses[:, i])
        means[:, i], stds[:, i] = model.predict(features)
        noise[i] = model.noise
    return Expected(means, stds, noise)

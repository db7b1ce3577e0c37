"""All evaluations so far, as a model learns from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from evonas import pareto
from evonas.core import Constraint, Evaluation, Objective, State
from evonas.core import violation as violation_of
from evonas.pareto import Array, Losses
from genomes import Genome

EARLY = 10  # evaluations that say what is usual, since a search leads away from it
BEYOND = 3.0  # how far the worst that counts is beyond their median, as a multiple of the best's
MARGIN = 0.1  # how far what counts reaches beyond the front, as a share of the front's range


class History:
    """All evaluations so far, as a model learns from them.

    Attributes:
        genomes: in the order asked.
        losses: of each, one for each objective; zeros if not feasible.
        tiers: of each (`pareto.tier`).
        violations: of each.
    """

    def __init__(self, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
        self.objectives, self.constraints = objectives, constraints
        self.genomes: list[Genome] = []
        self.losses: list[list[float]] = []
        self.tiers: list[int] = []
        self.violations: list[float] = []

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        losses = pareto.losses(evaluations, self.objectives)
        for evaluation, row in zip(evaluations, losses.tolist(), strict=True):
            tier = pareto.tier(evaluation, self.objectives)
            infeasible = tier == pareto.INFEASIBLE
            self.genomes.append(evaluation.candidate.genome)
            self.losses.append(row if tier == pareto.FEASIBLE else [0.0] * len(row))
            self.tiers.append(tier)
            self.violations.append(
                violation_of(evaluation.values, self.constraints) if infeasible else 0.0
            )

    def best(self, most: int) -> list[int]:
        """Return the places of the best, best first; of those with equal losses, the latest.

        Networks that are exactly as good are mostly the same one, in a space that does not know.
        """
        targets = self.targets()
        distinct, latest = np.unique(targets[::-1], axis=0, return_index=True)
        places = len(targets) - 1 - latest
        ranks, crowding = distinct[:, 0], np.zeros(len(distinct))
        if distinct.shape[1] > 1:
            numbers, crowding = pareto.ranks_and_crowding(distinct)
            ranks = numbers.astype(np.float64)
        order = np.lexsort((-crowding, ranks, np.array(self.tiers)[places]))
        return [int(place) for place in places[order[:most]]]

    def targets(self) -> Losses:
        """Return losses of all, (n, m): infeasible and failed ones have worse than any feasible."""
        losses, tiers = np.array(self.losses), np.array(self.tiers)
        good = losses[tiers == pareto.FEASIBLE]
        worst = good.max(axis=0) if len(good) else np.zeros(losses.shape[1])
        span = np.ptp(good, axis=0) if len(good) else np.ones(losses.shape[1])
        span = np.where(span > 0, span, 1.0)
        infeasible = tiers == pareto.INFEASIBLE
        shares = np.full(len(tiers), 2.0)  # of the span, beyond the worst
        if infeasible.any():
            ranks = rankdata(np.array(self.violations)[infeasible], method="dense")
            shares[infeasible] = 1 + ranks / (ranks.max() + 1)
        beyond = worst + shares[:, None] * span
        return np.where((tiers == pareto.FEASIBLE)[:, None], losses, beyond)

    def middles(self) -> list[float | None]:
        """Return the middle of each objective, of feasible ones (`Scale.of`); None if none are."""
        losses = self.feasible()
        if not len(losses):
            return [None] * len(self.objectives)
        return [float(np.median(np.unique(column))) for column in losses.T]

    def reference(self) -> Array:
        """Return the losses beyond which nothing counts as a gain, (m,).

        They are the worst so far, unless that is far beyond what is usual at random. All of the
        front counts, and what is a little beyond it, however unusual: where most networks are
        small, the large ones may still be the best. An objective's `reference` is not used, since a
        resumed run may have one that it began without.
        """
        losses = self.targets() if not len(self.feasible()) else self.feasible()
        early, best = np.median(losses[:EARLY], axis=0), losses.min(axis=0)
        usual = early + BEYOND * (early - losses[:EARLY].min(axis=0))
        front = losses[pareto.is_on_front(losses)].max(axis=0)
        ends = np.minimum(losses.max(axis=0), usual)
        ends = np.maximum(ends, front + MARGIN * (front - best))
        return np.asarray(np.where(ends > best, ends, best + 1.0))

    def feasible(self) -> Losses:
        """Return the losses of feasible ones, (f, m), in the order asked."""
        losses = np.array(self.losses).reshape(len(self.losses), len(self.objectives))
        return np.asarray(losses[np.array(self.tiers, dtype=np.int64) == pareto.FEASIBLE])

    def plain(self) -> State:
        return {
            "genomes": " ".join(genome.text for genome in self.genomes),
            "losses": [list(row) for row in self.losses],
            "tiers": list(self.tiers),
            "violations": list(self.violations),
        }

    def restore(self, state: State, space: str) -> None:
        texts = state["genomes"].split()
        self.genomes = [Genome(space, tuple(map(int, text.split("-")))) for text in texts]
        self.losses = [list(row) for row in state["losses"]]
        self.tiers, self.violations = list(state["tiers"]), list(state["violations"])

"""The progress of a run by evaluations or epochs: the best so far, and the hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evonas import pareto
from evonas.pareto import Array, Losses
from evonas.report.arms import Run

By = Literal["evaluations", "epochs"]


@dataclass(frozen=True, slots=True)
class Curve:
    """A step function: from each `x` on, its row of `y` holds.

    Attributes:
        x: (n,), rising.
        y: (n, m + 1): the best so far of each objective, in its own unit, and the hypervolume;
            NaN where there is none yet.
    """

    x: Array
    y: Array

    def at(self, x: Array) -> Array:
        """The values at each `x`, (len(x), m + 1); NaN before the curve begins."""
        place = np.searchsorted(self.x, x, side="right") - 1
        return np.where(place[:, None] < 0, np.nan, self.y[place])

    def steps(self) -> Curve:
        """The same curve, reduced to its ends and the points where something changes."""
        y = np.where(np.isnan(self.y), np.inf, self.y)
        kept = np.ones(len(self.x), dtype=np.bool_)
        kept[1:-1] = (y[1:-1] != y[:-2]).any(axis=1)
        return Curve(self.x[kept], self.y[kept])


@dataclass(frozen=True, slots=True)
class Box:
    """The box of losses in which hypervolume is measured: from the best of all runs to a reference.

    Attributes:
        best: (m,), the best of each objective in any of the runs.
        reference: (m,), the worst of the references that the runs have recorded.
    """

    best: Array
    reference: Array

    @classmethod
    def around(cls, runs: Sequence[Run]) -> Box | None:
        """The box of some runs; None if an objective has no value, or no reference, in any run."""
        objectives = runs[0].objectives
        recorded = [
            [np.nan if o.reference is None else o.sign * o.reference for o in run.objectives]
            for run in runs
        ]
        best = np.full(len(objectives), np.inf)
        reference = np.full(len(objectives), -np.inf)
        for run, row in zip(runs, recorded, strict=True):
            best = np.fmin(best, np.fmin.reduce(run.losses, axis=0))
            reference = np.fmax(reference, row)
        if not np.isfinite(best).all() or not np.isfinite(reference).all():
            return None
        return cls(best, reference)

    def hypervolumes(self, losses: Losses) -> Array:
        """The hypervolume after each point, as a share of the box, from 0 to 1.

        A point that the front so far dominates changes nothing, and is skipped.

        Args:
            losses: (n, m); rows of NaN are skipped.

        Returns:
            (n,), never falling.
        """
        span = self.reference - self.best
        if (span <= 0).any():  # the best is no better than the reference
            return np.zeros(len(losses))
        points = (losses - self.best) / span
        corner = [1.0] * len(span)
        volumes = np.zeros(len(losses))
        front = np.empty((0, len(span)))
        for i in np.flatnonzero((points < 1).all(axis=1)):
            point = points[i]
            if (front <= point).all(axis=1).any():
                continue
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            volumes[i] = pareto.hypervolume(front, corner)
        return np.maximum.accumulate(volumes)


def curve(run: Run, box: Box | None, by: By) -> Curve:
    """The curve of a run, by evaluations (repeats count) or by epochs trained so far.

    The best so far and the hypervolume are those of the largest budget so far, as in the archive.
    """
    signs = np.array([objective.sign for objective in run.objectives])
    parts = []
    for losses in comparable(run):
        best = np.fmin.accumulate(losses, axis=0) * signs
        volume = np.full(len(best), np.nan) if box is None else box.hypervolumes(losses)
        parts.append(np.column_stack([best, volume]))
    y = np.vstack(parts)
    if by == "evaluations":
        return Curve(np.arange(1.0, len(y) + 1), y)
    x = np.cumsum(run.epochs)
    last = np.append(x[1:] != x[:-1], True)  # what costs nothing shares a place
    return Curve(x[last], y[last])


def comparable(run: Run) -> list[Losses]:
    """The losses in a row, cut wherever a larger budget has its first result.

    In each part those of smaller budgets are NaN, as they do not count any more.
    """
    has_result = np.isfinite(run.losses).all(axis=1)
    largest = np.maximum.accumulate(np.where(has_result, run.fidelity, 0))
    losses = np.where((run.fidelity == largest)[:, None], run.losses, np.nan)
    return np.split(losses, np.flatnonzero(np.diff(largest)) + 1)


@dataclass(frozen=True, slots=True)
class Band:
    """The mean over an arm's seeds, with a band, up to the end of its shortest run.

    Attributes:
        x: (n,), rising.
        mean, low, high: (n, m + 1); NaN until all seeds have a value.
        kind: what the band shows; empty for a single seed, which has no band.
    """

    x: Array
    mean: Array
    low: Array
    high: Array
    kind: str


ENOUGH_SEEDS = 5  # seeds from which on the standard error says more than the extremes


def band(curves: Sequence[Curve]) -> Band:
    """The band of an arm: smallest to largest for two to four seeds, standard error for more."""
    end = min(each.x[-1] for each in curves)
    x = np.unique(np.concatenate([each.x for each in curves]))
    x = x[x <= end]
    values = np.stack([each.at(x) for each in curves])  # (seeds, n, m + 1)
    mean = values.mean(axis=0)
    n = len(curves)
    if n == 1:
        return Band(x, mean, mean, mean, "")
    if n < ENOUGH_SEEDS:
        return Band(x, mean, values.min(axis=0), values.max(axis=0), "smallest to largest")
    error = values.std(axis=0, ddof=1) / np.sqrt(n)
    return Band(x, mean, mean - error, mean + error, "mean ± standard error")

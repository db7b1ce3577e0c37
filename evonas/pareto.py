"""Dominance, fronts, crowding distance and hypervolume: pure functions, which all minimise."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from evonas.core import Constraint, Evaluation, Objective, Status, finite, violation

Array = NDArray[np.float64]
Losses = NDArray[np.float64]  # (n, m), to minimise
FEASIBLE, INFEASIBLE, FAILED = range(3)


def losses(evaluations: Sequence[Evaluation], objectives: Sequence[Objective]) -> Losses:
    """Return the objectives of evaluations as numbers to minimise.

    Returns:
        (n, m); NaN where an evaluation has no such value.
    """
    rows = [[o.sign * e.values.get(o.name, np.nan) for o in objectives] for e in evaluations]
    return np.asarray(rows, dtype=np.float64).reshape(len(evaluations), len(objectives))


def is_on_front(losses: Losses) -> NDArray[np.bool_]:
    """Return which points no other point dominates; equal points are all on the front.

    Args:
        losses: (n, m), finite.

    Returns:
        (n,) booleans.
    """
    if len(losses) == 0:
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(moocore.is_nondominated(losses, keep_weakly=True), dtype=np.bool_)


def knee(losses: Losses) -> int:
    """Return which point of a front is farthest from the line between the front's ends.

    The ends are the best points by the first two objectives, each scaled to the front's range
    (Das, 1999, for two objectives).

    Args:
        losses: (n, m), finite, m of at least 2; only the first two objectives count.
    """
    two = losses[:, :2]
    low, high = two.min(axis=0), two.max(axis=0)
    unit = (two - low) / np.where(high > low, high - low, 1.0)
    return int(unit.sum(axis=1).argmin())


def front_ranks(losses: Losses) -> NDArray[np.int64]:
    """Sort points into fronts (Deb et al., 2002, sec. III-A): 0 for the first, 1 for the next, ...

    Args:
        losses: (n, m), finite.

    Returns:
        (n,) ranks; equal points share one.
    """
    if len(losses) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(losses), dtype=np.int64)


def crowding_distance(losses: Losses) -> Array:
    """Return the crowding distance within one front (Deb et al., 2002, sec. III-B).

    Args:
        losses: (n, m), to minimise, finite.

    Returns:
        (n,) distances; inf at the ends of each objective.
    """
    n = len(losses)
    distance = np.zeros(n)
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] if n else 0.0
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def ranks_and_crowding(losses: Losses) -> tuple[NDArray[np.int64], Array]:
    """Return each point's front and its crowding distance there, (n,) each.

    Equal points count once; otherwise their order would decide which is more crowded.
    """
    distinct, place = np.unique(losses, axis=0, return_inverse=True)
    ranks, crowding = front_ranks(distinct), np.zeros(len(distinct))
    for rank in range(int(ranks.max(initial=-1)) + 1):
        members = ranks == rank
        crowding[members] = crowding_distance(distinct[members])
    return ranks[place.reshape(-1)], crowding[place.reshape(-1)]


def hypervolume(losses: Losses, reference: Sequence[float]) -> float:
    """Return the volume dominated within the reference point (Zitzler and Thiele, 1998).

    Args:
        losses: (n, m), finite; points outside the reference add nothing.
        reference: (m,).
    """
    if len(losses) == 0:
        return 0.0
    return float(moocore.hypervolume(losses, ref=np.asarray(reference, dtype=np.float64)))


def hypervolume_gain(losses: Losses, point: Array, reference: Sequence[float]) -> float:
    """Return by how much a point enlarges the volume that others dominate.

    It is the volume of the point's own box, less the part of the box that the others dominate
    (While et al., 2012, the exclusive hypervolume). With many objectives, that is much faster than
    the volume of all of them.

    Args:
        losses: (n, m), finite.
        point: (m,), finite.
        reference: (m,).
    """
    box = np.asarray(reference, dtype=np.float64) - point
    if (box <= 0).any():
        return 0.0
    within = np.maximum(losses, point)
    if len(within):
        within = within[moocore.is_nondominated(within, keep_weakly=False)]
    return max(float(box.prod()) - hypervolume(within, reference), 0.0)


def better(
    first: Evaluation,
    second: Evaluation,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> bool:
    """Return whether the first evaluation dominates the second.

    Feasible comes before infeasible, ordered by violation, and infeasible before failed. A value
    that is missing, NaN or infinite counts as a failure.
    """
    tiers = [tier(evaluation, objectives) for evaluation in (first, second)]
    if tiers[0] != tiers[1] or tiers[0] == FAILED:
        return tiers[0] < tiers[1]
    if tiers[0] == INFEASIBLE:
        return violation(first.values, constraints) < violation(second.values, constraints)
    a, b = losses((first, second), objectives)
    return bool((a <= b).all() and (a < b).any())


def preference(
    evaluations: Sequence[Evaluation],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> NDArray[np.int64]:
    """Return the order of preference: feasible before infeasible before failed.

    Feasible ones are ordered by their loss, or, with several objectives, by front and then by
    crowding distance, the less crowded first (Deb et al., 2002, the crowded-comparison operator);
    infeasible ones by violation. A value that is missing, NaN or infinite counts as a failure.

    Returns:
        (n,) ranks from 0, the best; evaluations equal in all of this share one.
    """
    rows = [standing(evaluation, objectives, constraints) for evaluation in evaluations]
    return order(np.array(rows, dtype=np.float64).reshape(len(rows), 2 + len(objectives)))


def standing(
    evaluation: Evaluation, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> tuple[float, ...]:
    """Return what `order` compares: tier, violation (0 unless it is infeasible), and m losses."""
    rank = tier(evaluation, objectives)
    outside = violation(evaluation.values, constraints) if rank == INFEASIBLE else 0.0
    values = (o.sign * evaluation.values.get(o.name, np.nan) for o in objectives)
    return (rank, outside, *values)


def order(standings: Array) -> NDArray[np.int64]:
    """Return the order of preference of evaluations; see `preference`.

    Args:
        standings: (n, 2 + m), the `standing` of each.
    """
    tiers, values = standings[:, 0], standings[:, 2:]
    first, second = standings[:, 1].copy(), np.zeros(len(standings))
    feasible = np.flatnonzero(tiers == FEASIBLE)
    if values.shape[1] == 1:
        first[feasible] = values[feasible, 0]
    else:
        ranks, crowding = ranks_and_crowding(values[feasible])
        first[feasible], second[feasible] = ranks, -crowding
    _, ranks_of = np.unique(np.column_stack([tiers, first, second]), axis=0, return_inverse=True)
    return np.asarray(ranks_of, dtype=np.int64).reshape(len(standings))


def tier(evaluation: Evaluation, objectives: Sequence[Objective]) -> int:
    """Return FEASIBLE, INFEASIBLE or FAILED; a missing, NaN or infinite value is a failure."""
    if evaluation.status is Status.INFEASIBLE:
        return INFEASIBLE
    names = [objective.name for objective in objectives]
    ok = evaluation.status is Status.OK and finite(evaluation.values, names)
    return FEASIBLE if ok else FAILED

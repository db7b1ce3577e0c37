"""NSGA-III: fronts, then niches around reference directions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, State, UserError
from evonas.pareto import Array, Losses
from evonas.protocols import Setting
from evonas.strategies import _deap
from evonas.strategies._breeding import Breeding, BreedingParams
from evonas.strategies.generational import Generational

MAX_DIRECTIONS = 100_000  # as many as the largest population has members


class NSGA3Params(BreedingParams):
    name: Literal["nsga3"] = "nsga3"
    divisions: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The number of parts that the reference directions divide each objective into. Without it, the
    largest number that gives no more directions than the population has members."""


@dataclass
class Scale:
    """The state of the normalisation (Deb and Jain, 2014, sec. IV-C).

    Attributes:
        ideal: (m,), the best of each objective so far.
        worst: (m,), the worst of each objective so far.
        extremes: (m, m), for each axis the point closest to it so far; None at the beginning.
    """

    ideal: Array
    worst: Array
    extremes: Array | None = field(default=None)


class NSGA3(Generational):
    """NSGA-III (Deb and Jain, 2014), for three objectives and more, with the niching of DEAP.

    From population and offspring together, the first fronts survive, and from the front that fits
    only in part those whose niche, the nearest reference direction, has the fewest members. Parents
    are drawn uniformly, feasible ones before infeasible ones, and those before failed ones (Jain
    and Deb, 2014). Unlike in the papers, no network is asked for twice.
    """

    Params = NSGA3Params

    def __init__(self, params: NSGA3Params, setting: Setting) -> None:
        super().__init__(params, setting)
        self.breeding = Breeding(params, space=self.space, rng=self.rng, is_new=self._is_new)
        count = len(self.objectives)
        divisions = params.divisions or _max_divisions(count, params.population)
        self.directions = directions(count, divisions)
        self.scale = Scale(np.full(count, np.inf), np.full(count, -np.inf))

    def _propose(self) -> list[Candidate]:
        population = self.breeding.population
        if not population:
            return self.breeding.founders()
        ranks = pareto.preference(population, self.objectives, self.constraints)
        ranks[self._feasible(population)] = -1
        return self.breeding.offspring(ranks, tournament_size=2)

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self.breeding.tell(evaluations, self._survivors)

    def _survivors(self, everyone: list[Evaluation]) -> list[int]:
        size = self.params.population
        ranks = pareto.preference(everyone, self.objectives, self.constraints)
        order = np.argsort(ranks, kind="stable").tolist()
        firsts, repeats = self.breeding.split_repeats(order, everyone)
        trained = set(self._feasible(everyone))
        feasible = [i for i in firsts if i in trained]
        if len(feasible) <= size:
            return (firsts + repeats)[:size]
        losses = pareto.losses([everyone[i] for i in feasible], self.objectives)
        numbers = survive(losses, size, self.directions, self.scale, self.rng)
        return [feasible[i] for i in numbers]

    def _feasible(self, evaluations: list[Evaluation]) -> list[int]:
        tiers = [pareto.tier(evaluation, self.objectives) for evaluation in evaluations]
        return [i for i, tier in enumerate(tiers) if tier == pareto.FEASIBLE]

    def _state(self) -> State:
        scale = self.scale
        extremes = None if scale.extremes is None else scale.extremes.tolist()
        return {
            **self.breeding.state(),
            "ideal": scale.ideal.tolist(),
            "worst": scale.worst.tolist(),
            "extremes": extremes,
        }

    def _restore(self, state: State) -> None:
        self.breeding.restore(state)
        extremes = state["extremes"]
        self.scale = Scale(
            np.array(state["ideal"]),
            np.array(state["worst"]),
            None if extremes is None else np.array(extremes),
        )


def directions(objectives: int, divisions: int) -> Array:
    """Reference directions spread evenly over the unit simplex (Das and Dennis, 1998).

    Returns:
        (r, objectives), r = C(objectives + divisions - 1, divisions), each summing to 1.

    Raises:
        UserError: there would be more than 100,000.
    """
    count = math.comb(objectives + divisions - 1, divisions)
    if count > MAX_DIRECTIONS:
        raise UserError(
            f"{divisions} divisions of {objectives} objectives give {count:,} reference directions",
            hint=f"use fewer divisions, for at most {MAX_DIRECTIONS:,} directions",
            key="strategy.divisions",
        )
    points: Array = _deap.reference_points(objectives, divisions)
    return points


def survive(
    losses: Losses, k: int, directions: Array, scale: Scale, rng: np.random.Generator
) -> list[int]:
    """Chooses the k survivors (Deb and Jain, 2014, algorithm 1), and updates `scale`.

    Args:
        losses: (n, m), finite, n >= k.
        directions: (r, m).
    """
    ranks = pareto.front_ranks(losses)
    order = np.argsort(ranks, kind="stable")
    last = ranks[order[k - 1]]
    whole, partly = order[ranks[order] < last], order[ranks[order] == last]
    considered = np.concatenate([whole, partly])
    points = losses[considered]
    scale.ideal = np.minimum(scale.ideal, points.min(axis=0))
    scale.worst = np.maximum(scale.worst, points.max(axis=0))
    niches, distances, scale.extremes = _deap.niches(
        points, directions, scale.ideal, scale.worst, scale.extremes
    )
    counts = np.bincount(niches[: len(whole)], minlength=len(directions))
    with _deap.numpy_random(rng):
        chosen = _deap.fill_niches(
            partly.tolist(),
            k - len(whole),
            niches[len(whole) :],
            distances[len(whole) :],
            counts,
        )
    return [*whole.tolist(), *chosen]


def _max_divisions(objectives: int, population: int) -> int:
    """The largest number of divisions with no more directions than members, at least one."""
    if objectives == 1:
        return 1
    divisions = 1
    while math.comb(objectives + divisions, divisions + 1) <= population:
        divisions += 1
    return divisions

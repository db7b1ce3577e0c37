"""NSGA-II: fronts, then crowding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, State
from evonas.strategies import _deap
from evonas.strategies._breeding import Breeding, BreedingParams
from evonas.strategies.generational import Generational

PRESSURE = 1.5  # any value serves, since a tournament depends on the order alone


class NSGA2Params(BreedingParams):
    name: Literal["nsga2"] = "nsga2"
    tournament_size: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many members are drawn; the best of them becomes a parent."""


class NSGA2(Generational):
    """NSGA-II (Deb et al., 2002).

    Parents win tournaments by the crowded-comparison operator. From population and offspring
    together, the first fronts survive, and the least crowded members of the front that fits only in
    part. Feasible networks go before infeasible ones, and those before failed ones. Unlike in the
    paper, no network is asked for twice, and equal points count as one when crowding is measured.
    With one objective it is a (mu + mu) genetic algorithm.
    """

    Params = NSGA2Params

    def __init__(self, params: NSGA2Params, **run: Any) -> None:
        super().__init__(params, **run)
        self.breeding = Breeding(params, space=self.space, rng=self.rng, is_new=self._is_new)

    def _propose(self) -> list[Candidate]:
        population, params = self.breeding.population, self.params
        if not population:
            return self.breeding.founders()
        ranks = pareto.preference(population, self.objectives, self.constraints)
        count = params.population + params.population % 2  # parents come in pairs
        with _deap.stdlib_random(self.rng):
            fitness = _deap.shaped(ranks, PRESSURE)
            parents = _deap.select(fitness, count, "tournament", params.tournament_size)
            return self.breeding.offspring(parents)

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self.breeding.tell(evaluations, self._survivors)

    def _survivors(self, everyone: list[Evaluation]) -> list[int]:
        ranks = pareto.preference(everyone, self.objectives, self.constraints)
        order = np.argsort(ranks, kind="stable").tolist()
        once, again = self.breeding.firsts(order, everyone)
        return (once + again)[: self.params.population]

    def _state(self) -> State:
        return self.breeding.state()

    def _restore(self, state: State) -> None:
        self.breeding.restore(state)

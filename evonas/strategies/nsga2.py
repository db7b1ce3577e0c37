"""NSGA-II: fronts, then crowding."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, State
from evonas.protocols import Setting
from evonas.strategies._breeding import Breeding, BreedingParams
from evonas.strategies.generational import Generational


class NSGA2Params(BreedingParams):
    name: Literal["nsga2"] = "nsga2"
    tournament_size: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many members are drawn; the best of them becomes a parent."""


class NSGA2(Generational):
    """NSGA-II (Deb et al., 2002), for two or three objectives.

    Parents win tournaments by the crowded-comparison operator. From population and offspring
    together, the first fronts survive, and the least crowded members of the front that fits only in
    part. Feasible networks go before infeasible ones, and those before failed ones. Unlike in the
    paper, no network is asked for twice, and equal points count as one when crowding is measured.
    With one objective it is a (mu + mu) genetic algorithm.
    """

    Params = NSGA2Params

    def __init__(self, params: NSGA2Params, setting: Setting) -> None:
        super().__init__(params, setting)
        self.breeding = Breeding(params, space=self.space, rng=self.rng, is_new=self._is_new)

    def _propose(self) -> list[Candidate]:
        population = self.breeding.population
        if not population:
            return self.breeding.founders()
        ranks = pareto.preference(population, self.objectives, self.constraints)
        return self.breeding.offspring(ranks, tournament_size=self.params.tournament_size)

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self.breeding.tell(evaluations, self._survivors)

    def _survivors(self, everyone: list[Evaluation]) -> list[int]:
        ranks = pareto.preference(everyone, self.objectives, self.constraints)
        order = np.argsort(ranks, kind="stable").tolist()
        firsts, repeats = self.breeding.split_repeats(order, everyone)
        return (firsts + repeats)[: self.params.population]

    def _state(self) -> State:
        return self.breeding.state()

    def _restore(self, state: State) -> None:
        self.breeding.restore(state)

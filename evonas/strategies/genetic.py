"""A generational genetic algorithm on DEAP's operators."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, Requirement, State
from evonas.protocols import Setting
from evonas.strategies._breeding import Breeding, BreedingParams
from evonas.strategies._own_operators import OwnFunction, own
from evonas.strategies.generational import Generational


class GeneticParams(BreedingParams):
    OPERATORS: ClassVar[tuple[str, ...]] = (*BreedingParams.OPERATORS, "selection")

    name: Literal["genetic"] = "genetic"
    selection: Literal["roulette", "tournament", "rank"] | OwnFunction = "roulette"
    """How parents are drawn: `roulette` draws each at random, better members more often; `rank`
    does the same with less randomness (stochastic universal sampling); `tournament` takes the best
    of a few that are drawn uniformly. `FILE.py:NAME` is your own function, which takes `ranks` (or
    `fitness`), `k` and `rng`, and returns k positions in the population."""
    pressure: Annotated[float, Field(gt=1, lt=2)] = 1.8
    """For `roulette` and `rank`: how often the best member is drawn, relative to an average one.
    The worst is drawn 2 - `pressure` times as often as an average one."""
    tournament_size: Annotated[int, Field(ge=1, le=1000)] = 3
    """For `tournament`: how many members are drawn; the best of them becomes a parent."""
    elites: Annotated[int, Field(ge=0)] = 2
    """How many of the best members stay for the next generation, without being trained again;
    fewer than `population`."""

    def model_post_init(self, context: object) -> None:
        super().model_post_init(context)
        if self.elites >= self.population:
            raise Requirement("must be fewer than the population", "elites")


class Genetic(Generational):
    """A genetic algorithm with elites (Holland, 1975; Goldberg, 1989): select, cross, mutate.

    Each generation asks for as many offspring as the population has members. The next population
    consists of the `elites` best of the last one and the best of the offspring. Selection works on
    an order of preference, not on raw values (see `pareto.preference` and `_deap.shaped`), so it
    copes with any number of objectives, minimised or maximised, and with failed evaluations.
    """

    Params = GeneticParams

    def __init__(self, params: GeneticParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.breeding = Breeding(params, space=self.space, rng=self.rng, is_new=self._is_new)
        offers = ("ranks", "fitness", "population", "k", "rng")
        self._selection = own("selection", params.selection, 0, *offers) or str(params.selection)

    @property
    def population(self) -> list[Evaluation]:
        return self.breeding.population

    def _propose(self) -> list[Candidate]:
        if not self.population:
            return self.breeding.founders()
        params = self.params
        ranks = pareto.preference(self.population, self.objectives, self.constraints)
        return self.breeding.offspring(
            ranks,
            tournament_size=params.tournament_size,
            selection=self._selection,
            pressure=params.pressure,
        )

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self.breeding.tell(evaluations, self._survivors)

    def _survivors(self, everyone: list[Evaluation]) -> list[int]:
        """The elites of the population, which comes first, and the best of the offspring."""
        before, size = len(self.population), self.params.population
        elites = self._best(everyone, range(before), self.params.elites)
        return elites + self._best(everyone, range(before, len(everyone)), size - len(elites))

    def _best(self, everyone: list[Evaluation], among: range, k: int) -> list[int]:
        """The k best; repeats of a network come last, and of equals the first is preferred."""
        some = everyone[among.start : among.stop]
        ranks = pareto.preference(some, self.objectives, self.constraints)
        order = np.argsort(ranks, kind="stable").tolist()
        firsts, repeats = self.breeding.split_repeats(order, some)
        return [among[i] for i in (firsts + repeats)[:k]]

    def _state(self) -> State:
        return self.breeding.state()

    def _restore(self, state: State) -> None:
        self.breeding.restore(state)

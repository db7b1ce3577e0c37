"""A generational genetic algorithm on DEAP's operators."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, Requirement, State, UserError
from evonas.pareto import Array
from evonas.protocols import Setting
from evonas.strategies import _deap
from evonas.strategies._breeding import Breeding, BreedingParams
from evonas.strategies._own_operators import OwnFunction, own
from evonas.strategies.generational import Generational


def _half_of_the_population(values: dict[str, Any]) -> int:
    return int(values["population"]) // 2


class GeneticParams(BreedingParams):
    OPERATORS: ClassVar[tuple[str, ...]] = (*BreedingParams.OPERATORS, "selection")

    name: Literal["genetic"] = "genetic"
    population: Annotated[int, Field(ge=2, le=100_000)] = 10
    """The number of members of the population, and of candidates in each generation."""
    selection: Literal["roulette", "tournament", "rank"] | OwnFunction = "roulette"
    """How parents are drawn: `roulette` draws each at random, better members more often; `rank`
    does the same with less randomness (stochastic universal sampling); `tournament` takes the best
    of a few that are drawn uniformly. `FILE.py:NAME` is your own function, which takes `ranks` (or
    `fitness`), `k` and `rng`, and returns k positions in the population."""
    pressure: Annotated[float, Field(gt=1, lt=2)] = 1.8
    """For `roulette` and `rank`: how often the best member is drawn, relative to an average one.
    The worst is drawn 2 - `pressure` times as often as an average one."""
    fitness: Literal["ranked", "raw"] = "ranked"
    """For `roulette`: what a member's chance is proportional to. `ranked` shapes it by rank, for
    any number of objectives; with `raw` it is the only objective itself, f / sum f, shifted so that
    the worst has 0 if it is minimised or has values below 0."""
    tournament_size: Annotated[int, Field(ge=1, le=1000)] = 3
    """For `tournament`: how many members are drawn; the best of them becomes a parent."""
    elites: Annotated[int, Field(ge=0)] = Field(default_factory=_half_of_the_population)
    """How many of the best members stay for the next generation, without being trained again;
    fewer than `population`, and by default half of them."""

    def model_post_init(self, context: object) -> None:
        super().model_post_init(context)
        if self.elites >= self.population:
            raise Requirement("must be fewer than the population", "elites")
        if self.fitness == "raw" and self.selection != "roulette":
            raise Requirement("works with selection: roulette", "fitness")


class Genetic(Generational):
    """A genetic algorithm with elites (Holland, 1975; Goldberg, 1989): select, cross, mutate.

    Each generation asks for as many offspring as the population has members. The next population
    consists of the `elites` best of the last one and the best of the offspring. Selection works on
    an order of preference, and only if asked to on raw values (see `pareto.preference`,
    `_deap.shaped` and `_deap.raw`), so it copes with any number of objectives, minimised or
    maximised, and with failed evaluations.
    """

    Params = GeneticParams

    def __init__(self, params: GeneticParams, setting: Setting) -> None:
        super().__init__(params, setting)
        if params.fitness == "raw" and len(self.objectives) > 1:
            problem = f"is raw, but there are {len(self.objectives)} objectives"
            raise UserError(problem, hint="use ranked, or one objective", key="strategy.fitness")
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
            fitness=self._raw() if params.fitness == "raw" else None,
        )

    def _raw(self) -> Array:
        """The raw fitness of the members, (n,); of feasible ones alone."""
        losses = pareto.losses(self.population, self.objectives)[:, 0]
        tiers = [pareto.tier(member, self.objectives) for member in self.population]
        return _deap.raw(np.where(np.array(tiers) == pareto.FEASIBLE, losses, np.nan))

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

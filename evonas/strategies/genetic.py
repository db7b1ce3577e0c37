"""A generational genetic algorithm on DEAP's operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Constraint, Evaluation, Objective, Params, State
from evonas.strategies import _deap
from genomes import Genome, SearchSpace
from genomes.operators import reset

Share = Annotated[float, Field(ge=0, le=1)]

TRIES = 20  # to vary an offspring until its network is new, before a seen one is let through


class GeneticParams(Params):
    name: Literal["genetic"] = "genetic"
    population: Annotated[int, Field(ge=2, le=100_000)] = 20
    """How many members the population has, and how many candidates each generation."""
    selection: Literal["roulette", "tournament", "rank"] = "roulette"
    """How parents are drawn: `roulette` draws each by chance, better members more often; `rank`
    does the same with less chance in it (stochastic universal sampling); `tournament` takes the
    best of a few that are drawn evenly."""
    pressure: Annotated[float, Field(gt=1, lt=2)] = 1.8
    """For `roulette` and `rank`: how many times as often as the average member the best one is
    drawn. The worst is drawn 2 - `pressure` times as often."""
    tournament_size: Annotated[int, Field(ge=1, le=1000)] = 3
    """For `tournament`: how many members are drawn, of which the best becomes a parent."""
    crossover: Literal["uniform", "one_point", "two_point"] = "uniform"
    """How the genes of two parents are mixed: `uniform` swaps each gene with probability 1/2,
    `one_point` swaps all genes after a random place, `two_point` those between two places."""
    crossover_rate: Share = 0.9
    """The probability that the genes of two parents are mixed. If not, each child begins as a copy
    of one parent."""
    mutation_rate: Share = 0.2
    """The probability, for each gene of a child, that it changes to another of its choices."""
    elites: Annotated[int, Field(ge=0)] = 2
    """How many of the best members stay in the population for the next generation; fewer than
    `population`. They are not trained again."""

    def model_post_init(self, context: object) -> None:
        if self.elites >= self.population:
            raise ValueError("elites: fewer than the population")


class Genetic:
    """Select parents, cross, mutate (Holland, 1975; Goldberg, 1989), with elites.

    Each generation asks for as many offspring as the population has members. The next population
    is made of the `elites` best of the last one and the best of the offspring. Selection works on
    an order of preference, not on raw values (see `pareto.preference` and `_deap.shaped`), so it
    takes any number of objectives, minimised or maximised, and failed evaluations. An offspring
    whose network has been asked for before is varied again, and at last drawn at random; only a
    space that is all but used up lets a seen one through.
    """

    Params = GeneticParams

    def __init__(
        self,
        params: GeneticParams,
        *,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
    ) -> None:
        self.params = params
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.rng = np.random.default_rng(seed)
        self.population: list[Evaluation] = []
        self.seen: dict[str, None] = {}  # keys asked for, in order
        self.owed = 0

    def ask(self) -> list[Candidate]:
        if self.owed:
            return []
        candidates = self._offspring() if self.population else self._founders()
        self.owed = len(candidates)
        return candidates

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if len(evaluations) != self.owed:
            raise ValueError(f"asked for {self.owed} evaluations, told {len(evaluations)}")
        self.owed = 0
        elites = self._best(self.population, self.params.elites)
        offspring = self._best(evaluations, self.params.population - len(elites))
        self.population = elites + offspring

    def state_dict(self) -> State:
        if self.owed:
            raise ValueError("a generation is out: tell its evaluations before taking the state")
        return {
            "rng": self.rng.bit_generator.state,
            "population": [member.to_plain() for member in self.population],
            "seen": " ".join(self.seen),  # one text pickles faster than a list of many
        }

    def load_state_dict(self, state: State) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.population = [Evaluation.from_plain(member) for member in state["population"]]
        self.seen = dict.fromkeys(state["seen"].split())
        self.owed = 0

    def _best(self, evaluations: Sequence[Evaluation], k: int) -> list[Evaluation]:
        """The k preferred, each network once while there are enough; of equals the first."""
        order = np.argsort(
            pareto.preference(evaluations, self.objectives, self.constraints), kind="stable"
        )
        keys: set[str] = set()
        once: list[Evaluation] = []
        again: list[Evaluation] = []
        for i in order:
            key = self.space.key(evaluations[i].candidate.genome)
            (again if key in keys else once).append(evaluations[i])
            keys.add(key)
        return (once + again)[:k]

    def _founders(self) -> list[Candidate]:
        return [Candidate(self._unseen()) for _ in range(self.params.population)]

    def _offspring(self) -> list[Candidate]:
        params, rng = self.params, self.rng
        genes = [e.candidate.genome.genes for e in self.population]
        keys = [self.space.key(e.candidate.genome) for e in self.population]
        ranks = pareto.preference(self.population, self.objectives, self.constraints)
        count = params.population + params.population % 2  # parents come in pairs
        fitness = _deap.shaped(ranks, params.pressure)
        offspring: list[Candidate] = []
        with _deap.stdlib_random(rng):
            parents = _deap.select(genes, fitness, count, params.selection, params.tournament_size)
            for i, j in zip(parents[::2], parents[1::2], strict=True):
                crossed = i != j and rng.random() < params.crossover_rate
                children = (list(genes[i]), list(genes[j]))
                if crossed:
                    children = _deap.mate(genes[i], genes[j], params.crossover)
                lineages = [(keys[i], keys[j])] * 2 if crossed else [(keys[i],), (keys[j],)]
                for child, lineage in zip(children, lineages, strict=True):
                    if len(offspring) < params.population:
                        offspring.append(self._varied(child, lineage, crossed))
        return offspring

    def _varied(self, child: list[int], parents: tuple[str, ...], crossed: bool) -> Candidate:
        """The child, mutated until its network is new."""
        mutated = child
        for _ in range(TRIES):
            mutated = reset(mutated, self.space.choices, self.params.mutation_rate, self.rng)
            genome = Genome(self.space.name, tuple(mutated))
            if self._is_new(genome):
                changed = "+mutation" if mutated != child else ""
                origin = f"crossover{changed}" if crossed else "mutation"
                return Candidate(genome, parents, origin)
        return Candidate(self._unseen())

    def _unseen(self) -> Genome:
        """A genome drawn at random, of a new network if one turns up."""
        genome = self.space.sample(self.rng)
        for _ in range(TRIES):
            if self._is_new(genome):
                break
            genome = self.space.sample(self.rng)
        return genome

    def _is_new(self, genome: Genome) -> bool:
        key = self.space.key(genome)
        new = key not in self.seen
        self.seen[key] = None
        return new

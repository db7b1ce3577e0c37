"""The contracts, over everything registered, and over strategies broken on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from evonas import registry
from evonas.core import Candidate, Evaluation
from evonas.strategies.aging import Aging, AgingParams
from evonas.strategies.genetic import Genetic, GeneticParams
from evonas.strategies.local_search import LocalSearch, LocalSearchParams
from evonas.strategies.nsga2 import NSGA2, NSGA2Params
from evonas.strategies.nsga3 import NSGA3, NSGA3Params
from evonas.strategies.pso import PSO, PSOParams
from evonas.strategies.random import Random, RandomParams
from evonas.testing import CONTRACTS, Make, maker
from evonas.testing import strategies as contracts
from genomes import Genome

Contract = Callable[[Make], None]
contract = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)

VARIANTS: dict[str, Make] = {
    "genetic of two": maker(Genetic, GeneticParams(population=2, elites=0)),
    "genetic, rank, two_point": maker(
        Genetic, GeneticParams(population=5, selection="rank", crossover="two_point")
    ),
    "genetic, scaled": maker(
        Genetic,
        GeneticParams(population=6, encoding="scaled", crossover="arithmetic", mutation="scale"),
    ),
    "genetic, logits": maker(
        Genetic,
        GeneticParams(
            population=6, encoding="logits", crossover="simulated_binary", mutation="polynomial"
        ),
    ),
    "genetic, blend": maker(
        Genetic,
        GeneticParams(
            population=6, encoding="scaled", crossover="blend", mutation="scale", sigma_drawn=False
        ),
    ),
    "aging, one after the other": maker(Aging, AgingParams(population=4, lag=1)),
    "aging of two": maker(Aging, AgingParams(population=2, tournament_size=1)),
    "aging, lag 3": maker(Aging, AgingParams(population=5, lag=3)),
    "nsga2 of three": maker(NSGA2, NSGA2Params(population=3)),
    "nsga2, logits": maker(NSGA2, NSGA2Params(population=6, encoding="logits")),
    "nsga3 of three": maker(NSGA3, NSGA3Params(population=3)),
    "nsga3, 3 divisions": maker(NSGA3, NSGA3Params(population=4, divisions=3)),
    "pso of two": maker(PSO, PSOParams(particles=2)),
    "pso, logits, ring": maker(
        PSO, PSOParams(particles=5, encoding="logits", neighbourhood="ring", boundary="reflect")
    ),
    "pso that ends": maker(
        PSO,
        PSOParams(particles=4, converged="end", boundary="periodic", inertia_end=0.4, patience=1),
    ),
    "local search, first": maker(LocalSearch, LocalSearchParams(improvement="first")),
    "local search, first of 4": maker(LocalSearch, LocalSearchParams(improvement="first", batch=4)),
    "random, one by one": maker(Random, RandomParams(population=1)),
}


@contract
@pytest.mark.parametrize("name", registry.names("strategies"))
def test_every_strategy_keeps_every_contract(name: str, contract: Contract) -> None:
    strategy = registry.load("strategies", name)
    contract(maker(strategy, strategy.Params()))


@contract
@pytest.mark.parametrize("variant", VARIANTS)
def test_so_does_each_with_other_settings(variant: str, contract: Contract) -> None:
    contract(VARIANTS[variant])


class Forgetful(Genetic):
    """Leaves the networks seen out of its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": ""}


class Impatient(Random):
    def ask(self) -> list[Candidate]:
        self.out = []
        return super().ask()


class Lucky(Random):
    """Draws from the global generator."""

    def _unseen(self) -> Genome:
        random.random()
        return super()._unseen()


class Swayed(Random):
    """Is the same for every seed, but not for every state of the global generator."""

    def _unseen(self) -> Genome:
        before = random.getstate()
        place = random.randrange(self.space.size)
        random.setstate(before)
        genes = []
        for count in self.space.choices:
            place, gene = divmod(place, count)
            genes.append(gene)
        return Genome(self.space.name, tuple(genes))


class Trusting(Random):
    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.out = []


class Fragile(Random):
    def _learn(self, evaluations: list[Evaluation]) -> None:
        min(evaluation.values["a"] for evaluation in evaluations)


class Rich(Random):
    def _state(self) -> dict[str, Any]:
        return {"genome": self.space.genome([0] * len(self.space.genes))}


class Astray(Random):
    def _propose(self) -> list[Candidate]:
        return [Candidate(Genome(self.space.name, (9,) * len(self.space.genes)))]


class Inventive(Random):
    def _propose(self) -> list[Candidate]:
        return [Candidate(self._unseen(), ("gnobody",))]


class Stubborn(Random):
    """Hangs, or would, where the space is used up."""

    def _unseen(self) -> Genome:
        for _ in range(1000):
            genome = self.space.sample(self.rng)
            if self._is_new(genome):
                return genome
        raise TimeoutError


class Greedy(Random):
    """Takes for granted that one is better than the rest."""

    def _learn(self, evaluations: list[Evaluation]) -> None:
        values = [evaluation.values.get("a", 0.0) for evaluation in evaluations]
        assert len(values) < 2 or len(set(values)) > 1, "all alike"


class Unlagged(Aging):
    """Knows as many answers as there are, so that the workers define the search."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.again = []


BROKEN = [
    (Forgetful, GeneticParams(), contracts.a_resume_is_exact),
    (Unlagged, AgingParams(), contracts.a_resume_is_exact),
    (Impatient, RandomParams(), contracts.answers_are_owed_before_more_is_asked),
    (Trusting, RandomParams(), contracts.answers_are_owed_before_more_is_asked),
    (Lucky, RandomParams(), contracts.other_generators_are_left_alone),
    (Swayed, RandomParams(), contracts.it_depends_on_nothing_global),
    (Swayed, RandomParams(), contracts.same_seed_same_search),
    (Fragile, RandomParams(), contracts.failures_are_survived),
    (Rich, RandomParams(), contracts.state_is_plain_data),
    (Astray, RandomParams(), contracts.every_question_is_a_genome_of_the_space),
    (Inventive, RandomParams(), contracts.parents_were_evaluated),
    (Stubborn, RandomParams(), contracts.a_space_that_is_used_up_does_not_stop_it),
    (Greedy, RandomParams(), contracts.equal_values_are_survived),
]


@pytest.mark.parametrize(("strategy", "params", "contract"), BROKEN)
def test_a_strategy_that_breaks_a_contract_is_caught(
    strategy: type, params: Any, contract: Contract
) -> None:
    with pytest.raises((AssertionError, ValueError, KeyError, TimeoutError, RuntimeError)):
        contract(maker(strategy, params))


def test_every_contract_is_broken_by_one() -> None:
    assert {contract for _, _, contract in BROKEN} == set(CONTRACTS)

"""The contracts, over everything registered, and over strategies broken on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from evonas import registry
from evonas.core import Candidate, Constraint, Evaluation, Objective, Status
from evonas.protocols import Need, Setting
from evonas.strategies.aging import Aging, AgingParams
from evonas.strategies.controller import Controller, ControllerParams
from evonas.strategies.genetic import Genetic, GeneticParams
from evonas.strategies.halving import HalvingParams
from evonas.strategies.local_search import LocalSearch, LocalSearchParams
from evonas.strategies.nsga2 import NSGA2, NSGA2Params
from evonas.strategies.nsga3 import NSGA3, NSGA3Params
from evonas.strategies.pso import PSO, PSOParams
from evonas.strategies.random import Random, RandomParams
from evonas.testing import CONTRACTS, Make, maker
from evonas.testing import strategies as contracts
from genomes import Genome, SearchSpace

Contract = Callable[[Make], None]
contract = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)

LONG = (contracts.constraints_push_back, contracts.answers_lead_where_the_goal_says)
LED = ("genetic", "aging, lag 3", "pso, logits, ring")  # with other settings than the defaults

# Those that train on images are given some in `tests/unit/test_relaxation.py`.
# `auto` is one of the others.
OF_GENOMES = [
    name
    for name in registry.names("strategies")
    if Need.DATA not in registry.strategy(name).needs and name != "auto"
]
# What a strategy's smallest batch is, where no setting of its own says it.
LEAST: dict[str, dict[str, Any]] = {
    "halving": {"strategy": GeneticParams(population=2, elites=1)},
}
halving = registry.strategy("halving")
# A strategy with a model of its own has a small one, or asks it little.
SMALL: dict[str, dict[str, Any]] = {"controller": {"units": 8}, "predictor": {"offspring": 50}}
VARIANTS: dict[str, Make] = {
    "controller, within a tanh": maker(
        Controller, ControllerParams(population=4, units=8, tanh_constant=2.5, temperature=2.0)
    ),
    "controller that repeats itself": maker(
        Controller, ControllerParams(population=6, units=8, unseen=False, baseline_decay=0.0)
    ),
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
    "aging of two": maker(Aging, AgingParams(population=2, tournament_size=2)),
    "aging, lag 3": maker(Aging, AgingParams(population=5, lag=3)),
    "genetic without elites": maker(Genetic, GeneticParams(population=2, elites=0)),
    "nsga2 of three": maker(NSGA2, NSGA2Params(population=3)),
    "nsga2, logits": maker(NSGA2, NSGA2Params(population=6, encoding="logits")),
    "nsga3 of three": maker(NSGA3, NSGA3Params(population=3)),
    "nsga3, 3 divisions": maker(NSGA3, NSGA3Params(population=4, divisions=3)),
    "pso, logits, ring": maker(
        PSO, PSOParams(particles=5, encoding="logits", neighbourhood="ring", boundary="reflect")
    ),
    "pso that ends": maker(
        PSO,
        PSOParams(
            particles=4, on_convergence="end", boundary="periodic", inertia_end=0.4, patience=1
        ),
    ),
    "halving of aging": maker(
        halving, HalvingParams(strategy=AgingParams(population=5, lag=3), factor=2.0)
    ),
    "halving of aging, one after the other": maker(
        halving, HalvingParams(strategy=AgingParams(population=4, lag=1))
    ),
    "halving of a swarm": maker(halving, HalvingParams(strategy=PSOParams(particles=5))),
    "halving of a local search": maker(
        halving, HalvingParams(strategy=LocalSearchParams(), factor=4.5)
    ),
    "halving of random": maker(halving, HalvingParams(strategy=RandomParams(population=6))),
    "local search, first": maker(LocalSearch, LocalSearchParams(improvement="first")),
    "local search, first of 4": maker(LocalSearch, LocalSearchParams(improvement="first", batch=4)),
}


def cases(names: Iterable[str]) -> pytest.MarkDecorator:
    """Each of these with each contract; long searches with all but a few are slow tests."""
    return pytest.mark.parametrize(
        ("name", "contract"),
        [
            pytest.param(
                *(name, each),
                id=f"{name}-{each.__name__}",
                marks=[pytest.mark.slow] if each in LONG and name not in LED else [],
            )
            for name in names
            for each in CONTRACTS
        ],
    )


@contract
@pytest.mark.parametrize("name", OF_GENOMES)
def test_every_strategy_keeps_every_contract(name: str, contract: Contract) -> None:
    strategy = registry.load("strategies", name)
    contract(maker(strategy, strategy.Params(**SMALL.get(name, {}))))


@cases(OF_GENOMES)
def test_every_strategy_of_the_smallest_batch_keeps_every_contract(
    name: str, contract: Contract
) -> None:
    """Of one candidate, or as few as it allows: the least of what its settings call a batch."""
    strategy = registry.load("strategies", name)
    least = {**LEAST.get(name, {})}
    for key in {"population", "particles", "batch"} & strategy.Params.model_fields.keys():
        bounds = strategy.Params.model_fields[key].metadata
        least[key] = next(bound.ge for bound in bounds if hasattr(bound, "ge"))
    assert least, "no setting of that name: say here what its batch is called"
    few = {"elites": 1} if name == "genetic" else {}
    params = strategy.Params(**least, **few, **SMALL.get(name, {}))
    contract(maker(strategy, params))


def weighted(
    *,
    space: SearchSpace = contracts.SPACE,
    objectives: Sequence[Objective] = contracts.ONE,
    constraints: Sequence[Constraint] = (),
    seed: int = 0,
) -> Controller:
    """A controller whose reward is the product of whatever objectives a contract has."""
    powers = {goal.name: 1.0 if goal.goal == "max" else -0.5 for goal in objectives}
    return Controller(
        ControllerParams(population=5, units=8, reward=powers),
        Setting(space, objectives, constraints=constraints, seed=seed),
    )


@pytest.mark.parametrize(
    "contract",
    # A product asks for values above 0, so it is not what it was once their signs are turned.
    [each for each in CONTRACTS if each is not contracts.less_of_a_loss_is_more_of_its_negative],
    ids=lambda each: each.__name__,
)
def test_a_controller_that_goes_by_a_product_keeps_every_contract(contract: Contract) -> None:
    contract(weighted)


@cases(VARIANTS)
def test_every_strategy_of_other_settings_keeps_every_contract(
    name: str, contract: Contract
) -> None:
    contract(VARIANTS[name])


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


class Forgetting(Aging):
    """Does not ask again for what was out when its state was taken."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.replay = []


class Unlagged(Aging):
    """Chooses with all answers there are, so that when they come defines the search."""

    def _child(self) -> Candidate:
        lag, self.lag = self.lag, self.asked - self.answers + 1
        child = super()._child()
        self.lag = lag
        return child


class Minimising(Genetic):
    """Thinks that all goals are `min`."""

    def __init__(self, params: GeneticParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.objectives = tuple(Objective(name=goal.name) for goal in self.objectives)


class Contrary(Genetic):
    """Goes for the opposite of all goals."""

    def __init__(self, params: GeneticParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.objectives = tuple(
            Objective(name=goal.name, goal="max" if goal.goal == "min" else "min")
            for goal in self.objectives
        )


class Deaf(Genetic):
    """Has parents, drawn from all alike."""

    def _learn(self, evaluations: list[Evaluation]) -> None:
        super()._learn([replace(e, values={"a": 1.0, "b": 1.0, "c": 1.0}) for e in evaluations])


class Unbound(Genetic):
    """Takes the infeasible for feasible."""

    def _learn(self, evaluations: list[Evaluation]) -> None:
        super()._learn([replace(e, status=Status.OK) for e in evaluations])


class Indifferent(Genetic):
    """Knows the infeasible, but not by how much they are."""

    def __init__(self, params: GeneticParams, setting: Setting) -> None:
        super().__init__(params, replace(setting, constraints=()))


BROKEN = [
    (Forgetful, GeneticParams(), contracts.a_resume_is_exact, "resumed after generation 1 of 1"),
    (Forgetting, AgingParams(), contracts.a_resume_is_exact, "resumed after generation 1 of 1"),
    (
        Unlagged,
        AgingParams(),
        contracts.an_extended_search_is_the_whole,
        "and extended, it differs",
    ),
    (
        Minimising,
        GeneticParams(),
        contracts.less_of_a_loss_is_more_of_its_negative,
        "minimising is not the same as maximising the negative",
    ),
    (
        Contrary,
        GeneticParams(),
        contracts.answers_lead_where_the_goal_says,
        "candidates do not follow the goal",
    ),
    (Deaf, GeneticParams(), contracts.answers_lead_where_the_goal_says, "results have no effect"),
    (Unbound, GeneticParams(), contracts.constraints_push_back, "constraints have no effect"),
    (
        Indifferent,
        GeneticParams(),
        contracts.constraints_push_back,
        "smaller violations are not preferred",
    ),
    (
        Impatient,
        RandomParams(),
        contracts.it_waits_for_outstanding_results,
        "it asks again before it has the results",
    ),
    (
        Trusting,
        RandomParams(),
        contracts.it_waits_for_outstanding_results,
        "accepts 0 results that it did not ask for",
    ),
    (
        Lucky,
        RandomParams(),
        contracts.other_generators_are_left_alone,
        "it draws from a global generator",
    ),
    (
        Swayed,
        RandomParams(),
        contracts.it_depends_on_nothing_global,
        "it draws from a global generator",
    ),
    (Swayed, RandomParams(), contracts.same_seed_same_search, "another seed makes no difference"),
    (Fragile, RandomParams(), contracts.failures_are_survived, "KeyError: 'a'"),
    (Rich, RandomParams(), contracts.state_is_plain_data, "state.genome is a Genome"),
    (
        Astray,
        RandomParams(),
        contracts.every_question_is_a_genome_of_the_space,
        "gene g0 of contract/v1 is 9",
    ),
    (
        Inventive,
        RandomParams(),
        contracts.parents_were_evaluated,
        "parents that were never asked for",
    ),
    (Stubborn, RandomParams(), contracts.an_exhausted_space_is_survived, "TimeoutError"),
    (Greedy, RandomParams(), contracts.equal_values_are_survived, "all alike"),
]


@pytest.mark.parametrize(("strategy", "params", "contract", "what"), BROKEN)
def test_a_strategy_that_breaks_a_contract_is_caught_for_that(
    strategy: type, params: Any, contract: Contract, what: str
) -> None:
    with pytest.raises(AssertionError, match=what):
        contract(maker(strategy, params))


def test_every_contract_is_broken_by_one() -> None:
    assert {contract for _, _, contract, _ in BROKEN} == set(CONTRACTS)

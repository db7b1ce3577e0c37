"""The contracts of strategies: functions that raise AssertionError if a promise is broken.

from evonas.testing import CONTRACTS, maker

@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_mine_keeps_its_promises(contract):
    contract(maker(Mine, MineParams(population=4)))
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Evaluation,
    Generation,
    Metric,
    Objective,
    Params,
    Question,
    State,
    Status,
    Stop,
)
from evonas.loop import Desk, Position, evolve
from evonas.protocols import Setting, SteadyState, Strategy
from evonas.testing.contract import contract, global_generators
from genomes import Gene, Genome, SearchSpace

GENERATIONS = 6
SEEDS = range(3)
BUDGET = Budget(epochs=9)  # of the run, for a strategy that divides it
ONE = (Objective(name="a"),)
THREE = (Objective(name="a"), Objective(name="b", goal="max"), Objective(name="c"))
SPACE = SearchSpace("contract/v1", [Gene(f"g{i}", tuple("wxyz"[: 2 + i % 3])) for i in range(5)])
TINY = SearchSpace("tiny/v1", [Gene("a", ("x", "y")), Gene("b", ("x", "y"))])
LONE = SearchSpace("lone/v1", [Gene("a", ("x",))])
WIDE = SearchSpace("wide/v1", [Gene(f"g{i}", tuple("wxyz")) for i in range(8)])


class Make(Protocol):
    """A function that makes a new strategy."""

    def __call__(
        self,
        *,
        space: SearchSpace = SPACE,
        objectives: Sequence[Objective] = ONE,
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
    ) -> Strategy: ...


def maker(strategy: Callable[..., Strategy], params: Params) -> Make:
    """Return a function that makes a strategy for the space and objectives of a contract."""

    def make(
        *,
        space: SearchSpace = SPACE,
        objectives: Sequence[Objective] = ONE,
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
    ) -> Strategy:
        goals, bounds = tuple(objectives), tuple(constraints)
        return strategy(params, Setting(space, goals, bounds, seed, budget=BUDGET))

    return make


class Answers:
    """An evaluator that computes its values from the genes, without training."""

    metrics = (Metric("a"), Metric("b", goal="max"), Metric("c", cheap=True))
    fingerprint = ""

    def __init__(self, answer: Callable[[Candidate], Evaluation] | None = None) -> None:
        self.answer = answer or by_genes

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"c": float(sum(genome.genes))}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return self.answer(candidate)


class Late(Answers):
    """The same, with no value known before the evaluation."""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {}


def by_genes(candidate: Candidate) -> Evaluation:
    """Return values that differ for different networks, on a rugged landscape."""
    genes = np.array(candidate.genome.genes)
    weights = np.arange(1, len(genes) + 1)
    a = float(np.sin(3.0 * genes * weights).sum() + 0.1 * genes.sum())
    return Evaluation(candidate, {"a": a, "b": float(genes @ weights), "c": float(genes.sum())})


@contract
def same_seed_same_search(make: Make) -> None:
    """Searches with the same seed are equal; another seed gives another search."""
    first, second, other = (_searched(make(seed=seed)) for seed in (1, 1, 2))
    assert first == second, "two searches with the same seed differ"
    assert first != other or not _draws(make), "another seed makes no difference"


@contract
def every_question_is_a_genome_of_the_space(make: Make) -> None:
    """Candidates belong to the search space, even if it is tiny."""
    for space in (SPACE, TINY, LONE):
        for generation in _generations(make(space=space), space):
            for evaluation in generation.evaluations:
                genome = evaluation.candidate.genome
                assert genome.space == space.name, f"{genome} belongs to another space"
                space.genome(genome.genes)


@contract
def it_waits_for_outstanding_results(make: Make) -> None:
    """A strategy waits for outstanding results, and refuses results that it did not ask for."""
    strategy = make()
    asked = strategy.ask()
    assert asked, "a new strategy asks for nothing"
    if isinstance(strategy, SteadyState):
        assert len(asked) == 1, "a steady-state strategy asks for one at a time"
        while more := strategy.ask():
            asked += more
            assert len(asked) <= 10_000, "it never waits"
        assert strategy.ask() == [], "it did not wait"
        for candidate in asked:
            strategy.tell([by_genes(candidate)])
    else:
        assert strategy.ask() == [], "it asks again before it has the results"
        strategy.tell([by_genes(candidate) for candidate in asked])
    for wrong in ([], [by_genes(asked[0])] * (len(asked) + 1)):
        fresh = make()
        if wrong or not isinstance(fresh, SteadyState):
            fresh.ask()
        _refuses(fresh, wrong)
    _refuses(make(), [by_genes(asked[0])])


@contract
def state_is_plain_data(make: Make) -> None:
    """The state is numbers, strings, lists, dicts and tensors, so a checkpoint can run no code."""
    strategy = make(objectives=THREE)
    for _ in islice(_generations(strategy, SPACE, THREE), 3):
        _plain(strategy.state_dict(), "state")


@contract
def a_resume_is_exact(make: Make) -> None:
    """A search continues from the state after any generation as if it had never stopped."""
    for objectives in (ONE, THREE):
        strategy = make(objectives=objectives, seed=3)
        states: list[State] = []
        generations: list[Generation] = []
        for generation in _generations(strategy, SPACE, objectives):
            generations.append(generation)
            states.append(strategy.state_dict())
        for stop, state in enumerate(states, 1):
            resumed = make(objectives=objectives, seed=4)
            resumed.load_state_dict(state)
            before = generations[:stop]
            asked = [question for each in before for question in each.questions]
            rest = list(
                evolve(
                    resumed,
                    Desk(Answers(), SPACE),
                    stop=Stop(generations=GENERATIONS),
                    since=Position(stop, len(asked), asked=asked),
                )
            )
            problem = f"resumed after generation {stop} of {len(objectives)} objectives, it differs"
            after = [_asked(each) for each in generations[stop:]]
            assert [_asked(each) for each in rest] == after, problem


@contract
def an_extended_search_is_the_whole(make: Make) -> None:
    """A search that ends and is then extended equals a search in one go.

    At the end, all results are told to the strategy, even those that in a longer search would still
    be outstanding; it must not use them earlier than there.
    """
    whole = _searched(make(seed=3))
    for stop in range(1, len(whole)):
        strategy = make(seed=3)
        before = list(_generations(strategy, SPACE, generations=stop))
        asked = [question for each in before for question in each.questions]
        resumed = make(seed=4)
        resumed.load_state_dict(strategy.state_dict())
        rest = evolve(
            resumed,
            Desk(Answers(), SPACE),
            stop=Stop(generations=GENERATIONS),
            since=Position(len(before), len(asked), asked=asked),
        )
        extended = [_asked(each) for each in (*before, *rest)]
        assert extended == whole, f"ended after generation {stop} and extended, it differs"


@contract
def less_of_a_loss_is_more_of_its_negative(make: Make) -> None:
    """Reversing all goals, and the signs of all values, changes nothing."""

    def mirrored(candidate: Candidate) -> Evaluation:
        values = by_genes(candidate).values
        return Evaluation(candidate, {name: -value for name, value in values.items()})

    for objectives in (ONE, THREE):
        turned = [
            Objective(name=goal.name, goal="max" if goal.goal == "min" else "min")
            for goal in objectives
        ]
        plain = _searched(make(objectives=objectives), objectives)
        other = _searched(make(objectives=turned), turned, Answers(mirrored))
        assert plain == other, "minimising is not the same as maximising the negative"


@contract
def answers_lead_where_the_goal_says(make: Make) -> None:
    """Candidates follow the goal, down with `min` and up with `max`, unless none has parents."""
    low, high = (
        [_pulled(make, seed, objectives=[Objective(name="c", goal=goal)]) for seed in SEEDS]
        for goal in ("min", "max")
    )
    if low == high:
        assert not _has_parents(make), "candidates have parents, but results have no effect"
        return
    assert np.mean(low) < np.mean(high), "candidates do not follow the goal"


@contract
def constraints_push_back(make: Make) -> None:
    """Infeasible candidates are avoided; if all are infeasible, smaller violations are preferred.

    Infeasible candidates have values too, since some violations show only after a training; the
    values must not count.
    """
    goal = [Objective(name="c", goal="max")]
    free, bounded, less, more = (
        [
            _pulled(make, seed, objectives=goal, constraints=[Constraint(name="c", **bound)])
            for seed in SEEDS[:2]
        ]
        for bound in ({"max": 99.0}, {"max": 12.0}, {"max": -1.0}, {"min": 99.0})
    )
    if free == bounded == less == more:
        assert not _has_parents(make), "candidates have parents, but constraints have no effect"
        return
    assert np.mean(bounded) < np.mean(free), "infeasible candidates are not avoided"
    assert np.mean(less) < np.mean(more), (
        "if all are infeasible, smaller violations are not preferred"
    )


@contract
def failures_are_survived(make: Make) -> None:
    """A search goes on if some or all results are failed, infeasible, NaN or missing."""

    def crashed(candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {}, Status.CRASHED, message="on purpose")

    def some(candidate: Candidate) -> Evaluation:
        genes = candidate.genome.genes
        good = by_genes(candidate)
        kind = sum(genes) % 5
        if kind == 0:
            return crashed(candidate)
        if kind == 1:
            return Evaluation(candidate, {"a": math.nan, "b": math.inf, "c": 1.0})
        if kind == 2:
            return Evaluation(candidate, {"c": good.values["c"]}, Status.INFEASIBLE)
        return good

    for answer in (crashed, some):
        for objectives in (ONE, THREE):
            strategy = make(objectives=objectives, constraints=[Constraint(name="c", max=3.0)])
            _run(strategy, SPACE, objectives, Answers(answer))


@contract
def equal_values_are_survived(make: Make) -> None:
    """A search goes on if all values are equal."""

    def equal(candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {"a": 1.0, "b": 1.0, "c": 1.0})

    for objectives in (ONE, THREE):
        _run(make(objectives=objectives), SPACE, objectives, Answers(equal))


@contract
def an_exhausted_space_is_survived(make: Make) -> None:
    """A search asks again for networks that it asked for, or ends; it does not hang."""
    for space in (TINY, LONE):
        for objectives in (ONE, THREE):
            _run(make(space=space, objectives=objectives), space, objectives, generations=12)


@contract
def other_generators_are_left_alone(make: Make) -> None:
    """A search does not change the state of the global generators."""
    before = global_generators()
    _run(make(objectives=THREE), SPACE, THREE)
    after = global_generators()
    assert before == after, "it draws from a global generator"


@contract
def it_depends_on_nothing_global(make: Make) -> None:
    """A search does not depend on the state of the global generators."""
    searches = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002  # as in `global_generators`
        searches.append(_searched(make(objectives=THREE), THREE))
    assert searches[0] == searches[1], "it draws from a global generator"


@contract
def parents_were_evaluated(make: Make) -> None:
    """Parents are networks that the search asked for."""
    seen: set[str] = set()
    for generation in _generations(make(), SPACE):
        keys = [question.key for question in generation.questions]
        for evaluation in generation.evaluations:
            unknown = set(evaluation.candidate.parents) - seen - set(keys)
            assert not unknown, f"parents that were never asked for: {unknown}"
        seen |= set(keys)


CONTRACTS: tuple[Callable[[Make], None], ...] = (
    same_seed_same_search,
    every_question_is_a_genome_of_the_space,
    it_waits_for_outstanding_results,
    state_is_plain_data,
    a_resume_is_exact,
    an_extended_search_is_the_whole,
    less_of_a_loss_is_more_of_its_negative,
    answers_lead_where_the_goal_says,
    constraints_push_back,
    failures_are_survived,
    equal_values_are_survived,
    an_exhausted_space_is_survived,
    other_generators_are_left_alone,
    it_depends_on_nothing_global,
    parents_were_evaluated,
)


def _generations(
    strategy: Strategy,
    space: SearchSpace,
    objectives: Sequence[Objective] = ONE,
    evaluator: Answers | None = None,
    generations: int = GENERATIONS,
) -> Any:
    desk = Desk(evaluator or Answers(), space)
    return evolve(strategy, desk, stop=Stop(generations=generations))


def _run(
    strategy: Strategy,
    space: SearchSpace,
    objectives: Sequence[Objective],
    evaluator: Answers | None = None,
    generations: int = GENERATIONS,
) -> None:
    for _ in _generations(strategy, space, objectives, evaluator, generations):
        strategy.state_dict()


def _searched(
    strategy: Strategy,
    objectives: Sequence[Objective] = ONE,
    evaluator: Answers | None = None,
) -> list[Any]:
    generations = _generations(strategy, SPACE, objectives, evaluator)
    return [_asked(generation) for generation in generations]


def _pulled(
    make: Make,
    seed: int,
    *,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> float:
    """Return the mean of `c` in the second half of a search of 120 candidates."""
    strategy = make(space=WIDE, objectives=objectives, constraints=constraints, seed=seed)
    values = [
        sum(evaluation.candidate.genome.genes)
        for generation in evolve(
            strategy,
            Desk(Late(), WIDE, constraints=constraints),
            stop=Stop(evaluations=120),
        )
        for evaluation in generation.evaluations
    ]
    return float(np.mean(values[len(values) // 2 :]))


def _has_parents(make: Make) -> bool:
    return any(
        evaluation.candidate.parents
        for generation in _generations(make(), SPACE)
        for evaluation in generation.evaluations
    )


def _asked(generation: Generation) -> tuple[int, tuple[Question, ...], list[Any], Any]:
    candidates = [
        (e.candidate.genome.text, e.candidate.parents, e.candidate.origin)
        for e in generation.evaluations
    ]
    return generation.index, generation.questions, candidates, generation.cached


def _draws(make: Make) -> bool:
    """Return whether the search depends on the seed, unlike one that lists a space in order."""
    origins = {
        evaluation.candidate.origin
        for generation in _generations(make(), SPACE)
        for evaluation in generation.evaluations
    }
    return origins != {"listed"}


def _refuses(strategy: Strategy, evaluations: Sequence[Evaluation]) -> None:
    try:
        strategy.tell(evaluations)
    except ValueError:
        return
    raise AssertionError(f"it accepts {len(evaluations)} results that it did not ask for")


def _plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert type(key) is str, f"{where} has a key {key!r}"
            _plain(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _plain(inner, f"{where}.{i}")
    elif type(value).__module__ != "torch":
        plain = value is None or type(value) in (bool, int, float, str)
        assert plain, f"{where} is a {type(value).__name__}"

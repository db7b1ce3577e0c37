"""What every strategy promises: each contract is a function that raises AssertionError.

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
ONE = (Objective(name="a"),)
THREE = (Objective(name="a"), Objective(name="b", goal="max"), Objective(name="c"))
SPACE = SearchSpace("contract/v1", [Gene(f"g{i}", tuple("wxyz"[: 2 + i % 3])) for i in range(5)])
TINY = SearchSpace("tiny/v1", [Gene("a", ("x", "y")), Gene("b", ("x", "y"))])
LONE = SearchSpace("lone/v1", [Gene("a", ("x",))])
WIDE = SearchSpace("wide/v1", [Gene(f"g{i}", tuple("wxyz")) for i in range(8)])


class Make(Protocol):
    """Makes a strategy anew."""

    def __call__(
        self,
        *,
        space: SearchSpace = SPACE,
        objectives: Sequence[Objective] = ONE,
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
    ) -> Strategy: ...


def maker(strategy: Callable[..., Strategy], params: Params) -> Make:
    """Makes a strategy of these settings for whatever space and objectives a contract wants."""

    def make(
        *,
        space: SearchSpace = SPACE,
        objectives: Sequence[Objective] = ONE,
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
    ) -> Strategy:
        return strategy(params, Setting(space, tuple(objectives), tuple(constraints), seed))

    return make


class Answers:
    """An evaluator that costs nothing: values by genes alone."""

    metrics = (Metric("a"), Metric("b", goal="max"), Metric("c", cheap=True))
    fingerprint = ""

    def __init__(self, answer: Callable[[Candidate], Evaluation] | None = None) -> None:
        self.answer = answer or by_genes

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"c": float(sum(genome.genes))}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return self.answer(candidate)


class Late(Answers):
    """Whose values are all known after the training only."""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {}


def by_genes(candidate: Candidate) -> Evaluation:
    """Rugged enough that no two networks are equally good by accident."""
    genes = np.array(candidate.genome.genes)
    weights = np.arange(1, len(genes) + 1)
    a = float(np.sin(3.0 * genes * weights).sum() + 0.1 * genes.sum())
    return Evaluation(candidate, {"a": a, "b": float(genes @ weights), "c": float(genes.sum())})


@contract
def same_seed_same_search(make: Make) -> None:
    """Two of one seed ask for the same; of another seed, for something else."""
    first, second, other = (_searched(make(seed=seed)) for seed in (1, 1, 2))
    assert first == second, "two searches of one seed differ"
    assert first != other or not _draws(make), "another seed makes no difference"


@contract
def every_question_is_a_genome_of_the_space(make: Make) -> None:
    for space in (SPACE, TINY, LONE):
        for generation in _generations(make(space=space), space):
            for evaluation in generation.evaluations:
                genome = evaluation.candidate.genome
                assert genome.space == space.name, f"{genome} is of another space"
                space.genome(genome.genes)


@contract
def answers_are_owed_before_more_is_asked(make: Make) -> None:
    """A generational strategy asks nothing while it waits; none takes what it has not asked for."""
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
        assert strategy.ask() == [], "it asks again before it is told"
        strategy.tell([by_genes(candidate) for candidate in asked])
    for wrong in ([], [by_genes(asked[0])] * (len(asked) + 1)):
        fresh = make()
        if wrong or not isinstance(fresh, SteadyState):
            fresh.ask()
        _refuses(fresh, wrong)
    _refuses(make(), [by_genes(asked[0])])


@contract
def state_is_plain_data(make: Make) -> None:
    """Numbers, strings, lists and dicts alone, so that a checkpoint can run nothing."""
    strategy = make(objectives=THREE)
    for _ in islice(_generations(strategy, SPACE, THREE), 3):
        _plain(strategy.state_dict(), "state")


@contract
def a_resume_is_exact(make: Make) -> None:
    """From its state after every generation, a search goes on as if it had never stopped."""
    for objectives in (ONE, THREE):
        strategy = make(objectives=objectives, seed=3)
        states: list[State] = []
        whole: list[Generation] = []
        for generation in _generations(strategy, SPACE, objectives):
            whole.append(generation)
            states.append(strategy.state_dict())
        for stop, state in enumerate(states, 1):
            resumed = make(objectives=objectives, seed=4)
            resumed.load_state_dict(state)
            before = whole[:stop]
            asked = [question for each in before for question in each.questions]
            rest = list(
                evolve(
                    resumed,
                    Desk(Answers(), SPACE),
                    stop=Stop(generations=GENERATIONS),
                    since=Position(stop, len(asked), asked=asked),
                )
            )
            told = f"resumed after generation {stop} of {len(objectives)} objectives, it differs"
            assert [_asked(each) for each in rest] == [_asked(each) for each in whole[stop:]], told


@contract
def a_search_cut_short_and_gone_on_with_is_the_whole(make: Make) -> None:
    """Told of all it asked for, as at the end of a shorter run, it goes on as if it had not ended.

    A strategy that knows more answers than it would have had in one go is caught here.
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
        found = [_asked(each) for each in (*before, *rest)]
        assert found == whole, f"cut short after generation {stop} and gone on with, it differs"


@contract
def less_of_a_loss_is_more_of_its_negative(make: Make) -> None:
    """All goals turned round, and all values with them, change nothing."""

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
        assert plain == other, "to minimise is not to maximise the negative"


@contract
def answers_lead_where_the_goal_says(make: Make) -> None:
    """What is asked goes down with `min` and up with `max`; not so only where none has parents."""
    low, high = (
        [_pulled(make, seed, objectives=[Objective(name="c", goal=goal)]) for seed in SEEDS]
        for goal in ("min", "max")
    )
    if low == high:
        assert not _has_parents(make), "it names parents, but answers have no effect"
        return
    assert np.mean(low) < np.mean(high), "it goes where the goal does not say"


@contract
def constraints_push_back(make: Make) -> None:
    """Infeasible ones are avoided, and where all are, the less they violate the better.

    The values of infeasible ones are told as well, since some are known to be so only after the
    training; they do not count.
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
        assert not _has_parents(make), "it names parents, but constraints have no effect"
        return
    assert np.mean(bounded) < np.mean(free), "it does not avoid the infeasible"
    assert np.mean(less) < np.mean(more), "where all are infeasible, it does not go by how much"


@contract
def failures_are_survived(make: Make) -> None:
    """Failed, infeasible, NaN and missing values, some of them and all."""

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
    def equal(candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {"a": 1.0, "b": 1.0, "c": 1.0})

    for objectives in (ONE, THREE):
        _run(make(objectives=objectives), SPACE, objectives, Answers(equal))


@contract
def a_space_that_is_used_up_does_not_stop_it(make: Make) -> None:
    """It lets networks through that it has asked for, or ends; it does not hang."""
    for space in (TINY, LONE):
        for objectives in (ONE, THREE):
            _run(make(space=space, objectives=objectives), space, objectives, generations=12)


@contract
def other_generators_are_left_alone(make: Make) -> None:
    """What others draw from the global generators is the same with and without the search."""
    before = global_generators()
    _run(make(objectives=THREE), SPACE, THREE)
    after = global_generators()
    assert before == after, "it draws from a global generator"


@contract
def it_depends_on_nothing_global(make: Make) -> None:
    """Global generators that stand elsewhere change nothing."""
    found = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002  # as in `global_generators`
        found.append(_searched(make(objectives=THREE), THREE))
    assert found[0] == found[1], "it draws from a global generator"


@contract
def parents_were_evaluated(make: Make) -> None:
    """Lineage names networks that were asked for earlier."""
    seen: set[str] = set()
    for generation in _generations(make(), SPACE):
        keys = [question.key for question in generation.questions]
        for evaluation in generation.evaluations:
            unknown = set(evaluation.candidate.parents) - seen - set(keys)
            assert not unknown, f"parents that nobody has asked for: {unknown}"
        seen |= set(keys)


CONTRACTS: tuple[Callable[[Make], None], ...] = (
    same_seed_same_search,
    every_question_is_a_genome_of_the_space,
    answers_are_owed_before_more_is_asked,
    state_is_plain_data,
    a_resume_is_exact,
    a_search_cut_short_and_gone_on_with_is_the_whole,
    less_of_a_loss_is_more_of_its_negative,
    answers_lead_where_the_goal_says,
    constraints_push_back,
    failures_are_survived,
    equal_values_are_survived,
    a_space_that_is_used_up_does_not_stop_it,
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
    found = _generations(strategy, SPACE, objectives, evaluator)
    return [_asked(generation) for generation in found]


def _pulled(
    make: Make,
    seed: int,
    *,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> float:
    """The mean of `c` over what is asked in the second half of a search of 120."""
    strategy = make(space=WIDE, objectives=objectives, constraints=constraints, seed=seed)
    found = [
        sum(evaluation.candidate.genome.genes)
        for generation in evolve(
            strategy,
            Desk(Late(), WIDE, constraints=constraints),
            stop=Stop(evaluations=120),
        )
        for evaluation in generation.evaluations
    ]
    return float(np.mean(found[len(found) // 2 :]))


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
    """Whether the seed has a say at all: not where a space is listed in order."""
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
    raise AssertionError(f"told {len(evaluations)} that it did not ask for, it says nothing")


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

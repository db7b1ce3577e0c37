"""Which candidates go on, and what the strategy inside hears of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from evonas import config
from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Evaluation,
    Generation,
    Metric,
    Objective,
    Params,
    State,
    Status,
    Stop,
    UserError,
)
from evonas.loop import Desk, evolve
from evonas.protocols import Setting, SteadyState, Strategy
from evonas.strategies.aging import AgingParams
from evonas.strategies.asha import AsynchronousHalving
from evonas.strategies.genetic import GeneticParams
from evonas.strategies.halving import Halving, HalvingParams, SuccessiveHalving, spread
from evonas.strategies.random import RandomParams
from evonas.testing.strategies import Late
from genomes import Gene, Genome, SearchSpace

LINE = SearchSpace("line/v1", [Gene("x", tuple(str(i) for i in range(30)))])
LOSS = (Objective(name="a"),)
NINE = Budget(epochs=9)
ONE, THREE = Budget(epochs=1, horizon=9), Budget(epochs=3, horizon=9)


class Listed:
    """Proposes the genomes of a line in a given order, some at a time, and notes what it hears."""

    def __init__(self, order: Sequence[int], size: int) -> None:
        self.order, self.size, self.at = list(order), size, 0
        self.heard: list[list[tuple[int, str, float | None]]] = []

    def ask(self) -> list[Candidate]:
        some = self.order[self.at : self.at + self.size]
        self.at += len(some)
        return [Candidate(LINE.genome([x]), origin="listed") for x in some]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.heard.append(
            [
                (e.candidate.genome.genes[0], _text(e.candidate.budget), e.values.get("a"))
                for e in evaluations
            ]
        )

    def state_dict(self) -> State:
        return {"at": self.at}

    def load_state_dict(self, state: State) -> None:
        self.at = state["at"]


class OneByOne(Listed):
    """The same, one after the other, with some of them out at once."""

    generation_size = 5

    def __init__(self, order: Sequence[int], size: int) -> None:
        super().__init__(order, size)
        self.out = 0

    def ask(self) -> list[Candidate]:
        if self.out == self.size or self.at == len(self.order):
            return []
        self.out += 1
        self.at += 1
        return [Candidate(LINE.genome([self.order[self.at - 1]]), origin="listed")]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.out -= 1
        super().tell(evaluations)


class Places(Late):
    metrics = (Metric("a"),)


def _text(budget: Budget | None) -> str:
    assert budget is not None
    return f"{budget.amount:g}"


def around(inner: Strategy, factor: float = 3.0, budget: Budget = NINE) -> Strategy:
    """Halving around a strategy that is no registered one."""
    setting = Setting(LINE, LOSS, budget=budget)
    rungs = HalvingParams(factor=factor).rungs(budget)
    if isinstance(inner, SteadyState):
        return AsynchronousHalving(factor, setting, inner, rungs)
    return SuccessiveHalving(factor, setting, inner, rungs)


def by_place(candidate: Candidate) -> Evaluation:
    """The smaller the place on the line, the better, and the better for longer trainings."""
    assert candidate.budget is not None
    place = candidate.genome.genes[0]
    return Evaluation(candidate, {"a": place + 10.0 / candidate.budget.amount})


def searched(strategy: Strategy, answer: Any = by_place) -> list[Generation]:
    return list(evolve(strategy, Desk(Places(answer), LINE), stop=Stop(generations=40)))


def asked(generations: Sequence[Generation]) -> list[tuple[int, str]]:
    return [
        (e.candidate.genome.genes[0], _text(e.candidate.budget))
        for generation in generations
        for e in generation.evaluations
    ]


# Rungs


@pytest.mark.parametrize(
    ("budget", "settings", "amounts"),
    [
        (NINE, {}, [1, 3, 9]),
        (Budget(epochs=8), {}, [3, 8]),  # 8/9 of an epoch is less than one
        (Budget(epochs=200), {"factor": 16.67}, [12, 200]),
        (Budget(epochs=81), {"min_budget": 3}, [3, 9, 27, 81]),
        (Budget(steps=100), {"factor": 4, "min_budget": 5}, [6, 25, 100]),
        (Budget(epochs=2), {"factor": 1.5}, [1, 2]),
    ],
)
def test_rungs_are_parts_of_the_budget(
    budget: Budget, settings: dict[str, Any], amounts: list[int]
) -> None:
    rungs = HalvingParams(**settings).rungs(budget)
    assert [rung.amount for rung in rungs] == amounts
    assert rungs[-1] is budget
    assert {rung.whole for rung in rungs} == {budget.amount}
    assert all(budget.goes_on_from(rung) for rung in rungs[:-1])


def test_a_budget_that_stops_in_mid_schedule_keeps_its_horizon() -> None:
    rungs = HalvingParams().rungs(Budget(epochs=6, horizon=10))
    assert [rung.text for rung in rungs] == ["epochs=2/10", "epochs=6/10"]


@pytest.mark.parametrize(
    ("budget", "problem"),
    [
        (Budget(seconds=10), "is in seconds"),
        (Budget(epochs=1), "leaves no shorter rung"),
        (Budget(epochs=2), "leaves no shorter rung"),
    ],
)
def test_a_budget_without_rungs_is_refused(budget: Budget, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        HalvingParams().rungs(budget)


@pytest.mark.parametrize("inner", ["halving", "darts"])
def test_strategies_whose_trainings_are_not_one_by_one_are_refused(inner: str) -> None:
    with pytest.raises(UserError, match=r"strategy\.strategy: is "):
        config.component("strategy", "strategies", {"name": "halving", "strategy": {"name": inner}})


def test_a_mistake_inside_is_told_by_its_place() -> None:
    inner = {"name": "aging", "population": 1}
    with pytest.raises(UserError, match=r"strategy\.strategy\.population: is 1"):
        config.component("strategy", "strategies", {"name": "halving", "strategy": inner})
    with pytest.raises(ValidationError):
        HalvingParams(factor=1.0)


def test_old_settings_inside_have_the_values_of_then() -> None:
    """A file that evonas wrote before aging had a lag goes on with that of then."""
    inner = {"name": "aging", "population": 8}
    written = config.component(
        "strategy", "strategies", {"name": "halving", "strategy": inner}, written=True
    )
    assert isinstance(written, HalvingParams)
    assert isinstance(written.strategy, AgingParams)
    assert written.strategy.lag == 8


# Within generations


def test_of_each_rung_the_best_third_go_on() -> None:
    order = [17, 4, 12, 9, 0, 25, 3, 8, 21]
    inner = Listed(order, 9)
    generations = searched(around(inner))
    assert asked(generations) == [
        *((place, "1") for place in order),
        *((place, "3") for place in (0, 3, 4)),
        (0, "9"),
    ]
    afters = [_after(e) for generation in generations for e in generation.evaluations]
    assert afters == [None] * 9 + [ONE] * 3 + [THREE]
    assert inner.heard == [
        [
            (place, *{0: ("9", 10 / 9), 3: ("3", 3 + 10 / 3), 4: ("3", 4 + 10 / 3)}[place])
            if place in (0, 3, 4)
            else (place, "1", place + 10.0)
            for place in order
        ]
    ]


def _after(evaluation: Evaluation) -> Budget | None:
    return evaluation.candidate.after


def test_at_least_one_goes_on_and_none_that_failed() -> None:
    def answer(candidate: Candidate) -> Evaluation:
        if candidate.genome.genes[0] == 0:
            return Evaluation(candidate, {}, Status.CRASHED)
        return by_place(candidate)

    inner = Listed([0, 1, 0, 0], 2)
    assert asked(searched(around(inner), answer)) == [
        *((0, "1"), (1, "1"), (1, "3"), (1, "9")),
        *((0, "1"), (0, "1")),  # of which none can go on
    ]
    assert [[budget for _, budget, _ in heard] for heard in inner.heard] == [
        ["1", "9"],
        ["1", "1"],
    ]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_only_a_short_training_makes_infeasible_goes_on_after_the_others(
    one_by_one: bool,
) -> None:
    """An error that is too large after one epoch may not be so after nine."""
    bound = (Constraint(name="a", max=4.0),)
    setting = Setting(LINE, LOSS, bound, budget=NINE)
    rungs = HalvingParams().rungs(NINE)
    order = [5, 9, 2, 7, 1, 8, 3, 6, 4]
    inner = OneByOne(order, 1) if one_by_one else Listed(order, 9)
    kind: Any = AsynchronousHalving if one_by_one else SuccessiveHalving
    desk = Desk(Places(by_place), LINE, constraints=bound)
    strategy = kind(3.0, setting, inner, rungs)
    found = list(evolve(strategy, desk, stop=Stop(generations=40)))
    counts = Counter(text for _, text in asked(found))
    assert counts["1"] == 9
    assert counts["3"] >= 3
    assert (1, "9") in asked(found)
    statuses = [e.status for generation in found for e in generation.evaluations]
    assert statuses.count(Status.OK) == 1


def test_what_a_constraint_forbids_untrained_does_not_go_on() -> None:
    class Known(Places):
        def cheap(self, genome: Genome) -> dict[str, float]:
            return {"place": float(genome.genes[0])}

    bound = (Constraint(name="place", min=4.0),)
    desk = Desk(Known(by_place), LINE, constraints=bound)
    strategy = around(Listed([1, 2, 3, 4, 0, 5], 6))
    found = asked(list(evolve(strategy, desk, stop=Stop(generations=40))))
    assert found[6:] == [(4, "3"), (5, "3"), (4, "9")]


def test_a_network_proposed_twice_takes_one_place_on_a_rung() -> None:
    inner = Listed([5, 5, 5, 7, 6, 9], 6)
    assert asked(searched(around(inner)))[6:] == [(5, "3"), (5, "9")]
    assert [heard[:2] for heard in inner.heard[0]][:3] == [(5, "9")] * 3


def test_only_what_may_go_on_is_pending() -> None:
    strategy: Any = around(Listed([5, 3, 8, 7, 6, 9], 6))
    strategy.tell([by_place(candidate) for candidate in strategy.ask()])
    pending = [(c.genome.genes[0], c.budget) for c in strategy.pending()]
    assert pending == [(3, ONE), (5, ONE)]


def test_with_two_objectives_those_go_on_that_add_most_to_what_has() -> None:
    """The ends of the front, which crowding prefers, go on once and not in each generation."""
    ends = {"low": [0.0, 10.0], "high": [10.0, 0.0]}
    middle = {"middle": [4.0, 4.0], "worse": [6.0, 6.0], "by the low end": [0.5, 9.9]}
    assert spread({**ends, **middle}, {}, 1) == ["middle"]
    assert spread({**ends, **middle}, {}, 3) == ["middle", "low", "high"]
    assert spread(middle, ends, 2)[0] == "middle"
    assert spread({**ends, **middle}, {"middle": [4.0, 4.0], **ends}, 1) == ["by the low end"]
    assert spread({}, ends, 2) == []
    assert spread(ends, {}, 5) == ["low", "high"]


# One after the other


def test_one_goes_on_as_soon_as_it_is_among_the_best_third() -> None:
    inner = OneByOne([9, 4, 12, 2, 8, 7, 1], 1)
    found = asked(searched(around(inner)))
    assert found == [
        *((9, "1"), (4, "1"), (12, "1")),  # of three, the best goes on, told or not
        *((4, "3"), (2, "1"), (2, "3"), (8, "1"), (7, "1"), (1, "1"), (1, "3"), (1, "9")),
    ]
    heard = [each[0][:2] for each in inner.heard]
    assert heard == [(9, "1"), (4, "1"), (12, "1"), (2, "3"), (8, "1"), (7, "1"), (1, "9")]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_in_the_end_the_best_third_of_each_rung_has_gone_on(size: int) -> None:
    """Whatever the order was, and however many were out at once."""
    order = [(7 * i) % 27 for i in range(27)]
    inner = OneByOne(order, size)
    counts = Counter(asked(searched(around(inner))))
    assert set(counts.values()) == {1}
    on = {rung: {place for place, text in counts if text == rung} for rung in ("1", "3", "9")}
    assert on["1"] == set(range(27))
    assert on["3"] >= set(range(9))
    assert 9 <= len(on["3"]) <= 18
    best_of_next = sorted(on["3"])[: len(on["3"]) // 3]
    assert on["9"] >= set(best_of_next)
    assert [each[0][0] for each in inner.heard] == order  # each once, in the order proposed


def test_the_states_kept_are_few() -> None:
    strategy: Any = around(OneByOne(list(range(29, -1, -1)) * 4, 3))
    most = 0
    for _ in evolve(strategy, Desk(Places(by_place), LINE), stop=Stop(generations=20)):
        names = {(c.genome, c.budget.text) for c in strategy.pending()}
        assert {budget for _, budget in names} <= {ONE.text, THREE.text}
        most = max(most, len(names))
    assert 0 < most <= 30


# Around strategies of evonas


@pytest.mark.parametrize("inner", [GeneticParams(population=9), AgingParams(population=9)])
def test_the_front_is_of_the_whole_budget_and_most_trainings_are_short(inner: Params) -> None:
    strategy = Halving(HalvingParams(strategy=inner), Setting(LINE, LOSS, budget=NINE))
    generations = list(evolve(strategy, Desk(Places(by_place), LINE), stop=Stop(evaluations=120)))
    counts = Counter(text for _, text in asked(generations))
    assert counts["1"] > counts["3"] > counts["9"] > 0


def test_networks_count_once_whatever_budgets_they_had() -> None:
    strategy = Halving(
        HalvingParams(strategy=RandomParams(population=9)), Setting(LINE, LOSS, budget=NINE)
    )
    generations = list(evolve(strategy, Desk(Places(by_place), LINE), stop=Stop(networks=10)))
    assert [len(generation.questions) for generation in generations] == [9, 3, 1, 9]


def test_without_a_budget_it_says_so() -> None:
    with pytest.raises(UserError, match="budget"):
        Halving(HalvingParams(), Setting(LINE, LOSS))


def test_a_genome_is_asked_in_the_spelling_that_was_proposed() -> None:
    space = SearchSpace("line/v1", LINE.genes)
    strategy = around(Listed([3, 1, 2], 3))
    first = strategy.ask()
    assert [candidate.genome for candidate in first] == [
        Genome(space.name, (place,)) for place in (3, 1, 2)
    ]
    assert {candidate.origin for candidate in first} == {"listed"}

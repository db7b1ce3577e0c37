"""The loop: seeds, spelling, constraints, limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Cost,
    Evaluation,
    Metric,
    Status,
    Stop,
    derive_seed,
)
from evonas.loop import MAX_REPEATED, Desk, Memory, evolve, guarded
from genomes import Genome, NASBench201

SPACE = NASBench201()


class Scripted:
    """Asks what it is given, and remembers what it is told."""

    def __init__(self, *generations: Sequence[str]) -> None:
        self.generations = [
            [Candidate(SPACE.parse(text)) for text in texts] for texts in generations
        ]
        self.told: list[list[Evaluation]] = []

    def ask(self) -> list[Candidate]:
        return self.generations.pop(0) if self.generations else []

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.told.append(list(evaluations))

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None: ...


class Noting:
    """Answers with the seed; notes each candidate and seed."""

    metrics = (Metric("value"), Metric("size"))
    fingerprint = ""

    def __init__(self) -> None:
        self.calls: list[tuple[Candidate, int]] = []

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"size": sum(genome.genes)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        self.calls.append((candidate, seed))
        return Evaluation(candidate, {"value": seed, **self.cheap(candidate.genome)})


def test_an_evaluations_seed_comes_from_run_seed_and_key_alone() -> None:
    found = {}
    for order in (["3-3-3-3-3-3", "1-2-1-2-1-2"], ["1-2-1-2-1-2", "3-3-3-3-3-3"]):
        evaluator = Noting()
        list(evolve(Scripted(order), Desk(evaluator, SPACE, seed=5)))
        found[order[0]] = {candidate.genome: seed for candidate, seed in evaluator.calls}
    first, second = found.values()
    assert first == second
    key = SPACE.key(SPACE.parse("3-3-3-3-3-3"))
    assert first[SPACE.parse("3-3-3-3-3-3")] == derive_seed(5, key)
    evaluator = Noting()
    list(evolve(Scripted(["3-3-3-3-3-3"]), Desk(evaluator, SPACE, seed=6)))
    assert evaluator.calls[0][1] != derive_seed(5, key)


def test_equal_networks_are_trained_once_and_in_their_canonical_spelling() -> None:
    evaluator = Noting()
    strategy = Scripted(["1-2-0-1-2-1", "1-1-0-2-2-1"], ["1-2-0-1-2-1"])
    generations = list(evolve(strategy, Desk(evaluator, SPACE)))
    assert len(evaluator.calls) == 1
    genome = evaluator.calls[0][0].genome
    assert genome == SPACE.canonical(genome)
    assert [generation.cached for generation in generations] == [(False, True), (True,)]
    spelt = [e.candidate.genome.text for told in strategy.told for e in told]
    assert spelt == ["1-2-0-1-2-1", "1-1-0-2-2-1", "1-2-0-1-2-1"]
    assert len({e.values["value"] for told in strategy.told for e in told}) == 1


def test_another_budget_is_another_question() -> None:
    evaluator = Noting()
    answers = Memory()
    for epochs in (1, 2, 2):
        list(
            evolve(
                Scripted(["3-3-3-3-3-3"]),
                Desk(evaluator, SPACE, answers=answers, budget=Budget(epochs=epochs)),
            )
        )
    budgets = [candidate.budget for candidate, _ in evaluator.calls]
    assert budgets == [Budget(epochs=1), Budget(epochs=2)]


def test_what_is_infeasible_by_its_cheap_values_is_not_evaluated() -> None:
    evaluator = Noting()
    strategy = Scripted(["3-3-3-3-3-3", "0-0-0-1-0-0"])
    list(evolve(strategy, Desk(evaluator, SPACE, constraints=[Constraint(name="size", max=10)])))
    big, small = strategy.told[0]
    assert big.status is Status.INFEASIBLE
    assert big.values == {"size": 18}
    assert small.status is Status.OK
    assert len(evaluator.calls) == 1


def test_what_is_infeasible_once_measured_keeps_its_values() -> None:
    strategy = Scripted(["3-3-3-3-3-3"])
    constraints = [Constraint(name="value", max=1)]
    list(evolve(strategy, Desk(Noting(), SPACE, constraints=constraints)))
    assert strategy.told[0][0].status is Status.INFEASIBLE
    assert strategy.told[0][0].values["value"] > 1


@pytest.mark.parametrize(
    ("stop", "generations"),
    [
        (Stop(generations=2), 2),
        (Stop(evaluations=3), 2),
        (Stop(evaluations=2), 1),
        (Stop(networks=2), 1),
        (Stop(networks=3), 4),  # the same two again and again
        (None, 4),
    ],
)
def test_the_loop_ends_at_its_limit_or_when_the_strategy_has_no_more(
    stop: Stop | None, generations: int
) -> None:
    strategy = Scripted(*[["3-3-3-3-3-3", "1-1-1-1-1-1"]] * 4)
    found = list(evolve(strategy, Desk(Noting(), SPACE), stop=stop))
    assert len(found) == generations == len(strategy.told)


def test_a_search_for_networks_ends_where_there_are_no_more() -> None:
    strategy = Scripted(*[["3-3-3-3-3-3", "1-1-1-1-1-1"]] * 3000)
    found = list(evolve(strategy, Desk(Noting(), SPACE), stop=Stop(networks=3)))
    assert MAX_REPEATED / 2 <= len(found) <= MAX_REPEATED / 2 + 2


@pytest.mark.parametrize("error", [ValueError("two\nlines"), SystemExit(3), MemoryError()])
def test_whatever_an_evaluator_raises_is_a_crash_told_on_one_line(error: BaseException) -> None:
    class Raises(Noting):
        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            raise error

    found = guarded(Raises(), Candidate(SPACE.parse("3-3-3-3-3-3")), 0)
    assert found.status is Status.CRASHED
    assert found.message.startswith(type(error).__name__)
    assert "\n" not in found.message


class Answering:
    """Answers with whatever it is given."""

    metrics = (Metric("loss"),)
    fingerprint = ""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return self.answer(candidate)  # type: ignore[no-any-return]


GOOD: list[tuple[Any, float]] = [
    *((3, 3), (True, 1.0), ("0.5", 0.5), (Decimal("0.5"), 0.5), (Fraction(1, 2), 0.5)),
    *((np.float32(0.5), 0.5), (np.array([[0.5]]), 0.5), (np.int64(7), 7.0), (10**300, 1e300)),
    (torch.tensor([0.5], requires_grad=True), 0.5),
]
DIVERGED = [
    *(
        math.nan,
        math.inf,
        -math.inf,
        "nan",
        10**400,
        -(10**400),
        Fraction(10**400),
        np.float32("inf"),
    ),
    *(Decimal("NaN"), torch.tensor(math.nan), np.array([math.nan])),
]
CRASHED = [1j, None, "many", [], {}, np.zeros(2), torch.zeros(2), torch.zeros(1, device="meta")]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        *((value, Status.OK) for value, _ in GOOD),
        *((value, Status.DIVERGED) for value in DIVERGED),
        *((value, Status.CRASHED) for value in CRASHED),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.filterwarnings("error")
def test_no_number_that_is_none_ends_a_search(value: object, status: Status) -> None:
    evaluator = Answering(lambda candidate: Evaluation(candidate, {"loss": value}))
    [generation] = evolve(Scripted(["3-3-3-3-3-3"]), Desk(evaluator, SPACE))
    [answer] = generation.evaluations
    assert answer.status is status
    assert bool(answer.message) == (status is not Status.OK)
    assert Evaluation.from_plain(json.loads(json.dumps(answer.to_plain()))).status is status
    if status is Status.OK:
        [expected] = [number for given, number in GOOD if given is value]
        assert answer.values["loss"] == expected
        assert type(answer.values["loss"]) is type(expected)


@pytest.mark.parametrize(
    "answer",
    [
        lambda candidate: None,
        lambda candidate: {"loss": 1.0},
        lambda candidate: Evaluation(candidate, 0.5),
        lambda candidate: Evaluation(candidate, {}),
        lambda candidate: Evaluation(candidate, {"loss": 0.5}, status="fine"),
        lambda candidate: Evaluation(candidate, {"loss": 0.5}, cost=None),
        lambda candidate: Evaluation(candidate, {"loss": 0.5}, cost=Cost(steps="many")),
        lambda candidate: Evaluation(candidate, {"loss": 0.5}, message=ValueError("hm")),
        lambda candidate: Evaluation(candidate, {"loss": 0.5}, weights=Path("x")),
    ],
)
def test_an_answer_of_another_form_is_a_crash(answer: Any) -> None:
    found = guarded(Answering(answer), Candidate(SPACE.parse("3-3-3-3-3-3")), 0)
    assert found.status is Status.CRASHED, found
    assert found.message


def test_the_parts_of_an_answer_are_made_plain() -> None:
    def answer(candidate: Candidate) -> Evaluation:
        cost = Cost(epochs=np.float32(2), steps=np.int64(3))  # type: ignore[arg-type]
        return Evaluation(candidate, {"loss": 1}, "ok", cost, deterministic=np.False_)  # type: ignore[arg-type]

    found = guarded(Answering(answer), Candidate(SPACE.parse("3-3-3-3-3-3")), 0)
    plain = json.loads(json.dumps(found.to_plain()))
    assert (plain["status"], plain["deterministic"]) == ("ok", False)
    assert (plain["cost"]["epochs"], plain["cost"]["steps"]) == (2.0, 3)


def test_an_exception_that_cannot_say_what_it_is_is_a_crash() -> None:
    class Speechless(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def answer(candidate: Candidate) -> Evaluation:
        raise Speechless

    found = guarded(Answering(answer), Candidate(SPACE.parse("3-3-3-3-3-3")), 0)
    assert found.message == "Speechless: (without a message)"


@pytest.mark.parametrize(
    ("size", "status"),
    [(math.nan, Status.INFEASIBLE), ("many", Status.CRASHED), (10**400, Status.INFEASIBLE)],
)
def test_what_is_known_untrained_is_guarded_too(size: Any, status: Status) -> None:
    class Sized(Noting):
        def cheap(self, genome: Genome) -> Mapping[str, float]:
            return {"size": size}

    strategy, evaluator = Scripted(["3-3-3-3-3-3"]), Sized()
    constraints = [Constraint(name="size", max=1)]
    list(evolve(strategy, Desk(evaluator, SPACE, constraints=constraints)))
    assert [each.status for each in strategy.told[0]] == [status]
    assert not evaluator.calls


@pytest.mark.parametrize("bound", [{"min": 0.0}, {"max": 0.0}])
def test_nan_satisfies_no_bound(bound: dict[str, float]) -> None:
    constraint = Constraint(name="size", **bound)
    assert constraint.violation({"size": math.nan}) > 0
    assert constraint.violation({"size": 0.0}) == constraint.violation({}) == 0


def test_ctrl_c_is_no_crash() -> None:
    class Interrupted(Noting):
        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(Interrupted(), Candidate(SPACE.parse("3-3-3-3-3-3")), 0)

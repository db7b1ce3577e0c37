"""The loop: seeds, spelling, constraints, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from evonas.core import Budget, Candidate, Constraint, Evaluation, Metric, Status, Stop, derive_seed
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


def test_ctrl_c_is_no_crash() -> None:
    class Interrupted(Noting):
        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(Interrupted(), Candidate(SPACE.parse("3-3-3-3-3-3")), 0)

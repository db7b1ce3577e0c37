"""Aging evolution against its paper, and the loop that steady-state strategies need."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from evonas.core import Candidate, Evaluation, Metric, Objective, Stop
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.loop import Desk, Memory, evolve
from evonas.protocols import Dispatcher, Evaluator, Setting, SteadyState
from evonas.strategies.aging import Aging, AgingParams
from evonas.testing.strategies import Answers, by_genes
from genomes import Gene, Genome, NASBench201, SearchSpace
from genomes.operators import change_one
from tests.helpers.faults import Counting

SPACE = SearchSpace("steady/v1", [Gene(f"g{i}", tuple("wxyz")) for i in range(5)])
CELLS = NASBench201()
GOAL = (Objective(name="a"),)


def aging(seed: int = 0, **params: int) -> Aging:
    return Aging(AgingParams(**params), Setting(SPACE, GOAL, seed=seed))


def asked(
    strategy: Aging,
    count: int,
    dispatcher: Dispatcher | None = None,
    evaluator: Evaluator | None = None,
) -> list[str]:
    desk = Desk(evaluator or Answers(), SPACE, dispatcher=dispatcher)
    loop = evolve(strategy, desk, stop=Stop(evaluations=count))
    return [e.candidate.genome.text for generation in loop for e in generation.evaluations]


def test_with_a_lag_of_one_it_is_the_algorithm_of_the_paper() -> None:
    """Algorithm 1 of Real et al. (2019) as it stands there, with the same generator."""
    population, sample, cycles = 6, 3, 60
    rng = np.random.default_rng(5)
    members: deque[tuple[Genome, float]] = deque()
    history = []
    while len(members) < population:
        genome = SPACE.sample(rng)
        members.append((genome, by_genes(Candidate(genome)).values["a"]))
        history.append(genome.text)
    while len(history) < cycles:
        drawn = [members[i] for i in rng.integers(population, size=sample).tolist()]
        parent = min(drawn, key=lambda member: member[1])[0]
        child = Genome(SPACE.name, tuple(change_one(parent.genes, SPACE.choices, rng)))
        members.append((child, by_genes(Candidate(child)).values["a"]))
        history.append(child.text)
        members.popleft()
    strategy = aging(5, population=population, tournament_size=sample, lag=1)
    assert asked(strategy, cycles) == history


def test_a_child_is_another_network_than_its_parent() -> None:
    """Most changes of a cell change no live op; as in the paper, only if `repeats` says so."""
    repeated = {}
    for repeats in (False, True):
        settings = AgingParams(population=6, lag=1, repeats=repeats)
        strategy = Aging(settings, Setting(CELLS, GOAL))
        asked = [c for g in evolve(strategy, Desk(Answers(), CELLS), stop=Stop(evaluations=120))
                 for c in (e.candidate for e in g.evaluations)]  # fmt: skip
        repeated[repeats] = sum(CELLS.key(c.genome) in c.parents for c in asked)
    assert repeated[False] == 0 < repeated[True]


def test_the_lag_is_four_or_a_smaller_population_and_is_written_out() -> None:
    assert AgingParams().model_dump()["lag"] == 4
    assert AgingParams(population=3).model_dump()["lag"] == 3
    with pytest.raises(ValueError, match="lag: must be at most the population"):
        AgingParams(population=3, lag=4)


class Shuffled:
    """Answers several at once, the last first, as slow and quick trainings come in."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.waiting: deque[tuple[Future[Evaluation], Candidate]] = deque()
        self.batch: list[tuple[Future[Evaluation], Candidate]] = []

    def submit(self, candidate: Candidate, seed: int) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        self.waiting.append((future, candidate))
        return future

    def next_done(self) -> Future[Evaluation]:
        while self.waiting and not self.batch:
            count = min(self.workers, len(self.waiting))
            self.batch = [self.waiting.popleft() for _ in range(count)]
        future, candidate = self.batch.pop()
        future.set_result(by_genes(candidate))
        return future


@pytest.mark.parametrize("lag", [1, 3, 8])
def test_the_lag_defines_the_search_and_not_how_many_work_at_it(lag: int) -> None:
    alone = asked(aging(population=8, lag=lag), 80)
    for workers in (1, 2, 5, 20):
        assert asked(aging(population=8, lag=lag), 80, Shuffled(workers)) == alone
    assert asked(aging(population=8, lag=lag % 8 + 1), 80) != alone


def test_a_search_with_a_lag_asks_for_the_same_of_one_worker_process_and_two(
    tmp_path: Path,
) -> None:
    found = []
    for count in (1, 2):
        workers = Workers(tmp_path / f"{count}", count)
        try:
            evaluator = Counting(seconds=0.01)
            desk = Desk(evaluator, SPACE, dispatcher=InWorkers(evaluator, workers))
            loop = evolve(
                Aging(AgingParams(population=4, lag=3), Setting(SPACE, [Objective(name="value")])),
                desk,
                stop=Stop(evaluations=20),
            )
            found.append([e.candidate.genome.text for g in loop for e in g.evaluations])
        finally:
            workers.close()
    assert found[0] == found[1]
    assert len(found[0]) == 20


def test_as_many_are_out_at_once_as_the_lag_says() -> None:
    strategy = aging(population=8, lag=5)
    assert isinstance(strategy, SteadyState)
    out = []
    while asked := strategy.ask():
        out += asked
    assert len(out) == 5
    strategy.tell([by_genes(out[0])])
    assert len(strategy.ask()) == 1
    assert strategy.ask() == []


def test_a_candidate_knows_the_answers_up_to_the_lag_and_no_later() -> None:
    """Two runs whose answers differ from the 12th on ask alike until the lag has passed."""

    def turned(candidate: Candidate) -> Evaluation:
        found = by_genes(candidate)
        seen.append(candidate.genome.text)
        sign = -1.0 if len(seen) > 12 else 1.0
        return Evaluation(candidate, {**found.values, "a": sign * found.values["a"]})

    seen: list[str] = []
    lag = 4
    honest = asked(aging(2, population=6, lag=lag), 40)
    other = asked(aging(2, population=6, lag=lag), 40, evaluator=Answers(turned))
    same = next(i for i, (a, b) in enumerate(zip(honest, other, strict=True)) if a != b)
    assert same >= 12 + lag - 1


def test_generations_are_so_many_in_a_row_and_a_limit_asks_no_more() -> None:
    asked_for: list[str] = []

    def noted(candidate: Candidate) -> Evaluation:
        asked_for.append(candidate.genome.text)
        return by_genes(candidate)

    loop = evolve(
        aging(population=6),
        Desk(Answers(noted), SPACE, answers=Memory()),
        stop=Stop(evaluations=13),
    )
    sizes = [len(generation.evaluations) for generation in loop]
    assert sizes == [6, 6, 6]  # the one begun is finished
    assert len(set(asked_for)) == len(asked_for) <= 18


def test_the_limit_changes_nothing_before_it() -> None:
    long = asked(aging(population=6, lag=4), 60)
    assert asked(aging(population=6, lag=4), 30) == long[:30]


class Simulated(Answers):
    metrics = (Metric("a"), Metric("simulated_seconds", cheap=True))
    fingerprint = ""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"simulated_seconds": 10.0}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return Evaluation(candidate, {**by_genes(candidate).values, "simulated_seconds": 10.0})


def test_simulated_seconds_end_it_within_a_generation() -> None:
    loop = list(
        evolve(
            aging(population=6, lag=1), Desk(Simulated(), SPACE), stop=Stop(simulated_seconds=155.0)
        )
    )
    trained = sum(not cached for generation in loop for cached in generation.cached)
    assert trained == 15
    assert loop[-1].simulated_seconds == 150.0
    assert [generation.complete for generation in loop] == [True] * (len(loop) - 1) + [False]
    assert len(loop[-1].evaluations) < 6

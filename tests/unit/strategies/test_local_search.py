"""Local search."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from evonas.core import Candidate, Evaluation, Objective
from evonas.protocols import Setting
from evonas.strategies.local_search import LocalSearch, LocalSearchParams
from evonas.testing.strategies import by_genes
from genomes import Gene, SearchSpace
from genomes.operators import neighbours

SPACE = SearchSpace("swarm/v1", [Gene(f"g{i}", tuple("vwxyz")) for i in range(6)])
ONE = (Objective(name="a"),)
TWO = (Objective(name="a"), Objective(name="b"))


def answered(strategy: LocalSearch, answer: Callable[[Candidate], Evaluation] = by_genes) -> None:
    strategy.tell([answer(candidate) for candidate in strategy.ask()])


def local(**params: Any) -> LocalSearch:
    return LocalSearch(LocalSearchParams(**params), Setting(SPACE, ONE, seed=0))


def smooth(candidate: Candidate) -> Evaluation:
    return Evaluation(candidate, {"a": float(sum(candidate.genome.genes))})


def test_best_improvement_looks_at_all_neighbours_and_takes_the_best() -> None:
    def only_first(candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {"a": float(candidate.genome.genes[0])})

    strategy = local()
    answered(strategy, only_first)
    assert strategy.current is not None
    start = strategy.current.candidate.genome
    asked = strategy.ask()
    around = {candidate.genome.genes for candidate in asked}
    assert around == set(neighbours(start.genes, SPACE.choices))
    assert len(asked) == 24
    strategy.tell([only_first(candidate) for candidate in asked])
    assert strategy.current.candidate.genome.genes == (0, *start.genes[1:])


def test_first_improvement_moves_on_at_once() -> None:
    strategy = local(improvement="first")
    answered(strategy, smooth)
    assert strategy.current is not None
    trail = [strategy.current]
    steps = 0
    while trail[-1].values["a"] > 0:
        answered(strategy, smooth)
        steps += 1
        assert strategy.current is not None
        if strategy.current is not trail[-1]:
            trail.append(strategy.current)
    for before, after in pairwise(trail):
        changed = sum(
            a != b
            for a, b in zip(
                before.candidate.genome.genes, after.candidate.genome.genes, strict=True
            )
        )
        assert changed == 1
        assert after.values["a"] < before.values["a"]
    assert steps < 24 * len(trail)


@pytest.mark.parametrize("improvement", ["best", "first"])
def test_at_a_local_optimum_it_starts_again_elsewhere(improvement: str) -> None:
    strategy = local(improvement=improvement)
    starts = set()
    for _ in range(600):
        fresh = strategy.current is None
        candidates = strategy.ask()
        if fresh:
            assert len(candidates) == 1
            assert candidates[0].origin == "sampled"
            starts.add(candidates[0].genome)
        strategy.tell([smooth(candidate) for candidate in candidates])
    assert len(starts) > 2


def test_with_several_objectives_a_neighbour_has_to_dominate() -> None:
    def traded(candidate: Candidate) -> Evaluation:
        total = float(sum(candidate.genome.genes))
        return Evaluation(candidate, {"a": total, "b": -total})

    strategy = LocalSearch(LocalSearchParams(), Setting(SPACE, TWO, seed=0))
    answered(strategy, traded)
    answered(strategy, traded)
    assert strategy.current is None

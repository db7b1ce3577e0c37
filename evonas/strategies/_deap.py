"""DEAP, kept indoors: `select` and `mate` take and give plain lists.

Both draw from the global `random`; call them within `stdlib_random`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from deap import base, tools
from numpy.typing import NDArray

SELECTIONS = ("roulette", "tournament", "rank")
CROSSOVERS = ("uniform", "one_point", "two_point")


class Fitness(base.Fitness):
    weights = (1.0,)  # one shaped scalar; many objectives are pareto.py's


class Individual(list[int]):
    """Genes with a fitness, as DEAP's operators want them."""

    def __init__(self, genes: Sequence[int], number: int = -1) -> None:
        super().__init__(genes)
        self.number = number  # its place in the population it was selected from
        self.fitness = Fitness()


@contextmanager
def stdlib_random(rng: np.random.Generator) -> Iterator[None]:
    """Lends DEAP our randomness: it draws from the global `random`, whose state is put back."""
    before = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(before)


def shaped(ranks: NDArray[np.int64], pressure: float) -> NDArray[np.float64]:
    """Fitness by linear ranking (Baker, 1985; Whitley, 1989): positive whatever the losses are.

    f_i = 2 - s + 2 (s - 1) (n - 1 - r_i) / (n - 1), with r_i the mean position of those that share
    a rank, so that equal ones have equal chances and all-equal ones have fitness 1.

    Args:
        ranks: (n,) order of preference, 0 the best (`pareto.preference`).
        pressure: s, 1 < s < 2: the best one's expected share of parents, in units of the mean's.

    Returns:
        (n,) fitness of mean 1, all positive.
    """
    n = len(ranks)
    if n == 1:
        return np.ones(1)
    _, inverse, counts = np.unique(ranks, return_inverse=True, return_counts=True)
    positions = np.cumsum(counts) - (counts + 1) / 2  # mean position of each distinct rank
    share = (n - 1 - positions[inverse.reshape(-1)]) / (n - 1)
    return 2 - pressure + 2 * (pressure - 1) * share


def select(
    genes: Sequence[Sequence[int]],
    fitness: NDArray[np.float64],
    k: int,
    how: str,
    tournament_size: int,
) -> list[int]:
    """Positions of k parents in the population, with repeats, in random order.

    `roulette` spins DEAP's wheel k times, p_i = f_i / sum f; `rank` spins it once with k evenly
    spaced pointers (stochastic universal sampling; Baker, 1987), so that each has its expected
    number of children, rounded up or down; `tournament` takes the best of each draw.

    Raises:
        ValueError: a fitness that is not positive and finite: DEAP would return too few.
    """
    if not (np.isfinite(fitness).all() and (fitness > 0).all()):
        raise ValueError("selection needs fitness that is positive and finite")
    population = [Individual(row, number) for number, row in enumerate(genes)]
    for individual, value in zip(population, fitness.tolist(), strict=True):
        individual.fitness.values = (value,)
    if how == "tournament":
        parents = tools.selTournament(population, k, tournsize=tournament_size)
    elif how == "rank":
        parents = tools.selStochasticUniversalSampling(population, k)
        random.shuffle(parents)  # they come sorted, and neighbours mate
    else:
        parents = []
        while len(parents) < k:  # a spin at the very rim of the wheel selects nobody
            parents += tools.selRoulette(population, k - len(parents))
    return [parent.number for parent in parents]


def mate(first: Sequence[int], second: Sequence[int], how: str) -> tuple[list[int], list[int]]:
    """Two children of two gene vectors; genes swap places with those of the other parent."""
    a, b = Individual(first), Individual(second)
    if how == "uniform":
        tools.cxUniform(a, b, indpb=0.5)
    elif len(a) < 2:
        pass  # no point to cut at
    elif how == "one_point":
        tools.cxOnePoint(a, b)
    else:
        tools.cxTwoPoint(a, b)
    return list(a), list(b)

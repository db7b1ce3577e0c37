"""DEAP, kept indoors: `select`, `mate` and `mutate` take and give plain lists.

All of them draw from the global `random`; call them within `stdlib_random`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from deap import base, tools
from deap.tools import emo
from numpy.typing import NDArray

SELECTIONS = ("roulette", "tournament", "rank")
CROSSOVERS = ("uniform", "one_point", "two_point")  # for genes and for numbers
BLENDS = ("arithmetic", "blend", "simulated_binary")  # for numbers only
MUTATIONS = ("scale", "polynomial")  # for numbers only
BLOCK = 4_000_000  # distances in memory at a time, about 30 MB


class Fitness(base.Fitness):
    weights = (1.0,)  # one shaped scalar; many objectives are pareto.py's


class Individual(list[float]):
    """Genes, or numbers in the unit cube, with a fitness, as DEAP's operators want them."""

    def __init__(self, genes: Sequence[float], number: int = -1) -> None:
        super().__init__(genes)
        self.number = number  # its place in the population it was selected from
        self.fitness = Fitness()


@contextmanager
def stdlib_random(rng: np.random.Generator) -> Iterator[None]:
    """Lends our randomness to the global `random`, which DEAP draws from, and then restores it."""
    before = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def numpy_random(rng: np.random.Generator) -> Iterator[None]:
    """Lends our randomness to NumPy's global generator, which the niching of NSGA-III draws from,
    and then restores it.
    """
    before = np.random.get_state()  # noqa: NPY002  # the one that DEAP draws from
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def shaped(ranks: NDArray[np.int64], pressure: float) -> NDArray[np.float64]:
    """Fitness by linear ranking (Baker, 1985; Whitley, 1989): positive whatever the losses are.

    f_i = 2 - s + 2 (s - 1) (n - 1 - r_i) / (n - 1), where r_i is the mean position of the members
    that share a rank, so that equals have equal chances; if all are equal, each has fitness 1.

    Args:
        ranks: (n,) order of preference, 0 the best (`pareto.preference`).
        pressure: s, 1 < s < 2: how often the best member is drawn, relative to an average one.

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


def raw(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fitness that is the objective itself, turned so that more is better (Goldberg, 1989).

    f_i = -loss_i if no loss is above 0, as with an objective to maximise; otherwise it is shifted
    to f_i = max loss - loss_i. Fitness of less than 1e-9 of the largest counts as that much, since
    DEAP's wheel needs it positive. If all are equal, each has fitness 1.

    Args:
        losses: (n,); NaN for members without a value, which get as much as the worst.

    Returns:
        (n,) fitness, all positive.
    """
    values = np.nan_to_num(-losses, nan=-np.inf)
    finite = np.isfinite(values)
    low = values[finite].min(initial=0.0)  # 0 if no value is negative
    fitness = np.where(finite, values - low, 0.0)
    top = fitness.max(initial=0.0)
    return np.maximum(fitness, 1e-9 * top) if top > 0 else np.ones(len(losses))


def select(
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
    population = [Individual((), number) for number in range(len(fitness))]
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


def toolbox(
    crossover: str,
    mutation: str,
    *,
    rate: float,
    alpha: float = 0.5,
    crossover_eta: float = 15.0,
    mutation_eta: float = 20.0,
    sigma: float = 0.1,
    drawn: bool = True,
) -> base.Toolbox:
    """A toolbox with `mate` and `mutate`, which change vectors in place.

    Vectors are genes or points of the unit cube, which blend and scale may leave.

    Args:
        rate: the probability that a coordinate is mutated.
        alpha: the parameter of blend (Eshelman and Schaffer, 1993).
        crossover_eta: the index of simulated binary crossover (Deb and Agrawal, 1995).
        mutation_eta: the index of polynomial mutation (Deb and Goyal, 1996).
        sigma, drawn: the parameters of scale; see `_scale`.
    """
    box = base.Toolbox()
    mates = {
        "uniform": partial(tools.cxUniform, indpb=0.5),
        "one_point": partial(_cut, tools.cxOnePoint),
        "two_point": partial(_cut, tools.cxTwoPoint),
        "arithmetic": _arithmetic,
        "blend": partial(tools.cxBlend, alpha=alpha),
        "simulated_binary": partial(
            tools.cxSimulatedBinaryBounded, eta=crossover_eta, low=0.0, up=1.0
        ),
    }
    mutations = {
        "scale": partial(_scale, rate=rate, sigma=sigma, drawn=drawn),
        "polynomial": partial(
            tools.mutPolynomialBounded, eta=mutation_eta, low=0.0, up=1.0, indpb=rate
        ),
    }
    box.register("mate", mates[crossover])
    if mutation in mutations:
        box.register("mutate", mutations[mutation])
    return box


def mate(
    box: base.Toolbox, first: Sequence[float], second: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Two children of two vectors."""
    a, b = Individual(first), Individual(second)
    box.mate(a, b)
    return list(a), list(b)


def mutate(box: base.Toolbox, vector: Sequence[float]) -> list[float]:
    mutated = Individual(vector)
    box.mutate(mutated)
    return list(mutated)


def _cut(operator: partial[object], first: Individual, second: Individual) -> None:
    if len(first) > 1:  # else there is no point to cut at
        operator(first, second)


def _arithmetic(first: Individual, second: Individual) -> None:
    """Whole arithmetic crossover: x' = a x_i + (1 - a) x_j, a drawn uniformly for each pair."""
    a = random.random()
    pairs = list(zip(first, second, strict=True))
    first[:] = [a * x + (1 - a) * y for x, y in pairs]
    second[:] = [a * y + (1 - a) * x for x, y in pairs]


def _scale(vector: Individual, *, rate: float, sigma: float, drawn: bool) -> None:
    """x' = x (1 + s) for each coordinate, with probability `rate`.

    s is `sigma` or, if `drawn`, normal with that standard deviation.
    """
    for i, x in enumerate(vector):
        if random.random() < rate:
            vector[i] = x * (1 + (random.gauss(0, sigma) if drawn else sigma))


def reference_points(objectives: int, divisions: int) -> NDArray[np.float64]:
    """(r, objectives) points of the unit simplex, evenly spread."""
    points = tools.uniform_reference_points(objectives, divisions)
    return np.asarray(points, dtype=np.float64)


def niches(
    losses: NDArray[np.float64],
    directions: NDArray[np.float64],
    ideal: NDArray[np.float64],
    worst: NDArray[np.float64],
    extremes: NDArray[np.float64] | None,
    *,
    even: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Finds the nearest direction of each point, its distance, and the new extreme points.

    Args:
        losses: (n, m), the first fronts.
        directions: (r, m).
        ideal, worst: (m,), so far.
        extremes: (m, m), of the last generation.
        even: whether losses are divided by their spans before extreme points are looked for.
            Otherwise the objective of the largest numbers decides which points are extreme.
    """
    spans = np.where(even & (worst > ideal), worst - ideal, 1.0)
    kept = None if extremes is None else extremes / spans
    extremes = emo.find_extreme_points(losses / spans, ideal / spans, kept) * spans
    # All is relative to the ideal point, since DEAP counts some of its intercepts from there.
    moved, zero = losses - ideal, np.zeros_like(ideal)
    intercepts = emo.find_intercepts(extremes - ideal, zero, worst - ideal, moved.max(axis=0))
    scaled = moved / np.maximum(intercepts, 1e-12)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    size = max(BLOCK // len(units), 1)
    blocks = [_nearest(scaled[i : i + size], units) for i in range(0, len(scaled), size)]
    nearest, distances = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return nearest, distances, extremes


def _nearest(
    points: NDArray[np.float64], units: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each point, the nearest of the lines through the origin, and the distance to it."""
    along = points @ units.T
    nearest = along.argmax(axis=1)  # the projection on it is the longest
    square = (points**2).sum(axis=1) - along[np.arange(len(along)), nearest] ** 2
    return nearest, np.sqrt(np.maximum(square, 0.0))


def fill_niches(
    members: list[int],
    k: int,
    niches: NDArray[np.int64],
    distances: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> list[int]:
    """Chooses k of the members, from the emptiest niches; call it within `numpy_random`."""
    return list(emo.niching(members, k, niches, distances, counts.copy()))

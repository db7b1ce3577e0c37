"""Selection and crossover on DEAP: whatever the losses are, as many parents as were asked for."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from deap import tools
from hypothesis import given
from hypothesis import strategies as st

from evonas.core import Candidate, Constraint, Evaluation, Objective, Status
from evonas.pareto import preference
from evonas.strategies._deap import (
    CROSSOVERS,
    SELECTIONS,
    Individual,
    mate,
    raw,
    select,
    shaped,
    stdlib_random,
    toolbox,
)
from genomes import Genome

CANDIDATE = Candidate(Genome("toy/v1", (0,)))
ERROR, PARAMS = Objective(name="error"), Objective(name="params", goal="max")

seeds = st.integers(0, 2**32 - 1)
pressures = st.floats(1, 2, exclude_min=True, exclude_max=True)
losses = st.sampled_from([0.0, -0.0, -1.0, 0.5, math.nan, math.inf, -math.inf]) | st.floats(-1, 1)
populations = st.lists(
    st.builds(
        lambda error, params, status: Evaluation(
            CANDIDATE, {"error": error, "params": params}, status
        ),
        losses,
        losses,
        st.sampled_from([Status.OK] * 4 + list(Status)),
    ),
    min_size=1,
    max_size=12,
) | st.builds(  # all equal, NaN or not
    lambda value, count: [Evaluation(CANDIDATE, {"error": value, "params": value})] * count,
    losses,
    st.integers(1, 12),
)


def fitness_of(
    population: list[Evaluation], objectives: list[Objective], pressure: float = 1.8
) -> np.ndarray:
    bounds = [Constraint(name="params", max=0.5)]
    return shaped(preference(population, objectives, bounds), pressure)


def selected(fitness: np.ndarray, k: int, how: str, size: int = 3, *, seed: int = 0) -> list[int]:
    with stdlib_random(np.random.default_rng(seed)):
        return select(fitness, k, how, size)


def mated(
    first: list[int], second: list[int], how: str, *, seed: int
) -> tuple[list[int], list[int]]:
    with stdlib_random(np.random.default_rng(seed)):
        return mate(toolbox(how, "reset", rate=0.2), first, second)


def shares(fitness: np.ndarray, spins: int, how: str, size: int = 3) -> np.ndarray:
    """How often each is selected."""
    chosen = selected(fitness, spins, how, size)
    return np.bincount(chosen, minlength=len(fitness)) / spins


@pytest.mark.parametrize("objectives", [[ERROR], [PARAMS], [ERROR, PARAMS]], ids=len)
@pytest.mark.parametrize("how", SELECTIONS)
@given(population=populations, k=st.integers(1, 20), pressure=pressures, seed=seeds)
def test_as_many_parents_as_asked_for_whatever_the_losses(
    how: str,
    objectives: list[Objective],
    population: list[Evaluation],
    k: int,
    pressure: float,
    seed: int,
) -> None:
    fitness = fitness_of(population, objectives, pressure)
    parents = selected(fitness, k, how, seed=seed)
    assert len(parents) == k
    assert set(parents) <= set(range(len(population)))


@given(population=populations, pressure=st.floats(1.01, 1.99))
def test_shaped_fitness_is_positive_of_mean_1_falls_with_rank_and_is_the_same_for_equals(
    population: list[Evaluation], pressure: float
) -> None:
    ranks = preference(population, [ERROR])
    fitness = shaped(ranks, pressure)
    assert (fitness > 0).all()
    assert fitness.mean() == pytest.approx(1)
    assert fitness.max() <= pressure + 1e-12
    for rank, value in zip(ranks, fitness, strict=True):
        assert (fitness[ranks == rank] == value).all()
        assert (fitness[ranks > rank] < value).all()


def test_shaped_fitness_by_hand() -> None:
    assert shaped(np.array([2, 0, 1]), 1.5) == pytest.approx([0.5, 1.5, 1.0])
    assert shaped(np.array([0, 0, 1]), 1.5) == pytest.approx([1.25, 1.25, 0.5])
    assert shaped(np.array([7]), 1.5) == pytest.approx([1.0])
    assert shaped(np.zeros(4, dtype=np.int64), 1.5) == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("how", SELECTIONS)
def test_the_better_are_selected_more_often_than_the_worse(how: str) -> None:
    share = shares(shaped(np.arange(6), 1.8), 20_000, how)
    assert (np.diff(share) < -0.005).all()


@pytest.mark.parametrize("how", SELECTIONS)
def test_equals_are_selected_equally_often(how: str) -> None:
    share = shares(shaped(np.array([0, 1, 1, 1, 1]), 1.8), 40_000, how)
    assert share[1:] == pytest.approx([share[1:].mean()] * 4, abs=0.01)


def test_rank_selection_gives_each_its_expected_number_of_children_rounded() -> None:
    fitness = shaped(np.array([3, 0, 1, 1, 4]), 1.8)
    for seed in range(100):
        parents = selected(fitness, 12, "rank", seed=seed)
        expected = 12 * fitness / fitness.sum()
        assert (abs(np.bincount(parents, minlength=5) - expected) < 1).all()


def test_rank_selection_does_not_leave_the_parents_sorted() -> None:
    parents = selected(shaped(np.arange(10), 1.8), 20, "rank")
    assert parents != sorted(parents)


def test_a_tournament_among_many_takes_the_best() -> None:
    assert shares(shaped(np.arange(5), 1.8), 50, "tournament", size=100)[0] == 1
    even = shares(shaped(np.arange(5), 1.8), 20_000, "tournament", size=1)
    assert even == pytest.approx([0.2] * 5, abs=0.02)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([-1.0, -3.0], [0.25, 0.75]),  # accuracies as they are
        ([0.1, 0.4, 0.5], [0.8, 0.2, 0.0]),  # errors, from the worst
        ([1.0, -1.0, 0.5], [0.0, 0.8, 0.2]),
        ([2.0, 2.0], [0.5, 0.5]),
        ([0.1, 0.3, math.nan], [1.0, 0.0, 0.0]),
        ([math.nan, math.nan], [0.5, 0.5]),
    ],
)
def test_raw_fitness_is_the_objective_shifted_where_needed(
    losses: list[float], expected: list[float]
) -> None:
    fitness = raw(np.array(losses))
    assert fitness / fitness.sum() == pytest.approx(expected, abs=1e-8)
    assert shares(fitness, 10_000, "roulette") == pytest.approx(expected, abs=0.02)


def test_roulette_on_accuracies_close_together_needs_shaping() -> None:
    """Why fitness is shaped: raw, 0.94 has hardly a better chance than 0.90."""
    accuracies = np.linspace(0.90, 0.94, 20)
    objective = Objective(name="accuracy", goal="max")
    population = [Evaluation(CANDIDATE, {"accuracy": accuracy}) for accuracy in accuracies]
    spins = 20_000  # a standard error of 0.002 at a share of 0.09

    ours = shares(fitness_of(population, [objective], pressure=1.8), spins, "roulette")
    assert ours[-1] == pytest.approx(1.8 / 20, abs=0.01)
    assert ours[0] == pytest.approx(0.2 / 20, abs=0.005)

    drawn = deap_roulette(accuracies, spins)
    assert drawn.count(19) / spins == pytest.approx(1 / 20, abs=0.008)


def test_roulette_on_zeros_needs_shaping() -> None:
    """Why fitness is shaped: on zeros, DEAP's wheel silently selects nobody."""
    population = [Evaluation(CANDIDATE, {"error": 0.0})] * 6
    assert deap_roulette(np.zeros(6), 10) == []
    assert len(selected(fitness_of(population, [ERROR]), 10, "roulette")) == 10


def deap_roulette(fitness: np.ndarray, spins: int) -> list[int]:
    population = [Individual([0], number) for number in range(len(fitness))]
    for individual, value in zip(population, fitness.tolist(), strict=True):
        individual.fitness.values = (value,)
    with stdlib_random(rng()):
        return [individual.number for individual in tools.selRoulette(population, spins)]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("how", SELECTIONS)
@pytest.mark.parametrize("bad", [0.0, -0.5, math.nan, math.inf])
def test_select_refuses_fitness_that_is_not_positive_and_finite(how: str, bad: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        selected(np.array([1.0, bad, 2.0]), 4, how)


@pytest.mark.parametrize("how", SELECTIONS)
def test_selection_repeats_with_the_generator_that_was_lent(how: str) -> None:
    fitness = shaped(np.arange(20), 1.8)
    assert selected(fitness, 20, how, seed=1) == selected(fitness, 20, how, seed=1)
    assert selected(fitness, 20, how, seed=1) != selected(fitness, 20, how, seed=2)


def test_a_generator_lent_twice_gives_other_numbers_the_second_time() -> None:
    generator = rng()
    with stdlib_random(generator):
        first = random.random()
    with stdlib_random(generator):
        assert random.random() != first


def test_the_global_random_state_is_left_as_it_was() -> None:
    before = random.getstate()
    for how in SELECTIONS:
        selected(shaped(np.arange(4), 1.8), 6, how)
    for how in CROSSOVERS:
        mated([0, 1, 2, 3], [3, 2, 1, 0], how, seed=0)
    assert random.getstate() == before


def test_the_global_random_state_is_put_back_after_an_error() -> None:
    before = random.getstate()
    with pytest.raises(IndexError), stdlib_random(rng()):
        random.choice([])
    assert random.getstate() == before


@pytest.mark.parametrize("how", CROSSOVERS)
@given(
    parents=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=10),
    seed=seeds,
)
def test_children_keep_every_gene_of_both_parents_in_its_place(
    how: str, parents: list[tuple[int, int]], seed: int
) -> None:
    first, second = [a for a, _ in parents], [b for _, b in parents]
    children = mated(first, second, how, seed=seed)
    assert [len(child) for child in children] == [len(parents)] * 2
    for (a, b), x, y in zip(parents, *children, strict=True):
        assert (x, y) in [(a, b), (b, a)]
    assert (first, second) == ([a for a, _ in parents], [b for _, b in parents])


@pytest.mark.parametrize(("how", "cuts"), [("one_point", 1), ("two_point", 2), ("uniform", 5)])
def test_crossover_cuts_as_often_as_its_name_says(how: str, cuts: int) -> None:
    most = 0
    for seed in range(200):
        child, _ = mated([0] * 6, [1] * 6, how, seed=seed)
        most = max(most, int(abs(np.diff(child)).sum()))
    assert most == cuts


@pytest.mark.parametrize(("how", "stays"), [("one_point", 1), ("two_point", 1), ("uniform", 0)])
def test_every_gene_but_one_before_the_first_cut_swaps_at_times(how: str, stays: int) -> None:
    children = [mated([0] * 6, [1] * 6, how, seed=seed)[0] for seed in range(100)]
    swapped = [1 in column for column in zip(*children, strict=True)]
    assert swapped == [False] * stays + [True] * (6 - stays)

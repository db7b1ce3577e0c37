"""Fronts, ranks, crowding, hypervolume and preference, against slow and plain versions."""

from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evonas.core import Candidate, Constraint, Evaluation, Objective, Status
from evonas.pareto import (
    Losses,
    crowding_distance,
    front_ranks,
    hypervolume,
    hypervolume_gain,
    is_on_front,
    losses,
    preference,
)
from genomes import Genome

CANDIDATE = Candidate(Genome("toy/v1", (0,)))
ERROR, PARAMS = Objective(name="error"), Objective(name="params")
FAILURES = [status for status in Status if status.failed]

small = st.integers(-3, 3).map(float)  # few values, so that points tie and repeat
wild = st.floats(-1e9, 1e9)


def point_sets(
    objectives: st.SearchStrategy[int], elements: st.SearchStrategy[float] = small
) -> st.SearchStrategy[Losses]:
    return st.tuples(st.integers(0, 12), objectives).flatmap(
        lambda shape: arrays(np.float64, shape, elements=elements)
    )


any_points = point_sets(st.integers(1, 4)) | point_sets(st.integers(1, 4), wild)


def dominates(one: Losses, other: Losses) -> bool:
    return bool((one <= other).all() and (one < other).any())


def undominated(points: Losses) -> list[bool]:
    return [not any(dominates(other, point) for other in points) for point in points]


@given(any_points)
def test_the_front_is_just_what_nothing_dominates_ties_included(points: Losses) -> None:
    assert is_on_front(points).tolist() == undominated(points)


@given(any_points)
def test_ranks_are_those_of_peeling_front_after_front(points: Losses) -> None:
    peeled = np.full(len(points), -1)
    for rank in itertools.count():
        left = np.flatnonzero(peeled < 0)
        if len(left) == 0:
            break
        peeled[left[undominated(points[left])]] = rank
    assert front_ranks(points).tolist() == peeled.tolist()


def test_equal_points_share_the_front() -> None:
    points = np.array([[1.0, 1.0], [0.0, 2.0], [1.0, 1.0], [2.0, 2.0]])
    assert is_on_front(points).tolist() == [True, True, True, False]
    assert front_ranks(points).tolist() == [0, 0, 0, 1]


def test_crowding_distance_of_a_small_front_by_hand() -> None:
    front = np.array([[3.0, 1.0], [0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])
    expected = [(4 - 1) / 4 + (2 - 0) / 4, math.inf, (3 - 0) / 4 + (4 - 1) / 4, math.inf]
    assert crowding_distance(front).tolist() == expected


@given(any_points)
def test_crowding_distance_is_infinite_at_the_ends_and_never_negative(points: Losses) -> None:
    distance = crowding_distance(points)
    assert distance.shape == (len(points),)
    assert (distance >= 0).all()
    for column in points.T:
        if len(column) and column.min() < column.max():
            assert math.inf in distance[column == column.min()]
            assert math.inf in distance[column == column.max()]


def test_equal_points_are_not_divided_by_a_span_of_zero() -> None:
    assert crowding_distance(np.ones((4, 2))).tolist() == [0.0] * 4


@given(point_sets(st.just(2)), st.tuples(st.integers(-3, 4), st.integers(-3, 4)))
def test_hypervolume_counts_the_unit_squares_that_a_set_dominates(
    points: Losses, reference: tuple[int, int]
) -> None:
    corners = itertools.product(range(-3, reference[0]), range(-3, reference[1]))
    squares = sum(any((point <= corner).all() for point in points) for corner in corners)
    assert hypervolume(points, reference) == pytest.approx(squares)


@given(point_sets(st.just(2), st.floats(-10, 10)))
def test_hypervolume_in_two_dimensions_is_that_of_a_sweep(points: Losses) -> None:
    area, lowest = 0.0, 5.0
    for x, y in sorted(map(tuple, points.tolist())):
        if x < 5 and y < lowest:
            area += (5 - x) * (lowest - y)
            lowest = y
    assert hypervolume(points, (5, 5)) == pytest.approx(area, rel=1e-9, abs=1e-9)


@given(point_sets(st.integers(1, 3)), st.integers(0, 11))
def test_hypervolume_never_falls_when_a_point_is_added(points: Losses, cut: int) -> None:
    reference = [2.0] * points.shape[1]
    assert hypervolume(points[:cut], reference) <= hypervolume(points, reference) + 1e-9


@given(point_sets(st.integers(1, 4)))
def test_what_points_add_one_after_another_is_the_hypervolume_of_all(points: Losses) -> None:
    reference = [2.0] * points.shape[1]
    volume = 0.0
    for i, point in enumerate(points):
        gain = hypervolume_gain(points[:i], point, reference)
        assert gain >= 0
        volume += gain
    assert volume == pytest.approx(hypervolume(points, reference), rel=1e-9, abs=1e-9)


def ok(**values: float) -> Evaluation:
    return Evaluation(CANDIDATE, values)


def infeasible(**values: float) -> Evaluation:
    return Evaluation(CANDIDATE, values, Status.INFEASIBLE)


def failed(status: Status = Status.CRASHED) -> Evaluation:
    return Evaluation(CANDIDATE, {}, status)


def test_losses_turn_maximised_objectives_and_leave_gaps_for_missing_values() -> None:
    accuracy = Objective(name="accuracy", goal="max")
    rows = losses([ok(error=0.1, accuracy=0.9), ok(error=0.2)], [ERROR, accuracy])
    assert np.array_equal(rows, [[0.1, -0.9], [0.2, math.nan]], equal_nan=True)
    assert losses([], [ERROR, accuracy]).shape == (0, 2)


def test_feasible_come_before_infeasible_before_failed() -> None:
    limit = Constraint(name="params", max=100)
    evaluations = [
        failed(),
        infeasible(params=300),
        ok(error=0.9, params=50),
        infeasible(params=150),
        ok(error=0.1, params=60),
        failed(Status.TIMEOUT),
    ]
    assert preference(evaluations, [ERROR], [limit]).tolist() == [4, 3, 1, 2, 0, 4]
    assert preference(evaluations, [ERROR, PARAMS], [limit]).tolist() == [3, 2, 0, 1, 0, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("objectives", [[ERROR], [ERROR, PARAMS]], ids=["one", "two"])
def test_values_that_are_no_numbers_count_as_failed(
    value: float, objectives: list[Objective]
) -> None:
    evaluations = [
        ok(error=value, params=1),
        ok(error=9.0, params=9),
        failed(),
        infeasible(params=5),
        ok(params=1),
    ]
    assert preference(evaluations, objectives).tolist() == [2, 0, 2, 1, 2]


def test_values_of_failed_evaluations_do_not_count() -> None:
    diverged = Evaluation(CANDIDATE, {"error": 0.0}, Status.DIVERGED)
    assert preference([diverged, ok(error=0.9)], [ERROR]).tolist() == [1, 0]


def test_maximised_objectives_are_preferred_the_larger() -> None:
    accuracy = Objective(name="accuracy", goal="max")
    evaluations = [ok(accuracy=0.5), ok(accuracy=0.9), ok(accuracy=0.7)]
    assert preference(evaluations, [accuracy]).tolist() == [2, 0, 1]


def test_of_several_objectives_the_front_comes_first_and_on_it_the_less_crowded() -> None:
    points = [(0.0, 4.0), (1.0, 2.0), (3.0, 1.0), (4.0, 0.0), (4.0, 4.0), (5.0, 5.0)]
    evaluations = [ok(error=x, params=y) for x, y in points]
    assert preference(evaluations, [ERROR, PARAMS]).tolist() == [0, 1, 2, 0, 3, 4]


def test_nothing_is_preferred_among_none() -> None:
    assert preference([], [ERROR]).shape == (0,)
    assert preference([], [ERROR, PARAMS]).shape == (0,)


values = small | wild | st.sampled_from([math.nan, math.inf, -math.inf, -0.0])
any_evaluation = st.builds(
    lambda error, params, status: Evaluation(CANDIDATE, {"error": error, "params": params}, status),
    values,
    values,
    st.sampled_from([Status.OK] * 5 + [Status.INFEASIBLE] * 2 + FAILURES),
)
evaluations_of_any_kind = st.lists(any_evaluation, max_size=10)
BOUNDS = [Constraint(name="params", min=-1, max=1)]


@given(evaluations_of_any_kind)
def test_one_objective_orders_by_tier_and_loss_or_violation(evaluations: list[Evaluation]) -> None:
    def place(evaluation: Evaluation) -> tuple[int, float]:
        error, params = evaluation.values["error"], evaluation.values["params"]
        if evaluation.status is Status.INFEASIBLE:
            return 1, math.inf if math.isnan(params) else max(0.0, params - 1, -1 - params)
        return (0, error) if evaluation.status is Status.OK and math.isfinite(error) else (2, 0.0)

    places = [place(evaluation) for evaluation in evaluations]
    expected = [sorted(set(places)).index(own) for own in places]
    assert preference(evaluations, [ERROR], BOUNDS).tolist() == expected


@given(evaluations_of_any_kind, st.randoms(use_true_random=False))
def test_one_objective_gives_each_the_same_rank_in_whatever_order_they_come(
    evaluations: list[Evaluation], random: Random
) -> None:
    order = list(range(len(evaluations)))
    random.shuffle(order)
    shuffled = preference([evaluations[i] for i in order], [ERROR], BOUNDS)
    assert shuffled.tolist() == preference(evaluations, [ERROR], BOUNDS)[order].tolist()


def test_evaluations_with_equal_values_share_a_rank() -> None:
    points = [(0.0, 2.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (2.0, 0.0)]
    ranks = preference([ok(error=x, params=y) for x, y in points], [ERROR, PARAMS])
    assert ranks.tolist() == [0, 1, 1, 1, 0]


@given(
    st.lists(any_evaluation, max_size=10, unique_by=lambda e: tuple(e.values.values())),
    st.randoms(use_true_random=False),
)
def test_several_objectives_give_each_the_same_rank_in_whatever_order_they_come(
    evaluations: list[Evaluation], random: Random
) -> None:
    order = list(range(len(evaluations)))
    random.shuffle(order)
    shuffled = preference([evaluations[i] for i in order], [ERROR, PARAMS], BOUNDS)
    assert shuffled.tolist() == preference(evaluations, [ERROR, PARAMS], BOUNDS)[order].tolist()


@given(evaluations_of_any_kind)
def test_several_objectives_never_prefer_the_dominated(evaluations: list[Evaluation]) -> None:
    ranks = preference(evaluations, [ERROR, PARAMS], BOUNDS)
    points = losses(evaluations, [ERROR, PARAMS])
    feasible = [
        i
        for i, evaluation in enumerate(evaluations)
        if evaluation.status is Status.OK and np.isfinite(points[i]).all()
    ]
    for i, j in itertools.permutations(feasible, 2):
        if dominates(points[i], points[j]):
            assert ranks[i] < ranks[j]

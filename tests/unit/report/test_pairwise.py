"""Pairs of arms, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evonas.report.attainment import surface
from evonas.report.pairwise import effect, holm, pairs


def test_holm_corrects_the_smallest_most_and_never_turns_the_order_around() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x, then 2 x
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_effect_is_the_share_of_wins_with_half_of_the_ties() -> None:
    assert effect(np.array([1.0, 3.0]), np.array([1.0, 2.0])) == 0.625  # half, 0, 1, 1: of four


def test_arms_of_one_seed_are_left_out_and_a_run_without_a_value_is_the_worst() -> None:
    values = [np.array([3.0, 4.0, 5.0]), np.array([9.0]), np.array([np.nan, 1.0, 2.0])]
    [pair] = pairs(values)
    assert (pair.one, pair.other, pair.effect) == (0, 2, 1.0)
    assert pair.p == pair.corrected == pytest.approx(0.1) == pair.least  # 2 of the 20 orders


def test_arms_that_are_the_same_differ_in_nothing() -> None:
    [pair] = pairs([np.ones(3), np.ones(4)])
    assert (pair.effect, pair.p) == (0.5, 1.0)


def test_half_of_the_seeds_attain_what_two_of_three_fronts_dominate() -> None:
    runs = [np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), np.array([[2.0, 2.0], [np.nan, 0.0]])]
    assert surface(runs, 50).tolist() == [[1.0, 1.0]]
    assert surface(runs, 25).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert surface([*runs[:1], np.empty((0, 2))], 75).tolist() == []  # one run found nothing

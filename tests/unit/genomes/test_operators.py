"""Operators on gene vectors."""

from __future__ import annotations

import numpy as np
import pytest

from genomes import NASBench201
from genomes.operators import mean_hamming, neighbours, reset

CHOICES = (5, 1, 2, 3)


def test_reset_at_rate_0_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    assert all(reset((4, 0, 1, 2), CHOICES, 0.0, rng) == [4, 0, 1, 2] for _ in range(50))


def test_reset_draws_uniformly_from_the_other_choices_at_its_rate() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([reset([2] * 1000, [5] * 1000, 0.2, rng) for _ in range(50)])
    shares = np.bincount(drawn.ravel(), minlength=5) / drawn.size
    assert shares == pytest.approx([0.05, 0.05, 0.8, 0.05, 0.05], abs=0.006)  # 4 standard errors


def test_reset_leaves_its_input_alone_and_repeats_with_its_generator() -> None:
    genes = [4, 0, 1, 2]
    first = reset(genes, CHOICES, 0.5, np.random.default_rng(1))
    assert genes == [4, 0, 1, 2]
    assert first == reset(genes, CHOICES, 0.5, np.random.default_rng(1))


def test_a_cell_of_nasbench201_has_24_neighbours() -> None:
    space = NASBench201()
    best = space.genome([3, 3, 3, 1, 3, 2])
    around = {space.genome(genes) for genes in neighbours(best.genes, space.choices)}
    assert len(around) == 24
    assert best not in around


def test_mean_hamming_of_a_small_population_by_hand() -> None:
    population = np.array([[0, 0, 1], [0, 1, 1], [0, 1, 2]])
    assert mean_hamming(population) == pytest.approx((1 + 2 + 1) / 3)


def test_fewer_than_two_members_have_no_diversity() -> None:
    assert mean_hamming(np.zeros((0, 6), dtype=np.int64)) == 0
    assert mean_hamming(np.array([[1, 2, 3]])) == 0

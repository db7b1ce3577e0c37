"""Pure operators on gene vectors; those that draw take a generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def reset(
    genes: Sequence[int], choices: Sequence[int], rate: float, rng: np.random.Generator
) -> list[int]:
    """Change each gene with probability `rate` to one of its other choices, drawn uniformly."""
    hits, steps = rng.random((2, len(genes))).tolist()
    return [
        # A step of 1 .. k-1 never leads back to the same choice.
        (gene + 1 + int(step * (count - 1))) % count if hit < rate and count > 1 else gene
        for gene, count, hit, step in zip(genes, choices, hits, steps, strict=True)
    ]


def change_one(genes: Sequence[int], choices: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Change one gene, drawn uniformly from those with several choices, to another of them."""
    free = [position for position, count in enumerate(choices) if count > 1]
    result = list(genes)
    if free:
        where, step = rng.random(2).tolist()
        position = free[int(where * len(free))]
        count = choices[position]
        result[position] = (result[position] + 1 + int(step * (count - 1))) % count
    return result


def neighbours(genes: Sequence[int], choices: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all gene vectors that differ in exactly one gene, in order."""
    for position, count in enumerate(choices):
        for choice in range(count):
            if choice != genes[position]:
                yield (*genes[:position], choice, *genes[position + 1 :])


def mean_hamming(population: NDArray[np.integer]) -> float:
    """Return the mean Hamming distance over all pairs of a population.

    Args:
        population: (n, g) genes.

    Returns:
        A number from 0 (all equal) to g; 0 for fewer than two genomes. It is counted from how
        often each choice occurs, in O(n g), not pair by pair.
    """
    n = len(population)
    if n < 2:
        return 0.0
    equal_pairs = 0
    for column in population.T:
        counts = np.bincount(column)
        equal_pairs += int((counts * (counts - 1)).sum())
    return float(population.shape[1] - equal_pairs / (n * (n - 1)))

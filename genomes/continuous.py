"""Continuous encodings: real vectors that decode to genes, and genes as one such vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Point = NDArray[np.float64]  # in the unit cube


class Scaled:
    """An encoding with a number for each gene: its choices are equal parts of the unit interval."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = np.asarray(choices)
        self.dimensions = len(self.choices)

    def decode(self, vector: ArrayLike) -> tuple[int, ...]:
        """Return the genes of a (dimensions,) vector, clipped to [0, 1]; NaN counts as 0."""
        unit = np.clip(np.nan_to_num(np.asarray(vector, dtype=np.float64)), 0.0, 1.0)
        return tuple(np.minimum(unit * self.choices, self.choices - 1).astype(int).tolist())

    def encode(self, genes: Sequence[int]) -> Point:
        """Return the middle of the part that decodes to these genes, (dimensions,)."""
        middle: Point = (np.asarray(genes, dtype=np.float64) + 0.5) / self.choices
        return middle


class Logits:
    """An encoding with a number for each choice: a gene takes its largest, the first if equal."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = np.asarray(choices)
        self.dimensions = int(self.choices.sum())
        self._ends = np.cumsum(self.choices)[:-1]

    def decode(self, vector: ArrayLike) -> tuple[int, ...]:
        """Return the genes of a (dimensions,) vector."""
        parts = np.split(np.asarray(vector, dtype=np.float64), self._ends)
        return tuple(int(part.argmax()) for part in parts)

    def encode(self, genes: Sequence[int]) -> Point:
        """Return the one-hot vector of these genes, (dimensions,)."""
        parts = [np.eye(count)[gene] for gene, count in zip(genes, self.choices, strict=True)]
        return np.concatenate(parts)

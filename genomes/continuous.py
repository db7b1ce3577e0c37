"""Continuous encodings: a real vector in the unit cube to genes, and back to its middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Point = NDArray[np.float64]  # in the unit cube


class Scaled:
    """One number a gene: the unit interval is cut into as many equal parts as it has choices."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = np.asarray(choices)
        self.dimensions = len(self.choices)

    def decode(self, vector: ArrayLike) -> tuple[int, ...]:
        """Genes of a (dimensions,) vector; numbers outside [0, 1] count as its ends, NaN as 0."""
        unit = np.clip(np.nan_to_num(np.asarray(vector, dtype=np.float64)), 0.0, 1.0)
        return tuple(np.minimum(unit * self.choices, self.choices - 1).astype(int).tolist())

    def encode(self, genes: Sequence[int]) -> Point:
        """The middle of the part that decodes to these genes, (dimensions,)."""
        middle: Point = (np.asarray(genes, dtype=np.float64) + 0.5) / self.choices
        return middle


class Logits:
    """One number a choice: a gene takes the choice with the largest, the first one if equal."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = np.asarray(choices)
        self.dimensions = int(self.choices.sum())
        self._ends = np.cumsum(self.choices)[:-1]

    def decode(self, vector: ArrayLike) -> tuple[int, ...]:
        """Genes of a (dimensions,) vector."""
        parts = np.split(np.asarray(vector, dtype=np.float64), self._ends)
        return tuple(int(part.argmax()) for part in parts)

    def encode(self, genes: Sequence[int]) -> Point:
        """One-hot for these genes, (dimensions,)."""
        parts = [np.eye(count)[gene] for gene, count in zip(genes, self.choices, strict=True)]
        return np.concatenate(parts)

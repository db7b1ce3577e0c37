"""The one genome type of every search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Genome:
    """A fixed-length vector of small integers, one gene for each decision.

    Attributes:
        space: versioned name of the space that gives the genes their meaning, `"nasbench201/v1"`.
        genes: the index of each gene's choice, in the order of the space's genes.
    """

    space: str
    genes: tuple[int, ...]

    @property
    def text(self) -> str:
        """The genes as `0-3-1`, which no table reader mistakes for a number."""
        return "-".join(map(str, self.genes))

    def to_json(self) -> dict[str, object]:
        return {"space": self.space, "genes": list(self.genes)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Genome:
        """Read what `to_json` wrote.

        Raises:
            ValueError: `data` does not hold a space's name and a list of integers.
        """
        space, genes = data.get("space"), data.get("genes")
        if not isinstance(space, str) or not isinstance(genes, list):
            raise ValueError("a genome must be {'space': text, 'genes': [integers]}")
        if not all(type(gene) is int for gene in genes):
            raise ValueError(f"genes must be integers, got {genes!r}")
        return cls(space, tuple(genes))

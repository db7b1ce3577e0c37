"""The space of a table: genes and choices as the table has them, and no networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genomes.space import Gene, SearchSpace


class TableSpace(SearchSpace):
    """Genomes as a table writes them, for a search among results that a file already has.

    Each is a network of its own.
    """

    def __init__(self, genes: Mapping[str, Sequence[str]]) -> None:
        super().__init__(
            "table/v1", [Gene(name, tuple(choices)) for name, choices in genes.items()]
        )

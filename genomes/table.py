"""A space that a table is searched by: genes and their choices as given, no networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genomes.space import Gene, SearchSpace


class TableSpace(SearchSpace):
    """Genomes as a table spells them; each is a network of its own."""

    def __init__(self, genes: Mapping[str, Sequence[str]]) -> None:
        super().__init__(
            "table/v1", [Gene(name, tuple(choices)) for name, choices in genes.items()]
        )

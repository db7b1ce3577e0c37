"""Exhaustive search: a whole space, in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from evonas.core import Candidate, Evaluation, Params, State
from evonas.strategies.generational import Generational
from genomes import Genome


class ExhaustiveParams(Params):
    name: Literal["exhaustive"] = "exhaustive"
    population: Annotated[int, Field(ge=1, le=100_000)] = 100
    """The number of candidates in each generation."""


class Exhaustive(Generational):
    """Asks for every network once, in its canonical spelling; the last gene changes fastest."""

    Params = ExhaustiveParams
    place = 0  # the number of the next genome to look at

    def _propose(self) -> list[Candidate]:
        return list(islice(self._following(), self.params.population))

    def _learn(self, evaluations: list[Evaluation]) -> None: ...

    def _following(self) -> Iterator[Candidate]:
        while self.place < self.space.size:
            genes, rest = [], self.place
            for count in reversed(self.space.choices):
                rest, gene = divmod(rest, count)
                genes.append(gene)
            genome = Genome(self.space.name, tuple(reversed(genes)))
            self.place += 1
            if self.space.canonical(genome) == genome:
                yield Candidate(genome, origin="listed")

    def _state(self) -> State:
        return {"place": self.place}

    def _restore(self, state: State) -> None:
        self.place = state["place"]

"""Random search: the baseline that every other strategy has to beat."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from evonas.core import Candidate, Evaluation, Params
from evonas.strategies.generational import Generational


class RandomParams(Params):
    name: Literal["random"] = "random"
    population: Annotated[int, Field(ge=1, le=100_000)] = 20
    """The number of candidates in each generation."""


class Random(Generational):
    """Draws genomes uniformly, each network once (Li and Talwalkar, 2019, say why to do this)."""

    Params = RandomParams

    def _propose(self) -> list[Candidate]:
        return [Candidate(self._unseen()) for _ in range(self.params.population)]

    def _learn(self, evaluations: list[Evaluation]) -> None: ...

"""Random search: the arm that every other has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evonas.core import Candidate, Constraint, Evaluation, Objective, Params, State
from genomes import Genome, SearchSpace

TRIES = 20  # draws for a network not asked for yet, before a seen one is let through


class RandomParams(Params):
    name: Literal["random"] = "random"
    population: Annotated[int, Field(ge=1, le=100_000)] = 20
    """How many candidates each generation has."""


class Random:
    """Genomes drawn uniformly, each network once (Li and Talwalkar, 2019, on why to compare)."""

    Params = RandomParams

    def __init__(
        self,
        params: RandomParams,
        *,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
    ) -> None:
        self.params = params
        self.space = space
        self.rng = np.random.default_rng(seed)
        self.seen: dict[str, None] = {}  # keys asked for, in order
        self.owed = 0

    def ask(self) -> list[Candidate]:
        if self.owed:
            return []
        self.owed = self.params.population
        return [Candidate(self._unseen()) for _ in range(self.owed)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if len(evaluations) != self.owed:
            raise ValueError(f"asked for {self.owed} evaluations, told {len(evaluations)}")
        self.owed = 0

    def state_dict(self) -> State:
        if self.owed:
            raise ValueError("a generation is out: tell its evaluations before taking the state")
        return {"rng": self.rng.bit_generator.state, "seen": " ".join(self.seen)}

    def load_state_dict(self, state: State) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.seen = dict.fromkeys(state["seen"].split())
        self.owed = 0

    def _unseen(self) -> Genome:
        for _ in range(TRIES):
            genome = self.space.sample(self.rng)
            key = self.space.key(genome)
            if key not in self.seen:
                break
        self.seen[key] = None
        return genome

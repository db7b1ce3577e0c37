"""Local search: from a network to a better neighbour, with a restart where there is none."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, Params, State
from evonas.protocols import Setting
from evonas.strategies.generational import Generational, parse_seeds
from genomes import Genome
from genomes.operators import neighbours


class LocalSearchParams(Params):
    name: Literal["local_search"] = "local_search"
    improvement: Literal["best", "first"] = "best"
    """Whether the search looks at all neighbours and moves to the `best`, or moves to the `first`
    one that is better than the current network."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    """For `first`: how many neighbours are asked for together, so that several workers are kept
    busy."""
    seeds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Genomes that the search starts from, one after the other, before it starts from random ones:
    as the space writes them, as genes, or by a name from `evonas list genomes`."""

    @property
    def founders(self) -> int:
        """The number of candidates that the search begins with."""
        return 1


class LocalSearch(Generational):
    """Hill climbing with restarts (White et al., 2021; best improvement is their algorithm 1).

    Neighbours are the genomes one gene away, in random order. Where none is better, or with several
    objectives none dominates, the search restarts from a random network, a new one if one turns up.
    """

    Params = LocalSearchParams
    current: Evaluation | None = None  # where the search stands; None before a start
    left: list[tuple[int, ...]] | None = None  # neighbours not looked at; None: not listed yet
    starts = 0  # the number of starts so far

    def __init__(self, params: LocalSearchParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.seeds = parse_seeds(self.space, params.seeds)

    def _propose(self) -> list[Candidate]:
        if self.current is None:
            return [self._start()]
        here = self.current.candidate.genome
        if self.left is None:
            around = list(neighbours(here.genes, self.space.choices))
            self.left = [around[i] for i in self.rng.permutation(len(around))]
        count = len(self.left) if self.params.improvement == "best" else self.params.batch
        looked_at, self.left = self.left[:count], self.left[count:]
        key = self.space.key(here)
        genomes = [Genome(self.space.name, genes) for genes in looked_at]
        for genome in genomes:
            self._is_new(genome)
        return [Candidate(genome, (key,), "neighbour") for genome in genomes]

    def _start(self) -> Candidate:
        self.starts += 1
        if self.starts > len(self.seeds):
            return Candidate(self._unseen())
        seed = self.seeds[self.starts - 1]
        self._is_new(seed)
        return Candidate(seed, origin="seed")

    def _learn(self, evaluations: list[Evaluation]) -> None:
        if self.current is None:
            self.current, self.left = evaluations[0], None
            return
        current = self.current
        rising = [
            evaluation
            for evaluation in evaluations
            if pareto.better(evaluation, current, self.objectives, self.constraints)
        ]
        if rising and self.params.improvement == "best":
            ranks = pareto.preference(rising, self.objectives, self.constraints)
            rising = [rising[int(np.argmin(ranks))]]
        if rising:
            self.current, self.left = rising[0], None
        elif not self.left:
            self.current = None

    def _state(self) -> State:
        return {
            "current": None if self.current is None else self.current.to_plain(),
            "left": None if self.left is None else [list(genes) for genes in self.left],
            "starts": self.starts,
        }

    def _restore(self, state: State) -> None:
        current, left = state["current"], state["left"]
        self.starts = state["starts"]
        self.current = None if current is None else Evaluation.from_plain(current)
        self.left = None if left is None else [tuple(genes) for genes in left]

"""The base of generational strategies: one generation out at a time, each network asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from evonas.core import Candidate, Evaluation, State, UserError
from evonas.protocols import Need, Setting
from genomes import Genome, SearchSpace, library

TRIES = 20  # draws for a network not asked for yet, before a known one is accepted


class Generational:
    """Asks for a whole generation, then waits until it is told all of its evaluations.

    A strategy says what to ask for (`_propose`), how to learn from the evaluations (`_learn`), and
    what to save besides the generator's state and the networks seen (`_state`, `_restore`).

    Attributes:
        needs: what the strategy needs of the experiment; most need nothing.
        seen: keys of the networks asked for, in order.
        out: the candidates asked for whose evaluations are outstanding.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, params: Any, setting: Setting) -> None:
        self.params = params
        self.space = setting.space
        self.objectives = setting.objectives
        self.constraints = setting.constraints
        self.rng = np.random.default_rng(setting.seed)
        self.seen: dict[str, None] = {}
        self.out: list[Candidate] = []

    def ask(self) -> list[Candidate]:
        if self.out:
            return []
        self.out = self._propose()
        return list(self.out)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if len(evaluations) != len(self.out):
            raise ValueError(f"asked for {len(self.out)} evaluations, told {len(evaluations)}")
        self.out = []
        self._learn(list(evaluations))

    def state_dict(self) -> State:
        if self.out:
            raise ValueError("a generation is out: tell its evaluations before taking the state")
        return {
            "rng": self.rng.bit_generator.state,
            "seen": " ".join(self.seen),  # one text pickles faster than a list of many
            **self._state(),
        }

    def load_state_dict(self, state: State) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.seen = dict.fromkeys(state["seen"].split())
        self.out = []
        self._restore(state)

    def _propose(self) -> list[Candidate]:
        raise NotImplementedError

    def _learn(self, evaluations: list[Evaluation]) -> None:
        raise NotImplementedError

    def _state(self) -> State:
        return {}

    def _restore(self, state: State) -> None: ...

    def _unseen(self) -> Genome:
        """A genome drawn uniformly, of a new network if one turns up."""
        return self._first_new(lambda: self.space.sample(self.rng))

    def _first_new(self, draw: Callable[[], Genome]) -> Genome:
        """The first draw of a new network, or the last draw."""
        for _ in range(TRIES):
            genome = draw()
            if self._is_new(genome):
                break
        return genome

    def _is_new(self, genome: Genome) -> bool:
        """Whether the network of a genome is new; from now on it counts as asked for."""
        key = self.space.key(genome)
        new = key not in self.seen
        self.seen[key] = None
        return new


def parse_seeds(space: SearchSpace, texts: Sequence[str]) -> list[Genome]:
    """Reads the genomes that a search begins with, as the space writes them or by library name.

    Raises:
        UserError: a text is not a genome of the space.
    """
    genomes = []
    for i, text in enumerate(texts):
        try:
            genomes.append(library.read(space, text))
        except ValueError as error:
            raise UserError(str(error), key=f"strategy.seeds.{i}") from None
    return genomes


def plain(evaluations: Sequence[Evaluation]) -> list[State]:
    return [evaluation.to_plain() for evaluation in evaluations]


def restored(state: Sequence[State]) -> list[Evaluation]:
    return [Evaluation.from_plain(evaluation) for evaluation in state]

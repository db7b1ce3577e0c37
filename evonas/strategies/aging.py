"""Aging evolution: the members that live on are not the best, but the latest."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from evonas import pareto
from evonas.core import Candidate, Evaluation, Params, Requirement, State
from evonas.protocols import Need, Setting
from evonas.strategies.generational import TRIES, parse_seeds, plain, restored
from genomes import Genome
from genomes.operators import change_one


class AgingParams(Params):
    name: Literal["aging"] = "aging"
    population: Annotated[int, Field(ge=2, le=100_000)] = 20
    """The number of members of the population: the latest candidates. As many candidates count as a
    generation in the tables."""
    seeds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Genomes that the search begins with, each in place of a random one: as the space writes
    them, as genes, or by a name from `evonas list genomes`. At most `population`."""
    tournament_size: Annotated[int, Field(ge=1, le=100_000)] = 5
    """How many members are drawn; the best of them has the next child."""
    lag: Annotated[int, Field(ge=1, le=100_000)] = 4
    """How many candidates may be out at once: each is chosen from the results up to the one this
    many before it, whatever the number of workers. 1 is the published algorithm, one candidate
    after the other; more keep more workers busy, and know less. At most `population`."""
    repeats: bool = False
    """Whether a child may be its parent's network, spelled in another way. If not, it is changed
    again, up to 20 times."""

    @model_validator(mode="before")
    @classmethod
    def _lag_of_a_small_population(cls, values: Any) -> Any:
        if isinstance(values, dict) and "lag" not in values:
            population = values.get("population")
            if isinstance(population, int) and 2 <= population < cls.model_fields["lag"].default:
                return {**values, "lag": population}
        return values

    @classmethod
    def today(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        population = values.get("population", cls.model_fields["population"].default)
        return {"lag": population, "repeats": True, **super().today(values)}

    @property
    def founders(self) -> int:
        """The number of candidates that the search begins with."""
        return self.population

    def model_post_init(self, context: object) -> None:
        if self.lag > self.population:
            raise Requirement("must be at most the population", "lag")
        if len(self.seeds) > self.population:
            raise Requirement("must be at most as many as the population", "seeds")


class Aging:
    """Regularized evolution (Real et al., 2019, algorithm 1), steady state.

    The first `population` candidates are drawn at random. Each later one is a child of the best of
    `tournament_size` members drawn with replacement, with one gene changed; its evaluation replaces
    the oldest member. With a `lag` of more than 1, which is not in the paper, several candidates
    are out at once; the search does not depend on the number of workers. Several objectives are
    compared by front, then crowding (`pareto.preference`).
    """

    Params = AgingParams

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, params: AgingParams, setting: Setting) -> None:
        self.params = params
        self.space = setting.space
        self.objectives = setting.objectives
        self.constraints = setting.constraints
        self.rng = np.random.default_rng(setting.seed)
        self.lag = params.lag
        self.seeds = parse_seeds(self.space, params.seeds)
        self.asked = 0
        self.answers = 0
        self.population: deque[Evaluation] = deque()  # as the next candidate may see it
        self.waiting: deque[Evaluation] = deque()  # which the next candidate may not see yet
        self.out: deque[Candidate] = deque()  # asked for, and not evaluated yet
        self.replay: list[Candidate] = []  # those of `out` to ask for again after a resume

    @property
    def generation_size(self) -> int:
        return int(self.params.population)

    def ask(self) -> list[Candidate]:
        if self.replay:
            return [self.replay.pop(0)]
        if self.asked - self.answers >= self.lag:
            return []
        candidate = self._founder() if self.asked < self.params.population else self._child()
        self.asked += 1
        self.out.append(candidate)
        return [candidate]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if len(evaluations) != 1 or len(self.out) == len(self.replay):
            out = len(self.out) - len(self.replay)
            raise ValueError(f"asked for {out}, one at a time; told {len(evaluations)}")
        self.out.popleft()
        self.answers += 1
        self.waiting.append(evaluations[0])

    def state_dict(self) -> State:
        return {
            "rng": self.rng.bit_generator.state,
            "asked": self.asked,
            "told": self.answers,
            "population": plain(self.population),
            "waiting": plain(self.waiting),
            "out": [
                {
                    "genome": candidate.genome.to_json(),
                    "parents": list(candidate.parents),
                    "origin": candidate.origin,
                }
                for candidate in self.out
            ],
        }

    def load_state_dict(self, state: State) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.asked, self.answers = state["asked"], state["told"]
        self.population = deque(restored(state["population"]))
        self.waiting = deque(restored(state["waiting"]))
        self.out = deque(
            Candidate(Genome.from_json(out["genome"]), tuple(out["parents"]), out["origin"])
            for out in state["out"]
        )
        self.replay = list(self.out)

    def _founder(self) -> Candidate:
        if self.asked < len(self.seeds):
            return Candidate(self.seeds[self.asked], origin="seed")
        return Candidate(self.space.sample(self.rng))

    def _child(self) -> Candidate:
        """A child of the members that the next candidate may know."""
        visible = self.asked - self.lag + 1
        while self.answers - len(self.waiting) < visible:
            self.population.append(self.waiting.popleft())
            if len(self.population) > self.params.population:
                self.population.popleft()
        numbers = self.rng.integers(len(self.population), size=self.params.tournament_size)
        members = [self.population[i] for i in numbers.tolist()]
        ranks = pareto.preference(members, self.objectives, self.constraints)
        parent = members[int(ranks.argmin())].candidate.genome
        key, child = self.space.key(parent), parent
        for _ in range(TRIES):
            genes = change_one(child.genes, self.space.choices, self.rng)
            child = Genome(self.space.name, tuple(genes))
            if self.params.repeats or self.space.key(child) != key:
                break
        return Candidate(child, (key,), "mutation")

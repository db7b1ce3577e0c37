"""How children are made: encoding, crossover and mutation, shared by the genetic strategies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import Candidate, Evaluation, Requirement, State
from evonas.strategies import _deap
from evonas.strategies._own_operators import OperatorParams, OwnFunction, OwnOperator, own
from evonas.strategies.generational import TRIES, parse_seeds, plain, restored
from genomes import Genome, SearchSpace
from genomes.continuous import Logits, Scaled
from genomes.operators import reset

Probability = Annotated[float, Field(ge=0, le=1)]
Index = Annotated[float, Field(ge=0, le=1000)]
Vector = list[float]  # genes, or numbers in the unit cube


class BreedingParams(OperatorParams):
    OPERATORS: ClassVar[tuple[str, ...]] = ("crossover", "mutation")

    population: Annotated[int, Field(ge=2, le=100_000)] = 20
    """The number of members of the population, and of candidates in each generation."""
    seeds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Genomes that the search begins with, each in place of a random one: as the space writes
    them, as genes, or by a name from `evonas list genomes`. At most `population`."""
    encoding: Literal["genes", "scaled", "logits"] = "genes"
    """What crossover and mutation work on: the `genes` themselves, or numbers from 0 to 1, one for
    each gene (`scaled`) or one for each choice of each gene, the largest of which is taken
    (`logits`)."""
    crossover: (
        Literal["uniform", "one_point", "two_point", "arithmetic", "blend", "simulated_binary"]
        | OwnFunction
    ) = "uniform"
    """How two parents are mixed. `uniform` swaps each gene (or number) with probability 1/2,
    `one_point` swaps all after a random place, `two_point` those between two places. The others
    need numbers: `arithmetic` takes weighted means, a x + (1 - a) y with one a for the pair,
    `blend` draws between the parents and a little beyond, `simulated_binary` draws near them.
    `FILE.py:NAME` is your own function, which takes two lists and a generator and returns two
    lists."""
    crossover_rate: Probability = 0.9
    """The probability that two parents are mixed. If not, each child begins as a copy of one
    parent."""
    mutation: Literal["reset", "scale", "polynomial"] | OwnFunction = "reset"
    """How a gene (or number) changes: `reset` draws it anew. The others need numbers: `scale`
    turns x into x (1 + s), `polynomial` moves it a little, rarely far. `FILE.py:NAME` is your own
    function, which takes a list and a generator and returns a list."""
    ends: Literal["joined", "clip"] = "joined"
    """What becomes of numbers at the ends of their range, 0 and 1. With `joined`, no choice is
    preferred by chance: operators see a `scaled` number's range as a circle that is cut at a place
    drawn anew each time, so that the first choice is next to the last; a number of `logits` is seen
    from either end, and reflected at both. With `clip`, a number beyond an end is set to it; then
    `arithmetic` prefers the middle choices, and `scale` the first, since x (1 + s) does not leave
    0."""
    mutation_rate: Probability = 0.1
    """The probability, for each gene (or number) of a child, that it changes; a function of your
    own changes what it likes. A child whose network has been asked for before is mutated again, up
    to 20 times, so late in a search, when most near networks are known, children differ more from
    their parents than this says."""
    sigma: Annotated[float, Field(ge=-1, le=10)] = 0.1
    """For `scale`: s itself, or, if it is drawn, the standard deviation of s."""
    sigma_drawn: bool = True
    """For `scale`: whether s is drawn anew for each number, from a normal distribution."""
    blend_alpha: Annotated[float, Field(ge=0, le=10)] = 0.5
    """For `blend`: how far beyond its parents a child may lie, in units of their distance."""
    crossover_eta: Index = 15.0
    """For `simulated_binary`: the larger, the closer children are to their parents."""
    mutation_eta: Index = 20.0
    """For `polynomial`: the larger, the smaller the changes."""

    @property
    def founders(self) -> int:
        """The number of candidates that the search begins with."""
        return self.population

    def model_post_init(self, context: object) -> None:
        if len(self.seeds) > self.population:
            raise Requirement("must be at most as many as the population", "seeds")
        if self.encoding == "genes":
            for key, chosen in (("crossover", self.crossover), ("mutation", self.mutation)):
                if chosen in (*_deap.BLENDS, *_deap.MUTATIONS):
                    raise Requirement("works on numbers; set encoding to scaled or logits", key)

    @classmethod
    def today(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        numbers = values.get("encoding", "genes") != "genes"
        return {**({"ends": "clip"} if numbers else {}), **super().today(values)}


class Breeding:
    """A population whose members have children, each a network not asked for before.

    Attributes:
        population: the evaluations of the members.
        vectors: the vectors of the members, on which crossover and mutation act.
    """

    def __init__(
        self,
        params: BreedingParams,
        *,
        space: SearchSpace,
        rng: np.random.Generator,
        is_new: Callable[[Genome], bool],
    ) -> None:
        self.params = params
        self.space = space
        self.rng = rng
        self.is_new = is_new
        self.population: list[Evaluation] = []
        self.vectors: list[Vector] = []
        self._asked: list[Vector] = []
        self._variation = Variation(params, space, rng)
        self._seeds = parse_seeds(space, params.seeds)

    def founders(self) -> list[Candidate]:
        self._asked = [self._variation.vector(seed) for seed in self._seeds]
        for seed in self._seeds:
            self.is_new(seed)
        rest = range(self.params.population - len(self._seeds))
        seeds = [Candidate(seed, origin="seed") for seed in self._seeds]
        return [*seeds, *(self._founder() for _ in rest)]

    def offspring(
        self,
        ranks: NDArray[np.int64],
        *,
        tournament_size: int,
        selection: str | OwnOperator = "tournament",
        pressure: float = 1.5,
        fitness: NDArray[np.float64] | None = None,
    ) -> list[Candidate]:
        """Makes a generation of children; parents are selected by fitness, and neighbours mate.

        A child whose network has been asked for before is mutated again, and in the end replaced
        by a random one; only in a space that is nearly used up is a network asked for twice.

        Args:
            ranks: (n,) order of preference of the members, 0 the best.
            tournament_size, selection: see `_deap.select`; or a function of the user's.
            pressure: see `_deap.shaped`; a tournament depends on the order alone.
            fitness: (n,); by default, it is shaped by rank.
        """
        fitness = _deap.shaped(ranks, pressure) if fitness is None else fitness
        count = self.params.population + self.params.population % 2  # parents come in pairs
        with _deap.stdlib_random(self.rng):
            if isinstance(selection, OwnOperator):
                return self._children(self._selected_by_own(selection, ranks, fitness, count))
            return self._children(_deap.select(fitness, count, selection, tournament_size))

    def _selected_by_own(
        self, selection: OwnOperator, ranks: NDArray[np.int64], fitness: NDArray[np.float64], k: int
    ) -> list[int]:
        """The parents that the user's function selects, checked."""
        population = tuple(self.population)
        parents = selection(
            ranks=ranks.copy(), fitness=fitness, population=population, k=k, rng=self.rng
        )
        try:
            positions = [operator.index(parent) for parent in parents]
        except TypeError:
            positions = []
        if len(positions) != k or not all(0 <= i < len(population) for i in positions):
            demand = f"{k} positions in the population, from 0 to {len(population) - 1}"
            raise selection.refused(parents, demand)
        return positions

    def _children(self, parents: Sequence[int]) -> list[Candidate]:
        self._asked = []
        params, offspring = self.params, list[Candidate]()
        keys = [self.space.key(member.candidate.genome) for member in self.population]
        for i, j in zip(parents[::2], parents[1::2], strict=True):
            crossed = i != j and self.rng.random() < params.crossover_rate
            children = (self.vectors[i], self.vectors[j])
            if crossed:
                children = self._variation.mate(*children)
            lineages = [(keys[i], keys[j])] * 2 if crossed else [(keys[i],), (keys[j],)]
            for child, lineage in zip(children, lineages, strict=True):
                if len(offspring) < params.population:
                    offspring.append(self._varied(child, lineage, crossed))
        return offspring

    def tell(
        self,
        evaluations: Sequence[Evaluation],
        survivors: Callable[[list[Evaluation]], Sequence[int]],
    ) -> None:
        """Makes the next population: the survivors of the last one and of its offspring."""
        everyone, vectors = [*self.population, *evaluations], [*self.vectors, *self._asked]
        numbers = survivors(everyone)
        self.population = [everyone[i] for i in numbers]
        self.vectors = [vectors[i] for i in numbers]

    def split_repeats(
        self, order: Sequence[int], evaluations: Sequence[Evaluation]
    ) -> tuple[list[int], list[int]]:
        """Splits an order of evaluations into the first of each network, and the repeats."""
        keys: set[str] = set()
        firsts: list[int] = []
        repeats: list[int] = []
        for i in order:
            key = self.space.key(evaluations[i].candidate.genome)
            (repeats if key in keys else firsts).append(i)
            keys.add(key)
        return firsts, repeats

    def state(self) -> State:
        state: State = {"population": plain(self.population)}
        if self._variation.continuous:
            state["vectors"] = [list(vector) for vector in self.vectors]
        return state

    def restore(self, state: State) -> None:
        self.population = restored(state["population"])
        genes = [list(member.candidate.genome.genes) for member in self.population]
        self.vectors = state.get("vectors", genes)

    def _varied(self, child: Vector, parents: tuple[str, ...], crossed: bool) -> Candidate:
        """The child, mutated until its network is new."""
        mutated = child
        for _ in range(TRIES):
            mutated = self._variation.mutate(mutated)
            genome = self._variation.genome(mutated)
            if self.is_new(genome):
                self._asked.append(mutated)
                changed = "+mutation" if mutated != child else ""
                return Candidate(genome, parents, f"crossover{changed}" if crossed else "mutation")
        return self._founder()

    def _founder(self) -> Candidate:
        """A candidate drawn at random, of a new network if one turns up."""
        for _ in range(TRIES):
            vector = self._variation.founder()
            genome = self._variation.genome(vector)
            if self.is_new(genome):
                break
        self._asked.append(vector)
        return Candidate(genome)


class Variation:
    """Makes vectors, varies them, and reads them as genomes."""

    def __init__(
        self, params: BreedingParams, space: SearchSpace, rng: np.random.Generator
    ) -> None:
        self.params = params
        self.space = space
        self.rng = rng
        self.continuous = params.encoding != "genes"
        self._encoding = (Logits if params.encoding == "logits" else Scaled)(space.choices)
        offers = ("choices", "rng")
        self._own_crossover = own("crossover", params.crossover, 2, *offers)
        self._own_mutation = own("mutation", params.mutation, 1, "rate", *offers)
        self._toolbox = _deap.toolbox(
            "uniform" if self._own_crossover else str(params.crossover),
            "reset" if self._own_mutation else str(params.mutation),
            rate=params.mutation_rate,
            alpha=params.blend_alpha,
            crossover_eta=params.crossover_eta,
            mutation_eta=params.mutation_eta,
            sigma=params.sigma,
            drawn=params.sigma_drawn,
        )

    def founder(self) -> Vector:
        """A vector drawn uniformly."""
        if self.continuous:
            return list(self.rng.random(self._encoding.dimensions).tolist())
        return list(self.space.sample(self.rng).genes)

    def vector(self, genome: Genome) -> Vector:
        """A vector that decodes to the genome."""
        return list(self._encoding.encode(genome.genes)) if self.continuous else [*genome.genes]

    def genome(self, vector: Vector) -> Genome:
        genes = self._encoding.decode(vector) if self.continuous else tuple(map(int, vector))
        return Genome(self.space.name, genes)

    def mate(self, first: Vector, second: Vector) -> tuple[Vector, Vector]:
        if self._own_crossover is not None:
            a, b = self._by_own(self._own_crossover, first, second)
            return a, b
        if not self.continuous or self.params.crossover not in _deap.BLENDS:
            return _deap.mate(self._toolbox, first, second)
        a, b = self._from_anywhere(lambda a, b: _deap.mate(self._toolbox, a, b), first, second)
        return a, b

    def mutate(self, vector: Vector) -> Vector:
        rate = self.params.mutation_rate
        if self._own_mutation is not None:
            return self._by_own(self._own_mutation, vector)[0]
        if not self.continuous:
            genes = [int(gene) for gene in vector]
            return list(reset(genes, self.space.choices, rate, self.rng))
        if self.params.mutation == "reset":
            hits, anew = self.rng.random((2, len(vector))).tolist()
            return [a if hit < rate else x for x, hit, a in zip(vector, hits, anew, strict=True)]
        [mutated] = self._from_anywhere(lambda x: [_deap.mutate(self._toolbox, x)], vector)
        return mutated

    def _from_anywhere(
        self, operator: Callable[..., Sequence[Vector]], *vectors: Vector
    ) -> list[Vector]:
        """Applies an operator to numbers as `ends` says; what it leaves as it is stays the same.

        With `joined`, the operator works on numbers moved by an amount drawn anew for each
        coordinate. So it treats all places alike, and if the founders' numbers are spread evenly,
        so are those of later generations, as far as selection lets them.
        """
        if self.params.ends == "clip":
            return [self._inside(vector) for vector in operator(*vectors)]
        before = np.array(vectors)
        if self.params.encoding == "scaled":
            cut = self.rng.random(before.shape[1])
            seen = (before + cut) % 1.0
            after = np.array(operator(*seen.tolist()))
            back = (after - cut) % 1.0
        else:
            flipped = self.rng.random(before.shape[1]) < 0.5
            seen = np.where(flipped, 1 - before, before)
            after = np.array(operator(*seen.tolist()))
            folded = 1 - abs(1 - after % 2.0)
            back = np.where(flipped, 1 - folded, folded)
        moved: list[Vector] = np.where(after == seen, before, back).tolist()
        return moved

    def _by_own(self, function: OwnOperator, *vectors: Vector) -> list[Vector]:
        """Varies vectors with the user's function, and checks what it returns."""
        lists = [list(vector) for vector in vectors]
        rate = self.params.mutation_rate
        result = function(*lists, choices=self.space.choices, rate=rate, rng=self.rng)
        varied = self._checked([result] if len(vectors) == 1 else result, len(vectors))
        if varied is None:
            numbers = "numbers" if self.continuous else "genes within their choices"
            lists_of = "a list of" if len(vectors) == 1 else "two lists of"
            raise function.refused(result, f"{lists_of} {len(vectors[0])} {numbers}")
        return [self._inside(vector) for vector in varied]

    def _checked(self, result: Any, count: int) -> list[Vector] | None:
        """The vectors that a user's function returned; None if they are not valid."""
        try:
            vectors = [list(map(float, vector)) for vector in result]
            valid = len(vectors) == count and bool(np.isfinite(vectors).all())
            if self.continuous:
                valid = valid and {len(vector) for vector in vectors} == {self._encoding.dimensions}
            else:
                valid = valid and all(x.is_integer() for vector in vectors for x in vector)
                for vector in vectors:
                    self.space.genome(map(int, vector))
        except (TypeError, ValueError):
            return None
        return vectors if valid else None

    def _inside(self, vector: Vector) -> Vector:
        return [min(max(x, 0.0), 1.0) for x in vector] if self.continuous else vector

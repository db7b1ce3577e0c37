"""Particle swarms over a continuous encoding, for one objective and for many."""

from __future__ import annotations

from itertools import zip_longest
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evonas import pareto
from evonas.core import Candidate, Evaluation, Params, Requirement, State
from evonas.pareto import Array
from evonas.protocols import Setting
from evonas.strategies import _deap
from evonas.strategies.generational import Generational, parse_seeds, plain, restored
from genomes import Genome
from genomes.continuous import Logits, Scaled

Weight = Annotated[float, Field(ge=0, le=10)]


class PSOParams(Params):
    RENAMED: ClassVar = {"converged": "on_convergence"}

    name: Literal["pso"] = "pso"
    particles: Annotated[int, Field(ge=2, le=100_000)] = 20
    """The number of particles of the swarm, and of candidates in each generation."""
    seeds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Genomes that the search begins with, each in place of a random one: as the space writes
    them, as genes, or by a name from `evonas list genomes`. At most `particles`."""
    encoding: Literal["scaled", "logits"] = "scaled"
    """What the swarm flies in: one number for each gene (`scaled`), or one for each choice of each
    gene, the largest of which is taken (`logits`)."""
    inertia: Annotated[float, Field(ge=0, lt=1)] = 0.729  # Clerc and Kennedy (2002)
    """w, the share of its velocity that a particle keeps (at the beginning)."""
    inertia_end: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The final w, reached linearly over `inertia_generations`. Without it, w is constant."""
    inertia_generations: Annotated[int, Field(ge=1, le=10_000_000)] = 100
    """The number of generations after which w is `inertia_end`."""
    cognitive: Weight = 1.49445
    """c1, how strongly a particle is pulled towards its own best place."""
    social: Weight = 1.49445
    """c2, how strongly it is pulled towards the best place of its guide."""
    velocity_max: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The largest move of a particle in one generation, in each dimension, whose range is 1."""
    boundary: Literal["absorb", "reflect", "periodic"] = "absorb"
    """What happens to a particle that would leave the range: it stops at the end (`absorb`),
    bounces back (`reflect`), or enters again at the other end (`periodic`)."""
    neighbourhood: Literal["global", "ring"] = "global"
    """With one objective, the best place that guides a particle: that of the whole swarm
    (`global`), or of the particle and its two neighbours (`ring`)."""
    archive: Annotated[int, Field(ge=2, le=100_000)] = 100
    """With several objectives, the number of places on the front that serve as guides."""
    turbulence: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of particles that polynomial mutation moves as well. Without it, 0.15 with several
    objectives and 0 with one."""
    patience: Annotated[int, Field(ge=1, le=10_000_000)] = 3
    """The number of generations without a new network after which the swarm has converged."""
    on_convergence: Literal["restart", "end"] = "restart"
    """What happens then: all particles restart at random places (`restart`), or the search ends
    (`end`)."""

    @property
    def founders(self) -> int:
        """The number of candidates that the search begins with."""
        return self.particles

    def model_post_init(self, context: object) -> None:
        if len(self.seeds) > self.particles:
            raise Requirement("must be at most as many as the particles", "seeds")


class PSO(Generational):
    """Particle swarm optimisation (Kennedy and Eberhart, 1995; Shi and Eberhart, 1998).

    v = w v + c1 r1 (p - x) + c2 r2 (g - x), x = x + v in the unit cube, r1 and r2 drawn for each
    coordinate. With one objective g is the best place of the neighbourhood. With several, it is a
    leader from an archive of the front, the less crowded of two drawn, and particles are shaken
    by polynomial mutation, as in SMPSO (Nebro et al., 2009), whose velocity constriction is left
    out, since the weights here are constricted themselves. Particles keep their own places when
    their genomes collide. Feasible networks go before infeasible ones, and those before failed
    ones.
    """

    Params = PSOParams
    TRACES: ClassVar = {"swarm": ("particle", "speed", "position")}

    def __init__(self, params: PSOParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.encoding = (Logits if params.encoding == "logits" else Scaled)(self.space.choices)
        several = len(self.objectives) > 1
        shaken = params.turbulence
        self.turbulence: float = (0.15 if several else 0.0) if shaken is None else shaken
        self.seeds = parse_seeds(self.space, params.seeds)
        self.generation = 0
        self.stalled = 0  # generations without a new network
        self.positions: Array = np.zeros((0, self.encoding.dimensions))
        self.velocities: Array = np.zeros((0, self.encoding.dimensions))
        self.bests: list[Evaluation] = []  # each particle's own
        self.places: Array = np.zeros((0, self.encoding.dimensions))  # of `bests`
        self.leaders: list[Evaluation] = []
        self.leaders_at: Array = np.zeros((0, self.encoding.dimensions))

    def _propose(self) -> list[Candidate]:
        params, first = self.params, not self.seen
        if not len(self.positions):
            self._scatter()
        elif self.stalled >= params.patience:
            if params.on_convergence == "end":
                return []
            self._scatter()
            self.stalled = 0
        elif self.bests:
            self._fly()
        genomes = [Genome(self.space.name, self.encoding.decode(x)) for x in self.positions]
        new = [self._is_new(genome) for genome in genomes]
        self.stalled = 0 if any(new) else self.stalled + 1
        if not self.bests:
            seeds = [seed if first else None for seed in self.seeds]
            return [
                Candidate(genome, origin="seed" if genome == seed else "sampled")
                for genome, seed in zip_longest(genomes, seeds)
            ]
        return [
            Candidate(genome, (self.space.key(best.candidate.genome),), "velocity")
            for genome, best in zip(genomes, self.bests, strict=True)
        ]

    def _learn(self, evaluations: list[Evaluation]) -> None:
        self.generation += 1
        if not self.bests:
            self.bests, self.places = evaluations, self.positions.copy()
        else:
            for i, evaluation in enumerate(evaluations):
                if self._replaces(evaluation, self.bests[i]):
                    self.bests[i], self.places[i] = evaluation, self.positions[i]
        if len(self.objectives) > 1:
            self._follow(evaluations)

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """The position of each particle, and its speed, the length of its last velocity."""
        speeds = np.linalg.norm(self.velocities, axis=1).tolist()
        rows = [
            {
                "particle": i,
                "speed": round(speed, 6),
                "position": " ".join(f"{x:.6g}" for x in place),
            }
            for i, (speed, place) in enumerate(zip(speeds, self.positions.tolist(), strict=True))
        ]
        return {"swarm": rows}

    def _scatter(self) -> None:
        """Draws places and velocities uniformly, and clears what the particles remember."""
        shape = (self.params.particles, self.encoding.dimensions)
        limit = self.params.velocity_max
        self.generation = 0  # the inertia of a restarted swarm restarts too
        self.positions = self.rng.random(shape)
        self.velocities = self.rng.uniform(-limit, limit, shape)
        self.bests = []
        if not self.seen:  # not after a restart
            for i, seed in enumerate(self.seeds):
                self.positions[i] = self.encoding.encode(seed.genes)

    def _fly(self) -> None:
        params = self.params
        self.positions, self.velocities = fly(
            self.positions,
            self.velocities,
            self.places,
            self._guides(),
            inertia=self._inertia(),
            cognitive=params.cognitive,
            social=params.social,
            limit=params.velocity_max,
            boundary=params.boundary,
            rng=self.rng,
        )
        if self.turbulence:
            shaken = self.rng.random(len(self.positions)) < self.turbulence
            with _deap.stdlib_random(self.rng):
                box = _deap.toolbox("uniform", "polynomial", rate=1 / self.encoding.dimensions)
                for i in np.flatnonzero(shaken):
                    self.positions[i] = _deap.mutate(box, self.positions[i].tolist())

    def _inertia(self) -> float:
        params = self.params
        if params.inertia_end is None:
            return float(params.inertia)
        share = min(self.generation / params.inertia_generations, 1.0)
        return float(params.inertia + share * (params.inertia_end - params.inertia))

    def _guides(self) -> Array:
        """Each particle's guide, (particles, dimensions)."""
        if len(self.objectives) > 1 and self.leaders:
            _, crowding = pareto.ranks_and_crowding(pareto.losses(self.leaders, self.objectives))
            pairs = self.rng.integers(len(self.leaders), size=(len(self.positions), 2))
            less_crowded = crowding[pairs[:, 1]] > crowding[pairs[:, 0]]
            chosen: Array = self.leaders_at[np.where(less_crowded, pairs[:, 1], pairs[:, 0])]
            return chosen
        ranks = pareto.preference(self.bests, self.objectives, self.constraints)
        if self.params.neighbourhood == "global" or len(self.objectives) > 1:
            return np.broadcast_to(self.places[int(ranks.argmin())], self.places.shape)
        beside = np.stack([np.roll(ranks, 1), ranks, np.roll(ranks, -1)])
        numbers = np.arange(len(ranks))
        best: Array = self.places[(numbers + beside.argmin(axis=0) - 1) % len(ranks)]
        return best

    def _replaces(self, new: Evaluation, best: Evaluation) -> bool:
        """Whether a new place becomes the particle's best; with several objectives, also if neither
        dominates (SMPSO).
        """
        if len(self.objectives) == 1:
            return pareto.better(new, best, self.objectives, self.constraints)
        return not pareto.better(best, new, self.objectives, self.constraints)

    def _follow(self, evaluations: list[Evaluation]) -> None:
        """Updates the leaders: the least crowded networks of the front, each once."""
        everyone = self.leaders + evaluations
        places = np.concatenate([self.leaders_at, self.positions])
        first: dict[str, int] = {}
        for i, evaluation in enumerate(everyone):
            if pareto.tier(evaluation, self.objectives) == pareto.FEASIBLE:
                first.setdefault(self.space.key(evaluation.candidate.genome), i)
        ok = list(first.values())
        losses = pareto.losses([everyone[i] for i in ok], self.objectives)
        front = [i for i, kept in zip(ok, pareto.is_on_front(losses), strict=True) if kept]
        _, crowding = pareto.ranks_and_crowding(
            pareto.losses([everyone[i] for i in front], self.objectives)
        )
        order = np.argsort(-crowding, kind="stable")[: self.params.archive]
        kept = sorted(front[i] for i in order)
        self.leaders, self.leaders_at = [everyone[i] for i in kept], places[kept]

    def _state(self) -> State:
        return {
            "generation": self.generation,
            "stalled": self.stalled,
            "positions": self.positions.tolist(),
            "velocities": self.velocities.tolist(),
            "bests": plain(self.bests),
            "places": self.places.tolist(),
            "leaders": plain(self.leaders),
            "leaders_at": self.leaders_at.tolist(),
        }

    def _restore(self, state: State) -> None:
        self.generation, self.stalled = state["generation"], state["stalled"]
        shape = (-1, self.encoding.dimensions)
        self.positions = np.array(state["positions"], dtype=float).reshape(shape)
        self.velocities = np.array(state["velocities"], dtype=float).reshape(shape)
        self.places = np.array(state["places"], dtype=float).reshape(shape)
        self.leaders_at = np.array(state["leaders_at"], dtype=float).reshape(shape)
        self.bests, self.leaders = restored(state["bests"]), restored(state["leaders"])


def fly(
    positions: Array,
    velocities: Array,
    own: Array,
    guides: Array,
    *,
    inertia: float,
    cognitive: float,
    social: float,
    limit: float,
    boundary: str,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """One step of a swarm in the unit cube (Shi and Eberhart, 1998, eq. 1a and 1b).

    Args:
        positions, velocities: (n, d).
        own, guides: (n, d), the best places of each particle and of its guide.
        limit: the largest velocity in each dimension.

    Returns:
        New positions and velocities, (n, d) each.
    """
    r1, r2 = rng.random((2, *positions.shape))
    velocities = (
        inertia * velocities
        + cognitive * r1 * (own - positions)
        + social * r2 * (guides - positions)
    )
    velocities = np.clip(velocities, -limit, limit)
    moved = positions + velocities
    outside = (moved < 0) | (moved > 1)
    if boundary == "periodic":
        return moved % 1.0, velocities
    if boundary == "reflect":
        mirrored = np.abs(moved)
        mirrored = np.where(mirrored > 1, 2 - mirrored, mirrored)  # a step is at most 1
        return mirrored, np.where(outside, -velocities, velocities)
    return np.clip(moved, 0, 1), np.where(outside, 0.0, velocities)

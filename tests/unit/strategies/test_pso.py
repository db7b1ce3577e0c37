"""Particle swarms: their rules, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evonas.core import Candidate, Evaluation, Objective, Status, Stop
from evonas.loop import Desk, evolve
from evonas.pareto import Array
from evonas.protocols import Setting
from evonas.strategies.pso import PSO, PSOParams, fly
from evonas.testing.strategies import Answers, by_genes
from genomes import Gene, SearchSpace

SPACE = SearchSpace("swarm/v1", [Gene(f"g{i}", tuple("vwxyz")) for i in range(6)])
ONE = (Objective(name="a"),)
TWO = (Objective(name="a"), Objective(name="b"))


def pso(objectives: tuple[Objective, ...] = ONE, space: SearchSpace = SPACE, **params: Any) -> PSO:
    return PSO(PSOParams(**params), Setting(space, objectives, seed=0))


def answered(strategy: PSO, answer: Callable[[Candidate], Evaluation] = by_genes) -> None:
    strategy.tell([answer(candidate) for candidate in strategy.ask()])


def textbook(f: Callable[[Array], float], seed: int, steps: int) -> float:
    """A global-best swarm as any textbook has it, coordinate by coordinate, in the unit cube."""
    rng = np.random.default_rng(seed)
    n, d, w, c = 20, 10, 0.729, 1.49445
    x = [[rng.random() for _ in range(d)] for _ in range(n)]
    v = [[rng.uniform(-0.5, 0.5) for _ in range(d)] for _ in range(n)]
    best, value = [list(row) for row in x], [f(np.array(row)) for row in x]
    for _ in range(steps):
        g = list(best[int(np.argmin(value))])
        for i in range(n):
            for j in range(d):
                v[i][j] = (
                    w * v[i][j]
                    + c * rng.random() * (best[i][j] - x[i][j])
                    + c * rng.random() * (g[j] - x[i][j])
                )
                v[i][j] = min(max(v[i][j], -0.5), 0.5)
                x[i][j] += v[i][j]
                if not 0 <= x[i][j] <= 1:
                    x[i][j], v[i][j] = min(max(x[i][j], 0.0), 1.0), 0.0
            found = f(np.array(x[i]))
            if found < value[i]:
                best[i], value[i] = list(x[i]), found
    return min(value)


def ours(f: Callable[[Array], float], seed: int, steps: int) -> float:
    rng = np.random.default_rng(seed + 1000)
    x, v = rng.random((20, 10)), rng.uniform(-0.5, 0.5, (20, 10))
    best, value = x.copy(), np.array([f(row) for row in x])
    for _ in range(steps):
        guides = np.broadcast_to(best[value.argmin()], x.shape)
        x, v = fly(
            x,
            v,
            best,
            guides,
            inertia=0.729,
            cognitive=1.49445,
            social=1.49445,
            limit=0.5,
            boundary="absorb",
            rng=rng,
        )
        found = np.array([f(row) for row in x])
        better = found < value
        best[better], value[better] = x[better], found[better]
    return float(value.min())


def sphere(x: Array) -> float:
    z = 10.24 * x - 5.12
    return float((z**2).sum())


def rastrigin(x: Array) -> float:
    z = 10.24 * x - 5.12
    return float(10 * len(z) + (z**2 - 10 * np.cos(2 * np.pi * z)).sum())


def rosenbrock(x: Array) -> float:
    z = 4.096 * x - 2.048
    return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum())


@pytest.mark.parametrize("f", [sphere, rastrigin, rosenbrock])
def test_the_swarm_is_within_the_spread_of_a_textbooks(f: Callable[[Array], float]) -> None:
    """Thirty runs each: the medians lie within the other's range, on a log scale."""
    steps, seeds = 60, range(30)
    theirs = np.log([textbook(f, seed, steps) + 1e-12 for seed in seeds])
    found = np.log([ours(f, seed, steps) + 1e-12 for seed in seeds])
    assert theirs.min() < np.median(found) < theirs.max()
    assert found.min() < np.median(theirs) < found.max()
    start = np.log(
        [min(f(row) for row in np.random.default_rng(s).random((20, 10))) for s in seeds]
    )
    assert np.median(found) < start.min()


@pytest.mark.parametrize("boundary", ["absorb", "reflect", "periodic"])
def test_a_step_is_the_textbooks_number_by_number(boundary: str) -> None:
    """With the same r1 and r2, written out for each coordinate of each particle."""
    rng = np.random.default_rng(7)
    x, own, guides = rng.random((3, 6, 4))
    v = rng.uniform(-0.8, 0.8, (6, 4))
    w, c1, c2, limit = 0.7, 1.3, 1.9, 0.6
    moved, velocities = fly(
        x,
        v,
        own,
        guides,
        inertia=w,
        cognitive=c1,
        social=c2,
        limit=limit,
        boundary=boundary,
        rng=np.random.default_rng(8),
    )
    r1, r2 = np.random.default_rng(8).random((2, 6, 4))
    left = 0
    for i in range(6):
        for d in range(4):
            pull = c1 * r1[i, d] * (own[i, d] - x[i, d]) + c2 * r2[i, d] * (guides[i, d] - x[i, d])
            speed = min(max(w * v[i, d] + pull, -limit), limit)
            place = x[i, d] + speed
            if not 0 <= place <= 1:
                left += 1
                edge = 0.0 if place < 0 else 1.0
                place, speed = {
                    "absorb": (edge, 0.0),
                    "reflect": (2 * edge - place, -speed),
                    "periodic": (place + 1 if place < 0 else place - 1, speed),
                }[boundary]
            assert moved[i, d] == pytest.approx(place)
            assert velocities[i, d] == pytest.approx(speed)
    assert left > 0


@pytest.mark.parametrize("boundary", ["absorb", "reflect", "periodic"])
def test_no_particle_leaves_the_cube_nor_the_clamp(boundary: str) -> None:
    rng = np.random.default_rng(0)
    x, v = rng.random((50, 4)), rng.uniform(-1, 1, (50, 4))
    for _ in range(50):
        x, v = fly(
            x,
            v,
            rng.random((50, 4)),
            rng.random((50, 4)),
            inertia=0.99,
            cognitive=2.0,
            social=2.0,
            limit=1.0,
            boundary=boundary,
            rng=rng,
        )
        assert ((x >= 0) & (x <= 1)).all()
        assert (np.abs(v) <= 1).all()


def test_a_particle_at_rest_in_the_best_place_stays() -> None:
    x = np.full((3, 2), 0.5)
    moved, v = fly(
        x,
        np.zeros((3, 2)),
        x,
        x,
        inertia=0.7,
        cognitive=1.5,
        social=1.5,
        limit=0.5,
        boundary="absorb",
        rng=np.random.default_rng(0),
    )
    assert (moved == x).all()
    assert (v == 0).all()


def test_inertia_goes_in_a_straight_line_to_its_end_and_stays() -> None:
    strategy = pso(particles=2, inertia=0.9, inertia_end=0.4, inertia_generations=10)
    found = []
    for generation in range(13):
        strategy.generation = generation
        found.append(strategy._inertia())
    assert found[0] == 0.9
    assert found[5] == pytest.approx(0.65)
    assert found[10:] == [pytest.approx(0.4)] * 3


def test_a_swarm_that_starts_anew_starts_its_inertia_anew() -> None:
    schedule = {"inertia": 0.9, "inertia_end": 0.5, "inertia_generations": 4}
    swarm = pso(space=SearchSpace("lone/v1", [Gene("a", ("x",))]), patience=2, **schedule)
    found = []
    for _ in range(5):
        answered(swarm)
        found.append(round(swarm._inertia(), 3))
    assert found == [0.8, 0.7, 0.6, 0.8, 0.7]


def test_on_a_ring_the_guide_is_the_best_of_three_neighbours() -> None:
    strategy = pso(particles=5, neighbourhood="ring")
    answered(strategy)
    values = [5.0, 1.0, 4.0, 3.0, 2.0]
    strategy.bests = [
        Evaluation(best.candidate, {"a": value})
        for best, value in zip(strategy.bests, values, strict=True)
    ]
    places = strategy.places
    assert (strategy._guides() == places[[1, 1, 1, 4, 4]]).all()
    strategy.params = strategy.params.model_copy(update={"neighbourhood": "global"})
    assert (strategy._guides() == places[[1] * 5]).all()


def test_particles_keep_their_own_places_when_their_genomes_collide() -> None:
    tiny = SearchSpace("tiny/v1", [Gene("a", ("x", "y"))])
    strategy = pso(space=tiny, particles=8)
    for _ in range(5):
        answered(strategy)
    assert len({tuple(place) for place in strategy.positions.tolist()}) > 2
    assert len(strategy.seen) == 2


@pytest.mark.parametrize(("on_convergence", "ends"), [("end", True), ("restart", False)])
def test_a_swarm_that_has_converged_ends_or_starts_anew(on_convergence: str, ends: bool) -> None:
    tiny = SearchSpace("tiny/v1", [Gene("a", ("x", "y")), Gene("b", ("x", "y"))])
    strategy = pso(space=tiny, particles=4, patience=2, on_convergence=on_convergence)
    loop = evolve(strategy, Desk(Answers(), tiny), stop=Stop(generations=50))
    generations = len(list(loop))
    assert (generations < 50) is ends
    if not ends:
        assert strategy.stalled <= 2


def test_leaders_are_the_front_the_least_crowded_of_it_and_each_once() -> None:
    def traded(candidate: Candidate) -> Evaluation:
        total = float(sum(candidate.genome.genes))
        status = Status.CRASHED if candidate.genome.genes[0] == 0 else Status.OK
        return Evaluation(candidate, {"a": total, "b": -total}, status)

    strategy = pso(TWO, particles=12, archive=5)
    for _ in range(6):
        answered(strategy, traded)
        keys = [leader.candidate.genome for leader in strategy.leaders]
        assert len(set(keys)) == len(keys) <= 5
        assert all(leader.status is Status.OK for leader in strategy.leaders)
        assert strategy.leaders_at.shape == (len(keys), 6)
    totals = [leader.values["a"] for leader in strategy.leaders]
    told = [best.values["a"] for best in strategy.bests if best.status is Status.OK]
    assert min(totals) <= min(told)
    assert max(totals) >= max(told)


def test_a_traced_swarm_tells_place_and_speed_of_each_particle() -> None:
    strategy = pso(particles=3)
    answered(strategy)
    rows = strategy.trace()["swarm"]
    assert [row["particle"] for row in rows] == [0, 1, 2]
    for row, place in zip(rows, strategy.positions.tolist(), strict=True):
        assert [float(x) for x in row["position"].split()] == pytest.approx(place, rel=1e-5)
        assert row["speed"] > 0

"""The cores of NSGA-II and NSGA-III beside pymoo's: two problems of the benchmark, one seed."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from deap import base, tools
from scipy.spatial.distance import cdist

from evonas import pareto
from evonas.core import Objective
from evonas.protocols import Setting
from evonas.strategies import _deap
from evonas.strategies.nsga3 import NSGA3, NSGA3Params, Scale, directions, layers, survive
from genomes import Gene, SearchSpace
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def cores() -> ModuleType:
    path = ROOT / "benchmarks" / "array_cores.py"
    spec = importlib.util.spec_from_file_location("array_cores", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "algorithm"), [("zdt2", "nsga2"), ("dtlz2", "nsga3")])
def test_hypervolume_is_within_a_percent_of_pymoos(
    cores: ModuleType, problem: str, algorithm: str
) -> None:
    ours, theirs = (side(problem, algorithm, 0) for side in (cores.ours, cores.theirs))
    assert ours == pytest.approx(theirs, rel=0.01)


def test_directions_are_those_of_das_and_dennis() -> None:
    found = directions(3, 4)
    assert found.shape == (15, 3)
    assert found.sum(axis=1) == pytest.approx(np.ones(15))
    assert np.unique((4 * found).round(6)).tolist() == [0, 1, 2, 3, 4]
    assert directions(1, 1).tolist() == [[1.0]]


def test_survival_keeps_whole_fronts_first_and_then_spreads_over_the_niches() -> None:
    rng = np.random.default_rng(0)
    points = directions(3, 3)
    on = points / np.linalg.norm(points, axis=1, keepdims=True)
    crowd = on[[0]] + 0.01 * rng.random((20, 3)) * np.array([-1, 1, 1])  # all near one direction
    behind = on + 0.5
    losses = np.vstack([on, crowd, behind])
    scale = Scale(np.full(3, np.inf), np.full(3, -np.inf))
    kept = survive(losses, 12, points, scale, rng)
    assert len(set(kept)) == len(kept) == 12
    ranks = pareto.front_ranks(losses)
    assert max(ranks[kept]) == 0
    nearest = cdist(losses[kept], on).argmin(axis=1)
    assert len(set(nearest.tolist())) == 10  # one at least of each direction
    assert scale.ideal.tolist() == losses.min(axis=0).tolist()
    assert scale.extremes is not None


@pytest.mark.parametrize("unit", [1e-7, 1e3, 1e7])
def test_the_unit_of_an_objective_makes_no_difference_to_what_is_extreme(unit: float) -> None:
    losses = np.abs(np.random.default_rng(3).normal(size=(60, 3)))
    losses /= np.linalg.norm(losses, axis=1, keepdims=True)
    factors, extremes = np.array([1.0, unit, 1.0]), dict[bool, np.ndarray]()
    for turned in (False, True):
        points, found = losses * factors if turned else losses, None
        for part in (points[:40], points):  # the second time with the extremes of the first
            ideal, worst = part.min(axis=0), part.max(axis=0)
            _, _, found = _deap.niches(part, directions(3, 4), ideal, worst, found)
        extremes[turned] = found
    assert extremes[True] == pytest.approx(extremes[False] * factors)


@pytest.mark.parametrize(
    ("objectives", "settings", "expected"),
    [
        (2, {}, (19, 0)),
        (4, {}, (3, 0)),
        (5, {}, (2, 1)),
        (5, {"population": 7}, (1, 1)),
        (5, {"population": 300}, (6, 0)),  # which has directions inside
        (8, {"population": 156}, (3, 2)),  # these two as in table I of the paper
        (10, {"population": 276}, (3, 2)),
        (5, {"population": 300, "divisions": 2}, (2, 2)),
        (3, {"divisions": 3, "inner_divisions": 2}, (3, 2)),
        (5, {"inner_divisions": 0}, (2, 0)),
    ],
)
def test_five_objectives_and_more_have_directions_inside(
    objectives: int, settings: dict[str, Any], expected: tuple[int, int]
) -> None:
    params = NSGA3Params(**settings)
    assert layers(params, objectives) == expected
    goals = [Objective(name=f"o{i}") for i in range(objectives)]
    found = NSGA3(params, Setting(SearchSpace("s/v1", [Gene("g", ("a", "b"))]), goals)).directions
    assert found.sum(axis=1) == pytest.approx(np.ones(len(found)))
    assert len(np.unique(found.round(9), axis=0)) == len(found)
    assert (found > 0).all(axis=1).any() == (expected[0] >= objectives or expected[1] > 0)


def test_a_run_of_an_earlier_version_keeps_its_directions_and_its_scale() -> None:
    assert NSGA3Params.today({"population": 8})["inner_divisions"] == 0
    setting = Setting(SearchSpace("s/v1", [Gene("g", ("a", "b"))]), (Objective(name="a"),))
    strategy = NSGA3(NSGA3Params(), setting)
    state = strategy.state_dict()
    strategy.load_state_dict(state)
    assert strategy.scale.even
    del state["even"]
    strategy.load_state_dict(state)
    assert not strategy.scale.even


def test_niches_do_not_move_with_the_objectives() -> None:
    """A line from (1, 0) to (0, 1), shifted: each direction has its point all the same."""
    share = np.linspace(0, 1, 13)
    line = np.column_stack([1 - share, share])
    for shift in ((0.0, 0.0), (5.0, 0.0), (5.0, -3.0)):
        losses = line + np.array(shift)
        ideal, worst = losses.min(axis=0), losses.max(axis=0)
        nearest, distances, _ = _deap.niches(losses, directions(2, 12), ideal, worst, None)
        assert sorted(nearest.tolist()) == list(range(13)), shift
        assert distances == pytest.approx(np.zeros(13), abs=1e-6)


def test_survival_is_deaps_but_for_whom_chance_picks() -> None:
    """The same numbers in each niche as DEAP's selNSGA3, on a front without ties."""

    class Fitness(base.Fitness):
        weights = (-1.0, -1.0, -1.0)

    class Individual(list[int]):
        def __init__(self, number: int, losses: list[float]) -> None:
            super().__init__([number])
            self.fitness = Fitness(losses)

    rng = np.random.default_rng(1)
    losses = np.abs(rng.normal(size=(80, 3)))
    losses /= np.linalg.norm(losses, axis=1, keepdims=True)
    points = directions(3, 6)
    scale = Scale(np.full(3, np.inf), np.full(3, -np.inf))
    ours = survive(losses, 28, points, scale, rng)
    people = [Individual(i, row) for i, row in enumerate(losses.tolist())]
    theirs = [individual[0] for individual in tools.selNSGA3(people, 28, points)]

    def niches(chosen: list[int]) -> list[int]:
        spread = (losses - losses.min(axis=0)) / (losses.max(axis=0) - losses.min(axis=0))
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        along = spread[chosen] @ unit.T
        away = np.linalg.norm(spread[chosen][:, None] - along[..., None] * unit, axis=2)
        return np.sort(np.bincount(away.argmin(axis=1), minlength=len(points))).tolist()

    assert niches(ours) == pytest.approx(niches(theirs), abs=1)
    assert len(ours) == len(theirs) == 28

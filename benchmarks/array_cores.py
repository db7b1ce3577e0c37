"""Compares the cores of NSGA-II and NSGA-III with pymoo's, on real-valued test problems.

Operators and rates are the same on both sides: simulated binary crossover (rate 0.9, index 15, each
coordinate with probability 1/2), polynomial mutation (index 20, each coordinate with probability
1 / dimensions), binary tournaments, population 100, 250 generations.

Result (20 seeds; 2 cores of an AMD EPYC, Python 3.11, NumPy 2.4.6, pymoo 0.6.2; 7 minutes): our
mean hypervolume is 0.9966 to 1.0006 times pymoo's (array_cores.csv in
results/reference/nasbench201).

    python benchmarks/array_cores.py [--seeds 20] [--workers 2] [--out FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.optimize import minimize
from pymoo.problems import get_problem
from pymoo.util.ref_dirs import get_reference_directions

from evonas import pareto
from evonas.strategies import _deap
from evonas.strategies.nsga3 import Scale, directions, survive

Array = NDArray[np.float64]
Survive = Callable[[Array, int], list[int]]

POPULATION, GENERATIONS = 100, 250
TWO = ("zdt1", "zdt2", "zdt3", "zdt4", "zdt6")
REFERENCES = {"zdt6": (1.1, 1.1), "dtlz2": (1.1, 1.1, 1.1)}
DIVISIONS = 12  # of DTLZ2's three objectives: 91 directions


def ours(name: str, algorithm: str, seed: int) -> float:
    """The hypervolume of the last population."""
    problem = get_problem(name)
    rng = np.random.default_rng(seed)
    low, high, count = problem.xl, problem.xu, problem.n_var
    box = _deap.toolbox(
        "simulated_binary", "polynomial", rate=1 / count, crossover_eta=15.0, mutation_eta=20.0
    )
    m = problem.n_obj
    scale = Scale(np.full(m, np.inf), np.full(m, -np.inf))
    points = directions(m, DIVISIONS if m == 3 else POPULATION - 1)

    def measured(units: Array) -> Array:
        return np.asarray(problem.evaluate(low + units * (high - low)), dtype=np.float64)

    units = rng.random((POPULATION, count))
    losses = measured(units)
    for _ in range(GENERATIONS - 1):
        if algorithm == "nsga2":
            ranks, crowding = pareto.ranks_and_crowding(losses)
            keys = np.column_stack([ranks, -crowding])
            _, order = np.unique(keys, axis=0, return_inverse=True)
        else:
            order = np.zeros(POPULATION, dtype=np.int64)  # drawn uniformly
        with _deap.stdlib_random(rng):
            parents = _deap.select(
                _deap.shaped(order.reshape(-1), 1.5), POPULATION, "tournament", 2
            )
            children = []
            for i, j in zip(parents[::2], parents[1::2], strict=True):
                pair = (units[i].tolist(), units[j].tolist())
                if rng.random() < 0.9:
                    pair = _deap.mate(box, *pair)
                children += [_deap.mutate(box, child) for child in pair]
        everyone = np.vstack([units, np.array(children)])
        everything = np.vstack([losses, measured(np.array(children))])
        if algorithm == "nsga2":
            ranks, crowding = pareto.ranks_and_crowding(everything)
            kept = np.lexsort((-crowding, ranks))[:POPULATION].tolist()
        else:
            kept = survive(everything, POPULATION, points, scale, rng)
        units, losses = everyone[kept], everything[kept]
    return pareto.hypervolume(losses, _reference(name))


def theirs(name: str, algorithm: str, seed: int) -> float:
    """The hypervolume of pymoo's last population."""
    problem = get_problem(name)
    operators = {
        "crossover": SBX(prob=0.9, eta=15, prob_var=0.5),
        "mutation": PM(prob=1.0, prob_var=1 / problem.n_var, eta=20),
        "pop_size": POPULATION,
    }
    if algorithm == "nsga2":
        made = NSGA2(**operators)
    else:
        made = NSGA3(get_reference_directions("das-dennis", 3, n_partitions=DIVISIONS), **operators)
    done = minimize(problem, made, ("n_gen", GENERATIONS), seed=seed)
    return pareto.hypervolume(np.asarray(done.pop.get("F")), _reference(name))


def compared(seeds: int, workers: int) -> pd.DataFrame:
    """One row for each problem: mean hypervolumes, and ours as a share of theirs."""
    cases = [(name, "nsga2") for name in TWO] + [("dtlz2", "nsga2"), ("dtlz2", "nsga3")]
    rows = []
    for name, algorithm in cases:
        found = {
            side.__name__: np.array(
                joblib.Parallel(n_jobs=workers)(
                    joblib.delayed(side)(name, algorithm, seed) for seed in range(seeds)
                )
            )
            for side in (ours, theirs)
        }
        rows.append(
            {
                "problem": name,
                "algorithm": algorithm,
                "n": seeds,
                **{side: values.mean() for side, values in found.items()},
                **{f"{side}_std": values.std(ddof=1) for side, values in found.items()},
                "ratio": found["ours"].mean() / found["theirs"].mean(),
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def _reference(name: str) -> tuple[float, ...]:
    return REFERENCES.get(name, (1.1, 1.1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default=None)
    given = parser.parse_args()
    table = compared(given.seeds, given.workers)
    print(table.to_string(index=False))
    if given.out:
        table.to_csv(given.out, index=False, lineterminator="\n")

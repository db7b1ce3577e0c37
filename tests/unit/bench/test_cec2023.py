"""`benchmarks/cec2023.yaml`, against what is known of its three problems."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest

from evonas.bench import runs, spec
from tests.helpers import ROOT, SHARED
from tests.helpers.tables import TABLE

FILE = ROOT / "benchmarks/cec2023.yaml"
HARDWARE = SHARED / "data/tables/nb201_hw_nas_bench.csv.gz"
# The share of the exact front's hypervolume of NSGA-II after 10,000 evaluations: its populations as
# the competition published them, scored on these tables.
PUBLISHED = {"mop5": 0.9974, "mop6": 0.9961, "mop7": 0.9829}

pytestmark = pytest.mark.skipif(
    not (TABLE.exists() and HARDWARE.exists()),
    reason="needs ../shared/data/nasbench201 and ../shared/data/tables/nb201_hw_nas_bench.csv.gz",
)


def problem(name: str) -> spec.Bench:
    """Return the benchmark with the settings that the head of its file gives for a problem."""
    changes = [f"table.path={TABLE}", f"table.join=[{HARDWARE}]"]
    if name != "mop5":
        [line] = re.findall(rf"^#   (--set name=cec2023_{name} .*)$", FILE.read_text(), re.M)
        changes += [word for word in shlex.split(line) if word != "--set"]
    return spec.load(FILE, changes)


@pytest.mark.parametrize(
    ("name", "objectives", "filled", "genomes"),
    [("mop5", 5, 0.7128, 120), ("mop6", 6, 0.7400, 57), ("mop7", 8, 0.5840, 331)],
)
def test_the_exact_fronts_have_the_known_hypervolumes(
    name: str, objectives: int, filled: float, genomes: int
) -> None:
    bench = problem(name)
    table = runs.read_table(bench)
    assert bench.name == f"cec2023_{name}"
    assert len(bench.objectives) == objectives
    assert round(table.filled, 4) == filled
    assert len(table.exact) == genomes
    done = runs.run(bench, table, "random", 0)
    assert 0.9 < done.trace[-1][2] < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_nsga2_finds_as_much_in_1000_evaluations_as_the_published_one_in_10000(name: str) -> None:
    bench = problem(name)
    table = runs.read_table(bench)
    shares = [runs.run(bench, table, "nsga2", seed).trace[-1][2] for seed in range(bench.seeds)]
    assert np.mean(shares) >= PUBLISHED[name]

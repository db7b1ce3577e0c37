"""Short seeded runs of every strategy, row by row as they have always been.

A change here is a change of the algorithm: look at it, and if it is meant, write the
baselines anew:

    EVONAS_GOLDEN=write pytest tests/golden
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from evonas import registry
from evonas.cli import app

HERE = Path(__file__).parent
RUNS: dict[str, dict[str, object]] = {
    "aging": {"name": "aging", "population": 6, "tournament_size": 3},
    "aging-lag1": {"name": "aging", "population": 6, "tournament_size": 3, "lag": 1},
    "controller": {"name": "controller", "population": 6},
    "exhaustive": {"name": "exhaustive", "population": 10},
    "genetic": {"name": "genetic", "population": 8},
    "genetic-blend": {
        "name": "genetic",
        "population": 8,
        "encoding": "scaled",
        "crossover": "blend",
        "mutation": "scale",
    },
    "genetic-logits": {
        "name": "genetic",
        "population": 8,
        "encoding": "logits",
        "crossover": "simulated_binary",
        "mutation": "polynomial",
    },
    "genetic-rank": {
        "name": "genetic",
        "population": 7,
        "selection": "rank",
        "crossover": "one_point",
    },
    "halving": {"name": "halving", "strategy": {"name": "genetic", "population": 8}},
    "halving-aging": {
        "name": "halving",
        "factor": 2,
        "min_budget": 2,
        "strategy": {"name": "aging", "population": 6, "tournament_size": 3},
    },
    "local_search": {"name": "local_search"},
    "local_search-first": {"name": "local_search", "improvement": "first", "batch": 2},
    "nsga2": {"name": "nsga2", "population": 8},
    "nsga3": {"name": "nsga3", "population": 8},
    "predictor": {"name": "predictor", "initial": 6, "batch": 4, "offspring": 100},
    "pso": {"name": "pso", "particles": 6},
    "pso-ring": {
        "name": "pso",
        "particles": 6,
        "encoding": "logits",
        "neighbourhood": "ring",
        "boundary": "reflect",
        "inertia_end": 0.4,
        "inertia_generations": 5,
    },
    "random": {"name": "random", "population": 8},
}
COLUMNS = ["generation", "index", "genes", "parents", "origin", "cached", "loss", "size"]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1,024 genomes of five genes with four choices each, and two goals that are at odds."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = []
    for genes in itertools.product(range(4), repeat=5):
        size = sum(gene * gene for gene in genes)
        rugged = sum((a * 7 + b * 3 + i) % 5 for i, (a, b) in enumerate(itertools.pairwise(genes)))
        rows.append(("".join(map(str, genes)), 100 - size + 3 * rugged, size))
    pd.DataFrame(rows, columns=["genome", "loss", "size"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_a_seeded_run_is_what_it_always_was(
    name: str, objectives: int, table: Path, tmp_path: Path
) -> None:
    experiment = {
        "name": name,
        "seed": 7,
        "space": {"name": "table", "genes": {f"g{i}": ["a", "b", "c", "d"] for i in range(5)}},
        "strategy": RUNS[name],
        "evaluator": {
            "name": "tabular",
            "path": str(table),
            "metrics": {"loss": "loss", "size": "size"},
            "fidelities": {
                f"epochs={epochs}": {"metrics": {"loss": f"loss + size / {epochs}"}}
                for epochs in (1, 2, 3, 4)
            },
        },
        "budget": {"epochs": 9},
        "objectives": [{"name": "loss"}, {"name": "size"}][:objectives],
        "stop": {"evaluations": 60},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(experiment))
    arguments = ["run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "run" / "evaluations.csv")[COLUMNS]
    text = found.to_csv(index=False, lineterminator="\n")
    baseline = HERE / f"{name}-{objectives}.csv"
    if os.environ.get("EVONAS_GOLDEN") == "write":
        baseline.write_text(text)
    assert baseline.exists(), f"no baseline {baseline.name}: {__doc__}"
    assert text == baseline.read_text(), __doc__


def test_every_strategy_has_a_baseline_and_no_baseline_is_orphaned() -> None:
    wanted = {f"{name}-{objectives}.csv" for name in RUNS for objectives in (1, 2)}
    assert {path.name for path in HERE.glob("*.csv")} == wanted
    # Two are trained on images, of which no table has any; `auto` is one of the others.
    without = {"darts", "gdas", "auto"}
    assert {str(run["name"]) for run in RUNS.values()} == {*registry.names("strategies")} - without

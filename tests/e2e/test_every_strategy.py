"""Every strategy through the command, on a table: a run cut short and resumed is the whole one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from evonas import registry
from evonas.cli import app

TABLES = (
    *("evaluations.csv", "generations.csv", "fronts.csv", "front.csv"),
    *("swarm.csv", "probabilities.csv", "controller.csv", "predictions.csv", "predictor.csv"),
)
# Two need images, and `auto` is one of the others.
ON_TABLES = sorted({*registry.names("strategies")} - {"darts", "gdas", "auto"})
SIZES: dict[str, dict[str, Any]] = {
    "pso": {"particles": 6},
    "local_search": {},
    "halving": {"strategy": {"name": "genetic", "population": 6}},
    "predictor": {"initial": 6, "batch": 4, "offspring": 60},
}


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    genomes = list(itertools.product(range(3), repeat=5))
    pd.DataFrame(
        {
            "genome": ["".join(map(str, genes)) for genes in genomes],
            "loss": [sum((3 * a + b) % 4 for a, b in itertools.pairwise(g)) for g in genomes],
            "size": [sum(genes) for genes in genomes],
            "seconds": [10 + sum(genes) for genes in genomes],
        }
    ).to_csv(path, index=False)
    return path


def experiment(table: Path, name: str, folder: Path) -> Path:
    document = {
        "name": name,
        "seed": 11,
        "space": {"name": "table", "genes": {f"g{i}": ["a", "b", "c"] for i in range(5)}},
        "strategy": {"name": name, **SIZES.get(name, {"population": 6})},
        "evaluator": {
            "name": "tabular",
            "path": str(table),
            "metrics": {"loss": "loss", "size": "size"},
            "simulated_seconds": "seconds",
            "fidelities": {
                f"epochs={epochs}": {
                    "metrics": {"loss": f"loss + size / {epochs}"},
                    "simulated_seconds": f"seconds * (90 + {epochs}) / 99",
                }
                for epochs in (1, 3)
            },
        },
        "budget": {"epochs": 9},
        "objectives": [{"name": "loss"}, {"name": "size"}],
        "stop": {"evaluations": 60},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def held(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES if (folder / name).exists()}


# One of each kind among the quick tests (whole generations, one at a time, any size), and two with
# a trace; what these tests hold hardly depends on the strategy, so the others are slow ones.
KINDS = ("genetic", "aging", "local_search")
TRACED = ("pso", "controller", "predictor")


def each(quick: Sequence[str], *values: object, label: str = "") -> list[Any]:
    return [
        pytest.param(
            name, *values, id=f"{name}{label}", marks=[] if name in quick else [pytest.mark.slow]
        )
        for name in ON_TABLES
    ]


BY_EVALUATIONS = ("evaluations=13", "evaluations=31")
BY_SECONDS = ("simulated_seconds=250", "simulated_seconds=477.5")


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        *each(ON_TABLES, BY_EVALUATIONS, label=", evaluations"),
        *each(KINDS, BY_SECONDS, label=", simulated seconds"),
    ],
)
def test_a_run_resumed_twice_is_the_one_that_was_not(
    name: str, cuts: tuple[str, str], table: Path, tmp_path: Path
) -> None:
    path = experiment(table, name, tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert evonas("run", path, "--out", whole).exit_code == 0
    first, second = cuts
    assert evonas("run", path, "--out", cut, "--set", f"stop.{first}").exit_code == 0
    short = held(cut)
    assert evonas("resume", cut, "--set", f"stop.{second}").exit_code == 0
    longer = held(cut)
    assert len(short["evaluations.csv"]) < len(longer["evaluations.csv"])
    without = "stop={evaluations: 60}"
    result = evonas("resume", cut, "--set", without)
    assert result.exit_code == 0, result.output
    assert held(cut) == held(whole)


@pytest.mark.parametrize("name", each((*KINDS, *TRACED)))
def test_what_a_kill_has_left_behind_a_checkpoint_is_written_again(
    name: str, table: Path, tmp_path: Path
) -> None:
    """Rows that are newer than the last checkpoint, and a last checkpoint that is torn."""
    path = experiment(table, name, tmp_path)
    whole = tmp_path / "whole"
    assert evonas("run", path, "--out", whole).exit_code == 0
    before = held(whole)
    newest = sorted((whole / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    with (whole / "evaluations.csv").open("a") as file:
        file.write("9,999,torn")
    result = evonas("resume", whole)
    assert result.exit_code == 0, result.output
    assert held(whole) == before

"""A whole run in a tenth of a second: a search on a table of six networks, in this process."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from evonas.cli import app

ROWS = "genome,loss,size\n00,0.5,1\n01,0.4,2\n02,0.3,3\n10,0.45,1\n11,0.2,4\n12,0.1,5\n"
EXPERIMENT = """
name: quick
space: {name: table, genes: {a: [x, y], b: [x, y, z]}}
evaluator: {name: tabular, path: table.csv, metrics: {loss: loss, size: size}}
strategy: {name: random, population: 2}
objectives: [{name: loss}, {name: size}]
stop: {generations: 2}
"""


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_experiment(folder: Path) -> Path:
    (folder / "table.csv").write_text(ROWS)
    path = folder / "quick.yaml"
    path.write_text(EXPERIMENT)
    return path


def run(folder: Path) -> Path:
    """Run the search, and return its folder."""
    out = folder / "run"
    result = evonas("run", write_experiment(folder), "--out", out)
    assert result.exit_code == 0, result.output
    return out

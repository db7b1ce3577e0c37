"""Keys that have another name than in older files and run folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from evonas import config, core
from evonas.bench import spec
from evonas.cli import app
from evonas.core import UserError

TABLE = """
space: {name: table, genes: {a: [x, y], b: [x, y, z]}}
objectives: [{name: loss}, {name: size}]
"""
EXPERIMENT = f"""{TABLE}
name: old
strategy: {{name: pso, particles: 4, patience: 2, converged: end}}
evaluator: {{name: tabular, path: table.csv, metrics: {{loss: loss, size: size}}}}
stop: {{generations: 3}}
"""
BENCH = f"""{TABLE}
name: old
table: {{path: table.csv, metrics: {{loss: loss, size: size}}}}
tell: [size]
protocol: {{queries: 6, asks_a_query: 7}}
seeds: 2
strategies: {{pso: {{name: pso, particles: 4, converged: end}}}}
"""


@pytest.fixture(autouse=True)
def never_told() -> Iterator[None]:
    core._tell_renamed.cache_clear()
    yield
    core._tell_renamed.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"{a}{b},{3 * a + b}.5,{a + b}" for a in range(2) for b in range(3)]
    (tmp_path / "table.csv").write_text("\n".join(["genome,loss,size", *rows]) + "\n")
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    (tmp_path / "bench.yaml").write_text(BENCH)
    return tmp_path


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_experiment_with_an_old_key_is_read_as_with_the_new_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = config.load(folder / "experiment.yaml")
    config.load(folder / "experiment.yaml")
    told = "the key `converged` is now called `on_convergence`; the old name still works"
    assert caplog.messages == [told]
    (folder / "new.yaml").write_text(EXPERIMENT.replace("converged", "on_convergence"))
    assert config.load(folder / "new.yaml") == old
    assert "on_convergence: end" in config.dump(old)
    assert "converged:" not in config.dump(old)
    assert caplog.messages == [told]


def test_an_old_key_beside_the_new_one_is_refused(folder: Path) -> None:
    both = ["strategy.on_convergence=restart"]
    with pytest.raises(UserError, match=r"strategy\.converged: unknown key.*on_convergence"):
        config.load(folder / "experiment.yaml", both)


def test_what_an_old_key_may_hold_is_checked_too(folder: Path) -> None:
    with pytest.raises(UserError, match=r"strategy\.on_convergence: is 'stop'; allowed: 'restart'"):
        config.load(folder / "experiment.yaml", ["strategy.converged=stop"])


def test_a_run_folder_with_an_old_key_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, run = folder / "whole", folder / "run"
    longer = "stop.generations=6"
    assert evonas("run", folder / "experiment.yaml", "--out", whole, "--set", longer).exit_code == 0
    assert evonas("run", folder / "experiment.yaml", "--out", run).exit_code == 0
    written = (run / "config.yaml").read_text()
    assert written.count("on_convergence: end") == 1
    (run / "config.yaml").write_text(written.replace("on_convergence: end", "converged: end"))
    result = evonas("resume", run, "--set", longer)
    assert result.exit_code == 0, result.output
    for name in ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert len([m for m in caplog.messages if "`on_convergence`" in m]) == 1


def test_a_benchmark_with_old_keys_is_read_as_with_the_new_ones(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = spec.load(folder / "bench.yaml")
    assert old.report == ("size",)
    assert old.protocol.max_asks_per_query == 7
    for key, new in (("tell", "report"), ("asks_a_query", "max_asks_per_query")):
        assert f"the key `{key}` is now called `{new}`; the old name still works" in caplog.messages


def test_a_benchmarks_folder_with_old_keys_goes_on(folder: Path) -> None:
    out = folder / "out"
    assert evonas("bench", folder / "bench.yaml", "--out", out).exit_code == 0
    written = (out / "bench.yaml").read_text()
    old = written
    for new, key in (
        ("report:", "tell:"),
        ("max_asks_per_query:", "asks_a_query:"),
        ("on_convergence:", "converged:"),
    ):
        assert old.count(new) == 1
        old = old.replace(new, key)
    (out / "bench.yaml").write_text(old)
    before = (out / "runs.csv").read_bytes()
    result = evonas("bench", folder / "bench.yaml", "--out", out)
    assert result.exit_code == 0, result.output
    assert (out / "runs.csv").read_bytes() == before
    other = evonas("bench", folder / "bench.yaml", "--out", out, "--set", "protocol.asks_a_query=8")
    assert other.exit_code == 2
    assert "holds another benchmark" in other.stderr

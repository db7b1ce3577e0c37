"""A user's own operators: imported when they may be, and checked before they are used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from evonas import plugins, search
from evonas.cli import app
from evonas.core import UserError
from genomes import TableSpace

OPS = """
from pathlib import Path

Path(__file__).with_name("imported").touch()


def mine(first, second, rng):
    cut = int(rng.integers(1, len(first)))
    return first[:cut] + second[cut:], second[:cut] + first[cut:]


def change(genes, choices, rng):
    place = int(rng.integers(len(genes)))
    return [*genes[:place], int(rng.integers(choices[place])), *genes[place + 1 :]]


def better_half(ranks, k, rng):
    order = ranks.argsort()[: len(ranks) // 2]
    return rng.choice(order, size=k)


def strange(first, second, rng):
    return first, [99] * len(second)


def short(first, second, rng):
    return first[1:], second


def nothing(first, second, rng):
    return None


def halves(first, second, rng):
    return [0.5] * len(first), second


def fails(first, second, rng):
    raise RuntimeError("no luck")


number = 3
"""
EXPERIMENT: dict[str, Any] = {
    "name": "own",
    "space": {"name": "table", "genes": {"a": ["x", "y"], "b": ["x", "y", "z"], "c": ["x", "y"]}},
    "strategy": {
        **{"name": "genetic", "population": 4, "elites": 1, "crossover": "ops.py:mine"},
        **{"mutation": "ops.py:change", "selection": "ops.py:better_half"},
    },
    "evaluator": {"name": "tabular", "path": "table.csv", "metrics": {"loss": "loss"}},
    "objectives": [{"name": "loss"}],
    "stop": {"generations": 3},
}


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plugins, "_allowed", {})
    plugins._module.cache_clear()
    (tmp_path / "ops.py").write_text(OPS)
    genomes = [f"{a}{b}{c}" for a in range(2) for b in range(3) for c in range(2)]
    table = pd.DataFrame({"genome": genomes, "loss": range(len(genomes))})
    table.to_csv(tmp_path / "table.csv", index=False)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_operators_of_ones_own_are_used_and_recorded(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = evonas("run", experiment, "--out", out)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "imported").exists()
    [(file, digest)] = json.loads((out / "environment.json").read_text())["plugins"].items()
    assert file == str(tmp_path / "ops.py")
    assert len(digest) == 64
    origins = pd.read_csv(out / "evaluations.csv")["origin"]
    assert origins.str.contains("crossover").any()


GENES = TableSpace({"a": ["x", "y"], "b": ["x", "y", "z"], "c": ["x", "y"]})


def searched(**strategy: Any) -> pd.DataFrame:
    found = search(
        GENES,
        evaluate=lambda genome: {"loss": sum(genome.genes)},
        objectives=["loss"],
        strategy={"name": "genetic", "population": 4, **strategy},
        generations=3,
    )
    return found.evaluations


@pytest.mark.parametrize("strategy", ["genetic", "nsga2", "nsga3"])
@pytest.mark.parametrize("encoding", ["genes", "scaled", "logits"])
def test_a_mutation_of_ones_own_makes_all_changes(strategy: str, encoding: str) -> None:
    calls = []

    def mutate(vector: list[float], rate: float, choices: Any, rng: Any) -> list[float]:
        calls.append((len(vector), rate, tuple(choices)))
        return [0] * len(vector)

    settings = {"name": strategy, "encoding": encoding, "mutation": mutate, "mutation_rate": 0.3}
    rows = searched(**settings)
    assert set(calls) == {(7 if encoding == "logits" else 3, 0.3, (2, 3, 2))}
    varied = rows[rows["origin"].str.contains("mutation")]
    assert set(varied["genes"]) <= {"0-0-0"}


def test_a_selection_of_ones_own_chooses_all_parents() -> None:
    seen = []

    def best(ranks: Any, population: Any, fitness: Any, k: int, rng: Any) -> list[int]:
        seen.append((len(ranks), len(population), len(fitness), k))
        return [int(ranks.argmin())] * k

    rows = searched(selection=best)
    assert set(seen) == {(4, 4, 4, 4)}
    first = rows[rows["generation"] == 0]
    fittest = first.loc[first["loss"].idxmin(), "key"]
    assert set(rows.loc[rows["generation"] == 1, "parents"].dropna()) == {fittest}


@pytest.mark.parametrize(
    ("key", "function", "told"),
    [
        ("mutation", lambda genes, rng: genes[1:], "return a list of 3 genes within their choices"),
        ("mutation", lambda genes, rng: [9, 9, 9], "return a list of 3 genes within their choices"),
        ("mutation", lambda genes: (genes,), "return a list of 3 genes within their choices"),
        ("mutation", lambda genes, rng: None, "returned None"),
        ("mutation", lambda genes, rng: 1 / 0, "raised ZeroDivisionError"),
        ("mutation", lambda genes, rng, speed: genes, "a list, and some of rate, choices, rng"),
        ("mutation", lambda: [0, 0, 0], "has the arguments ()"),
        ("crossover", lambda a, b, c, rng: (a, b), "two lists, and some of choices, rng"),
        ("selection", lambda ranks, k: [0], "return 4 positions in the population, from 0 to 3"),
        ("selection", lambda ranks, k: [4] * k, "return 4 positions in the population"),
        ("selection", lambda ranks, k: [0.5] * k, "return 4 positions in the population"),
        ("selection", lambda ranks, k: 3, "return 4 positions in the population"),
        ("selection", lambda individuals, k: [0] * k, "some of ranks, fitness, population, k, rng"),
    ],
)
def test_what_is_wrong_with_a_function_is_told(key: str, function: Any, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as refused:
        searched(**{key: function})
    assert refused.value.mistakes[0].key == f"strategy.{key}"


@pytest.mark.slow
def test_a_benchmark_uses_it_in_its_workers_too_and_knows_it_again(
    experiment: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "bench.yaml", tmp_path / "bench"
    bench = {
        "name": "own",
        "space": EXPERIMENT["space"],
        "table": {"path": "table.csv", "metrics": {"loss": "loss"}},
        "objectives": EXPERIMENT["objectives"],
        "protocol": {"queries": 10},
        "seeds": 7,
        "strategies": {"mine": EXPERIMENT["strategy"]},
    }
    path.write_text(yaml.safe_dump(bench))
    result = evonas("bench", path, "--out", out, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert pd.read_csv(out / "runs.csv")["strategy"].tolist() == ["random"] * 7 + ["mine"] * 7
    again = evonas("bench", path, "--out", out, "--workers", "2")
    assert again.exit_code == 0, again.output
    assert len(json.loads((out / "environment.json").read_text())["resumed"]) == 1
    (tmp_path / "ops.py").write_text(OPS + "\n# other\n")
    changed = evonas("bench", path, "--out", out)
    assert changed.exit_code == 2
    assert "ops.py has changed since" in changed.stderr


def test_a_search_from_python_takes_it_from_the_working_folder(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = search(
        TableSpace(EXPERIMENT["space"]["genes"]),
        evaluate=lambda genome: {"loss": sum(genome.genes)},
        objectives=["loss"],
        strategy=EXPERIMENT["strategy"],
        generations=3,
    )
    assert (tmp_path / "imported").exists()
    assert found.evaluations["origin"].str.contains("crossover").any()


def test_validate_imports_nothing(experiment: Path, tmp_path: Path) -> None:
    assert evonas("validate", experiment).exit_code == 0
    assert not (tmp_path / "imported").exists()


def test_a_run_folder_alone_imports_nothing(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, more = tmp_path / "run", ("--set", "stop.generations=4")
    assert evonas("run", experiment, "--out", out).exit_code == 0
    (tmp_path / "imported").unlink()
    monkeypatch.setattr(plugins, "_allowed", {})  # as in a new process
    plugins._module.cache_clear()
    for words in (("resume", out), ("show", out), ("train", out)):
        result = evonas(*words)
        assert not (tmp_path / "imported").exists(), words
    result = evonas("resume", out, *more)
    assert result.exit_code == 2
    assert "add --plugin FILE, with the same content" in result.stderr
    moved = tmp_path / "elsewhere.py"
    (tmp_path / "ops.py").rename(moved)
    moved.write_text(OPS + "\n# other\n")
    assert evonas("resume", out, *more, "--plugin", moved).exit_code == 2
    moved.write_text(OPS)
    assert evonas("resume", out, *more, "--plugin", moved).exit_code == 0
    assert pd.read_csv(out / "evaluations.csv")["generation"].max() == 3


@pytest.mark.parametrize(
    ("operator", "told"),
    [
        ("mutation=ops.py:absent", "has no function absent"),
        ("selection=away.py:mine", "No such file"),
        ("selection=tournamnt", "'rank', or FILE.py:NAME"),
        ("mutation=rest", "'polynomial', or FILE.py:NAME"),
        ("crossover=ops.py:strange", "it must return two lists of 3 genes within their choices"),
        ("crossover=ops.py:short", "it must return two lists of 3 genes within their choices"),
        ("crossover=ops.py:nothing", "returned None"),
        ("crossover=ops.py:halves", "it must return two lists of 3 genes within their choices"),
        ("crossover=ops.py:fails", "raised RuntimeError: no luck"),
        ("crossover=ops.py:number", "has no function number"),
        ("crossover=ops.py:absent", "has no function absent"),
        ("crossover=away.py:mine", "No such file"),
        ("crossover=broken.py:mine", "cannot be imported: SyntaxError"),
        ("crossover=unifrom", "'simulated_binary', or FILE.py:NAME"),
    ],
)
def test_what_is_wrong_with_it_is_told(
    operator: str, told: str, experiment: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("def mine(:\n")
    setting = ("--set", f"strategy.{operator}")
    result = evonas("run", experiment, "--out", tmp_path / "run", *setting)
    assert result.exit_code == 2, result.output
    assert told in result.stderr

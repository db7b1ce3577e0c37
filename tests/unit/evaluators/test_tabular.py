"""Answers from a table: formulas, genomes, simulated seconds, and what is wrong with a file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from evonas import config
from evonas.cli import app
from evonas.core import Budget, Candidate, Status, UserError
from evonas.evaluators import formula
from evonas.evaluators.tabular import Tabular, TabularParams
from evonas.loop import guarded
from evonas.metrics import SIMULATED_SECONDS
from evonas.protocols import Setting
from genomes import NASBench201, TableSpace, Verbatim
from tests.helpers import SHARED

SIMULATED = SIMULATED_SECONDS.name
SPACE = TableSpace({"a": ("x", "y"), "b": ("x", "y", "z")})
ROWS = "genome,acc,seconds,size\n00,0.5,10,1\n01,0.6,20,2\n02,,30,3\n10,0.8,40,4\n11,0.9,50,5\n"
BENCHMARK = SHARED / "data/nasbench201/nasbench201.csv.gz"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(ROWS)
    return path


def tabular(path: Path, **params: Any) -> Tabular:
    given = {"metrics": {"error": "1 - acc", "size": "size"}, **params}
    return Tabular(TabularParams(path=str(path), **given), Setting(SPACE))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x", 3.0),
        ("100 - x", 97.0),
        ("x / 2 + 1.3", 2.8),
        ("-x ** 2", -9.0),
        ("(x + y) * 2", 14.0),
        ("1e2 * x", 300.0),
        ("a column", 5.0),
    ],
)
def test_a_formula_is_arithmetic_on_columns(text: str, value: float) -> None:
    assert formula.compute(text, {"x": 3.0, "y": 4.0, "a column": 5.0}) == value


@pytest.mark.parametrize(
    "text",
    [
        *("z", "x +", "__import__('os')", "x.real", "x[0]", "lambda: x", "x if x else y", "'x'"),
        *("x and y", "x == y", "f(x)", "True", "9 ** 9 ** 9 ** 9", "1 / 0", "", "x + 1e999"),
    ],
)
def test_a_formula_is_nothing_else(text: str) -> None:
    with pytest.raises(UserError, match=r"; (use columns, numbers|allowed: x, y)"):
        formula.compute(text, {"x": 3.0, "y": 4.0})


def test_a_genome_is_looked_up_and_the_seed_has_no_say(table: Path) -> None:
    evaluator = tabular(table)
    candidate = Candidate(SPACE.parse("1-1"))
    for seed in (0, 1):
        found = evaluator.evaluate(candidate, seed)
        assert found.values == {"error": pytest.approx(0.1), "size": 5.0}
        assert found.status is Status.OK


def test_what_the_table_lacks_is_a_fault(table: Path) -> None:
    evaluator = tabular(table)
    missing = evaluator.evaluate(Candidate(SPACE.parse("0-2")), 0)
    assert missing.status is Status.DIVERGED
    assert "has no error for 0-2" in missing.message
    with pytest.raises(KeyError, match="no row for 1-2"):  # the loop makes a crash of it
        evaluator.evaluate(Candidate(SPACE.parse("1-2")), 0)
    assert evaluator.most() == {"error": 0.5, "size": 5.0}


def test_what_is_cheap_is_known_without_an_evaluation(table: Path) -> None:
    evaluator = tabular(table, cheap=["size"], simulated_seconds="seconds / 2")
    assert evaluator.cheap(SPACE.parse("1-0")) == {"size": 4.0, SIMULATED: 20.0}
    assert [metric.name for metric in evaluator.metrics] == ["error", "size", SIMULATED]


def test_tables_of_all_spellings_are_read(tmp_path: Path) -> None:
    plain, packed, official = (tmp_path / n for n in ("a.csv", "a.csv.gz", "b.csv"))
    plain.write_text("genome,acc,size\n0-1,0.6,2\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(plain, "a.csv")
    for path, pack in ((packed, gzip), (tmp_path / "a.bz2", bz2), (tmp_path / "a.xz", lzma)):
        path.write_bytes(pack.compress(plain.read_bytes()))
    for path in (plain, packed, *(tmp_path / f"a.{name}" for name in ("bz2", "xz", "zip"))):
        assert tabular(path).evaluate(Candidate(SPACE.parse("0-1")), 0).values["size"] == 2.0
    space = NASBench201()
    genome = space.parse("3-3-1-0-2-4")
    official.write_text(f"arch,acc\n{space.describe(genome)},0.7\n")
    params = TabularParams(path=str(official), genome="arch", metrics={"acc": "acc"})
    found = Tabular(params, Setting(space)).evaluate(Candidate(genome), 0)
    assert found.values == {"acc": 0.7}


@pytest.mark.parametrize(
    "content",
    [
        "genome;acc;size\n00;0.5;1\n01;0.6;2\n",
        "genome\tacc\tsize\r\n00\t0.5\t1\r\n01\t0.6\t2\r\n",
        " genome , acc ,size\n00 , 0.5 , 1\n 01, 0.6 ,2 \n",
        "\ufeffgenome,acc,size\n00,0.5,1\n01,0.6,2\n",
        "\n\n  \ngenome,acc,size\n\n00,0.5,1\n , ,\n01,0.6,2\n,,\n\n",
        "genome,acc,size,,note\n00,0.5,1,,first\n01,0.6,2,,\n",
        "genome,acc,size\n00,0.5,1,\n01,0.6,2,\n",
    ],
)
def test_tables_of_spreadsheets_are_read(table: Path, content: str) -> None:
    table.write_text(content)
    for text, error, size in (("0-0", 0.5, 1.0), ("0-1", 0.4, 2.0)):
        values = tabular(table).evaluate(Candidate(SPACE.parse(text)), 0).values
        assert values == {"error": pytest.approx(error), "size": size}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "genome,acc,size\n\n00,0.5,1\n\n01,88.1%,2\n",
            "evaluator.metrics.error: column 'acc' has '88.1%' in line 5 of TABLE; write a plain",
        ),
        ("\ngenome,acc,size\n00,-,1\n", "column 'acc' has '-' in line 3 of TABLE; write a plain"),
        ("genome;acc;size\n00;0,5;1\n", "column 'acc' has '0,5' in line 2 of TABLE; write a plain"),
        ('genome,acc,size\n"0-\n0",1,2\n01,1,2\n', "'0-\\n0' in line 2 of TABLE is no genome; "),
        ('genome,acc,size,a\n00,1,2,"\n\n"\n,,,\n01,x,2,\n', "column 'acc' has 'x' in line 6 of"),
        ("genome,acc,size\n00,0,5,1\n", "line 2 of TABLE has 4 cells, and the header 3; write num"),
        ("genome,acc,size\n00,1,2\n\n01,0,5,1\n", "line 4 of TABLE has 4 cells, and the header 3"),
        ("genome,acc,size,acc \n00,1,2,3\n", "two columns of TABLE are called 'acc'; rename one"),
        ("genome,acc,size\n", "TABLE has no rows below its header; give a row for each genome"),
        ("genome,acc,size\n,,\n\n", "TABLE has no rows below its header; give a row for each"),
        ("", "evaluator.path: TABLE: is empty; name a CSV file"),
        ("\n \n", "TABLE: is empty; name a CSV file"),
        ("genome,acc,size\n00,1,2\n,3,4\n", "evaluator.genome: no genome in line 3 of TABLE; give"),
        (
            "genome,acc,size\n00,1,2\n1,3,4\n",
            "'1' in line 3 of TABLE is no genome; write 2 genes; a",
        ),
        ("Genome;acc\n00;1\n", "no column 'genome' in TABLE; allowed: Genome, acc"),
        ("genome,acc,size\n00,\x1b[2J,1\n", r"column 'acc' has '\x1b[2J' in line 2 of TABLE"),
    ],
)
def test_what_a_spreadsheet_put_in_is_told_with_its_line(
    table: Path, content: str, told: str
) -> None:
    table.write_text(content)
    with pytest.raises(UserError) as caught:
        tabular(table)
    assert told.replace("TABLE", str(table)) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_column_that_is_not_used_may_be_text(table: Path) -> None:
    table.write_text("genome,acc,size,note\n00,0.5,1,88%\n")
    assert tabular(table).evaluate(Candidate(SPACE.parse("0-0")), 0).values["size"] == 1.0
    with pytest.raises(UserError, match=r"metrics\.m: column 'note' has '88%' in line 2"):
        tabular(table, metrics={"m": "note * 2"})


def test_a_formula_names_columns_with_spaces(table: Path) -> None:
    table.write_text("genome,val acc (%),size,a b,a-b\n00,90,1,2,3\n")
    evaluator = tabular(table, metrics={"error": "100 - val_acc", "same": "val acc (%)"})
    values = evaluator.evaluate(Candidate(SPACE.parse("0-0")), 0).values
    assert values == {"error": 10.0, "same": 90.0}
    with pytest.raises(UserError, match="write _ for all that is no letter or digit"):
        tabular(table, metrics={"error": "100 - val acc"})
    with pytest.raises(UserError, match="uses the unknown column 'a_b'"):  # it may be either
        tabular(table, metrics={"error": "a_b"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (ROWS.encode("utf-16"), "is not text in UTF-8; save it as CSV in UTF-8"),
        (bytes(range(256)) * 9, "is not text in UTF-8; save it as CSV in UTF-8"),
        (gzip.compress(ROWS.encode())[:-9], "is damaged: "),
        (bz2.compress(ROWS.encode())[:-9], "is damaged: "),
    ],
    ids=["utf-16", "bytes", "gzip", "bzip2"],
)
def test_a_file_that_is_no_table_is_told(table: Path, content: bytes, told: str) -> None:
    table.write_bytes(content)
    with pytest.raises(UserError, match=told):
        tabular(table)


def test_no_table_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "."):
        with pytest.raises(UserError, match=r"is not a file; name a CSV file"):
            tabular(tmp_path / name)


MORE = "size,note,genome,energy,acc\n4,x,1-0,0.4,0.8\n5,,11,,0.9\n1,,00,0.1,\n3,,02,0.3,0.7\n"


@pytest.fixture
def more(tmp_path: Path) -> Path:
    path = tmp_path / "more.csv"
    path.write_text(MORE)
    return path


def test_files_are_joined_by_genome_and_what_one_lacks_is_missing(table: Path, more: Path) -> None:
    metrics = {"error": "1 - acc", "heat": "energy * 2"}
    evaluator = tabular(table, join=(str(more),), metrics=metrics)
    values = evaluator.rows.values
    assert values["heat"] == pytest.approx([0.2, np.nan, 0.6, 0.8, np.nan], nan_ok=True)
    assert values["error"] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])  # of 0-2, only more.csv's
    found = evaluator.evaluate(Candidate(SPACE.parse("1-0")), 0)
    assert found.values == {"error": pytest.approx(0.2), "heat": pytest.approx(0.8)}
    for lacking in ("0-1", "1-1"):  # without a row, and with an empty cell
        missing = evaluator.evaluate(Candidate(SPACE.parse(lacking)), 0)
        assert missing.status is Status.DIVERGED
        assert f"has no heat for {lacking}" in missing.message
    alone = tabular(table)
    assert tabular(table, join=(str(more),)).fingerprint != alone.fingerprint
    assert alone.fingerprint == alone.rows.fingerprint


def test_a_column_that_files_differ_in_may_not_be_used(table: Path, more: Path) -> None:
    more.write_text(MORE.replace("4,x,1-0", "7,x,1-0"))
    metrics = {"error": "1 - acc", "heat": "energy"}
    assert "heat" in tabular(table, join=(str(more),), metrics=metrics).rows.values
    with pytest.raises(UserError) as caught:
        tabular(table, join=(str(more),))
    assert str(caught.value) == (
        f"evaluator.metrics.size: column 'size' is 4 in line 5 of {table}, and 7 in line 2 of "
        f"{more}; rename it in one of the files"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "evaluator.join.0: MORE: No such file"),
        ("genes,energy\n00,1\n", "evaluator.join.0: no column 'genome' in MORE; allowed: genes"),
        ("genome,energy\n00,1\n00,2\n", "join.0: 00 is listed twice, again in line 3 of MORE"),
        ("genome,energy\n09,1\n", "evaluator.join.0: '09' in line 2 of MORE is no genome"),
        ("genome,energy\n12,1\n", "join.0: no genome of TABLE is in MORE; name a table of the"),
        ("genome,energy\n00,x\n", "metrics.heat: column 'energy' has 'x' in line 2 of MORE"),
    ],
)
def test_a_file_that_cannot_be_joined_is_told(
    content: str | None, told: str, table: Path, more: Path
) -> None:
    if content is None:
        more.unlink()
    else:
        more.write_text(content)
    with pytest.raises(UserError) as caught:
        tabular(table, join=(str(more),), metrics={"heat": "energy"})
    assert told.replace("MORE", str(more)).replace("TABLE", str(table)) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_values_belong_to_genomes_not_to_networks() -> None:
    space = NASBench201()
    same = [space.parse(text) for text in ("1-2-0-1-2-1", "1-1-0-2-2-1")]
    assert len({space.key(genome) for genome in same}) == 1
    verbatim = Verbatim(space)
    assert len({verbatim.key(genome) for genome in same}) == 2
    assert [verbatim.canonical(genome) for genome in same] == same
    assert verbatim.describe(same[0]) == space.describe(same[0])
    assert verbatim.live(same[0]) == space.live(same[0])


EXPERIMENT: dict[str, Any] = {
    "name": "tabular",
    "space": {"name": "table", "genes": {"a": ["x", "y"], "b": ["x", "y", "z"]}},
    "strategy": {"name": "exhaustive", "population": 2},
    "evaluator": {
        "name": "tabular",
        "path": "table.csv",
        "metrics": {"error": "1 - acc", "size": "size"},
        "cheap": ["size"],
        "simulated_seconds": "seconds",
    },
    "objectives": [{"name": "error"}, {"name": "size"}],
    "stop": {"simulated_seconds": 100},
}


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def experiment(table: Path) -> Path:
    path = table.with_name("experiment.yaml")
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def test_an_evaluation_that_would_overspend_is_not_made(experiment: Path, tmp_path: Path) -> None:
    """10 + 20, 30 + 40: the next, of 50 s, would be too much for 100 s."""
    out = tmp_path / "run"
    assert evonas("run", experiment, "--out", out).exit_code == 0
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert evaluations["genes"].tolist() == ["0-0", "0-1", "0-2", "1-0"]
    assert pd.read_csv(out / "generations.csv")[SIMULATED].tolist() == [30, 100]
    assert evaluations["status"].tolist() == ["ok", "ok", "diverged", "ok"]


def test_runs_on_a_table_are_compared_but_not_trained(
    experiment: Path, table: Path, tmp_path: Path
) -> None:
    runs = [tmp_path / name for name in ("a", "b", "c")]
    for path, change in zip(runs, ("seed=1", "seed=2", "strategy={name: random}"), strict=True):
        assert evonas("run", experiment, "--out", path, "--set", change).exit_code == 0
    result = evonas("compare", *runs, "--out", tmp_path / "compared")
    assert result.exit_code == 0, result.output
    assert "2 arms, 3 runs" in result.stdout
    other = tmp_path / "other"
    change = "evaluator.metrics.error=acc"
    assert evonas("run", experiment, "--out", other, "--set", change).exit_code == 0
    result = evonas("compare", runs[0], other, "--out", tmp_path / "compared")
    assert result.exit_code == 2
    assert "error = 1 - acc" in result.stderr
    result = evonas("train", runs[0])
    assert result.exit_code == 2
    assert "the evaluator tabular does not train; give a run, or an" in result.stderr


def test_a_genome_is_shown_as_the_table_has_it(experiment: Path) -> None:
    result = evonas("show", "1-1", "--experiment", experiment)
    assert result.exit_code == 0, result.output
    shown = dict(line.split(":", 1) for line in result.stdout.splitlines())
    assert float(shown["error"]) == pytest.approx(0.1)
    assert float(shown["size"]) == 5
    assert shown["looked up in"].strip() == "the table of tabular"
    missing = evonas("show", "1-2", "--experiment", experiment)
    assert "the table has no row for 1-2" in missing.stdout
    assert "7-7: gene " in evonas("show", "7-7", "--experiment", experiment).stderr


def test_more_seconds_make_of_it_what_it_would_have_been(experiment: Path, tmp_path: Path) -> None:
    """Also where the first run ended within a generation, and more than once."""
    names = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv")
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    assert evonas("run", experiment, "--out", whole).exit_code == 0
    assert (
        evonas("run", experiment, "--out", grown, "--set", "stop.simulated_seconds=65").exit_code
        == 0
    )
    assert len(pd.read_csv(grown / "evaluations.csv")) == 3  # of two generations of two
    for _ in range(2):
        assert evonas("resume", grown).exit_code == 0
        assert len(pd.read_csv(grown / "evaluations.csv")) == 3
    assert evonas("resume", grown, "--set", "stop.simulated_seconds=100").exit_code == 0
    for name in names:
        assert (grown / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_on_joined_tables_goes_on_only_with_the_same_ones(
    experiment: Path, more: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    document = {**EXPERIMENT, "evaluator": {**EXPERIMENT["evaluator"], "join": ["more.csv"]}}
    document["evaluator"]["metrics"] = {"error": "1 - acc", "size": "energy * 10"}
    experiment.write_text(yaml.safe_dump(document))
    assert "5 genomes" in evonas("validate", experiment, "--data").output
    assert evonas("run", experiment, "--out", out).exit_code == 0
    evaluations = pd.read_csv(out / "evaluations.csv").set_index("genes")
    assert evaluations["size"].to_dict() == pytest.approx(
        {"0-0": 1.0, "0-1": np.nan, "0-2": 3.0, "1-0": 4.0}, nan_ok=True
    )
    assert evonas("resume", out).exit_code == 0
    more.write_text(MORE.replace("0.3", "0.5"))
    changed = evonas("resume", out, "--set", "stop.simulated_seconds=200")
    assert changed.exit_code == 2
    assert "the data changed since this run started" in changed.stderr


FIDELITIES: dict[str, Any] = {
    "epochs=3": {"metrics": {"error": "1.2 - acc"}, "simulated_seconds": "seconds / 4"}
}
HALVING = {
    "name": "halving",
    "min_budget": 2,
    "strategy": {"name": "exhaustive", "population": 6},
}


def test_a_shorter_training_has_values_of_its_own_and_one_that_goes_on_costs_the_rest(
    table: Path,
) -> None:
    of_nine = Setting(SPACE, budget=Budget(epochs=9))
    params = {"fidelities": FIDELITIES, "cheap": ("size",), "simulated_seconds": "seconds"}
    metrics = {"error": "1 - acc", "size": "size"}
    evaluator = Tabular(TabularParams(path=str(table), metrics=metrics, **params), of_nine)
    three, nine = Budget(epochs=3, horizon=9), Budget(epochs=9)
    genome = SPACE.parse("1-0")
    asked = {
        "short": Candidate(genome, budget=three),
        "long": Candidate(genome, budget=nine, after=three),
        "at once": Candidate(genome, budget=nine),
        "without": Candidate(genome),
    }
    found = {name: evaluator.evaluate(each, 0).values for name, each in asked.items()}
    errors = {name: values["error"] for name, values in found.items()}
    assert errors == pytest.approx({"short": 0.4, "long": 0.2, "at once": 0.2, "without": 0.2})
    seconds = {name: values[SIMULATED] for name, values in found.items()}
    assert seconds == {"short": 10, "long": 30, "at once": 40, "without": 40}
    assert {values["size"] for values in found.values()} == {4}
    assert all(evaluator.cheap_at(asked[name])[SIMULATED] == seconds[name] for name in asked)
    other = Candidate(genome, budget=Budget(epochs=4, horizon=9))
    assert guarded(evaluator, other, 0).status is Status.CRASHED


def test_a_halved_search_spends_what_its_trainings_add(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    document = {**EXPERIMENT, "strategy": HALVING, "budget": {"epochs": 9}}
    document["objectives"] = [{"name": "error"}]
    document["stop"] = {"simulated_seconds": 110}
    document["evaluator"] = {**EXPERIMENT["evaluator"], "fidelities": FIDELITIES}
    experiment.write_text(yaml.safe_dump(document))
    for command in (["run", experiment, "--out", out], ["resume", out]):
        result = evonas(*command)
        assert result.exit_code == 0, result.output
        rows = pd.read_csv(out / "evaluations.csv")
        # All six briefly, for a quarter of 150 s in all, and two for the rest of 40 s and 50 s.
        assert rows["budget"].tolist() == ["epochs=3/9"] * 6 + ["epochs=9"] * 2
        assert set(rows["genes"].iloc[-2:]) == {"1-0", "1-1"}
        assert pd.read_csv(out / "generations.csv")[SIMULATED].tolist() == [37.5, 105]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("evaluator fidelities", {}, "has no values for epochs=3, a rung of the strategy"),
        ("budget", {"epochs": 12}, "has no values for epochs=4"),
        ("budget", {"epochs": 2}, "budget: is epochs=2, which leaves no shorter rung"),
        ("budget", {"seconds": 9}, "budget: is in seconds"),
        ("budget", None, "budget: is missing"),
        ("evaluator fidelities three", {"metrics": {"error": "acc"}}, "three: is no budget"),
        ("evaluator fidelities epochs=3/9", {"metrics": {"error": "acc"}}, "is not the length"),
        ("evaluator fidelities seconds=3", {"metrics": {"error": "acc"}}, "is not the length"),
        ("evaluator fidelities epochs=3 metrics", {"size": "size"}, "'size' does not depend on"),
        ("evaluator fidelities epochs=3 metrics", {"error": "away"}, "epochs=3.metrics.error: "),
        ("evaluator fidelities epochs=3 simulated_seconds", None, "must be given for all budgets"),
        ("strategy strategy", {"name": "halving"}, "strategy.strategy: is halving"),
        ("strategy strategy", {"name": "genetics"}, "strategy.strategy.name: unknown strategy"),
        ("strategy strategy", "genetic", "strategy.strategy: is 'genetic'; must be {name: "),
        ("strategy factor", 1, "strategy.factor: is 1"),
        ("strategy name", "exhaustive", "strategy.strategy: unknown key"),
    ],
)
def test_mistakes_with_budgets_are_told(
    key: str, value: Any, told: str, experiment: Path, tmp_path: Path
) -> None:
    evaluator = {**EXPERIMENT["evaluator"], "fidelities": FIDELITIES}
    document = {**EXPERIMENT, "strategy": HALVING, "budget": {"epochs": 9}, "evaluator": evaluator}
    place: Any = document
    *path, last = key.split()
    for part in path:
        place[part] = dict(place[part])
        place = place[part]
    place[last] = value
    experiment.write_text(yaml.safe_dump(document))
    result = evonas("run", experiment, "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2


def test_what_is_asked_again_costs_nothing(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    strategy = "strategy={name: local_search}"
    limits = "stop={evaluations: 40, simulated_seconds: 1000}"
    assert (
        evonas("run", experiment, "--out", out, "--set", strategy, "--set", limits).exit_code == 0
    )
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert evaluations["cached"].sum() > 20
    spent = evaluations.loc[~evaluations["cached"], SIMULATED].sum()
    assert pd.read_csv(out / "generations.csv")[SIMULATED].iloc[-1] == spent


def test_a_table_that_is_used_up_ends_a_search_that_only_seconds_end(
    experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    endless = ("--set", "strategy={name: random, population: 500}")
    seconds = ("--set", "stop.simulated_seconds=1000")
    assert evonas("run", experiment, "--out", out, *endless, *seconds).exit_code == 0
    assert 5000 < len(pd.read_csv(out / "evaluations.csv")) < 6000


@pytest.mark.parametrize("seconds", ["-5", "", "inf"])
def test_seconds_that_cannot_be_spent_are_refused(
    seconds: str, experiment: Path, table: Path, tmp_path: Path
) -> None:
    table.write_text(ROWS.replace("0.6,20", f"0.6,{seconds}"))
    result = evonas("run", experiment, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "evaluator.simulated_seconds" in result.stderr
    assert "line 3" in result.stderr


def test_infeasible_genomes_cost_nothing(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bound = "constraints=[{name: size, max: 2}]"
    assert evonas("run", experiment, "--out", out, "--set", bound).exit_code == 0
    evaluations = pd.read_csv(out / "evaluations.csv")
    assert evaluations["status"].tolist()[:5] == ["ok", "ok", *["infeasible"] * 3]
    assert pd.read_csv(out / "generations.csv")[SIMULATED].iloc[-1] == 30


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("evaluator.path=away.csv", "No such file"),
        ("evaluator.genome=arch", "no column 'arch'"),
        ("evaluator.metrics.error=1 - accuracy", "uses the unknown column 'accuracy'"),
        ("evaluator.metrics.error=genome", "uses the unknown column 'genome'"),
        ("evaluator.cheap=[params]", "evaluator.cheap: 'params' is not a metric; allowed: "),
        ("evaluator.metrics.simulated_seconds=size", "has a key of its own"),
        ("evaluator.metrics.status=size", "evaluator.metrics: status is a column that the tables"),
        ("evaluator.metrics={error: acc, size: size, ' s': size}", "' s' cannot be the name of a"),
        ("space.genes={a: [x, x], b: [x, y, z]}", "space.genes: x is twice among the choices of"),
        ("objectives=[{name: flops}]", "unknown metric 'flops'"),
        ("space={name: nasbench201}", "line 2"),
        (
            "data={name: digits}",
            "data: cannot be used with evaluator tabular, which does not train",
        ),
        ("budget={epochs: 3}", "budget: cannot be used with evaluator tabular, which does"),
        ("finalists={top: 2}", "finalists: cannot be used with evaluator tabular, which"),
        ("cache=cache", "cache: cannot be used with evaluator tabular, which does not support"),
        ("space.genes={}", "at least 1"),
    ],
)
def test_mistakes_are_told_in_a_line(
    change: str, told: str, experiment: Path, tmp_path: Path
) -> None:
    result = evonas("run", experiment, "--out", tmp_path / "run", "--set", change)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "run" / "evaluations.csv").exists()


def test_a_space_without_networks_cannot_be_trained(experiment: Path, tmp_path: Path) -> None:
    document = {**EXPERIMENT, "evaluator": {"name": "train"}, "data": {"name": "digits"}}
    document |= {"budget": {"epochs": 1}, "objectives": [{"name": "val_error"}]}
    experiment.write_text(yaml.safe_dump(document))
    with pytest.raises(
        UserError, match="used with evaluator train, which does not count simulated"
    ):
        config.load(experiment)
    with pytest.raises(UserError, match="table has no networks to train"):
        config.load(experiment, ["stop={generations: 1}"])


def test_a_genome_that_stands_twice_is_told(table: Path) -> None:
    table.write_text(ROWS + "11,0.2,1,1\n")
    with pytest.raises(UserError, match=r"11 is listed twice, again in line 7 of .*; list it once"):
        tabular(table)


def test_validate_reads_the_table_if_asked(experiment: Path, table: Path) -> None:
    result = evonas("validate", experiment, "--data")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "data: 5 genomes, for the evaluator tabular"
    table.write_text(ROWS.replace("0.6", "60%"))
    assert evonas("validate", experiment).exit_code == 0
    result = evonas("validate", experiment, "--data")
    assert result.exit_code == 2
    assert "evaluator.metrics.error: column 'acc' has '60%' in line 3 of" in result.stderr


def test_another_table_is_other_data(experiment: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert evonas("run", experiment, "--out", out).exit_code == 0
    table.write_text(ROWS.replace("0.9", "0.95"))
    result = evonas("resume", out, "--set", "stop.simulated_seconds=200")
    assert result.exit_code == 2
    assert "the data changed since this run started" in result.stderr


@pytest.mark.skipif(not BENCHMARK.exists(), reason="needs the NAS-Bench-201 table")
def test_the_whole_of_nas_bench_201_is_searched_by_yaml_alone(tmp_path: Path) -> None:
    """As a generic table, without the space that knows it."""
    ops = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    document = {
        **EXPERIMENT,
        "space": {"name": "table", "genes": {f"e{i}": list(ops) for i in range(6)}},
        "strategy": {"name": "exhaustive", "population": 5000},
        "evaluator": {
            "name": "tabular",
            "path": str(BENCHMARK),
            "metrics": {"error": "100 - test200_cifar10", "flops": "flops_cifar10"},
        },
        "objectives": [{"name": "error"}],
        "stop": {"evaluations": 100_000},
    }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(document))
    result = evonas("run", tmp_path / "all.yaml", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    front = pd.read_csv(tmp_path / "run" / "front.csv")
    assert front["error"].tolist() == [pytest.approx(100 - 94.37, abs=0.005)] * 2  # two spellings
    assert len(pd.read_csv(tmp_path / "run" / "evaluations.csv")) == 15_625

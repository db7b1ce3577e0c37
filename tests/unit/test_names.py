"""Metrics and the other columns of tables: no table has two columns of one name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from evonas.cli import app
from evonas.core import Objective, UserError
from evonas.jobs import finalists
from evonas.jobs.search import _traces
from evonas.metrics import RESERVED, RESERVED_IN_RUNS, finals_columns, refused
from evonas.records import tables

LOSS = Objective(name="loss")


def test_every_column_beside_the_metrics_is_reserved() -> None:
    columns = {*tables.evaluation_columns([]), *tables.front_columns([]), "message"}
    assert columns == RESERVED
    named: Any = SimpleNamespace(metrics=(), objectives=[LOSS])
    columns |= {*tables.fronts_columns([LOSS]), *finalists._columns(named, named)} - {"loss"}
    assert columns <= RESERVED_IN_RUNS | finals_columns("loss")


@pytest.mark.parametrize("name", [*sorted(RESERVED_IN_RUNS), "", " ", "a ", "a\nb", "\ud800"])
def test_what_cannot_be_a_column_is_refused(name: str) -> None:
    assert refused(name)
    assert not refused(f"my_{name}".strip()) or not name.isprintable()


EXPERIMENT = {
    "name": "names",
    "space": {"name": "table", "genes": {"a": ["x", "y"]}},
    "strategy": {"name": "exhaustive", "population": 2},
    "objectives": [{"name": "loss"}],
    "stop": {"generations": 1},
}
WIDE = """
from evonas.core import Evaluation, Metric, Params


class P(Params):
    pass


class Wide:
    Params = P
    needs = frozenset()
    metrics = (Metric("loss"),)
    fingerprint = ""

    def __init__(self, params, setting):
        pass

    @staticmethod
    def metrics_of(params):
        return Wide.metrics

    def cheap(self, genome):
        return {}

    def evaluate(self, candidate, seed):
        return Evaluation(candidate, {"loss": float("VALUE"), "key": 7, "generation": 8})
"""


@pytest.mark.parametrize(("value", "status"), [("1", 0), ("nan", 3)])
def test_what_an_evaluator_gives_beyond_its_metrics_replaces_nothing(
    tmp_path: Path, value: str, status: int
) -> None:
    (tmp_path / "wide.py").write_text(WIDE.replace("VALUE", value))
    path = tmp_path / "names.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "evaluator": {"name": "wide.py:Wide"}}))
    done = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "run")])
    assert done.exit_code == status, done.output
    front, evaluations = (
        pd.read_csv(tmp_path / "run" / f"{name}.csv") for name in ("front", "evaluations")
    )
    if status:
        assert "the 2 evaluations all failed, 2 of them: diverged: loss is nan" in done.stderr
        assert len((tmp_path / "run" / "journal").read_text().splitlines()) == 2
    else:
        assert front["key"].tolist() == evaluations["key"].tolist() == ["g0", "g1"]
        assert front["generation"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("traces", "told"),
    [
        ({"evaluations": ("a",)}, "evaluations: cannot be the name of a table; choose"),
        ({"../swarm": ("a",)}, "cannot be the name of a table"),
        ({"walk": ("a", "generation")}, "walk: generation is a column"),
        ({"walk": ("a", "a")}, "walk: a is named twice"),
    ],
)
def test_a_strategys_own_tables_have_names_of_their_own(
    traces: dict[str, Sequence[str]], told: str
) -> None:
    traced: Any = SimpleNamespace(TRACES=traces, trace=lambda: {})
    with pytest.raises(UserError, match=told):
        _traces(traced)

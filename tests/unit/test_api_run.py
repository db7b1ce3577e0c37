"""`evonas.run`: a whole run from Python, here on a table."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import evonas
from evonas import plots
from evonas.core import UserError

ROWS = [(f"{a}{b}", (a - 1) ** 2 + b / 10) for a in range(3) for b in range(3)]


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A search on a table of nine rows, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "draw", lambda path: None)
    text = "".join(f"{genome},{loss}\n" for genome, loss in ROWS)
    Path("cells.csv").write_text(f"genome,loss\n{text}")
    return {
        "name": "cells",
        "space": {"name": "table", "genes": {"a": ("x", "y", "z"), "b": ["x", "y", "z"]}},
        "strategy": {"name": "random", "population": np.int64(5)},
        "evaluator": {"name": "tabular", "path": Path("cells.csv"), "metrics": {"loss": "loss"}},
        "objectives": [{"name": "loss"}],
        "stop": {"generations": 2},
    }


def test_a_mapping_is_run_into_its_folder_and_left_as_it_is(experiment: dict[str, Any]) -> None:
    before = copy.deepcopy(experiment)
    found = evonas.run(experiment, seed=3, progress=False)
    assert experiment == before
    assert found.path == Path("results/cells-seed3")
    assert len(found.evaluations) == 10
    pd.testing.assert_frame_equal(found.generations, pd.read_csv(found.path / "generations.csv"))
    assert found.best.text == found.front["genes"][0]
    assert found.experiment.seed == 3
    assert found.winner is None
    assert found.finalists.empty
    best = found.evaluations["loss"].min()
    summed = "10 evaluations in 2 generations"
    assert repr(found).startswith(f"<RunResult: results/cells-seed3, {summed}, front of ")
    assert repr(found).endswith(f": loss {best:.4g}>")
    assert found.front["key"][0] in found._repr_html_()
    assert found.figure("objectives").axes
    with pytest.raises(UserError, match=r"unknown figure 'frond' \(did you mean 'front'\?\)"):
        found.figure("frond")
    with pytest.raises(UserError, match="front cannot be drawn, since with one objective"):
        found.figure("front")
    again = evonas.RunResult("results/cells-seed3")
    assert repr(again) == repr(found)
    (found.path / "generations.csv").write_text("")
    with pytest.raises(UserError, match=r"generations.csv is damaged; write it again"):
        _ = again.generations


def test_a_path_is_run_as_the_same_mapping_is(
    experiment: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {**experiment, "strategy": {"name": "random", "population": 5}}
    plain["space"] = {"name": "table", "genes": {"a": list("xyz"), "b": list("xyz")}}
    plain["evaluator"] = {**experiment["evaluator"], "path": "cells.csv"}
    Path("cells.yaml").write_text(yaml.safe_dump(plain))
    first = evonas.run("cells.yaml", out="one")
    assert "cells" in capsys.readouterr().err
    second = evonas.run(experiment, out=Path("two"), progress=False)
    assert capsys.readouterr().err == ""
    assert (first.path, second.path) == (Path("one"), Path("two"))
    for table in ("evaluations", "generations", "front"):
        texts = [(each.path / f"{table}.csv").read_bytes() for each in (first, second)]
        assert texts[0] == texts[1]


def test_figures_that_cannot_be_drawn_lose_nothing(
    experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError("no room for pictures")

    monkeypatch.setattr(plots, "draw", broken)
    assert len(evonas.run(experiment, progress=False).evaluations) == 10


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"out": 3}, "^out: is 3; must be a path"),
        ({"out": "."}, "holds other files"),
        ({"seed": -1}, "^seed: is -1; must be a whole number of at least 0"),
    ],
)
def test_a_mistake_in_an_argument_is_told(
    change: dict[str, Any], told: str, experiment: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=told):
        evonas.run(experiment, progress=False, **change)


def test_what_is_no_run_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        evonas.RunResult(tmp_path)

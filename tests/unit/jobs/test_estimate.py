"""What an estimate counts before it measures anything."""

from __future__ import annotations

import pytest

from evonas import config
from evonas.jobs import estimate
from evonas.jobs.parts import build
from tests.helpers import ROOT


@pytest.mark.parametrize("inner", ["{name: random, population: 27}", "{name: aging}"])
def test_a_training_that_goes_on_counts_what_it_adds(inner: str) -> None:
    changes = [f"strategy={{name: halving, strategy: {inner}}}", "budget={epochs: 9}"]
    changes += ["stop={evaluations: 80}"]
    experiment = config.load(ROOT / "experiments" / "quickstart.yaml", changes)
    rehearsal = estimate._rehearse(experiment, build(experiment))
    lengths = [budget.amount for budget in rehearsal.trainings if budget is not None]
    assert len(lengths) == len(rehearsal.feasible)
    assert set(lengths) <= {1, 2, 6}
    assert lengths.count(1) > lengths.count(2) > lengths.count(6)
    assert sum(lengths) < 0.4 * 9 * len(lengths)

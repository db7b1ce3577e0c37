"""How the hours of a run are divided."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from evonas import config
from evonas.core import Budget, UserError
from evonas.experiment import Finalists
from evonas.jobs.allotment import LEAST_STEPS, MEASURED, MOST_STEPS, Sizes, allotted
from evonas.jobs.estimate import Measured, StepTimes
from evonas.jobs.hours import ending, finals_in_time
from evonas.jobs.search import _planned_anew
from evonas.training.recipe import Recipe

EXPERIMENT = """
name: timed
hours: HOURS
space: {name: nasbench201, channels: 2, cells: 1}
data: {name: digits}
strategy: {name: auto}
evaluator: {name: train}
budget: {steps: 1}
objectives: [{name: val_error}]
"""


def seconds_of(finals: Finalists) -> float:
    assert finals.budget is not None
    assert finals.budget.seconds is not None
    return finals.budget.seconds


@pytest.mark.parametrize("workers", [1, 2, 4, 9, 32])
@pytest.mark.parametrize(("hours", "spent"), [(0.02, 50.0), (1.0, 2200.0), (8.0, 20_000.0)])
def test_finals_take_the_time_that_is_left(workers: int, hours: float, spent: float) -> None:
    finals = finals_in_time(
        Finalists(), 3, hours, spent, workers=workers, usual=0.1, beside=0.2, timeout=None
    )
    rounds = math.ceil(3 * finals.seeds / workers)
    whole = spent + rounds * (seconds_of(finals) + 0.2) + ending(hours)
    assert whole == pytest.approx(3600 * hours, abs=0.1 * rounds)


def test_finals_have_fewer_seeds_before_they_are_shorter_than_a_training_of_the_search() -> None:
    finals = finals_in_time(Finalists(), 3, 0.1, 282.0, workers=1, usual=10.0, beside=0.0)
    assert finals.seeds == 2
    assert seconds_of(finals) >= 10
    late = finals_in_time(Finalists(), 3, 0.1, 400.0, workers=1, usual=10.0, beside=0.0)
    assert (late.seeds, seconds_of(late)) == (1, 1.0)


def test_no_final_is_so_long_that_it_is_ended_by_the_timeout() -> None:
    finals = finals_in_time(
        Finalists(), 3, 1.0, 1000.0, workers=9, usual=1.0, beside=5.0, timeout=100.0
    )
    assert seconds_of(finals) + 5 < 100


def test_hours_are_a_limit_of_the_search_unless_it_has_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "timed.yaml"
    path.write_text(EXPERIMENT.replace("HOURS", "2"))
    assert config.load(path).stop.seconds == 4320
    path.write_text(EXPERIMENT.replace("HOURS", "2") + "stop: {seconds: 60, evaluations: 9}\n")
    stop = config.load(path).stop
    assert (stop.seconds, stop.evaluations) == (60, 9)
    path.write_text(EXPERIMENT.replace("HOURS", "2") + "stop: {evaluations: 9}\n")
    stop = config.load(path).stop
    assert (stop.seconds, stop.evaluations) == (4320, 9)
    for wrong in ("0", "-1", "much", "true"):
        path.write_text(EXPERIMENT.replace("HOURS", wrong))
        with pytest.raises(UserError, match="hours: is"):
            config.load(path)


def test_other_hours_are_divided_anew_unless_a_part_is_named() -> None:
    assert _planned_anew(["hours=2"]) == ["stop.seconds=null", "finalists.budget=null", "hours=2"]
    assert "stop.seconds=null" not in _planned_anew(["hours=2", "stop.seconds=9"])
    assert "finalists.budget=null" not in _planned_anew(["hours=2", "finalists.budget.epochs=9"])
    assert _planned_anew(["stop.seconds=9"]) == ["stop.seconds=9"]


def timed(beside: float, step: float) -> StepTimes:
    def measured(steps: int) -> Measured:
        return Measured(True, beside + steps * step, 10**8, 0, 10, "")

    return StepTimes.of([measured(2)], [measured(12)])


SHAPE = (3, 32, 32)


def test_a_training_takes_what_it_is_given() -> None:
    sizes, recipe = Sizes(SHAPE, 10, 6000, 500), Recipe()
    allotment = allotted(timed(1.0, 0.1), sizes, recipe, 11.0)
    assert allotment.budget == Budget(steps=100)
    assert allotment.seconds == pytest.approx(11)
    assert allotment.subset is None


def test_a_training_is_neither_endless_nor_over_at_once() -> None:
    sizes, recipe = Sizes(SHAPE, 10, 6000, 500), Recipe()
    epoch = 6000 // 64
    assert allotted(timed(0.1, 0.001), sizes, recipe, 1e6).budget.steps == 30 * epoch
    small = Sizes(SHAPE, 2, 54, 18)
    assert allotted(timed(0.1, 0.001), small, recipe, 1e6).budget.steps == MOST_STEPS
    assert allotted(timed(10.0, 1.0), sizes, recipe, 1.0).budget.steps == LEAST_STEPS


def test_a_search_has_fewer_images_if_measuring_all_took_longer_than_training() -> None:
    sizes, recipe = Sizes(SHAPE, 10, 64_000, 16_000), Recipe()
    allotment = allotted(timed(0.2, 0.192), sizes, recipe, 10.0)  # 1 ms for an image
    assert allotment.subset is not None
    val = allotment.subset / 5
    assert MEASURED <= val < 16_000
    assert 0.2 + (val - MEASURED) * 0.001 <= 5.01
    assert allotment.seconds <= 10.01

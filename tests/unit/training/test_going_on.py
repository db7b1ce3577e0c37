"""Trainings that go on from their state: to the bit what they had been in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evonas import registry
from evonas.core import Budget, Candidate, Evaluation, Status, state_name
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators.cached import Cached, create
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.loop import guarded
from evonas.own import OwnSpace
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import Hardware
from evonas.training.recipe import Recipe
from genomes import Genome, SearchSpace

RUNGS = (Budget(epochs=1, horizon=4), Budget(epochs=2, horizon=4), Budget(epochs=4))
MID_EPOCH = (Budget(steps=3, horizon=17), Budget(steps=10, horizon=17), Budget(steps=17))
AUGMENTED = {"pad_crop": 1, "flip": True, "cutout": 2, "label_smoothing": 0.1, "clip": 1.0}
EVERYTHING = {
    **AUGMENTED,
    **{"warm_up": 0.3, "ema": 0.3, "pad_crop": "auto", "rand_augment": 2},
    **{"mixup": 0.2, "cutmix": 1.0},
}
ADAMW = {"optimizer": "adamw", "lr": 0.002, "schedule": "one_cycle"}


class Dropping(nn.Module):
    """Has dropout, which draws from torch's own generator, and a batch norm."""

    def __init__(self, classes: int, share: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(share), nn.Linear(24, classes))

    def forward(self, images: Tensor) -> Any:
        return self.head(self.body(images))


class Counting(Dropping):
    """Counts its batches in a plain attribute, and drops less with each."""

    batches = 0

    def forward(self, images: Tensor) -> Any:
        self.batches += self.training
        self.head[0].p = 0.5 / (1 + self.batches)
        return super().forward(images)


class Drawing(Dropping):
    """Draws from NumPy's generator."""

    def forward(self, images: Tensor) -> Any:
        noise = np.random.random() if self.training else 0.0  # noqa: NPY002  # a user's may
        return super().forward(images + noise)


def dropping(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    return Dropping(classes, pick("share", {"none": 0.0, "half": 0.5}))


def counting(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    return Counting(classes, pick("share", {"none": 0.0, "half": 0.5}))


def drawing(pick: Any, *, in_channels: int, classes: int) -> nn.Module:
    return Drawing(classes, pick("share", {"none": 0.0, "half": 0.5}))


@pytest.fixture(scope="module")
def digits() -> DataSet:
    params = DigitsParams(subset=600)
    return split(Digits(params), params)[0]


def evaluator_for(
    space: SearchSpace,
    digits: DataSet,
    folder: Path,
    rungs: tuple[Budget, ...] = RUNGS,
    network: Mapping[str, Any] | None = None,
    hardware: Hardware | None = None,
    **recipe: Any,
) -> TrainEvaluator:
    training = TrainingSetting(network or {}, digits, hardware or Hardware())
    setting = Setting(space, training=training, budget=rungs[-1])
    evaluator = TrainEvaluator(TrainParams(recipe=Recipe(**recipe)), setting)
    folder.mkdir(exist_ok=True)
    list(evaluator.prepare(folder))
    return evaluator


def asked(evaluator: TrainEvaluator, rungs: tuple[Budget, ...], rung: int) -> Evaluation:
    """Ask for the training of a rung, of which the one below has been asked for."""
    after = rungs[rung - 1] if rung else None
    candidate = Candidate(genome_of(evaluator.space), budget=rungs[rung], after=after)
    return guarded(evaluator, candidate, 7)


def genome_of(space: SearchSpace) -> Genome:
    """A network with convolutions, where the space has any."""
    return space.canonical(space.genome([min(3, count - 1) for count in space.choices]))


def file_of(evaluator: TrainEvaluator, budget: Budget) -> Path:
    assert evaluator.scratch is not None
    return evaluator.scratch / state_name(7, budget.text)


def weights_of(evaluator: TrainEvaluator, evaluation: Evaluation) -> bytes:
    assert evaluator.scratch is not None
    return (evaluator.scratch / evaluation.weights).read_bytes()


def space_of(name: str, **settings: Any) -> tuple[SearchSpace, dict[str, Any]]:
    params = registry.space(name).Params(**settings)
    return registry.make_space(params), params.model_dump(exclude={"name"})


CASES: dict[str, tuple[Callable[[], tuple[SearchSpace, dict[str, Any]]], dict[str, Any]]] = {
    "cells, augmented": (lambda: space_of("nasbench201", channels=4, cells=1), AUGMENTED),
    "cells, with everything": (
        lambda: space_of("nasbench201", channels=4, cells=1),
        EVERYTHING,
    ),
    "cells, adamw": (lambda: space_of("nasbench201", channels=4, cells=1), ADAMW),
    "auxiliary": (
        lambda: space_of("darts", channels=4, cells=3, auxiliary=True),
        {"momentum": 0.0},
    ),
    "dropout": (lambda: (OwnSpace(dropping, {}), {}), {"lr": 0.05}),
    "dropout, adamw": (lambda: (OwnSpace(dropping, {}), {}), {**ADAMW, **AUGMENTED}),
}


@pytest.mark.parametrize("rungs", [RUNGS, MID_EPOCH], ids=["epochs", "steps"])
@pytest.mark.parametrize("case", CASES)
def test_a_training_that_goes_on_is_that_in_one_go_bit_for_bit(
    case: str, rungs: tuple[Budget, ...], digits: DataSet, tmp_path: Path
) -> None:
    made, recipe = CASES[case]
    space, network = made()
    whole, parts = (
        evaluator_for(space, digits, tmp_path / name, rungs, network, **recipe)
        for name in ("whole", "parts")
    )
    in_one_go = guarded(whole, Candidate(genome_of(space), budget=rungs[-1]), 7)
    assert in_one_go.status is Status.OK, in_one_go.message
    climbed = [asked(parts, rungs, rung) for rung in range(3)]
    assert climbed[-1].values == in_one_go.values
    assert weights_of(parts, climbed[-1]) == weights_of(whole, in_one_go)
    assert climbed[0].values["val_loss"] != climbed[1].values["val_loss"]
    # Each costs what it adds.
    assert sum(each.cost.steps for each in climbed) == in_one_go.cost.steps
    assert sum(each.cost.epochs for each in climbed) == pytest.approx(in_one_go.cost.epochs)
    assert climbed[-1].cost.steps < in_one_go.cost.steps
    assert file_of(parts, rungs[0]).exists()
    assert not file_of(parts, rungs[-1]).exists()  # from there nothing goes on


@pytest.mark.parametrize("loss", ["deleted", "torn", "of another schedule"])
def test_without_its_state_a_training_begins_anew_with_the_same_result(
    loss: str, digits: DataSet, tmp_path: Path
) -> None:
    space, network = space_of("nasbench201", channels=4, cells=1)
    kept, lost = (
        evaluator_for(space, digits, tmp_path / name, network=network) for name in ("kept", "lost")
    )
    expected = [asked(kept, RUNGS, rung) for rung in (0, 1)][-1]
    asked(lost, RUNGS, 0)
    file, rungs = file_of(lost, RUNGS[0]), RUNGS
    if loss == "deleted":
        file.unlink()
    elif loss == "torn":
        content = bytearray(file.read_bytes())
        content[-300] ^= 1
        file.write_bytes(content)
    else:
        rungs = (Budget(epochs=1, horizon=3), *RUNGS[1:])
        file.rename(file_of(lost, rungs[0]))
    found = asked(lost, rungs, 1)
    assert found.values == expected.values
    assert weights_of(lost, found) == weights_of(kept, expected)
    assert (expected.cost.epochs, found.cost.epochs) == (1, 2)


@pytest.mark.parametrize("build", [counting, drawing])
def test_a_network_that_keeps_more_than_its_state_is_trained_from_the_beginning(
    build: Any, digits: DataSet, tmp_path: Path
) -> None:
    """What it counts in an attribute, or has drawn elsewhere, would be lost."""
    space = OwnSpace(build, {})
    evaluator = evaluator_for(space, digits, tmp_path, lr=0.05)
    first, second = (asked(evaluator, RUNGS, rung) for rung in (0, 1))
    assert first.status is second.status is Status.OK
    assert not file_of(evaluator, RUNGS[0]).exists()
    assert second.cost.epochs == 2


def test_only_what_is_shorter_than_the_runs_budget_leaves_a_state(
    digits: DataSet, tmp_path: Path
) -> None:
    """Finalists, and a budget that stops in mid-schedule, have nothing to go on to."""
    space, network = space_of("nasbench201", channels=4, cells=1)
    stops = (Budget(epochs=2, horizon=4),)
    evaluator = evaluator_for(space, digits, tmp_path, stops, network)
    for budget in (*stops, Budget(epochs=1), Budget(steps=3), Budget(epochs=3, horizon=4)):
        guarded(evaluator, Candidate(genome_of(space), budget=budget), 7)
    assert not list(tmp_path.rglob("*.state"))
    guarded(evaluator, Candidate(genome_of(space), budget=Budget(epochs=1, horizon=4)), 7)
    assert len(list(tmp_path.rglob("*.state"))) == 1


def test_one_whose_shorter_training_came_from_a_cache_begins_anew(
    digits: DataSet, tmp_path: Path
) -> None:
    """And what went on is the same to a cache as what did not."""
    space, network = space_of("nasbench201", channels=4, cells=1)
    create(tmp_path / "cache")
    found = []
    for name in ("first", "second", "third"):
        inner = evaluator_for(space, digits, tmp_path / name, network=network)
        cached = Cached(inner, tmp_path / "cache", tmp_path / name)
        rungs = RUNGS if name == "third" else RUNGS[:2]
        answers = []
        for rung, budget in enumerate(rungs):
            after = rungs[rung - 1] if rung else None
            candidate = Candidate(genome_of(space), budget=budget, after=after)
            answers.append(guarded(cached, candidate, 7))
        found.append(answers)
    first, second, third = found
    assert [e.cost.from_cache for e in first + second] == [False, False, True, True]
    assert [e.values for e in first] == [e.values for e in second]
    assert (third[-1].cost.from_cache, third[-1].cost.epochs) == (False, 4)
    whole = evaluator_for(space, digits, tmp_path / "whole", network=network)
    in_one_go = guarded(whole, Candidate(genome_of(space), budget=RUNGS[-1]), 7)
    assert third[-1].values == in_one_go.values


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_on_channels_last_goes_on_too(
    precision: str, digits: DataSet, tmp_path: Path
) -> None:
    space, network = space_of("nasbench201", channels=4, cells=1)
    hardware = Hardware(precision=precision, channels_last=True)
    whole, parts = (
        evaluator_for(space, digits, tmp_path / name, RUNGS, network, hardware)
        for name in ("whole", "parts")
    )
    in_one_go = guarded(whole, Candidate(genome_of(space), budget=RUNGS[-1]), 7)
    torch.manual_seed(5)  # what came between has no say
    climbed = [asked(parts, RUNGS, rung) for rung in range(3)]
    assert weights_of(parts, climbed[-1]) == weights_of(whole, in_one_go)

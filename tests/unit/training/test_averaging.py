"""The moving average of the weights: its formula, and where its weights are measured and saved."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from evonas.core import Budget, Candidate, Status
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.networks.decode import decode
from evonas.protocols import Setting, TrainingSetting
from evonas.training.averaging import Average
from evonas.training.batches import resident
from evonas.training.loop import Hardware, Trainer, measure, seeded, train
from evonas.training.norms import renew
from evonas.training.recipe import Recipe
from genomes.nasbench201 import NASBench201

SPACE = NASBench201()
GENOME = SPACE.parse("2-1-0-1-0-1")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return split(Digits(DigitsParams()), DigitsParams())[0]


def cell() -> nn.Module:
    with seeded(0, "cpu"):
        return decode(SPACE, GENOME, in_channels=1, channels=4, cells=1)


class One(nn.Module):
    """A network of one weight, with a statistic and a counter."""

    statistic: Tensor
    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([100.0]))
        self.register_buffer("statistic", torch.tensor([200.0]))
        self.register_buffer("counter", torch.tensor(0))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
        self.statistic = torch.tensor([10.0 * value])  # another tensor, as a network may do it
        self.counter += 1


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        # The weights 6, 12 and 24, of which step t counts 1 / (1 + share (t - 1)).
        (1.0, [6, 9, 14]),  # 1, 1/2, 1/3: the mean
        (0.5, [6, 10, 17]),  # 1, 2/3, 1/2
        (1e-9, [6, 12, 24]),  # hardly a memory
    ],
)
def test_after_three_steps_the_average_is_that_of_the_formula(
    share: float, expected: list[float]
) -> None:
    network = One()
    average = Average(network, share)
    for step, (value, then) in enumerate(zip((6, 12, 24), expected, strict=True), 1):
        network.set(value)
        average.update(step)
        averaged = copy.deepcopy(network)
        average.put(averaged)
        assert averaged.weight.item() == pytest.approx(then)
        assert averaged.statistic.item() == pytest.approx(10 * then)
        assert averaged.counter.item() == step
        assert network.weight.item() == value, "the training goes on from its own weights"


def test_what_a_network_is_given_is_not_the_averages_own() -> None:
    network = One()
    average = Average(network, 0.5)
    network.set(6)
    average.update(1)
    before = network.state_dict()
    average.put(network)
    network.set(50)
    assert [tensor.item() for tensor in average.state()] == [6, 60]
    assert before["weight"].item() == 6, "what has been taken as the state stays as it was"


def test_the_averaged_weights_are_measured_and_saved(digits: DataSet, tmp_path: Path) -> None:
    budget, steps = Budget(steps=12), 12
    training = TrainingSetting({"channels": 4, "cells": 1}, digits, Hardware())
    evaluator = TrainEvaluator(
        TrainParams(recipe=Recipe(ema=0.5)), Setting(SPACE, training=training)
    )
    list(evaluator.prepare(tmp_path))
    found = evaluator.evaluate(Candidate(GENOME, budget=budget), 3)
    assert found.status is Status.OK

    data = resident(digits, CPU)
    with seeded(3, "cpu"):
        network = evaluator.build(GENOME)
        trainer = Trainer(network, data, Recipe(), 3, Hardware())
        expected = [p.detach().clone() for p in network.parameters()]
        for step, rows in enumerate(trainer.epoch()[:steps], 1):
            trainer.step(rows, (step - 1) / steps)
            for each, now in zip(expected, network.parameters(), strict=True):
                each += (now.detach() - each) / (1 + 0.5 * (step - 1))
    assert evaluator.scratch is not None
    saved = load_file(evaluator.scratch / found.weights)
    last = dict(network.named_parameters())
    for name, each in zip(last, expected, strict=True):
        torch.testing.assert_close(saved[name], each, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(saved["stem.0.weight"], last["stem.0.weight"])
    # The statistics that are measured anew are those of the averaged network.
    with torch.no_grad():
        for now, each in zip(network.parameters(), expected, strict=True):
            now.copy_(each)
    renew(network, data, Recipe(), steps, 64, Hardware())
    torch.testing.assert_close(
        saved["stem.1.running_mean"], network.state_dict()["stem.1.running_mean"]
    )
    by_hand = measure(network, data.val, data, Hardware(), 256)
    assert found.values["val_loss"] == pytest.approx(by_hand["loss"], rel=1e-4)


def test_the_average_of_a_training_in_bfloat16_is_in_float32(digits: DataSet) -> None:
    hardware = Hardware(precision="bfloat16", channels_last=True)
    trainer = Trainer(hardware.place(cell()), resident(digits, CPU), Recipe(ema=0.1), 0, hardware)
    trainer.step(trainer.epoch()[0], 0.0)
    assert trainer.average is not None
    assert {tensor.dtype for tensor in trainer.average.state()} == {torch.float32}
    [first, *_] = trainer.average.state()
    assert first.stride() == next(trainer.network.parameters()).stride()


def test_without_it_nothing_is_averaged_or_saved(digits: DataSet) -> None:
    trainer = Trainer(cell(), resident(digits, CPU), Recipe(), 0, Hardware())
    assert trainer.average is None
    assert set(trainer.state_dict()) == {"network", "optimizer", "generator", "steps"}
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.put_average(trainer.network)
    after = trainer.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_averaging_changes_no_step(digits: DataSet) -> None:
    data, losses = resident(digits, CPU), []
    for recipe in (Recipe(), Recipe(ema=0.3)):
        trainer = Trainer(cell(), data, recipe, 3, Hardware())
        losses.append([trainer.step(rows, 0.0).item() for rows in trainer.epoch()[:6]])
    assert losses[0] == losses[1]


def test_where_the_schedule_stops_half_way_the_average_is_better(digits: DataSet) -> None:
    """The last weights still jump about, at a high learning rate."""
    data, errors = resident(digits, CPU), []
    for recipe in (Recipe(ema=0.0), Recipe(ema=0.2)):
        network = cell()
        train(network, data, recipe, Budget(steps=120, horizon=480), 1, Hardware())
        errors.append(measure(network, data.val, data, Hardware(), 256)["loss"])
    assert errors[1] < errors[0]

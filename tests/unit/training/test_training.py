"""The training loop and the evaluator around it, on real digits and small networks."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from evonas import config
from evonas.core import Budget, Candidate, Evaluation, Status, weights_name
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators import train as train_evaluator
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.loop import guarded
from evonas.networks.decode import decode
from evonas.protocols import Setting, TrainingSetting
from evonas.training.batches import Resident, ResidentData, ranges, resident
from evonas.training.batches import augmented as augmented_by
from evonas.training.loop import (
    CHECK_EVERY,
    Hardware,
    Trainer,
    Training,
    measure,
    train,
    training_loss,
)
from evonas.training.norms import renew, stale
from evonas.training.recipe import Recipe, lr_factor
from genomes import Genome
from genomes.nasbench201 import NASBench201
from tests.helpers import ROOT

SPACE = NASBench201()
GOOD = SPACE.parse("3-3-3-1-3-2")
SMALL = SPACE.parse("2-1-0-1-0-1")


Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return split(Digits(DigitsParams()), DigitsParams())[0]


@pytest.fixture(scope="module")
def on_cpu(digits: DataSet) -> ResidentData:
    return resident(digits, torch.device("cpu"))


@pytest.fixture
def evaluator(digits: DataSet, tmp_path: Path) -> TrainEvaluator:
    return evaluator_for(digits, tmp_path)


def evaluator_for(digits: DataSet, run_dir: Path, **recipe: Any) -> TrainEvaluator:
    evaluator = TrainEvaluator(
        TrainParams(recipe=Recipe(**recipe)),
        Setting(SPACE, training=TrainingSetting({"channels": 4, "cells": 1}, digits, Hardware())),
    )
    list(evaluator.prepare(run_dir))
    return evaluator


def evaluated(
    evaluator: TrainEvaluator, seed: int = 0, genome: Genome = SMALL, **budget: Any
) -> Evaluation:
    return evaluator.evaluate(Candidate(genome, budget=Budget(**budget or {"steps": 6})), seed)


def weights_file(evaluator: TrainEvaluator, seed: int = 0, **budget: Any) -> Path:
    assert evaluator.scratch is not None
    return evaluator.scratch / weights_name(seed, Budget(**budget or {"steps": 6}).text)


def perceptron(seed: int = 0) -> nn.Module:
    """A network without batch norm."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def after_each_step(look: Callable[[Optimizer], None]) -> Iterator[None]:
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: look(optimizer))
    try:
        yield
    finally:
        handle.remove()


# Determinism


def test_the_same_seed_gives_the_same_values_and_weights_bit_for_bit(
    evaluator: TrainEvaluator,
) -> None:
    first = evaluated(evaluator, seed=1)
    weights = weights_file(evaluator, seed=1).read_bytes()
    evaluated(evaluator, seed=2, genome=GOOD, steps=2)  # what came between has no say
    torch.manual_seed(99)
    again = evaluated(evaluator, seed=1)
    assert first.status is Status.OK
    assert dict(again.values) == dict(first.values)
    assert weights_file(evaluator, seed=1).read_bytes() == weights
    assert first.deterministic


def test_augmentation_follows_the_seed_too(digits: DataSet, tmp_path: Path) -> None:
    evaluator = evaluator_for(digits, tmp_path, pad_crop=1, flip=True, cutout=2)
    values = [dict(evaluated(evaluator, seed=seed).values) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_another_seed_gives_other_weights(evaluator: TrainEvaluator) -> None:
    one, other = evaluated(evaluator, seed=1), evaluated(evaluator, seed=2)
    assert one.values["val_loss"] != other.values["val_loss"]
    assert not equal(*(load_file(weights_file(evaluator, seed=seed)) for seed in (1, 2)))


def test_the_order_of_the_batches_follows_the_seed(on_cpu: ResidentData) -> None:
    weights: list[Weights] = []
    for seed in (1, 1, 2):
        network = perceptron()
        train(network, on_cpu, Recipe(), Budget(steps=3), seed, Hardware())
        weights.append(network.state_dict())
    assert equal(weights[0], weights[1])
    assert not equal(weights[0], weights[2])


def test_an_evaluation_leaves_torchs_own_generator_as_it_was(evaluator: TrainEvaluator) -> None:
    before = torch.random.get_rng_state()
    evaluator.cheap(GOOD)
    evaluated(evaluator)
    assert torch.equal(torch.random.get_rng_state(), before)


# Budgets


@pytest.mark.parametrize(
    ("budget", "batch_size", "steps"),
    [
        ({"steps": 1}, 64, 1),
        ({"steps": 23}, 64, 23),
        ({"epochs": 1}, 64, 16),  # 1,079 images: the 55 left over are no batch
        ({"epochs": 3}, 64, 48),
        ({"epochs": 3}, 360, 6),
        ({"epochs": 2}, 65_536, 2),  # all images are one batch
    ],
)
def test_a_budget_is_met_to_the_step(
    on_cpu: ResidentData, budget: dict[str, int], batch_size: int, steps: int
) -> None:
    counted: list[Optimizer] = []
    with after_each_step(counted.append):
        recipe = Recipe(batch_size=batch_size)
        done = train(perceptron(), on_cpu, recipe, Budget(**budget), 0, Hardware())
    assert len(counted) == done.steps == steps
    if "epochs" in budget:
        assert done.epochs == budget["epochs"]


def test_an_epoch_is_of_whole_batches_and_shows_no_image_twice() -> None:
    seen: list[list[float]] = []

    class Watching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.flatten().tolist())
            return super().forward(x.flatten(1) / 100)

    part = Resident(torch.arange(50).view(50, 1, 1, 1), torch.arange(50) % 2)
    data = ResidentData(
        part, part, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), False, 2, (0, 50)
    )
    train(Watching(1, 2), data, Recipe(batch_size=16), Budget(epochs=2), 0, Hardware())
    assert [len(batch) for batch in seen] == [16] * 6
    first, second = ([x for batch in seen[i : i + 3] for x in batch] for i in (0, 3))
    assert len(set(first)) == len(set(second)) == 48
    assert first != second


def test_a_budget_of_seconds_ends_in_time_and_is_not_deterministic(
    evaluator: TrainEvaluator,
) -> None:
    evaluated(evaluator, steps=1)  # the first step of a process takes longer
    evaluation = evaluated(evaluator, seconds=0.5)
    assert evaluation.status is Status.OK
    assert not evaluation.deterministic
    assert 0.5 <= evaluation.cost.training_seconds < 2.5  # a step takes some 20 ms
    assert evaluation.cost.steps > 0


def test_an_evaluation_says_what_it_took(evaluator: TrainEvaluator) -> None:
    started = time.time()
    cost = guarded(evaluator, Candidate(SMALL, budget=Budget(epochs=1)), 0).cost
    assert started <= cost.started <= time.time()
    assert cost.worker == os.getpid()
    assert (cost.steps, cost.epochs, cost.attempts) == (16, 1.0, 1)
    assert 0 < cost.training_seconds <= cost.seconds


def test_a_candidate_without_a_budget_is_refused(evaluator: TrainEvaluator) -> None:
    with pytest.raises(ValueError, match="needs a budget"):
        evaluator.evaluate(Candidate(SMALL), 0)


def trained(evaluator: TrainEvaluator, budget: Budget, at: int) -> Weights:
    """The weights after so many steps of a training under a budget."""
    network: list[nn.Module] = []
    kept: list[Weights] = []
    steps = 0

    def keep(_: Optimizer) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            kept.append({name: t.clone() for name, t in network[0].state_dict().items()})

    torch.manual_seed(5)
    network.append(evaluator.build(SMALL))
    data = resident(evaluator.data, torch.device("cpu"))
    with after_each_step(keep):
        train(network[0], data, evaluator.recipe, budget, 7, Hardware())
    return kept[0]


@pytest.mark.parametrize(
    ("short", "long", "steps"),
    [
        (Budget(steps=5, horizon=20), Budget(steps=10, horizon=20), 5),
        (Budget(epochs=1, horizon=4), Budget(epochs=2, horizon=4), 16),
    ],
    ids=["steps", "epochs"],
)
def test_a_longer_budget_of_the_same_horizon_begins_with_the_steps_of_a_shorter_one(
    digits: DataSet, tmp_path: Path, short: Budget, long: Budget, steps: int
) -> None:
    evaluator = evaluator_for(digits, tmp_path, pad_crop=1, cutout=2)
    assert equal(trained(evaluator, short, steps), trained(evaluator, long, steps))


def test_a_budget_of_another_horizon_takes_other_steps(evaluator: TrainEvaluator) -> None:
    budgets = Budget(steps=5), Budget(steps=10)  # a budget's own length is its horizon
    assert not equal(*(trained(evaluator, budget, 5) for budget in budgets))


# Learning


def test_five_epochs_teach_a_good_network_the_digits(digits: DataSet, tmp_path: Path) -> None:
    evaluation = evaluated(evaluator_for(digits, tmp_path), genome=GOOD, epochs=5)
    assert evaluation.status is Status.OK
    assert evaluation.values["val_error"] <= 0.10
    assert evaluation.values["val_top5_error"] <= evaluation.values["val_error"]
    assert evaluation.values["val_loss"] < 0.5


EVERYTHING: dict[str, Any] = {
    **{"warm_up": 0.1, "label_smoothing": 0.1, "ema": 0.1, "pad_crop": "auto", "cutout": 2},
    **{"rand_augment": 2, "mixup": 0.2, "cutmix": 1.0, "clip": 5.0, "flip": True},
}


def test_with_all_that_a_recipe_has_a_good_network_still_learns(
    digits: DataSet, tmp_path: Path
) -> None:
    recipe = {**EVERYTHING, "flip": False}
    evaluation = evaluated(evaluator_for(digits, tmp_path, **recipe), genome=GOOD, epochs=8)
    assert evaluation.status is Status.OK
    assert evaluation.values["val_error"] <= 0.4  # by chance it would be 0.9


def test_all_that_a_recipe_has_follows_the_seed(digits: DataSet, tmp_path: Path) -> None:
    evaluator = evaluator_for(digits, tmp_path, **EVERYTHING)
    values = [dict(evaluated(evaluator, seed=seed).values) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_a_network_without_a_path_learns_nothing_and_is_still_measured(
    evaluator: TrainEvaluator,
) -> None:
    evaluation = evaluated(evaluator, genome=SPACE.parse("0-0-0-0-0-0"), epochs=1)
    assert evaluation.status is Status.OK
    assert 0.85 < evaluation.values["val_error"] < 0.95  # ten classes


def test_every_metric_of_a_good_evaluation_is_there(evaluator: TrainEvaluator) -> None:
    values = evaluated(evaluator).values
    assert set(values) == {metric.name for metric in evaluator.metrics}
    assert {name: values[name] for name in ("params", "flops")} == evaluator.cheap(SMALL)


class Viewing(nn.Module):
    """A network whose features are viewed, which those with the channels last cannot be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4 * 6 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = nn.functional.dropout(self.norm(self.first(x)), 0.1, self.training)
        logits: Tensor = self.classifier(features.view(-1, 4 * 6 * 6))
        return logits


def test_a_network_that_views_its_features_is_trained_with_the_channels_first(
    evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "build", lambda genome: Viewing())
    first = evaluated(evaluator, seed=3)
    monkeypatch.setattr(evaluator, "hardware", Hardware(channels_last=True))
    assert evaluated(evaluator, seed=3).values == first.values
    network = Viewing()
    assert not Hardware(channels_last=True).suited_to(network, (1, 8, 8)).channels_last
    assert network.training
    assert network.first.weight.is_contiguous()


def test_a_network_of_the_spaces_is_trained_with_the_channels_last(
    evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluated(evaluator, genome=GOOD, steps=30).values
    monkeypatch.setattr(evaluator, "hardware", Hardware(channels_last=True))
    formats = set()

    def look(optimizer: Optimizer) -> None:
        for p in optimizer.param_groups[0]["params"]:
            if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1:
                formats.add((p.is_contiguous(), p.grad.is_contiguous()))

    with after_each_step(look):
        after = evaluated(evaluator, genome=GOOD, steps=30).values
    assert formats == {(False, False)}
    assert after["val_loss"] == pytest.approx(before["val_loss"], abs=0.1)


def test_in_bfloat16_weights_statistics_and_loss_stay_in_float32(on_cpu: ResidentData) -> None:
    hardware = Hardware(precision="bfloat16", channels_last=True)
    network = hardware.place(decode(SPACE, SMALL, in_channels=1, channels=4, cells=1))
    seen: list[torch.dtype] = []
    network.stem.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer = Trainer(network, on_cpu, Recipe(), 0, hardware)
    assert trainer.step(trainer.epoch()[0], 0.0).dtype == torch.float32
    assert seen == [torch.bfloat16]
    state = network.state_dict().values()
    assert {t.dtype for t in state if t.is_floating_point()} == {torch.float32}
    logits, label = torch.tensor([[8.0, 8.03125, 0.0]], dtype=torch.bfloat16), torch.tensor([1])
    exact = nn.functional.cross_entropy(logits.float(), label)
    with hardware.autocast():
        assert training_loss(logits, label, Recipe()) == exact


def test_the_winner_is_tested_in_float32_as_it_will_run_whatever_it_was_trained_in(
    evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch, digits: DataSet
) -> None:
    evaluated(evaluator, genome=GOOD, steps=30)
    weights = weights_file(evaluator, steps=30)
    exact = evaluator.test(GOOD, weights, digits.val)
    monkeypatch.setattr(evaluator, "hardware", Hardware(precision="bfloat16"))
    assert evaluator.test(GOOD, weights, digits.val) == exact


def test_measure_counts_as_one_would_by_hand() -> None:
    n = 456  # more than go at once
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 10)).astype(np.float32)
    labels = rng.integers(0, 10, n)
    part = Resident(torch.tensor(logits).view(n, 10, 1, 1), torch.tensor(labels))
    data = ResidentData(
        part, part, torch.zeros(1, 10, 1, 1), torch.ones(1, 10, 1, 1), False, 10, (-5, 5)
    )
    found = measure(nn.Flatten(), part, data, Hardware(), 256)

    above = (logits > logits[np.arange(n), labels][:, None]).sum(axis=1)
    assert found["error"] == pytest.approx((above >= 1).mean())
    assert found["top5_error"] == pytest.approx((above >= 5).mean())
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    by_hand = -np.log(probabilities[np.arange(n), labels]).mean()
    assert found["loss"] == pytest.approx(by_hand, rel=1e-5)


def test_measuring_leaves_a_network_as_it_was(on_cpu: ResidentData) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    first, again = (measure(network, on_cpu.val, on_cpu, Hardware(), 256) for _ in range(2))
    assert first == again
    assert equal(network.state_dict(), before)


# Weights


def test_saved_weights_measure_as_the_network_did(evaluator: TrainEvaluator) -> None:
    evaluation = evaluated(evaluator, genome=GOOD, epochs=1)
    assert evaluator.scratch is not None
    assert [file.name for file in evaluator.scratch.iterdir()] == [evaluation.weights]
    found = evaluator.test(GOOD, evaluator.scratch / evaluation.weights, evaluator.data.val)
    assert {f"val_{name}": value for name, value in found.items()} == {
        name: evaluation.values[name] for name in ("val_error", "val_top5_error", "val_loss")
    }


# Batch norms of short trainings


@pytest.mark.parametrize(
    ("momentum", "steps", "is_stale"),
    [(0.1, 99, True), (0.1, 100, False), (0.5, 19, True), (0.5, 20, False), (None, 10_000, True)],
)
def test_statistics_are_stale_after_few_steps_for_their_momentum(
    momentum: float | None, steps: int, is_stale: bool
) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=momentum), nn.Linear(2, 2))
    assert stale(network, steps) == is_stale
    assert not stale(nn.BatchNorm2d(1, track_running_stats=False), 1)
    assert not stale(nn.Linear(2, 2), 1)


def test_a_short_training_is_scored_with_statistics_measured_anew_and_saved_with_them(
    digits: DataSet, tmp_path: Path
) -> None:
    losses, counted, identities = [], [], []
    for batches in (0, 4):
        evaluator = evaluator_for(digits, tmp_path, recalibrate=batches)
        evaluation = evaluated(evaluator, genome=GOOD, steps=8)
        losses.append(evaluation.values["val_loss"])
        assert evaluator.scratch is not None
        saved = evaluator.scratch / evaluation.weights
        counted.append(int(load_file(saved)["stem.1.num_batches_tracked"]))
        assert evaluator.test(GOOD, saved, digits.val)["loss"] == losses[-1]
        identities.append(evaluator.identity(evaluation.candidate, 0))
    assert losses[1] < losses[0]
    assert counted == [8, 4]
    assert identities[0] != identities[1], "a cache never takes one for the other"


def test_statistics_of_a_long_training_are_left_as_they_are(on_cpu: ResidentData) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(64, 10))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    renew(network, on_cpu, Recipe(), 100, 64, Hardware())
    assert equal(network.state_dict(), before)
    random = torch.random.get_rng_state()
    renew(network, on_cpu, Recipe(), 99, 64, Hardware())
    assert not equal(network.state_dict(), before)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_run_folder_from_before_goes_on_as_it_began(tmp_path: Path) -> None:
    old = config.load_run(ROOT / "tests/assets/0.1.0/search")
    assert old.evaluator.recipe.recalibrate == 0  # type: ignore[attr-defined]  # evaluator train
    new = config.load(ROOT / "tests/assets/0.1.0/search/config.yaml")  # as an experiment
    assert new.evaluator.recipe.recalibrate == 20  # type: ignore[attr-defined]  # evaluator train
    for experiment in (old, new):
        (tmp_path / "config.yaml").write_text(config.dump(experiment))
        assert config.load_run(tmp_path) == experiment
    supernet = config.load_run(ROOT / "tests/assets/0.1.0/supernet").evaluator
    assert not supernet.within_constraints  # type: ignore[attr-defined]  # evaluator supernet
    assert supernet.recipe.recalibrate == 0  # type: ignore[attr-defined]  # of its finalists


# Failures


def poisoned(evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the evaluator build networks with weights that are NaN."""
    build = evaluator.build

    def broken(genome: Genome) -> nn.Module:
        network = build(genome)
        with torch.no_grad():
            next(network.parameters()).fill_(math.nan)
        return network

    monkeypatch.setattr(evaluator, "build", broken)


def test_a_loss_that_is_nan_ends_the_training_as_diverged(
    evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(evaluator, monkeypatch)
    evaluation = evaluated(evaluator, steps=10_000)
    assert evaluation.status is Status.DIVERGED
    assert evaluation.cost.steps == CHECK_EVERY  # and not all of them
    assert evaluation.values == evaluator.cheap(SMALL)
    assert set(evaluation.values) == {"params", "flops"}
    assert evaluation.message == f"the loss was NaN or infinite after {CHECK_EVERY} steps"
    assert evaluation.deterministic
    assert evaluation.weights == ""
    assert not weights_file(evaluator, steps=10_000).exists()


def test_a_loss_that_is_nan_at_the_last_of_a_few_steps_is_found(
    evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(evaluator, monkeypatch)
    assert evaluated(evaluator, steps=1).status is Status.DIVERGED


def test_a_learning_rate_that_is_far_too_high_diverges(on_cpu: ResidentData) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 10))
    done = train(network, on_cpu, Recipe(lr=100), Budget(steps=10_000), 0, Hardware())
    assert done.diverged
    assert done.steps < 200


def test_weights_that_only_the_last_step_made_nan_are_found(
    evaluator: TrainEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_nan(network: nn.Module, *arguments: Any, **options: Any) -> Training:
        done = train(network, *arguments, **options)
        with torch.no_grad():
            next(network.parameters()).fill_(math.nan)
        return done

    monkeypatch.setattr(train_evaluator, "train", to_nan)
    evaluation = evaluated(evaluator)
    assert evaluation.status is Status.DIVERGED
    assert evaluation.values == evaluator.cheap(SMALL)


class Fake:
    """Stands for `train`: raises what it is given, call by call, and then trains."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.micro_batches: list[int] = []

    def __call__(self, *arguments: Any, micro_batch: int, **rest: Any) -> Training:
        self.micro_batches.append(micro_batch)
        if self.errors:
            raise self.errors.pop(0)
        return train(*arguments, micro_batch=micro_batch, **rest)


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def install(*errors: Exception) -> Fake:
        fake = Fake(*errors)
        monkeypatch.setattr(train_evaluator, "train", fake)
        return fake

    return install


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(out_of_memory(), id="CUDA"),
        pytest.param(MemoryError(), id="Python"),
        pytest.param(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
            id="CPU",
        ),
    ],
)
def test_out_of_memory_is_tried_again_with_half_the_images_at_a_time(
    evaluator: TrainEvaluator, faked: Callable[..., Fake], error: Exception
) -> None:
    fake = faked(error)
    evaluation = evaluated(evaluator)
    assert fake.micro_batches == [64, 32]
    assert evaluation.status is Status.OK
    assert set(evaluation.values) == {metric.name for metric in evaluator.metrics}
    assert not evaluation.deterministic


def test_a_training_that_fits_is_not_halved(
    evaluator: TrainEvaluator, faked: Callable[..., Fake]
) -> None:
    fake = faked()
    assert evaluated(evaluator).deterministic
    assert fake.micro_batches == [64]


def test_out_of_memory_twice_is_a_status_with_cheap_values_only(
    evaluator: TrainEvaluator, faked: Callable[..., Fake]
) -> None:
    fake = faked(out_of_memory(), out_of_memory())
    evaluation = evaluated(evaluator)
    assert fake.micro_batches == [64, 32]
    assert evaluation.status is Status.OUT_OF_MEMORY
    assert evaluation.values == evaluator.cheap(SMALL)
    assert evaluation.message == "out of memory at 32 images at a time"
    assert not evaluation.deterministic
    assert not weights_file(evaluator).exists()


def test_another_error_is_raised_on(evaluator: TrainEvaluator, faked: Callable[..., Fake]) -> None:
    fake = faked(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        evaluated(evaluator)
    assert fake.micro_batches == [64]


# Micro-batches


def after_steps(on_cpu: ResidentData, recipe: Recipe, micro_batch: int | None) -> Weights:
    network = perceptron()
    train(network, on_cpu, recipe, Budget(steps=5), 3, Hardware(), micro_batch=micro_batch)
    return network.state_dict()


@pytest.mark.parametrize("micro_batch", [32, 24, 1])
def test_a_few_images_at_a_time_add_up_to_the_same_steps(
    on_cpu: ResidentData, micro_batch: int
) -> None:
    recipe = Recipe(label_smoothing=0.1)
    whole = after_steps(on_cpu, recipe, None)
    parts = after_steps(on_cpu, recipe, micro_batch)
    start = perceptron().state_dict()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-6)
        assert (whole[name] - start[name]).abs().max() > 1e-3


def test_a_few_augmented_images_at_a_time_add_up_to_the_same_steps(on_cpu: ResidentData) -> None:
    recipe = Recipe(pad_crop=2)
    whole, parts = (after_steps(on_cpu, recipe, micro_batch) for micro_batch in (None, 32))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-6)


# The learning rate


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("cosine", {0.0: 1.0, 1 / 3: 0.75, 0.5: 0.5, 1.0: 0.0}),
        ("one_cycle", {0.0: 0.01 / 0.26, 0.125: 0.135 / 0.26, 0.25: 1.0, 0.5: 2 / 3, 1.0: 0.0}),
        ("constant", {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
    ],
)
def test_the_learning_rate_has_the_shape_of_its_schedule(
    schedule: str, factors: dict[float, float]
) -> None:
    for progress, factor in factors.items():
        assert lr_factor(schedule, progress) == pytest.approx(factor, abs=1e-12)
    own = 0.25 if schedule == "one_cycle" else 0.0
    steps = [step / 97 for step in range(98)]
    rates = [[lr_factor(schedule, step, warm_up) for step in steps] for warm_up in (None, own)]
    assert rates[0] == rates[1]
    assert lr_factor(schedule, -0.5) == lr_factor(schedule, 0.0)
    assert lr_factor(schedule, 1.5) == lr_factor(schedule, 1.0)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [("cosine", {0.49: 1.0, 0.7: 0.5, 1.0: 0.0}), ("one_cycle", {0.7: 0.5}), ("constant", {})],
)
def test_in_a_warm_up_the_learning_rate_rises_in_a_line_before_the_rest_of_the_schedule(
    schedule: str, after: dict[float, float]
) -> None:
    for progress in (0.0, 0.1, 0.2, 0.3):
        assert lr_factor(schedule, progress, 0.4) == pytest.approx((progress + 0.01) / 0.41)
    assert lr_factor(schedule, 0.4, 0.4) == pytest.approx(1.0)
    for progress, factor in after.items():
        # The rest is the schedule as it would be without a warm-up, in the time that is left.
        expected = lr_factor(schedule, (progress - 0.4) / 0.6, 0.0)
        assert lr_factor(schedule, progress, 0.4) == pytest.approx(expected)
        assert expected == pytest.approx(factor, abs=0.06)


def test_the_optimizer_follows_a_warm_up(on_cpu: ResidentData) -> None:
    rates: list[float] = []
    with after_each_step(lambda o: rates.append(o.param_groups[0]["lr"])):
        recipe = Recipe(lr=0.2, warm_up=0.5)
        train(perceptron(), on_cpu, recipe, Budget(steps=8), 0, Hardware())
    assert rates[:5] == pytest.approx([0.2 * (step / 8 + 0.01) / 0.51 for step in range(4)] + [0.2])
    assert rates[5:] == pytest.approx([0.2 * lr_factor("cosine", i / 4) for i in (1, 2, 3)])


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
def test_the_optimizer_follows_the_schedule_over_the_horizon(
    on_cpu: ResidentData, schedule: str
) -> None:
    rates: list[list[float]] = []
    with after_each_step(lambda o: rates.append([group["lr"] for group in o.param_groups])):
        recipe = Recipe(lr=0.2, schedule=schedule)
        train(perceptron(), on_cpu, recipe, Budget(steps=4, horizon=8), 0, Hardware())
    assert rates == [[0.2 * lr_factor(schedule, step / 8)] * 2 for step in range(4)]


def test_weight_decay_is_for_weights_and_not_for_biases(on_cpu: ResidentData) -> None:
    decays: dict[int, float] = {}

    def look(optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            decays.update({p.ndim: group["weight_decay"] for p in group["params"]})

    with after_each_step(look):
        train(perceptron(), on_cpu, Recipe(weight_decay=0.3), Budget(steps=1), 0, Hardware())
    assert decays == {2: 0.3, 1: 0.0}


# Augmentation


def images(n: int, side: int = 8) -> Tensor:
    """Images, (n, 2, side, side), whose pixels are all different and none 0."""
    return torch.arange(1, n * 2 * side * side + 1).float().view(n, 2, side, side)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmented(images: Tensor, recipe: Recipe, flip: bool, generator: torch.Generator) -> Tensor:
    highs = ranges(recipe, flip, images.shape)
    draws = [torch.randint(high, (len(images),), generator=generator) for high in highs]
    return augmented_by(images, recipe, flip, draws)


def test_nothing_asked_changes_nothing() -> None:
    before = images(5)
    assert torch.equal(augmented(before.clone(), Recipe(), False, generator()), before)


@pytest.mark.parametrize(("side", "pad"), [(7, 0), (8, 1), (28, 3), (32, 4)])
def test_an_automatic_crop_is_an_eighth_of_the_image(side: int, pad: int) -> None:
    before = images(3, side)
    auto, given = (
        augmented(before, Recipe(pad_crop=pixels), False, generator()) for pixels in ("auto", pad)
    )
    assert torch.equal(auto, given)
    assert torch.equal(auto, before) == (pad == 0)


@pytest.mark.parametrize("pad", [1, 3])
def test_a_crop_shifts_an_image_by_the_padding_at_most(pad: int) -> None:
    n, side = 400, 8
    before = images(n, side)
    after = augmented(before, Recipe(pad_crop=pad), False, generator())
    padded = nn.functional.pad(before, (pad, pad, pad, pad))
    shifts = range(2 * pad + 1)
    found = {
        (i, down, right)
        for down in shifts
        for right in shifts
        for i in range(n)
        if torch.equal(after[i], padded[i, :, down : down + side, right : right + side])
    }
    assert sorted(i for i, _, _ in found) == list(range(n))  # each is shifted, in one way
    assert {(down, right) for _, down, right in found} == {(d, r) for d in shifts for r in shifts}


def test_a_mirrored_batch_holds_each_image_or_its_mirror_image() -> None:
    before = images(100)
    after = augmented(before, Recipe(), True, generator())
    same = (after == before).all(dim=(1, 2, 3))
    mirrored = (after == before.flip(3)).all(dim=(1, 2, 3))
    assert torch.equal(same, ~mirrored)
    assert 30 < int(mirrored.sum()) < 70


def holes(side: int, n: int = 2000, size: int = 8) -> Tensor:
    """Where images are cut out, (n, size, size)."""
    before = images(n, size)
    after = augmented(before, Recipe(cutout=side), False, generator())
    cut = after == 0
    assert torch.equal(after[~cut], before[~cut])  # all else is as it was
    assert torch.equal(cut[:, 0], cut[:, 1])  # in all channels
    return cut[:, 0]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 8])
def test_a_cutout_is_one_square_or_what_of_it_lies_inside(side: int) -> None:
    cut = holes(side)
    heights = cut.any(dim=2).sum(dim=1)
    widths = cut.any(dim=1).sum(dim=1)
    assert torch.equal(cut.sum(dim=(1, 2)), heights * widths)  # a rectangle
    for rows in (cut.any(dim=2), cut.any(dim=1)):
        edges = rows.int().diff(dim=1, prepend=torch.zeros(len(rows), 1)).clamp(min=0).sum(dim=1)
        assert (edges == 1).all()  # in one piece
    assert int(heights.max()) == int(widths.max()) == side
    assert int(heights.min()) >= 1


@pytest.mark.parametrize("side", [3, 5])
def test_a_cutout_falls_on_no_side_more_often_than_on_the_other(side: int) -> None:
    """Its middle is drawn uniformly (DeVries and Taylor, 2017)."""
    by_row = holes(side).any(dim=2).float().mean(dim=0)
    assert float(by_row[0]) == pytest.approx(float(by_row[-1]), abs=0.06)


@pytest.mark.parametrize(
    "recipe", [Recipe(pad_crop=2), Recipe(cutout=3), Recipe(pad_crop=2, cutout=3)]
)
def test_the_generator_alone_decides_what_is_drawn(recipe: Recipe) -> None:
    before = images(20)
    torch.manual_seed(1)
    first = augmented(before, recipe, True, generator(4))
    torch.manual_seed(2)
    assert torch.equal(augmented(before, recipe, True, generator(4)), first)
    assert not torch.equal(augmented(before, recipe, True, generator(5)), first)


@pytest.mark.parametrize(
    ("flip", "flippable", "mirrored"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_images_are_mirrored_where_the_recipe_or_else_the_data_set_says_so(
    on_cpu: ResidentData, flip: bool | None, flippable: bool, mirrored: bool
) -> None:
    data = replace(on_cpu, flippable=flippable)
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = perceptron()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            out: Tensor = self.inner(x)
            return out

    train(Watching(), data, Recipe(flip=flip), Budget(steps=1), 0, Hardware())
    originals = {row.numpy().tobytes() for row in data.normalised(data.train.images)}
    new = [image for image in seen[0] if image.numpy().tobytes() not in originals]
    assert (len(new) > 10) == mirrored  # of 64


def test_data_on_a_device_are_as_flippable_as_the_data_set(digits: DataSet) -> None:
    for flippable in (False, True):
        data = replace(digits, flippable=flippable)
        assert resident(data, torch.device("cpu")).flippable == flippable

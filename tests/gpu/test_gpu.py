"""What only a GPU can show: `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from evonas import config
from evonas.cli import app
from evonas.core import Budget, Candidate, Status
from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators.cached import Cached, create
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.jobs.full_training import resume, settings_for, start
from evonas.networks.decode import decode
from evonas.protocols import Setting, TrainingSetting
from evonas.records.folder import environment
from evonas.training import gpu
from evonas.training.batches import resident
from evonas.training.loop import Hardware, Trainer, seeded
from evonas.training.recipe import Recipe
from genomes import NASBench201
from tests.helpers import ROOT
from tests.helpers.changing import Changing

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SPACE = NASBench201()
MIXED = Recipe(warm_up=0.1, ema=0.2, pad_crop="auto", rand_augment=2, mixup=0.2, cutmix=1.0)


def evaluator(precision: str, batch_size: int = 64, channels: int = 8) -> TrainEvaluator:
    params = DigitsParams()
    data, _ = split(Digits(params), params)
    return TrainEvaluator(
        TrainParams(recipe=Recipe(batch_size=batch_size)),
        Setting(
            SPACE,
            training=TrainingSetting(
                {"channels": channels, "cells": 1},
                data,
                Hardware("cuda", precision, precision == "bfloat16"),
            ),
        ),
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_values(precision: str) -> None:
    candidate = Candidate(SPACE.parse("3-3-3-1-3-2"), budget=Budget(epochs=3))
    first, second = (evaluator(precision).evaluate(candidate, 5) for _ in range(2))
    assert first.status is Status.OK
    assert first.values == second.values
    assert first.values["val_error"] < 0.2


def test_a_run_on_the_gpu_is_the_same_with_one_worker_and_with_two(tmp_path: Path) -> None:
    tables = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        command = ["run", str(ROOT / "experiments" / "quickstart.yaml"), "--out", str(out)]
        command += ["--device", "cuda:0", "--workers", str(workers)]
        command += ["--set", "stop.generations=2", "--set", "finalists.top=0"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        tables.append((out / "evaluations.csv").read_bytes())
        assert (pd.read_csv(out / "evaluations.csv")["status"] == "ok").all()
    assert tables[0] == tables[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_full_training_resumed_on_the_gpu_has_the_same_curve(
    tmp_path: Path, precision: str
) -> None:
    loaded = config.load(ROOT / "experiments" / "quickstart.yaml")
    overrides = ["epochs=3", "parallel.device='cuda:0'", f"parallel.precision={precision}"]
    settings = settings_for(loaded, "3-3-3-1-3-2", overrides)
    with start(settings, tmp_path / "whole") as training:
        assert len(list(training)) == 3
    with start(settings, tmp_path / "resumed") as training:
        next(iter(training))
    with resume(tmp_path / "resumed") as training:
        assert len(list(training)) == 2
        training.finish()
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("whole", "resumed")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", [Recipe(pad_crop=1), Recipe(optimizer="adamw", lr=2e-3), MIXED])
def test_a_training_that_goes_on_is_that_in_one_go(
    recipe: Recipe, precision: str, tmp_path: Path
) -> None:
    rungs = (Budget(steps=5, horizon=60), Budget(steps=20, horizon=60), Budget(steps=60))
    answers = {}
    for name, climbed in (("whole", rungs[-1:]), ("parts", rungs)):
        made = evaluator(precision)
        setting = Setting(SPACE, training=made.training, budget=rungs[-1])
        made = TrainEvaluator(TrainParams(recipe=recipe), setting)
        (tmp_path / name).mkdir()
        list(made.prepare(tmp_path / name))
        after = None
        for budget in climbed:
            candidate = Candidate(SPACE.parse("3-3-3-1-3-2"), budget=budget, after=after)
            answers[name], after = made.evaluate(candidate, 5), budget
    assert answers["parts"].values == answers["whole"].values
    assert answers["parts"].cost.steps == 40


def test_a_cache_gives_what_the_gpu_has_trained(tmp_path: Path) -> None:
    inner = evaluator("bfloat16")
    create(tmp_path / "cache")
    list(inner.prepare(tmp_path))
    cached = Cached(inner, tmp_path / "cache", tmp_path)
    candidate = Candidate(SPACE.parse("3-3-3-1-3-2"), budget=Budget(steps=5))
    first, second = (cached.evaluate(candidate, 5) for _ in range(2))
    assert (first.cost.from_cache, second.cost.from_cache) == (False, True)
    assert first.values == second.values


def trained(
    recipe: Recipe, precision: str = "float32", *, capture: bool, network: nn.Module | None = None
) -> tuple[list[float], Trainer]:
    """The losses of 40 steps on the digits, and what trained."""
    params = DigitsParams()
    data = resident(split(Digits(params), params)[0], torch.device("cuda"))
    hardware = Hardware("cuda", precision, precision == "bfloat16")
    gpu.take()
    with seeded(0, "cuda"):
        network = network or decode(
            SPACE, SPACE.parse("3-3-3-1-3-2"), in_channels=1, channels=8, cells=1
        )
        hardware.place(network)
    trainer = Trainer(network, data, recipe, 1, hardware, capture=capture)
    rows = [each for _ in range(4) for each in trainer.epoch()][:40]
    losses = [trainer.step(each, i / 40).clone() for i, each in enumerate(rows)]
    return torch.stack(losses).tolist(), trainer


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(pad_crop=1, flip=True, cutout=2, clip=1.0),
        Recipe(optimizer="adamw", lr=2e-3),
    ],
)
def test_a_replayed_training_is_the_same_twice_and_close_to_one_step_by_step(
    recipe: Recipe, precision: str
) -> None:
    (first, trainer), (second, _) = (trained(recipe, precision, capture=True) for _ in range(2))
    assert trainer.captured is not None
    assert trainer.captured.refusal == ""
    assert trainer.captured._replay is not None
    assert first == second
    plain, _ = trained(recipe, precision, capture=False)
    assert first[0] == plain[0]
    # The optimizers round differently (fused or not), so they part slowly.
    assert first[:10] == pytest.approx(plain[:10], rel=0.05)
    assert sum(first[-5:]) < 0.7 * sum(first[:5])


@pytest.mark.parametrize("how", ["module", "function", "python", "counts", "waits"])
def test_a_network_whose_steps_differ_is_trained_step_by_step(how: str) -> None:
    losses, trainer = trained(Recipe(lr=0.01), capture=True, network=Changing(how))
    assert trainer.captured is not None
    assert trainer.captured.refusal
    assert all(map(math.isfinite, losses))
    # The process can still record, and draw random numbers.
    losses, trainer = trained(Recipe(), capture=True)
    assert trainer.captured is not None
    assert trainer.captured.refusal == ""
    assert torch.rand(1, device="cuda").isfinite()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_mixed_images_and_averaged_weights_are_new_in_each_replay(precision: str) -> None:
    (first, trainer), (second, other), (plain, _) = (
        trained(MIXED, precision, capture=capture) for capture in (True, True, False)
    )
    assert trainer.captured is not None
    assert trainer.captured.refusal == ""
    assert first == second
    assert first[:10] == pytest.approx(plain[:10], rel=0.05)
    for each in (trainer, other):
        before = nn.utils.parameters_to_vector(each.network.parameters()).clone()
        each.put_average(each.network)
        assert not torch.equal(before, nn.utils.parameters_to_vector(each.network.parameters()))
    averaged = [nn.utils.parameters_to_vector(x.network.parameters()) for x in (trainer, other)]
    assert torch.equal(*averaged)


@pytest.mark.parametrize("recipe", [Recipe(pad_crop=1, cutout=2), MIXED])
def test_an_epoch_waits_for_nothing(recipe: Recipe) -> None:
    _, trainer = trained(recipe, capture=True)
    _, plain = trained(recipe, capture=False)
    rows = [each.epoch() for each in (trainer, plain)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for each, batches in zip((trainer, plain), rows, strict=True):
            for batch in batches:
                each.step(batch, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_is_given_back_between_networks(tmp_path: Path) -> None:
    candidate = Candidate(SPACE.parse("3-3-3-1-3-2"), budget=Budget(steps=20))
    small = evaluator("bfloat16")
    small.evaluate(candidate, 0)
    before = torch.cuda.memory_reserved()
    assert evaluator("bfloat16", batch_size=512, channels=64).evaluate(candidate, 0).status == "ok"
    small.evaluate(candidate, 0)
    assert torch.cuda.memory_reserved() <= before + 2**26  # what libraries keep, once


def test_how_many_processes_share_the_gpu_is_measured_and_recorded(tmp_path: Path) -> None:
    command = ["run", str(ROOT / "experiments" / "quickstart.yaml"), "--out", str(tmp_path / "run")]
    for setting in ("parallel.workers=auto", "stop.generations=1", "finalists.top=0"):
        command += ["--set", setting]
    result = CliRunner().invoke(app, [*command, "--device", "cuda:0"])
    assert result.exit_code == 0, result.output
    parallel = config.load_run(tmp_path / "run").parallel
    assert parallel.workers == parallel.per_device
    assert parallel.per_device in (1, 2, 4, 8)
    rates = environment(tmp_path / "run")["images_per_second"]
    assert all(rate > 0 for rate in rates.values())


def test_too_large_a_batch_is_halved_and_then_given_up() -> None:
    free, _ = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**28 / free))  # 256 MiB
    try:
        candidate = Candidate(SPACE.parse("3-3-3-3-3-3"), budget=Budget(steps=2))
        found = evaluator("float32", batch_size=1024, channels=512).evaluate(candidate, 0)
        assert found.status is Status.OUT_OF_MEMORY
        assert not found.deterministic
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("name", ["digits_darts_second", "digits_gdas", "digits_spos"])
def test_what_is_trained_for_all_is_the_same_twice(name: str, tmp_path: Path) -> None:
    tables = []
    for place in ("first", "second"):
        out = tmp_path / place
        command = ["run", str(ROOT / "experiments" / f"{name}.yaml"), "--out", str(out)]
        command += ["--device", "cuda:0", "--workers", "1"]
        for setting in ("stop.generations=2", "finalists.top=0"):
            command += ["--set", setting]
        if name == "digits_spos":
            command += ["--set", "evaluator.epochs=2"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        tables.append((out / "evaluations.csv").read_bytes())
        assert (pd.read_csv(out / "evaluations.csv")["status"] == "ok").all()
    assert tables[0] == tables[1]

"""What only a GPU can show: `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from evonas import config
from evonas.cli import app
from evonas.core import Budget, Candidate, Status
from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators.cached import Cached, create
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.jobs.full_training import resume, settings_for, start
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import Hardware
from evonas.training.recipe import Recipe
from genomes import NASBench201
from tests.helpers import ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SPACE = NASBench201()


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


def test_a_cache_gives_what_the_gpu_has_trained(tmp_path: Path) -> None:
    inner = evaluator("bfloat16")
    create(tmp_path / "cache")
    list(inner.prepare(tmp_path))
    cached = Cached(inner, tmp_path / "cache", tmp_path)
    candidate = Candidate(SPACE.parse("3-3-3-1-3-2"), budget=Budget(steps=5))
    first, second = (cached.evaluate(candidate, 5) for _ in range(2))
    assert (first.cost.from_cache, second.cost.from_cache) == (False, True)
    assert first.values == second.values


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

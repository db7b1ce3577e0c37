"""What a candidate changes in its process, no other one notices."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evonas import interrupts
from evonas.contained import contained
from evonas.core import Candidate, Evaluation, Status, UserError
from evonas.evaluators import worker
from evonas.evaluators.pool import Workers
from evonas.own import OwnSpace
from genomes import NASBench201
from tests.helpers.faults import Counting

CANDIDATE = Candidate(NASBench201().parse("1-1-1-1-1-1"))

Read = Callable[[], Any]
CHANGES: dict[str, tuple[Callable[[], object], Read]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "device": (lambda: torch.set_default_device("meta"), lambda: torch.ones(1).device),
    "threads": (lambda: torch.set_num_threads(3), torch.get_num_threads),
    "deterministic": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "autocast": (
        lambda: torch.set_autocast_enabled("cpu", True),
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "denormals": (
        lambda: torch.set_flush_denormal(True),
        lambda: sys.float_info.min / 2 == 0,
    ),
    "cudnn": (
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: torch.backends.cudnn.benchmark,
    ),
    "hooks": (
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: torch.zeros(1)),
        lambda: float(torch.nn.Flatten()(torch.ones(1, 1))),
    ),
    "torch's generator": (lambda: torch.manual_seed(7), lambda: torch.initial_seed()),
    "random's generator": (lambda: random.seed(7), random.getstate),
    "numpy's generator": (
        lambda: np.random.seed(7),  # noqa: NPY002
        lambda: np.random.get_state()[1].tolist(),  # noqa: NPY002
    ),
    "numpy's errors": (lambda: np.seterr(all="raise"), np.geterr),
    "environment": (
        lambda: os.environ.update(PATH="", NEW_ONE="1"),
        lambda: dict(os.environ),
    ),
    "folder": (lambda: os.chdir("/"), os.getcwd),
    "umask": (lambda: os.umask(0o777), lambda: (os.umask(0o22), os.umask(0o22))),
    "signals": (
        lambda: signal.signal(signal.SIGTERM, lambda *_: None),
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "mask": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ),
    "alarm": (lambda: signal.alarm(60), lambda: signal.getitimer(signal.ITIMER_REAL)[0]),
    "warnings": (lambda: warnings.simplefilter("error"), lambda: list(warnings.filters)),
    "path": (lambda: sys.path.insert(0, "/nowhere"), lambda: list(sys.path)),
    "output": (lambda: setattr(sys, "stdout", None), lambda: sys.stdout),
    "recursion": (lambda: sys.setrecursionlimit(5000), sys.getrecursionlimit),
    "garbage": (gc.disable, gc.isenabled),
}


@pytest.fixture(autouse=True)
def safe(tmp_path: Path) -> Iterator[None]:
    """Puts back what a failing test would leave."""
    os.umask(0o22)
    with contained(0):
        yield


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_is_put_back(name: str) -> None:
    change, read = CHANGES[name]
    before = read()
    with contained(3):
        change()
        assert read() != before
    assert read() == before


def test_it_is_put_back_after_any_end() -> None:
    def change() -> None:
        with contained(3):
            torch.set_default_dtype(torch.float64)
            raise GeneratorExit

    with pytest.raises(GeneratorExit):
        change()
    assert torch.get_default_dtype() == torch.float32


def test_global_generators_begin_with_the_seed_whatever_came_before() -> None:
    def drawn(seed: int) -> tuple[float, ...]:
        with contained(seed):
            return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    assert drawn(2**63 - 1) == drawn(2**63 - 1)
    assert len({*drawn(1), *drawn(2)}) == 6


class Changing(Counting):
    """Changes the working directory and environment, and answers with what it finds."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        found = torch.ones(1).dtype is torch.float32 and "CHANGED" not in os.environ
        torch.set_default_dtype(torch.float64)
        os.environ["CHANGED"] = "1"
        os.chdir("/")
        return Evaluation(candidate, {"value": float(found), "size": 1})


def test_a_worker_evaluates_each_candidate_as_if_it_were_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        answer = worker.work(Changing(), CANDIDATE, 1, Path("trace"), None)
        assert answer.status is Status.OK
        assert answer.values["value"] == 1
        assert not list(tmp_path.iterdir())


def test_what_tests_a_network_is_undisturbed_too(tmp_path: Path) -> None:
    assert worker.apart(os.chdir, "/") is None
    assert Path.cwd() != Path("/")
    with pytest.raises(FileNotFoundError):
        worker.apart(os.chdir, tmp_path / "nowhere")


def wandering(pick: Any, *, in_channels: int, classes: int) -> torch.nn.Module:
    os.chdir("/")
    if pick("op", {"a": 1, "b": 2}) == 2:
        raise KeyboardInterrupt
    return torch.nn.Linear(in_channels, classes)


def test_a_space_whose_function_misbehaves_is_refused_and_changes_nothing() -> None:
    refused = pytest.raises(UserError, match="wandering raised KeyboardInterrupt with op=b")
    with refused, interrupts.heard():
        OwnSpace(wandering, {})
    assert Path.cwd() != Path("/")


def test_files_are_found_wherever_a_network_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workers = Workers(Path("scratch"), 1)
    monkeypatch.chdir("/")
    assert workers.trace(1).parent.is_dir()

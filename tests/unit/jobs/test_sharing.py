"""How many processes share a GPU: decided from readings, here fakes, and real ones on the CPU."""

from __future__ import annotations

import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import torch

from evonas import config
from evonas.core import UserError
from evonas.evaluators.pool import Workers
from evonas.experiment import Experiment
from evonas.jobs import machine, search, sharing
from evonas.jobs.sharing import Reading, chosen, measured
from tests.helpers import ROOT


def rising(rates: dict[int, float], memory: int = 0, total: int = 0) -> tuple[int, list[int]]:
    """The number that is chosen by these readings, and those that were tried."""
    found, readings = chosen(lambda count: Reading(rates[count], memory, total), limit=16)
    return found, list(readings)


def test_processes_are_doubled_as_long_as_they_train_more_images_per_second() -> None:
    assert rising({1: 100, 2: 190, 4: 350, 8: 600}) == (8, [1, 2, 4, 8])
    assert rising({1: 100, 2: 190, 4: 200, 8: 900}) == (2, [1, 2, 4])
    assert rising({1: 100, 2: 90}) == (1, [1, 2])
    assert rising({1: 0, 2: 0}) == (1, [1, 2])  # nothing could be trained


def test_no_more_processes_are_tried_than_the_memory_holds() -> None:
    doubling = {1: 1, 2: 2, 4: 4, 8: 8}
    assert rising(doubling, memory=10, total=100) == (8, [1, 2, 4, 8])
    assert rising(doubling, memory=12, total=100) == (4, [1, 2, 4])
    assert rising(doubling, memory=50, total=100) == (1, [1])


def test_no_more_processes_are_tried_than_there_are_cores() -> None:
    assert chosen(lambda count: Reading(count), limit=3)[0] == 2
    assert chosen(lambda count: Reading(count), limit=0)[0] == 1


def quickstart(*overrides: str) -> Experiment:
    experiment = config.load(ROOT / "experiments" / "quickstart.yaml", overrides)
    parallel = machine.resolve(experiment.parallel)
    return experiment.model_copy(update={"parallel": parallel})


def test_networks_are_trained_to_decide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, with real workers; the second reading is made up, so that it ends there."""
    real, counts = sharing._reading, []

    def reading(experiment: Experiment, *rest: object) -> Reading:
        counts.append((experiment.parallel.workers, experiment.parallel.per_device))
        return real(experiment, *rest) if len(counts) == 1 else Reading(0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(sharing, "_reading", reading)
    monkeypatch.setattr(sharing.joblib, "cpu_count", lambda: 2)
    experiment, rates = measured(quickstart("parallel.device=cpu"), seconds=(0.1, 0.2))
    assert counts == [(1, 1), (2, 2)]
    assert rates["1"] > 100  # images per second
    assert (experiment.parallel.per_device, experiment.parallel.workers) == (1, 1)


@pytest.mark.parametrize("error", [BrokenProcessPool, TimeoutError])
def test_processes_that_die_or_hang_train_no_images(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Failed(Workers):
        def submit(self, *_: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(error())
            return future

    monkeypatch.setattr(machine, "Workers", Failed)
    monkeypatch.setattr(sharing.joblib, "cpu_count", lambda: 2)
    experiment, rates = measured(quickstart("parallel.device=cpu"))
    assert (experiment.parallel.per_device, rates) == (1, {"1": 0.0, "2": 0.0})


def test_an_evaluator_that_trains_nothing_by_itself_gets_one_process() -> None:
    experiment = config.load(ROOT / "experiments" / "digits_spos.yaml", ["parallel.device=cpu"])
    resolved = machine.resolve(experiment.parallel)
    experiment, rates = measured(experiment.model_copy(update={"parallel": resolved}))
    assert (experiment.parallel.per_device, rates) == (1, {})


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "workers", "per_device"),
    [
        ("{workers: auto, per_device: 3}", 6, 3),
        ("{workers: 5}", 5, 3),
        ("{workers: 5, per_device: 1}", 5, 1),
        ("{workers: auto}", 2, "auto"),  # still to be measured
    ],
)
def test_workers_follow_from_how_many_share_a_gpu(
    asked: str, workers: int, per_device: int | str
) -> None:
    found = quickstart(f"parallel={asked}").parallel
    assert (found.workers, found.per_device) == (workers, per_device)


@pytest.mark.usefixtures("two_gpus")
def test_a_run_records_how_many_share_a_gpu_and_a_resume_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decided(experiment: Experiment) -> tuple[Experiment, dict[str, float]]:
        parallel = experiment.parallel.model_copy(update={"per_device": 4, "workers": 8})
        return experiment.model_copy(update={"parallel": parallel}), {"1": 10.0, "2": 19.0}

    monkeypatch.setattr(sharing, "measured", decided)
    monkeypatch.setattr(machine, "mps_runs", lambda: False)
    experiment = config.load(ROOT / "experiments" / "quickstart.yaml", ["parallel.workers=auto"])
    with search.start(experiment, tmp_path / "run") as run:
        assert (run._workers.count, run._workers.per_device) == (8, 4)
    noted = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert noted["images_per_second"] == {"1": 10.0, "2": 19.0}
    assert noted["mps"] is False
    assert "multi-process service does not run, so the 4 processes" in caplog.text
    monkeypatch.setattr(sharing, "measured", lambda _: pytest.fail("measured again"))
    with search.resume(tmp_path / "run") as run:
        assert (run._workers.count, run._workers.per_device) == (8, 4)


@pytest.mark.usefixtures("two_gpus")
def test_a_mistake_in_the_data_leaves_no_folder_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(_: Experiment) -> tuple[Experiment, dict[str, float]]:
        raise UserError("is missing", key="data.path")

    monkeypatch.setattr(sharing, "measured", mistaken)
    experiment = config.load(ROOT / "experiments" / "quickstart.yaml", ["parallel.workers=auto"])
    for _ in range(2):
        with pytest.raises(UserError, match=r"data.path: is missing"):
            search.start(experiment, tmp_path / "run").__enter__()


def test_a_run_from_before_has_one_process_a_gpu(tmp_path: Path) -> None:
    experiment = quickstart("parallel.device=cpu")
    text = config.dump(experiment)
    assert "per_device" in text
    old = "\n".join(line for line in text.splitlines() if "per_device" not in line)
    (tmp_path / "config.yaml").write_text(old)
    assert config.load_run(tmp_path).parallel.per_device == 1


@pytest.mark.parametrize(
    ("script", "running"),
    [
        ("echo 100.0", True),
        ("echo 'Cannot find MPS control daemon process'", False),
        ("exit 1", False),
        (None, False),
    ],
)
def test_whether_cudas_service_runs_is_asked_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, running: bool
) -> None:
    command = tmp_path / "nvidia-cuda-mps-control"
    if script is not None:
        command.write_text(f"#!/bin/sh\nread question\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "pipes"))
    assert machine.mps_runs() is running


def test_in_a_container_the_services_folder_tells_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert machine.mps_runs()

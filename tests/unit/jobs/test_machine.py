"""Where a worker trains: decided from what the machine has, here with fakes."""

from __future__ import annotations

import multiprocessing
import platform
from pathlib import Path

import pytest
import torch

from evonas import config
from evonas.contained import contained
from evonas.core import UserError
from evonas.evaluators import worker
from evonas.evaluators.worker import gpu_of
from evonas.experiment import ParallelParams
from evonas.jobs.machine import gpus, resolve, take_gpu, visible
from evonas.training import gpu
from tests.helpers import ROOT
from tests.helpers.faults import claim, see


def fake_gpus(monkeypatch: pytest.MonkeyPatch, count: int, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)


def resolved(*overrides: str) -> ParallelParams:
    experiment = config.load(ROOT / "experiments" / "quickstart.yaml", overrides)
    return resolve(experiment.parallel)


def fake_cpu(monkeypatch: pytest.MonkeyPatch, machine: str, *capabilities: str) -> None:
    fake_gpus(monkeypatch, 0)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))


@pytest.mark.parametrize(
    ("machine", "capabilities", "precision", "channels_last"),
    [
        ("x86_64", ["avx512_f"], "float32", True),
        ("x86_64", ["avx512_f", "avx512_bf16"], "float32", True),
        ("AMD64", ["amx_tile", "amx_bf16"], "bfloat16", True),
        ("arm64", [], "float32", False),
    ],
)
def test_without_a_gpu_precision_and_layout_go_by_the_processor(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    capabilities: list[str],
    precision: str,
    channels_last: bool,
) -> None:
    fake_cpu(monkeypatch, machine, *capabilities)
    found = resolved("parallel.workers=auto")
    assert (found.device, found.precision) == ("cpu", precision)
    assert found.channels_last == channels_last
    assert isinstance(found.workers, int)
    assert found.workers >= 1


def test_what_a_run_began_with_outlives_a_change_of_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_cpu(monkeypatch, "x86_64", "amx_bf16")
    begun = resolved()
    fake_cpu(monkeypatch, "arm64")
    assert resolve(begun) == begun


def test_with_gpus_there_is_a_worker_for_each_and_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 4)
    found = resolved("parallel.workers=auto")
    assert (found.device, found.precision, found.channels_last) == ("cuda", "bfloat16", True)
    assert found.workers == 4
    assert gpus(found.device) == ("0", "1", "2", "3")


def test_an_old_gpu_gets_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 1, bf16=False)
    assert resolved().precision == "float32"


def test_what_the_user_decides_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 4)
    found = resolved("parallel={device: 'cuda:1,3', precision: float32, workers: 6}")
    assert (found.device, found.precision, found.workers) == ("cuda:1,3", "float32", 6)
    assert gpus(found.device) == ("1", "3")


@pytest.mark.parametrize(("there", "asked"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_gpu_that_is_not_there_is_the_users_mistake(
    monkeypatch: pytest.MonkeyPatch, there: int, asked: str
) -> None:
    fake_gpus(monkeypatch, there)
    with pytest.raises(
        UserError, match=f"^parallel.device: is {asked}, but torch sees {there} GPUs; allowed: cpu"
    ):
        resolved(f"parallel.device='{asked}'")


def test_workers_go_round_the_gpus() -> None:
    assert [gpu_of(slot, ("1", "3")) for slot in range(5)] == ["1", "3", "1", "3", "1"]


def test_each_worker_has_a_slot_and_a_dead_ones_is_free_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = []
    for expected in range(3):
        ours, theirs = context.Pipe()
        process = context.Process(target=claim, args=(tmp_path, 3, theirs))
        process.start()
        assert ours.recv() == expected
        held.append((process, ours))
    held[1][0].kill()
    held[1][0].join()
    ours, theirs = context.Pipe()
    process = context.Process(target=claim, args=(tmp_path, 3, theirs))
    process.start()
    assert ours.recv() == 1
    for each, pipe in [held[0], held[2], (process, ours)]:
        pipe.send(None)
        each.join()


def test_a_worker_sees_one_gpu_alone_and_its_share_of_the_memory(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    seen, held = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=see, args=(tmp_path, theirs))
        process.start()
        seen.append(ours.recv())
        held.append((process, ours))
    assert seen == [("1", "0.45"), ("3", "0.45")]
    for process, pipe in held:
        pipe.send(None)
        process.join()


def test_gpus_are_those_that_the_user_lets_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-1a2b")
    assert visible(["0", "2"]) == ("4", "GPU-1a2b")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible(["0", "2"]) == ("0", "2")


def test_a_process_allocates_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    with contained(0):
        for share in ("", "0.45"):
            monkeypatch.setenv(worker.SHARE, share)
            gpu.take()
        assert torch.are_deterministic_algorithms_enabled()
    assert shares == [0.45]
    assert worker.SHARE == gpu.SHARE


@pytest.mark.parametrize(("device", "first"), [("cuda", 0), ("cuda:2,1", 2), ("cpu", None)])
def test_what_the_driver_trains_is_on_the_first_gpu_named(
    monkeypatch: pytest.MonkeyPatch, device: str, first: int | None
) -> None:
    taken: list[int] = []
    fake_gpus(monkeypatch, 3)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    take_gpu(device)
    assert taken == ([] if first is None else [first])

"""The machine: what an experiment leaves to it is decided here, and what a run runs on."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import torch

import evonas
from evonas.core import UserError
from evonas.evaluators.pool import Workers
from evonas.experiment import ParallelParams
from evonas.markdown import counted
from evonas.provenance import processor
from evonas.training import gpu
from evonas.training.loop import Hardware

PACKAGES = ("evonas", "torch", "numpy", "pandas", "deap", "moocore", "joblib", "scikit-learn")


def resolve(settings: ParallelParams) -> ParallelParams:
    """Return the settings with `auto` decided: device, precision, memory format and workers.

    If `workers` and `per_device` are both `auto` and there are GPUs, each gets one worker, and
    `per_device` stays `auto`: what it is takes measuring (`jobs.sharing`).

    Raises:
        UserError: the machine lacks a GPU that the settings name.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    missing = [gpu for gpu in gpus(device) if int(gpu) >= torch.cuda.device_count()]
    if device != "cpu" and (missing or not torch.cuda.is_available()):
        count = torch.cuda.device_count()
        allowed = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        raise UserError(
            f"is {device}, but torch sees {counted(count, 'GPU')}",
            hint=f"allowed: {allowed}",
            key="parallel.device",
        )
    precision = settings.precision
    if precision == "auto":
        supported = cpu_is_fast_in_bfloat16() if device == "cpu" else torch.cuda.is_bf16_supported()
        precision = "bfloat16" if supported else "float32"
    channels_last = settings.channels_last
    if channels_last is None:
        channels_last = precision == "bfloat16" or (device == "cpu" and has_onednn())
    workers = settings.workers
    per_device = settings.per_device
    if workers == "auto" and settings.backend == "loky":
        each = 1 if per_device == "auto" else per_device
        workers = joblib.cpu_count() if device == "cpu" else each * len(gpus(device))
    elif workers != "auto" and device != "cpu" and per_device == "auto":
        per_device = math.ceil(workers / len(gpus(device)))
    update = {
        "device": device,
        "precision": precision,
        "channels_last": channels_last,
        "workers": workers,
        "per_device": per_device,
    }
    return settings.model_copy(update=update)


def cpu_is_fast_in_bfloat16() -> bool:
    """Return whether the processor is faster in bfloat16 than in float32, which asks for AMX.

    With AVX512-BF16 alone, convolutions take longer than in float32 (`docs/performance.md`).
    """
    if not has_onednn() or not hasattr(torch.cpu, "get_capabilities"):  # which torch 2.10 lacks
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def has_onednn() -> bool:
    """Return whether convolutions run in oneDNN, which is made for channels that come last."""
    made_for_it = platform.machine().lower() in ("x86_64", "amd64")
    return made_for_it and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # torch's types lack it


def hardware(settings: ParallelParams) -> Hardware:
    """Return the hardware of a training; the settings must be resolved."""
    return Hardware(
        device="cpu" if settings.device == "cpu" else "cuda",
        precision=settings.precision,
        channels_last=bool(settings.channels_last),
        threads=settings.threads,
    )


def workers(folder: Path, settings: ParallelParams) -> Workers:
    """Return worker processes on this machine, with traces in `folder`, for resolved settings.

    With a cluster, there is one, for what is not evaluated there.
    """
    return Workers(
        folder,
        1 if settings.workers == "auto" else settings.workers,
        threads=settings.threads,
        gpus=visible(gpus(settings.device)),
        per_device=1 if settings.per_device == "auto" else settings.per_device,
    )


def gpus(device: str) -> tuple[str, ...]:
    """Return torch's numbers of the GPUs in `cuda:0,1`; all for `cuda`, none for `cpu`."""
    if device == "cpu":
        return ()
    _, _, numbers = device.partition(":")
    if numbers:
        return tuple(numbers.split(","))
    return tuple(map(str, range(torch.cuda.device_count())))


def visible(gpus: Sequence[str]) -> tuple[str, ...]:
    """Return the names of GPUs in CUDA_VISIBLE_DEVICES, or their numbers if it is not set."""
    names = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    return tuple(names[int(gpu)] for gpu in gpus) if names else tuple(gpus)


def take_gpu(device: str) -> None:
    """Let this process train, repeatably, on the first GPU of `device`, if it names any."""
    if device == "cpu":
        return
    torch.cuda.set_device(int(gpus(device)[0]))
    gpu.take()


def mps_runs() -> bool:
    """Return whether CUDA's multi-process service runs, which lets processes compute at once.

    Each process uses it by itself if it runs.
    """
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:  # its folder may be that of a machine around this container
        folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
        return (Path(folder) / "control").exists()
    asked = "get_default_active_thread_percentage\n"
    try:
        answer = subprocess.run(
            [control], input=asked, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "Cannot find" not in answer.stdout + answer.stderr


def environment(*, deterministic: bool) -> dict[str, Any]:
    """Return what a run runs on, and whether a repetition is expected to give the same tables."""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "deterministic": deterministic,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpus": names,
        **({"mps": mps_runs()} if names else {}),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout that evonas runs from; None if it is none."""
    git = shutil.which("git")
    root = Path(evonas.__file__).parent.parent
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "rev-parse", "HEAD"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.stdout.strip() or None

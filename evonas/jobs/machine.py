"""The machine: what an experiment leaves to it is decided here, and what a run runs on."""

from __future__ import annotations

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
from evonas.config import ParallelParams
from evonas.core import UserError
from evonas.evaluators.pool import Workers
from evonas.markdown import counted
from evonas.provenance import processor
from evonas.training.loop import Hardware

PACKAGES = ("evonas", "torch", "numpy", "pandas", "deap", "moocore", "joblib", "scikit-learn")


def resolve(settings: ParallelParams) -> ParallelParams:
    """Return the settings with `auto` decided: device, precision, memory format and workers.

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
        on_gpu = device != "cpu" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if on_gpu else "float32"
    channels_last = settings.channels_last
    if channels_last is None:
        channels_last = precision == "bfloat16"
    workers = settings.workers
    if workers == "auto" and settings.backend == "loky":
        workers = joblib.cpu_count() if device == "cpu" else len(gpus(device))
    update = {
        "device": device,
        "precision": precision,
        "channels_last": channels_last,
        "workers": workers,
    }
    return settings.model_copy(update=update)


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
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.cuda.set_device(int(gpus(device)[0]))


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

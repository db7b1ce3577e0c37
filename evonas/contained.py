"""What a candidate changes in its process is put back after it, so that no other one notices."""

from __future__ import annotations

import decimal
import gc
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np


class Setting(NamedTuple):
    """A setting of the process: how it is read and put back, and what it is at first, if known."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    first: Any = None


@contextmanager
def contained(seed: int) -> Iterator[None]:
    """Put the settings of this process back at the end, as far as they were changed within.

    These are settings of Python, NumPy and torch, their global generators, the environment, the
    working directory, signals and warnings. The generators begin with the seed, since a network
    that draws from them would else depend on what its process has evaluated before.

    A module that changes a setting where it is imported must have been imported before: it would
    do so for the first candidate alone.
    """
    before = [(setting, setting.read()) for setting in _python()]
    loaded = "torch" in sys.modules
    if loaded:
        before += [(setting, setting.read()) for setting in _torch()]
    generators = random.getstate(), np.random.get_state()  # noqa: NPY002  # candidates may use it
    with _torch_seeded(seed), warnings.catch_warnings():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm would end the process later on
            if not loaded and "torch" in sys.modules:
                before += [(each, each.first) for each in _torch() if each.first is not None]
            for setting, value in before:
                if setting.read() != value:
                    setting.write(value)
            random.setstate(generators[0])
            np.random.set_state(generators[1])  # noqa: NPY002


@contextmanager
def _torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators, and put them back at the end, if torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


def _python() -> list[Setting]:
    context = decimal.getcontext()
    return [
        Setting(lambda: dict(os.environ), _set_environment),
        Setting(_folder, _set_folder),
        Setting(_umask, os.umask),
        Setting(_handlers, _set_handlers),
        Setting(
            lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        ),
        Setting(lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
        *(_attribute(sys, name) for name in ("stdin", "stdout", "stderr", "excepthook")),
        *(_attribute(context, name) for name in ("prec", "rounding")),
        Setting(sys.getrecursionlimit, sys.setrecursionlimit),
        Setting(sys.gettrace, sys.settrace),
        Setting(gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
        Setting(np.geterr, lambda errors: np.seterr(**errors)),
    ]


def _torch() -> list[Setting]:
    torch = sys.modules["torch"]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cpu = torch.device("cpu")
    module = torch.nn.modules.module
    hooks = [name for name in vars(module) if name.startswith("_global_") and "hooks" in name]
    return [
        Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        Setting(
            torch.get_default_device,
            lambda device: torch.set_default_device(None if device == cpu else device),
            cpu,
        ),
        Setting(
            torch.get_num_threads,
            torch.set_num_threads,
            int(threads) if threads.isdecimal() else None,
        ),
        Setting(
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda mode: torch.use_deterministic_algorithms(mode[0], warn_only=mode[1]),
            (False, False),
        ),
        Setting(torch.is_grad_enabled, torch._C._set_grad_enabled, True),
        Setting(torch.is_anomaly_enabled, torch.set_anomaly_enabled, False),
        Setting(
            lambda: torch.is_autocast_enabled("cpu"),
            lambda enabled: torch.set_autocast_enabled("cpu", enabled),
            False,
        ),
        Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        Setting(_flushes_denormals, torch.set_flush_denormal, False),
        *(_attribute(torch.backends.cudnn, name) for name in CUDNN),
        Setting(
            lambda: [dict(getattr(module, name)) for name in hooks],
            lambda values: [
                (getattr(module, name).clear(), getattr(module, name).update(value))
                for name, value in zip(hooks, values, strict=True)
            ],
        ),
    ]


CUDNN = ("enabled", "benchmark", "deterministic", "allow_tf32")


def _attribute(owner: object, name: str) -> Setting:
    return Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _set_environment(values: dict[str, str]) -> None:
    for name in os.environ.keys() - values.keys():
        del os.environ[name]
    os.environ.update(values)


def _folder() -> str | None:
    with suppress(OSError):  # it may be gone
        return os.getcwd()
    return None


def _set_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _flushes_denormals() -> bool:
    return sys.float_info.min / 2 == 0.0

"""The code that runs inside a worker process, which watches itself and its driver."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from evonas import files, interrupts, plugins
from evonas.contained import contained
from evonas.core import Candidate, Evaluation, SearchFailed
from evonas.loop import guarded
from evonas.protocols import Evaluator
from evonas.records.files import log_to
from evonas.training.allocation import give_back_memory, keep_freed_memory

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
TIMED_OUT = b"Timeout ("  # how faulthandler heads the dump of a process that it ends
GRACE = 5.0  # seconds past a timeout, after which the driver ends the worker
NEVER = 2.0**31 - 1  # seconds; a time of files that is later than any

SHARE = "EVONAS_GPU_SHARE"  # see `training.gpu`, which would import torch here
USABLE = 0.9  # of a GPU's memory; CUDA itself takes some in each process

_slot: FileLock | None = None  # the lock of this process's slot, until the process ends
_watch: tuple[float, FileIO] | None = None  # timeout and trace of the running evaluation


def start(
    driver: int,
    slots: Path,
    workers: int,
    gpus: tuple[str, ...],
    files: Mapping[str, plugins.Code],
    per_device: int = 1,
) -> None:
    """Prepare a worker process, before its first task.

    The worker ends with the driver, whatever it is doing: on Linux the kernel ends it; elsewhere a
    thread checks twice a second. It ignores Ctrl-C, which the driver handles. With GPUs, the worker
    takes a free slot, and sees only the GPU of that slot. The user's files are imported before any
    candidate, so that what they change holds for all of them. Warnings go to the log of
    the run.

    Args:
        files: the user's Python files that it may import, as the driver may
            (`plugins.all_allowed`).
        per_device: how many workers share a GPU's memory.
    """
    plugins.allow_in_worker(files)
    interrupts.ignore(signal.SIGINT)
    logging.captureWarnings(True)
    if (log := slots.parent / "log.txt").exists():
        log_to(log, lenient=True)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(claim_slot(slots, workers), gpus)
        if per_device > 1:
            os.environ[SHARE] = str(USABLE / per_device)
    keep_freed_memory()
    plugins.import_allowed()


def gpu_of(slot: int, gpus: tuple[str, ...]) -> str:
    """Return the GPU of a slot: slots take GPUs in turn, so that workers are spread evenly."""
    return gpus[slot % len(gpus)]


def claim_slot(folder: Path, workers: int) -> int:
    """Lock and return the lowest free slot; the kernel frees the slot of a process that dies.

    Raises:
        TimeoutError: no slot became free within a minute.
    """
    global _slot
    files.make_folder(folder)
    for _ in range(600):
        for slot in range(workers):
            lock = FileLock(folder / f"slot-{slot}")
            with suppress(Timeout):
                lock.acquire(blocking=False)
                _slot = lock
                return slot
        time.sleep(0.1)  # the worker that this one replaces has not quite ended
    raise TimeoutError(f"all {workers} slots in {folder} are in use")


def work(
    evaluator: Evaluator, candidate: Candidate, seed: int, trace: Path, timeout: float | None
) -> Evaluation:
    """Evaluate a candidate. `trace` exists meanwhile, and later tells a timeout from a crash.

    A watchdog in C ends the process at the timeout, even if it never returns to Python. The trace's
    time tells the driver since when it has been watching (`overdue`).

    Raises:
        SearchFailed: as `guarded` does; the trace cannot be written.
    """
    global _watch
    with files.failing(), files.anew(trace) as file:
        faulthandler.enable(file)
        _watch = None if timeout is None else (timeout, file)
        _start_watch()
        try:
            with contained(seed):
                evaluation = guarded(evaluator, candidate, seed)
        except SearchFailed as error:  # a class of the user's may not reach the driver
            raise SearchFailed(str(error)) from None
        finally:
            _watch = None
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            give_back_memory()
    files.remove(trace)
    return evaluation


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that runs a network, and put back what it changes in the process."""
    with contained(0):
        return function(*arguments)


def overdue(trace: Path, timeout: float) -> bool:
    """Return whether an evaluation is long past its timeout: its watchdog does not work.

    It may have stopped its process, or ended the watchdog.
    """
    try:
        watching = trace.stat().st_mtime
    except FileNotFoundError:
        return False
    return time.monotonic() > watching + timeout + GRACE


@contextmanager
def unwatched() -> Iterator[None]:
    """Stop the watchdog for time that does not count, and start it anew at the end."""
    if _watch is not None:
        faulthandler.cancel_dump_traceback_later()
        _set_time(math.inf)
    try:
        yield
    finally:
        _start_watch()


def _start_watch() -> None:
    if _watch is not None:
        timeout, file = _watch
        _set_time(time.monotonic())
        faulthandler.dump_traceback_later(timeout, exit=True, file=file)


def _set_time(monotonic: float) -> None:
    """Note in the trace since when the watchdog is watching."""
    assert _watch is not None
    time_ = min(monotonic, NEVER)
    os.utime(_watch[1].fileno(), (time_, time_))


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)

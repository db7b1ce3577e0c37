"""The code that runs inside a worker process, which watches itself and its driver."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from evonas import files, plugins
from evonas.core import Candidate, Evaluation
from evonas.loop import guarded
from evonas.protocols import Evaluator

PR_SET_PDEATHSIG = 1
TIMED_OUT = b"Timeout ("  # how faulthandler heads the dump of a process that it ends

_slot: FileLock | None = None  # the lock of this process's slot, until the process ends
_watch: tuple[float, FileIO] | None = None  # timeout and trace of the running evaluation


def start(
    driver: int,
    slots: Path,
    workers: int,
    gpus: tuple[str, ...],
    files: Mapping[str, plugins.Code],
) -> None:
    """Prepare a worker process, before its first task.

    The worker ends with the driver, whatever it is doing: on Linux the kernel ends it; elsewhere a
    thread checks twice a second. It ignores Ctrl-C, which the driver handles. With GPUs, the worker
    takes a free slot, and sees only the GPU of that slot.

    Args:
        files: the user's Python files that it may import, as the driver may
            (`plugins.all_allowed`).
    """
    plugins.allow_in_worker(files)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(claim_slot(slots, workers), gpus)


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

    A watchdog in C ends the process at the timeout, even if it never returns to Python.
    """
    global _watch
    with files.failing(), files.anew(trace) as file:
        faulthandler.enable(file)
        _watch = None if timeout is None else (timeout, file)
        _start_watch()
        try:
            evaluation = guarded(evaluator, candidate, seed)
        finally:
            _watch = None
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
    files.remove(trace)
    return evaluation


@contextmanager
def unwatched() -> Iterator[None]:
    """Stop the watchdog for time that does not count, and start it anew at the end."""
    if _watch is not None:
        faulthandler.cancel_dump_traceback_later()
    try:
        yield
    finally:
        _start_watch()


def _start_watch() -> None:
    if _watch is not None:
        timeout, file = _watch
        faulthandler.dump_traceback_later(timeout, exit=True, file=file)


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)

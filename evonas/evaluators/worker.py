"""What runs inside a worker process: it watches itself and its driver."""

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
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from evonas import plugins
from evonas.core import Candidate, Evaluation
from evonas.loop import guarded
from evonas.protocols import Evaluator

PR_SET_PDEATHSIG = 1
TIMED_OUT = "Timeout ("  # how faulthandler heads the dump of a process that it ends

_slot: FileLock | None = None  # says which slot is ours; held until the end
_watch: tuple[float, IO[str]] | None = (
    None  # the timeout of the evaluation that runs, and its trace
)


def start(
    driver: int,
    slots: Path,
    workers: int,
    gpus: tuple[str, ...],
    files: Mapping[str, tuple[Path, str]],
) -> None:
    """Once a process, before its first task.

    Ends with the driver, whatever it is doing: the kernel sees to it on Linux; elsewhere a thread
    looks twice a second. Ctrl-C is the driver's to handle. With GPUs, the worker takes a free
    slot, and sees the GPU of that slot alone. Of the user's Python files, it may import `files`,
    those that the driver may (`plugins.all_allowed`).
    """
    plugins.allow_in_worker(files)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(claim_slot(slots, workers), gpus)


def gpu_of(slot: int, gpus: tuple[str, ...]) -> str:
    """Slots go round the GPUs, so that each has as many workers as any other, or one fewer."""
    return gpus[slot % len(gpus)]


def claim_slot(folder: Path, workers: int) -> int:
    """The lowest slot that no living process holds; the kernel frees a dead one's.

    Raises:
        TimeoutError: all are held, for a minute.
    """
    global _slot
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(600):
        for slot in range(workers):
            lock = FileLock(folder / f"slot-{slot}")
            with suppress(Timeout):
                lock.acquire(blocking=False)
                _slot = lock
                return slot
        time.sleep(0.1)  # the one we replace is not quite gone
    raise TimeoutError(f"all {workers} slots in {folder} are held")


def work(
    evaluator: Evaluator, candidate: Candidate, seed: int, trace: Path, timeout: float | None
) -> Evaluation:
    """One evaluation. `trace` is there while it runs, and tells a timeout from a crash after it.

    A watchdog in C ends the process at the timeout, even one that never comes back to Python.
    """
    global _watch
    with trace.open("w") as file:
        faulthandler.enable(file)
        _watch = None if timeout is None else (timeout, file)
        _start_watch()
        try:
            evaluation = guarded(evaluator, candidate, seed)
        finally:
            _watch = None
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
    trace.unlink()
    return evaluation


@contextmanager
def unwatched() -> Iterator[None]:
    """Time that is not the candidate's: the watchdog rests, and starts anew at the end."""
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

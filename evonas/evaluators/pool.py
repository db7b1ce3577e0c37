"""The worker processes, through joblib's loky: spawned, never forked."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from joblib.executor import get_memmapping_executor

from evonas import plugins
from evonas.evaluators import worker

T = TypeVar("T")


class Workers:
    """N processes, one if need be, each with one torch thread unless told otherwise.

    Large NumPy arrays in what is submitted are memory-mapped, not copied.

    Args:
        folder: for the traces of what is running.
        gpus: the GPUs to go round, `("0", "1")`; none on the CPU.
    """

    def __init__(
        self, folder: Path, count: int, *, threads: int = 1, gpus: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.count = count
        self.threads = threads
        self.gpus = tuple(gpus)
        self._executor: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        for trace in folder.glob("trace-*"):
            trace.unlink()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """The future result of a call in a worker; after a death, in a new one.

        Raises:
            BrokenProcessPool: a worker has died since the last look.
        """
        with _sigint_held():  # inherited by the workers that this may start
            if self._executor is None:
                self._executor = self._new_executor()
            future: Future[T] = self._executor.submit(function, *arguments)
        return future

    def renew(self) -> None:
        """Lets go of workers of which one has died; the next call starts new ones."""
        self._executor = None

    def warm(self, function: Callable[[], None]) -> None:
        """Has each worker call a function, for what it imports, while the driver goes on."""
        for _ in range(self.count):
            self.submit(function)

    def trace(self, number: int) -> Path:
        """The file that is there while task `number` is running."""
        return self.folder / f"trace-{number}"

    def close(self) -> None:
        """Ends the workers at once, if any were started."""
        if self._executor is not None:
            self._executor.terminate(kill_workers=True)
            self._executor = None

    def _new_executor(self) -> Any:
        threads = str(self.threads)
        return get_memmapping_executor(
            self.count,
            initializer=worker.start,
            initargs=(os.getpid(), self.folder, self.count, self.gpus, plugins.all_allowed()),
            env={
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on CUDA
            },
        )


def exit_codes(error: BrokenProcessPool) -> str:
    """The exit codes of the workers that died, as far as loky's message has them."""
    codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return codes[1] if codes else "exit code unknown"


@contextmanager
def _sigint_held() -> Iterator[None]:
    """Ctrl-C waits until the end; processes started meanwhile never see it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

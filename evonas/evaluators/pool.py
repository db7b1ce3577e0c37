"""The worker processes, through joblib's loky: spawned, never forked."""

from __future__ import annotations

import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

from joblib.executor import get_memmapping_executor

from evonas import files, interrupts, plugins
from evonas.core import SearchFailed
from evonas.evaluators import worker

T = TypeVar("T")

DEATHS = 3  # how often in a row workers may die, without a result, before the run fails
AHEAD = 2  # how many calls a worker has in hand and in its queue


class Workers:
    """Worker processes, each with `threads` torch threads.

    Large NumPy arrays in the arguments of a call are memory-mapped, so that all workers share them;
    what one writes into them, only its own call sees.

    Args:
        folder: holds the traces of running tasks.
        gpus: the GPUs that the workers share, such as `("0", "1")`; none on the CPU.
        per_device: into how many equal shares the memory of each GPU is divided.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        threads: int = 1,
        gpus: Sequence[str] = (),
        per_device: int = 1,
    ) -> None:
        self.folder = folder.absolute()  # a network may change the working directory
        self.count = count
        self.threads = threads
        self.gpus = tuple(gpus)
        self.per_device = per_device
        self._executor: Any = None
        files.make_folder(folder)
        for trace in folder.glob("trace-*"):
            files.remove(trace)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in a worker; the first call, or one after `renew`, starts the workers.

        Raises:
            BrokenProcessPool: a worker has died since the last call.
        """
        with _sigint_blocked():  # inherited by the workers that this may start
            if self._executor is None:
                self._executor = self._new_executor()
            future: Future[T] = self._executor.submit(function, *arguments)
        return future

    def renew(self) -> None:
        """Abandon the workers after one has died; the next call starts new ones."""
        self._executor = None

    def warm(self, function: Callable[[], None]) -> None:
        """Let each worker call a function, for its imports, while the driver continues."""
        for _ in range(self.count):
            self.submit(function)

    def trace(self, number: int) -> Path:
        """Return the file that exists while task `number` is running."""
        return self.folder / f"trace-{number}"

    def kill(self) -> None:
        """Kill the workers, even those that are stopped; their calls raise `BrokenProcessPool`."""
        if self._executor is not None:
            for pid in list(self._executor._processes):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the workers at once, if any were started."""
        if self._executor is not None:
            with interrupts.delayed():
                # Of calls that it gives up, loky would look for those that it has not sent yet,
                # and print a traceback.
                with suppress(Empty):
                    while True:
                        self._executor._work_ids.get(block=False)
                self._executor.terminate(kill_workers=True)
            self._executor = None

    def _new_executor(self) -> Any:
        threads = str(self.threads)
        return get_memmapping_executor(
            self.count,
            mmap_mode="c",  # copied on writing
            initializer=worker.start,
            initargs=(
                *(os.getpid(), self.folder, self.count, self.gpus),
                *(plugins.all_allowed(), self.per_device),
            ),
            env={
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on CUDA
            },
        )


def results(
    workers: Workers, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]
) -> Iterator[T]:
    """Call a function in workers with each of some arguments, and yield the results in that order.

    What a worker was doing when it died is done again, so the function must be repeatable.

    Raises:
        SearchFailed: workers died several times in a row, and nothing was finished meanwhile.
    """
    to_do, deaths = deque(calls), 0
    flying: deque[tuple[tuple[Any, ...], Future[T]]] = deque()
    while to_do or flying:
        try:
            while to_do and len(flying) < AHEAD * workers.count:
                future = workers.submit(function, *to_do[0])
                flying.append((to_do.popleft(), future))
            result = flying[0][1].result()
        except BrokenProcessPool as error:
            wait([future for _, future in flying])
            deaths += 1
            if deaths == DEATHS:
                raise SearchFailed(
                    f"workers died {deaths} times in a row ({exit_codes(error)}); perhaps memory "
                    "ran out: continue with fewer workers"
                ) from None
            workers.renew()
            # Of those behind, some may have ended well; the order is kept, so all are done again.
            to_do.extendleft(arguments for arguments, _ in reversed(flying))
            flying.clear()
            continue
        flying.popleft()
        deaths = 0
        yield result


def exit_codes(error: BrokenProcessPool) -> str:
    """Return the exit codes of the workers that died, as far as loky's message has them."""
    codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return codes[1] if codes else "exit code unknown"


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Delay Ctrl-C until the end; processes started meanwhile never receive it."""
    with interrupts.delayed():  # another thread may take the signal, and this one be told of it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""The part of evonas on a Dask worker: it passes questions on to a process of its own, the host.

The host does on its machine what the driver does in a local run: it has worker processes, and
`InWorkers` as the fault policy. So nothing that a network does reaches the Dask worker, and a Dask
worker may serve several runs. The host ends with its Dask worker, and with the driver of the run.
"""

from __future__ import annotations

import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evonas import files, plugins, provenance
from evonas.core import STATE, Candidate, Evaluation, SearchFailed
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.loop import error_text
from evonas.protocols import Evaluator, Prepares
from evonas.records.files import weights_left

COMMAND = "import sys; from evonas.evaluators.host import serve; serve(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a host needs of a run.

    Attributes:
        evaluator: the evaluator, pickled, since it may be of a class in the user's files.
        timeout: the time limit of an evaluation, in seconds.
        threads: the number of torch threads of each process.
        gpus: whether the processes use the GPUs of the machine.
        own: the user's Python files (`plugins.contents`).
        prepared: what the evaluator's `prepare` has left in the run folder, by relative path.
    """

    evaluator: bytes
    timeout: float | None
    threads: int
    gpus: bool
    own: Mapping[str, tuple[plugins.Code, Mapping[str, bytes]]]
    prepared: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """An evaluation with its weights, if it has any, and the lines that were logged meanwhile."""

    evaluation: Evaluation
    weights: bytes | None
    logged: tuple[str, ...] = ()


class HostLost(Exception):
    """The host has ended, so the Dask worker cannot answer."""


def versions() -> dict[str, str]:
    """Return the versions that must be the same on all machines."""
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "evonas": f"{provenance.__version__}, code {provenance.code()}",
    }


# What Dask calls in its worker


def processor_and_versions() -> tuple[str, dict[str, str]]:
    """Return the kind of processor, and the versions."""
    return provenance.processor(), versions()


class Lease:
    """Keeps a host running until Dask deletes this object, when its driver is gone.

    It is no argument of `evaluate`, since a running call would keep it alive.
    """

    def __init__(self, name: str, setup: bytes, processes: int) -> None:
        """Start a host.

        Args:
            name: what `evaluate` finds it by.
            setup: a pickled `Setup`.

        Raises:
            RuntimeError: it does not start.
        """
        self._name = name
        from distributed import get_worker  # only with the extra `dask`

        folder = Path(get_worker().local_directory, f"evonas-{name}")
        _relays[name] = _Relay(folder, setup, processes)

    def __reduce__(self) -> Any:
        raise TypeError("a lease stays where it is")

    def __del__(self) -> None:
        relay = _relays.pop(self._name, None)
        if relay is not None:
            relay.close()


def evaluate(name: str, candidate: Candidate, seed: int) -> Answer:
    """Have a candidate evaluated by a host.

    Raises:
        SearchFailed: as `InWorkers` does.
        HostLost: the host has ended.
    """
    relay = _relays.get(name)
    if relay is None:
        raise HostLost("it was not started")
    return relay.ask(candidate, seed)


class _Relay:
    """A host, seen from the Dask worker, whose threads call `ask`."""

    def __init__(self, folder: Path, setup: bytes, processes: int) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._answers: dict[int, Future[Answer]] = {}
        self._ended = False
        files.make_folder(folder, named=True)
        self._pipe, there = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(there.fileno()), str(folder), str(processes)],
            pass_fds=[there.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the same evonas
        )
        there.close()
        try:
            self._pipe.send_bytes(setup)
            problem = self._pipe.recv()
        except (EOFError, OSError) as error:
            problem = f"its process ended: {error_text(error)}"
        if problem:
            self.close()
            raise RuntimeError(problem)
        threading.Thread(target=self._receive, args=(folder,), daemon=True).start()

    def ask(self, candidate: Candidate, seed: int) -> Answer:
        answer: Future[Answer] = Future()
        with self._lock:
            if self._ended:
                raise HostLost("it has ended")
            number = next(self._numbers)
            self._answers[number] = answer
            with suppress(OSError):  # it is ending, which `_receive` notices
                self._pipe.send((number, candidate, seed))
        return answer.result()

    def close(self) -> None:
        with suppress(OSError):
            self._pipe.send(None)

    def _receive(self, folder: Path) -> None:
        """Pass answers on, until the host ends."""
        with suppress(EOFError, OSError):
            while True:
                number, answer = self._pipe.recv()
                asked = self._answers.pop(number)
                if isinstance(answer, Answer):
                    asked.set_result(answer)
                else:
                    asked.set_exception(answer)
        code = self._process.wait()
        with self._lock:
            self._ended = True
        for asked in self._answers.values():
            asked.set_exception(HostLost(f"it ended with status {code}"))
        with suppress(OSError):  # it is there if the host was killed
            files.clear(folder)


_relays: dict[str, _Relay] = {}


# What runs in the host


def serve(descriptor: str, folder: str, processes: str) -> None:
    """Answer questions that come through a pipe, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is for the Dask worker
    pipe, path = Connection(int(descriptor)), Path(folder)
    try:
        setup: Setup = pickle.loads(pipe.recv_bytes())
        evaluator = _unpacked(setup, path)
        gpus = _gpus() if setup.gpus else ()
    except Exception as error:  # a user's file may raise anything
        pipe.send(error_text(error))
        return
    workers = Workers(path / "scratch", int(processes), threads=setup.threads, gpus=gpus)
    here = InWorkers(evaluator, workers, timeout=setup.timeout, in_order=True)
    host = _Host(pipe, path, here)
    del setup  # it holds the data once more
    pipe.send("")
    threading.Thread(target=host.listen, args=(workers,), daemon=True).start()
    with closing(workers):
        host.answer()


class _Host:
    """Takes questions in one thread, and answers them in another."""

    def __init__(self, pipe: Connection, folder: Path, dispatcher: InWorkers) -> None:
        self.pipe = pipe
        self.folder = folder
        self.dispatcher = dispatcher
        self._lock = threading.Lock()
        self._asked: dict[Future[Evaluation], int] = {}
        self._logged = 0  # bytes of the log that have been sent

    def listen(self, workers: Workers) -> None:
        """Take questions; when the pipe closes, or None comes, end this process and its workers."""
        with suppress(EOFError, OSError):
            while (question := self.pipe.recv()) is not None:
                number, candidate, seed = question
                with self._lock:
                    self._asked[self.dispatcher.submit(candidate, seed)] = number
        with suppress(Exception):
            workers.close()
        with suppress(OSError):  # a worker may still write into it; the Dask worker clears it too
            files.clear(self.folder)
        os._exit(0)

    def answer(self) -> None:
        """Send answers as they arrive, until the workers fail."""
        while True:
            try:
                future = self.dispatcher.next_done()
                answer = self._answer(future.result())
            except (SearchFailed, OSError) as error:
                failure = files.failure(error) if isinstance(error, OSError) else error
                with self._lock:
                    for number in self._asked.values():
                        self.pipe.send((number, failure))
                return
            with self._lock:
                number = self._asked.pop(future)
            self.pipe.send((number, answer))

    def _answer(self, evaluation: Evaluation) -> Answer:
        file, weights = weights_left(self.folder, evaluation), None
        if file is not None and file.exists():
            weights = files.read(file)
            files.remove(file)
        # The next training of the network may be another machine's; each begins anew.
        for state in (self.folder / "scratch").glob(f"*{STATE}"):
            files.remove(state)
        log = files.read(self.folder / "log.txt")
        lines = log[self._logged :].decode(errors="replace").splitlines()
        self._logged = len(log)
        return Answer(evaluation, weights, tuple(lines))


def _unpacked(setup: Setup, folder: Path) -> Evaluator:
    """Return the evaluator, prepared in a folder like that of the run."""
    plugins.allow_copies(setup.own, folder / "own")
    plugins.import_allowed()
    files.append(folder / "log.txt", b"")  # workers log into it
    for name, content in setup.prepared.items():
        files.make_folder((folder / name).parent)
        files.write_atomic(folder / name, content)
    evaluator: Evaluator = pickle.loads(setup.evaluator)
    if isinstance(evaluator, Prepares):
        for _ in evaluator.prepare(folder):
            pass
    return evaluator


def _gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        RuntimeError: there are none.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU there")
    names = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    return tuple(names) or tuple(map(str, range(torch.cuda.device_count())))

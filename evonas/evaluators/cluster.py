"""Evaluations on the machines of a Dask cluster: the driver's part; `host` is the workers'."""

from __future__ import annotations

import logging
import pickle
import time
import uuid
from collections import deque
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from evonas import files, plugins, provenance
from evonas.core import Candidate, Cost, Evaluation, SearchFailed, Status, UserError
from evonas.evaluators import host
from evonas.evaluators.parallel import TICK, TRIES_ALONE
from evonas.loop import error_text
from evonas.markdown import counted
from evonas.protocols import Evaluator
from evonas.records.files import weights_left

CONNECT = 10.0  # seconds to connect to the scheduler
PATIENCE = 30.0  # seconds for the scheduler to answer, after which it counts as lost
CLOSE = 1.0  # seconds to take leave of the scheduler
LOSSES = 3  # how many Dask workers a candidate may lose before it is suspected
PREPARED = "supernet"  # the folder in a run's in which an evaluator's `prepare` leaves files

log = logging.getLogger("evonas.cluster")  # it is shown on the screen too


class Cluster:
    """A connection to a Dask scheduler, which is made anew when it is lost.

    Attributes:
        client: Dask's client; None while there is no connection.
        unfit: why some workers cannot be used, by their address.
    """

    def __init__(self, address: str) -> None:
        """Connect, and check the workers that are there.

        Raises:
            UserError: Dask is not installed, no scheduler answers, or a worker is unfit.
        """
        try:
            import distributed  # takes a second
        except ImportError:
            hint = "pip install 'evonas[dask]'"
            raise UserError("Dask is not installed", hint=hint, key="parallel.backend") from None
        # One that a signal finds in mid-connection would wait for its scheduler when it is deleted.
        self._new_client = type("_Client", (distributed.Client,), {"__del__": lambda _: None})
        _quiet()
        self.address = address
        self.client: Any = None
        self.unfit: dict[str, str] = {}
        self._fit: set[str] = set()
        if self.threads() is None:
            hint = "check the address, or start one: dask scheduler"
            raise UserError(f"no Dask scheduler answers at {address}", hint=hint, key=KEY)
        if self.unfit:
            problem = next(iter(self.unfit.values()))
            raise UserError(problem, hint="install the same there as here", key=KEY)

    def threads(self) -> dict[str, int] | None:
        """Return the number of threads of each fit worker, by its address; None if the scheduler
        does not answer."""
        try:
            if self.client is None:
                self.client = self._new_client(
                    self.address, timeout=CONNECT, set_as_default=False, name="evonas"
                )
            threads: dict[str, int] = self.client.nthreads(callback_timeout=PATIENCE)
        except (OSError, RuntimeError, AttributeError):  # the last two are a closed client's
            self.close()
            return None
        self._fit &= threads.keys()
        self.unfit = {name: why for name, why in self.unfit.items() if name in threads}
        self._check(threads.keys() - self._fit - self.unfit.keys())
        return {name: threads[name] for name in threads if name in self._fit}

    def refuse(self, worker: str, why: str) -> None:
        """Use a worker no more, unless it is started anew."""
        self._fit.discard(worker)
        self.unfit[worker] = why

    def close(self) -> None:
        """Take leave of the scheduler: what it was asked for is no longer wanted."""
        client, self.client, self._fit = self.client, None, set()
        if client is not None:
            with suppress(Exception):  # it may be the scheduler that is gone
                client.close(timeout=CLOSE)

    def _check(self, workers: Collection[str]) -> None:
        """Find out which workers have the versions of this process."""
        if not workers:
            return
        try:
            found = self.client.run(
                host.processor_and_versions,
                workers=list(workers),
                on_error="return",
                callback_timeout=PATIENCE,
            )
        except (OSError, RuntimeError):  # which the next look finds out about
            return
        here = host.versions()
        for worker, answer in found.items():
            if isinstance(answer, OSError):  # it has just gone
                continue
            if isinstance(answer, Exception):
                self.refuse(worker, f"{worker} has no evonas like this: {answer}")
                continue
            processor, there = answer
            differing = [name for name in here if here[name] != there.get(name)]
            if differing:
                told = [f"{name} {there.get(name)} (here: {here[name]})" for name in differing]
                self.refuse(worker, f"{worker} has {', '.join(told)}")
                continue
            self._fit.add(worker)
            if processor != provenance.processor():
                log.warning(
                    "%s has another processor, %s: what is trained there may differ in the last "
                    "digits",
                    worker,
                    processor,
                )


@dataclass(eq=False, slots=True)
class _Task:
    """A candidate under evaluation, and how many Dask workers were lost with it."""

    candidate: Candidate
    seed: int
    answer: Future[Evaluation] = field(default_factory=Future)
    losses: int = 0
    begun: float = 0.0  # the last attempt, seconds since 1970


@dataclass(eq=False, slots=True)
class _Machine:
    """A Dask worker with a host.

    Attributes:
        name: the host's.
        lease: Dask's future of the lease; the host ends when it is dropped.
        setup: Dask's future of what the host begins with, until it has begun.
        flying: the evaluations under way there, by the key of Dask's future.
        alone: whether it is kept for suspects, one at a time.
    """

    address: str
    threads: int
    name: str
    lease: Any
    setup: Any
    flying: dict[str, tuple[_Task, Any]] = field(default_factory=dict)
    alone: bool = False

    @property
    def ready(self) -> bool:
        return self.setup is None


class OnCluster:
    """A dispatcher that has candidates evaluated by the Dask workers of a cluster.

    Each Dask worker evaluates as many at a time as it has threads, under the fault policy of
    `InWorkers`, which its host applies. What is left to decide here is what happens when a Dask
    worker is lost: what it was doing is done again elsewhere. A candidate that has lost several
    is suspected, and tried on a worker that has nothing else to do.

    Args:
        folder: the run folder, to which weights are brought.
        gpus: whether to train on GPUs.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        cluster: Cluster,
        folder: Path,
        *,
        timeout: float | None = None,
        threads: int = 1,
        gpus: bool = False,
    ) -> None:
        import cloudpickle  # comes with Dask

        self.cluster = cluster
        self.folder = folder
        prepared = (folder / PREPARED).glob("*")
        self._setup = pickle.dumps(
            host.Setup(
                cloudpickle.dumps(evaluator),
                timeout,
                threads,
                gpus,
                plugins.contents(),
                {f"{PREPARED}/{file.name}": files.read(file) for file in prepared},
            )
        )
        self._waiting: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._machines: dict[str, _Machine] = {}
        self._settled: SimpleQueue[Any] = SimpleQueue()  # Dask's futures
        self._done: deque[Future[Evaluation]] = deque()
        self._looked = -TICK
        self._told = ""

    def submit(self, candidate: Candidate, seed: int) -> Future[Evaluation]:
        task = _Task(candidate, seed)
        self._waiting.append(task)
        return task.answer

    def next_done(self) -> Future[Evaluation]:
        """Wait for the next finished evaluation, and return its future.

        Raises:
            SearchFailed: a worker cannot go on, such as for a full disk, or none is fit.
        """
        while not self._done:
            if time.monotonic() > self._looked + TICK:
                self._look()
                self._looked = time.monotonic()
            self._launch()
            with suppress(Empty):
                self._settle(self._settled.get(timeout=TICK))
        return self._done.popleft()

    def _look(self) -> None:
        """Follow the cluster: its workers may come and go, and so may its scheduler."""
        threads = self.cluster.threads()
        if threads is None:
            for machine in list(self._machines.values()):
                self._lose(machine, blame=False)
            self._tell(f"no Dask scheduler answers at {self.cluster.address}; waiting for it")
            return
        for machine in list(self._machines.values()):
            if machine.address not in threads:
                log.info("%s is gone; what it was doing is done again", machine.address)
                self._lose(machine)
        self._begin({name: n for name, n in threads.items() if name not in self._machines})
        unfit = "".join(f"; {why}" for why in self.cluster.unfit.values())
        if threads:
            total = f"{counted(sum(threads.values()), 'evaluation')} at a time"
            self._tell(f"{counted(len(threads), 'Dask worker')}, {total}{unfit}")
        else:
            address = self.cluster.address
            self._tell(f"no Dask worker yet; waiting for one: dask worker {address}{unfit}")

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            log.info("%s", text)

    def _begin(self, threads: Mapping[str, int]) -> None:
        """Have hosts started on Dask workers, each of which is sent the evaluator once."""
        if not threads:
            return
        client = self.cluster.client
        try:
            setup = client.scatter(self._setup, workers=list(threads), broadcast=True, hash=False)
        except Exception as error:  # one of them has just gone; the next look tries again
            log.info("the data could not be sent: %s", error_text(error))
            return
        for address, count in threads.items():
            name = uuid.uuid4().hex
            lease = client.submit(host.Lease, name, setup, count, workers=[address], pure=False)
            self._machines[address] = _Machine(address, count, name, lease, setup)
            lease.add_done_callback(self._settled.put)

    def _launch(self) -> None:
        """Hand out as many evaluations as there are threads."""
        ready = [machine for machine in self._machines.values() if machine.ready]
        if self._suspects and ready and not any(machine.alone for machine in ready):
            ready[0].alone = True
        for machine in ready:
            if machine.alone and not machine.flying:
                if self._suspects:
                    self._send(self._suspects.popleft(), machine)
                else:
                    machine.alone = False
            while self._waiting and not machine.alone and len(machine.flying) < machine.threads:
                self._send(self._waiting.popleft(), machine)

    def _send(self, task: _Task, machine: _Machine) -> None:
        future = self.cluster.client.submit(
            host.evaluate,
            machine.name,
            task.candidate,
            task.seed,
            workers=[machine.address],
            pure=False,
        )
        task.begun = time.time()
        machine.flying[future.key] = (task, future)
        future.add_done_callback(self._settled.put)

    def _settle(self, future: Any) -> None:
        """Take an answer, or the news that a host has begun."""
        for machine in list(self._machines.values()):
            if machine.lease.key == future.key:
                self._settle_lease(machine)
            elif future.key in machine.flying:
                self._settle_task(machine, future)

    def _settle_lease(self, machine: _Machine) -> None:
        status = machine.lease.status
        if status == "finished":
            machine.setup = None  # the Dask worker needs it no more
        elif status == "error":
            reason = f"{machine.address} cannot evaluate: {error_text(machine.lease.exception())}"
            self.cluster.refuse(machine.address, reason)
            self._lose(machine, blame=False)
            if not self._machines:
                raise SearchFailed(reason)
        else:
            self._lose(machine, blame=False)

    def _settle_task(self, machine: _Machine, future: Any) -> None:
        try:
            answer: host.Answer = future.result(timeout=PATIENCE)
        except SearchFailed as error:
            raise SearchFailed(f"{machine.address}: {error}") from None
        except Exception as error:  # Dask's, or of a host that has ended
            failed = future.status == "error"  # not cancelled, for want of a scheduler
            if failed:
                log.info("%s is given up: %s", machine.address, error_text(error))
            self._lose(machine, blame=failed)
            return
        task, _ = machine.flying.pop(future.key)
        for line in answer.logged:
            logging.getLogger("evonas").info("%s: %s", machine.address, line)
        file = weights_left(self.folder, answer.evaluation)
        if file is not None and answer.weights is not None:
            with files.failing():
                files.write_atomic(file, answer.weights)
        self._finish(task, answer.evaluation)

    def _lose(self, machine: _Machine, *, blame: bool = True) -> None:
        """Give up a Dask worker; what it was doing is done again.

        Args:
            blame: whether one of these evaluations may have ended it.
        """
        del self._machines[machine.address]
        for task, _ in reversed(machine.flying.values()):
            task.losses += blame
            if task.losses >= LOSSES + TRIES_ALONE:
                message = f"its Dask worker was lost {task.losses} times"
                cost = Cost(seconds=time.time() - task.begun, started=task.begun)
                failed = Evaluation(task.candidate, {}, Status.CRASHED, cost, message, False)
                self._finish(task, failed)
            elif task.losses >= LOSSES:
                self._suspects.append(task)
            else:
                self._waiting.appendleft(task)

    def _finish(self, task: _Task, evaluation: Evaluation) -> None:
        task.answer.set_result(evaluation)
        self._done.append(task.answer)


KEY = "parallel.address"


def _quiet() -> None:
    """Keep Dask's own log from the screen; what matters of it is told in our words."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in ("distributed", "tornado") and isinstance(
            logger, logging.Logger
        ):
            logger.setLevel(logging.CRITICAL + 1)

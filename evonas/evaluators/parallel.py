"""Evaluations in worker processes, under one fault policy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from evonas import files
from evonas.core import Candidate, Cost, Evaluation, SearchFailed, Status
from evonas.evaluators import worker
from evonas.evaluators.pool import exit_codes
from evonas.loop import error_text
from evonas.protocols import Evaluator, Executor, Foresees

TRIES_ALONE = 2  # how often a candidate that crashed is tried again before it counts as a fault
TICK = 1.0  # seconds between looks at evaluations that may be past their timeout
BARREN_ROUNDS = 3  # how often all workers may die without starting a task before the run fails


@dataclass(eq=False, slots=True)
class _Task:
    """A candidate under evaluation, and how often and how long it has been tried."""

    number: int
    candidate: Candidate
    seed: int
    answer: Future[Evaluation] = field(default_factory=Future)
    tries_alone: int = 0
    seconds: float = 0.0  # over all attempts
    begun: float = 0.0  # when the last attempt began, seconds since 1970
    effort: float | None = None  # how long it is foreseen to take; None before that was asked


class InWorkers:
    """Evaluates candidates in worker processes, so that no candidate can end the run.

    This class alone defines the fault policy. A candidate that exceeds `timeout` is ended and not
    tried again, even if it has stopped its process. One that crashed (an exception, `os._exit`, a
    segmentation fault, a SIGKILL) is tried again alone, at most twice. When a worker dies, loky
    ends all others: the evaluations that were running then go first, each alone, so that only the
    one at fault counts as crashed.

    Of the candidates that wait, the one that takes longest goes first, as far as the evaluator can
    foresee that: so no worker begins a long evaluation when the others have nothing left to do. It
    is found out while all workers are busy.

    Args:
        in_order: whether candidates are evaluated as submitted instead, for a strategy that is told
            one answer at a time.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        executor: Executor,
        *,
        timeout: float | None = None,
        in_order: bool = False,
    ) -> None:
        self.evaluator = evaluator
        self.executor = executor
        self.timeout = timeout
        self._effort: Callable[[Candidate], float] | None = None
        if isinstance(evaluator, Foresees) and executor.count > 1 and not in_order:
            self._effort = evaluator.effort
        self._numbers = count()
        self._waiting: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._flying: dict[Future[Evaluation], _Task] = {}
        self._called: Future[Any] = Future()  # done if something was submitted in the meantime
        self._alone = False  # whether a suspect is being evaluated, with nothing beside it
        self._done: deque[Future[Evaluation]] = deque()
        self._barren = 0

    def submit(self, candidate: Candidate, seed: int) -> Future[Evaluation]:
        """Have a candidate evaluated; one thread may call it while another is in `next_done`."""
        task = _Task(next(self._numbers), candidate, seed)
        self._waiting.append(task)
        if not self._called.done():
            self._called.set_result(None)
        return task.answer

    def next_done(self) -> Future[Evaluation]:
        """Wait for the next finished evaluation, and return its future.

        Raises:
            SearchFailed: the workers die before they start a task.
        """
        try:
            while not self._done:
                self._advance()
        except BaseException:  # Ctrl-C, or the search has failed
            self.executor.close()
            raise
        return self._done.popleft()

    def _advance(self) -> None:
        """Keep all workers busy, and settle the tasks that finish next."""
        if self._called.done():
            self._called = Future()  # before the queue is read, so that no call is missed
        if not self._flying:
            self._alone = bool(self._suspects)
        queue = self._suspects if self._alone else self._waiting
        try:
            while queue and len(self._flying) < (1 if self._alone else self.executor.count):
                self._launch(queue)
            self._foresee()
            tick = None if self.timeout is None else TICK
            done, _ = wait({*self._flying, self._called}, tick, return_when=FIRST_COMPLETED)
            if not done:
                self._end_overdue()
            for future in done - {self._called}:
                evaluation = _result(future, self._flying[future].candidate)
                self._settle(self._flying.pop(future), evaluation)
        except SearchFailed:
            self._check_folder()  # what a worker tells of a folder that is gone is but its errors
            raise
        except BrokenProcessPool as error:
            self.executor.renew()
            self._after_death(queue, error)

    def _launch(self, queue: deque[_Task]) -> None:
        # A copy, since another thread may submit. Of equals, the first.
        task = max(list(queue), key=lambda task: task.effort or 0.0)
        trace = self.executor.trace(task.number)
        future = self.executor.submit(
            worker.work, self.evaluator, task.candidate, task.seed, trace, self.timeout
        )
        task.begun = time.time()
        self._flying[future] = task
        queue.remove(task)

    def _foresee(self) -> None:
        """Ask how long the waiting tasks will take, until a worker is free again."""
        if self._effort is None:
            return
        for task in list(self._waiting):
            if task.effort is not None:
                continue
            if any(future.done() for future in self._flying):
                return
            try:
                task.effort = self._effort(task.candidate)
            except Exception:  # a network that cannot be built is told by its evaluation
                task.effort = 0.0

    def _end_overdue(self) -> None:
        """Kill the workers if one is past its timeout and has not ended itself."""
        assert self.timeout is not None
        traces = [self.executor.trace(task.number) for task in self._flying.values()]
        late = [trace for trace in traces if worker.overdue(trace, self.timeout)]
        for trace in late:
            files.write_atomic(trace, worker.TIMED_OUT)
        if late:
            self.executor.kill()

    def _check_folder(self) -> None:
        """Raise SearchFailed if the folder is gone: what fails then is no candidate's fault."""
        folder = self.executor.trace(0).parent
        if not folder.is_dir():
            problem = f"{folder.parent} is no longer there"
            raise SearchFailed(f"{problem}; put it back, then resume the run")

    def _settle(self, task: _Task, evaluation: Evaluation) -> None:
        """Set the result of a task, or try it again alone after a crash.

        Raises:
            SearchFailed: it crashed since the folder of the run is no longer there.
        """
        if evaluation.status is Status.CRASHED:
            self._check_folder()
        self._barren = 0
        task.tries_alone += self._alone
        task.seconds += evaluation.cost.seconds
        if evaluation.status is Status.CRASHED and task.tries_alone < TRIES_ALONE:
            self._suspects.append(task)
            return
        # 0 is the evaluator's word for one that it did not go on with.
        attempts = (1 + task.tries_alone) if evaluation.cost.attempts else 0
        cost = replace(evaluation.cost, attempts=attempts, seconds=task.seconds)
        task.answer.set_result(replace(evaluation, cost=cost))
        self._done.append(task.answer)

    def _after_death(self, queue: deque[_Task], error: BrokenProcessPool) -> None:
        """Sort the running tasks after a worker died: finished, timed out, crashed or not begun.

        Those that had not begun go back into their queue.
        """
        ended = time.time()
        self._barren += 1
        wait(self._flying)
        for future, task in self._flying.items():
            if isinstance(future.exception(), BrokenProcessPool):
                self._after_its_worker(task, queue, ended, exit_codes(error))
            else:
                self._settle(task, _result(future, task.candidate))
        self._flying = {}
        if self._barren == BARREN_ROUNDS:
            reason = error_text(error.__cause__ or error)
            raise SearchFailed(f"workers die before they start a task: {reason}")

    def _after_its_worker(self, task: _Task, queue: deque[_Task], ended: float, codes: str) -> None:
        """Settle a task whose worker died, by the trace that it left."""
        trace = self.executor.trace(task.number)
        try:
            timed_out = files.read(trace).startswith(worker.TIMED_OUT)
        except FileNotFoundError:
            queue.appendleft(task)
            return
        files.remove(trace)
        status = Status.TIMEOUT if timed_out else Status.CRASHED
        text = f"took longer than {self.timeout:g} s" if timed_out else f"its worker died: {codes}"
        cost = Cost(seconds=ended - task.begun, started=task.begun)
        evaluation = Evaluation(task.candidate, {}, status, cost, text, deterministic=False)
        self._settle(task, evaluation)


def _result(future: Future[Evaluation], candidate: Candidate) -> Evaluation:
    """Return what a worker sent back; a result that cannot be sent counts as a crash."""
    try:
        return future.result()
    except (BrokenProcessPool, SearchFailed):
        raise
    except Exception as error:  # pickling, or the evaluator's module, may raise anything
        return Evaluation(candidate, {}, Status.CRASHED, message=error_text(error))

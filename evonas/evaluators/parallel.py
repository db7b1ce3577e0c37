"""Evaluations in worker processes, under one fault policy."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from evonas.core import Candidate, Cost, Evaluation, Evaluator, SearchFailed, Status
from evonas.evaluators import worker
from evonas.evaluators.pool import Workers
from evonas.loop import describe
from genomes import Genome

Task = tuple[Candidate, int]

TRIES_ALONE = 2  # of a candidate that crashed, before it is given up
BARREN_ROUNDS = 3  # in which workers die before they begin anything, before the run is given up


class Parallel:
    """Answers with worker processes, so that no candidate can end the run.

    The fault policy is here and nowhere else. A candidate that outlives `timeout` is ended and
    stays so. One that crashed (an exception, `os._exit`, a segmentation fault, a SIGKILL) is tried
    again alone, at most twice, with no other evaluation beside it that could be blamed. When a
    worker dies, loky ends all others; what was in flight goes first, each alone, and so only the
    guilty one is blamed.
    """

    def __init__(
        self, evaluator: Evaluator, workers: Workers, *, timeout: float | None = None
    ) -> None:
        self.evaluator = evaluator
        self.workers = workers
        self.timeout = timeout
        self._last_death = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.evaluator.metrics

    @property
    def clocked(self) -> bool:
        return bool(getattr(self.evaluator, "clocked", False))

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return self.evaluator.cheap(genome)

    def prepare(self, run_dir: Path) -> None:
        self.evaluator.prepare(run_dir)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        [(_, evaluation)] = self.evaluate_all([(candidate, seed)])
        return evaluation

    def evaluate_all(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Evaluation]]:
        """Each task's number and answer, in the order they are done; `tasks` may grow meanwhile.

        Raises:
            SearchFailed: no worker lives long enough to begin anything.
        """
        try:
            yield from self._answered(tasks)
        except BaseException:  # Ctrl-C, or the caller has had enough
            self.workers.close()
            raise

    def _answered(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Evaluation]]:
        waiting = _Numbers(of=tasks)
        suspects: deque[int] = deque()
        tries: Counter[int] = Counter()  # alone
        spent: dict[int, float] = defaultdict(float)  # seconds, over all attempts
        barren = 0
        while waiting.left() or suspects:
            alone = bool(suspects)
            numbers = _Numbers([suspects.popleft()]) if alone else waiting
            barren += 1
            for i, evaluation in self._round(tasks, numbers, 1 if alone else self.workers.count):
                barren = 0
                tries[i] += alone
                spent[i] += evaluation.cost.seconds
                if evaluation.status is Status.CRASHED and tries[i] < TRIES_ALONE:
                    suspects.append(i)
                    continue
                cost = replace(evaluation.cost, attempts=1 + tries[i], seconds=spent[i])
                yield i, replace(evaluation, cost=cost)
            if alone:
                suspects.extendleft(numbers)  # not begun
            if barren == BARREN_ROUNDS:
                raise SearchFailed(f"workers die before they begin anything: {self._last_death}")

    def _round(
        self, tasks: Sequence[Task], numbers: _Numbers, at_once: int
    ) -> Iterator[tuple[int, Evaluation]]:
        """Takes numbers off the queue until it is empty or a worker has died."""
        flying: dict[Future[Evaluation], int] = {}
        begun: dict[int, float] = {}
        while numbers.left() or flying:
            try:
                while numbers.left() and len(flying) < at_once:
                    candidate, seed = tasks[numbers[0]]
                    trace = self.workers.trace(numbers[0])
                    future = self.workers.submit(
                        worker.work, self.evaluator, candidate, seed, trace, self.timeout
                    )
                    begun[numbers[0]] = time.time()
                    flying[future] = numbers.popleft()
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    evaluation = _result(future, tasks[flying[future]][0])
                    yield flying.pop(future), evaluation
            except BrokenProcessPool as error:
                self.workers.renew()
                self._last_death = describe(error.__cause__ or error)
                yield from self._after_death(tasks, numbers, flying, begun, str(error))
                return

    def _after_death(
        self,
        tasks: Sequence[Task],
        numbers: deque[int],
        flying: Mapping[Future[Evaluation], int],
        begun: Mapping[int, float],
        message: str,
    ) -> Iterator[tuple[int, Evaluation]]:
        """What became of those in flight: done after all, timed out, crashed, or not begun."""
        ended = time.time()
        wait(flying)
        codes = re.search(r"exit codes of the workers are \{(.*?)\}", message)
        died = f"its worker died: {codes[1] if codes else 'exit code unknown'}"
        for future, i in flying.items():
            trace = self.workers.trace(i)
            if not isinstance(future.exception(), BrokenProcessPool):
                yield i, _result(future, tasks[i][0])
                continue
            try:
                timed_out = trace.read_text(errors="replace").startswith(worker.TIMED_OUT)
            except FileNotFoundError:
                numbers.appendleft(i)
            else:
                trace.unlink(missing_ok=True)
                status = Status.TIMEOUT if timed_out else Status.CRASHED
                text = f"took longer than {self.timeout:g} s" if timed_out else died
                cost = Cost(seconds=ended - begun[i], started=begun[i])
                yield i, Evaluation(tasks[i][0], {}, status, cost, text, deterministic=False)


class _Numbers(deque[int]):
    """The numbers of tasks not begun, those included that have come since the last look."""

    def __init__(self, numbers: Sequence[int] = (), of: Sequence[Task] = ()) -> None:
        super().__init__(numbers)
        self._tasks = of
        self._known = 0

    def left(self) -> bool:
        known, self._known = self._known, len(self._tasks)
        self.extend(range(known, self._known))
        return bool(self)


def _result(future: Future[Evaluation], candidate: Candidate) -> Evaluation:
    """What a worker sent back; what cannot be sent is a crash."""
    try:
        return future.result()
    except (BrokenProcessPool, SearchFailed):
        raise
    except Exception as error:  # pickling, or the evaluator's module, raises what it likes
        return Evaluation(candidate, {}, Status.CRASHED, message=describe(error))

"""The loop that every strategy and evaluator meets in: a generator of generations."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Cost,
    Evaluation,
    Generation,
    Question,
    SearchFailed,
    Status,
    Stop,
    derive_seed,
    violation,
)
from evonas.metrics import SIMULATED_SECONDS
from evonas.protocols import Dispatcher, Evaluator, SteadyState, Strategy
from genomes import SearchSpace

MAX_FREE = 5000  # candidates in a row that cost nothing, after which seconds no longer end a search


class Answers(Protocol):
    """All trainings of a run so far; `records.Journal` keeps them on disk."""

    def get(self, question: Question) -> Evaluation | None: ...

    def add(self, question: Question, evaluation: Evaluation) -> None: ...


class Memory:
    """Answers for a run that leaves nothing behind."""

    def __init__(self) -> None:
        self._answers: dict[Question, Evaluation] = {}

    def get(self, question: Question) -> Evaluation | None:
        return self._answers.get(question)

    def add(self, question: Question, evaluation: Evaluation) -> None:
        self._answers[question] = evaluation


@dataclass(frozen=True, slots=True)
class Position:
    """Where a search stands.

    Attributes:
        generations, evaluations: how many there have been.
        simulated_seconds: how many have been spent.
        asked: all questions so far.
    """

    generations: int = 0
    evaluations: int = 0
    simulated_seconds: float = 0.0
    asked: Collection[Question] = ()


START = Position()


def evolve(
    strategy: Strategy, desk: Desk, *, stop: Stop | None = None, since: Position = START
) -> Iterator[Generation]:
    """Asks, evaluates and tells until a limit is reached or the strategy has no more to ask.

    An evaluation's seed derives from the run's seed and the network's key, and what is trained is
    the network's canonical genome, so neither order nor spelling nor the number of workers changes
    a result, and what has been answered once is not trained again.

    Args:
        stop: the limits; without it, the strategy alone ends the search. The evaluation that would
            exceed `simulated_seconds` is not made, and the search ends before it. It also ends once
            the last 5,000 candidates were all answered before, which costs nothing, for ever.
        since: where an earlier part of the search stopped; the strategy has its state of then.

    Yields:
        Each generation, after the strategy has been told of it, unless it is an incomplete last
        one, of which the strategy is not told.
    """
    asking = _Asking(strategy, desk, stop, since)
    index = since.generations
    answered: list[tuple[Asked, Evaluation]] = []  # of the present generation
    while batch := asking.next_batch():
        evaluations = [desk.wait(asked) for asked in batch]
        answered += zip(batch, evaluations, strict=True)
        if asking.exhausted and asking.size is None:
            break
        strategy.tell(evaluations)
        if asking.size is None or len(answered) >= asking.size:
            yield _generation(index, answered)
            index, answered = index + 1, []
    if answered:
        yield _generation(index, answered, complete=not asking.exhausted)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question put to a desk.

    Attributes:
        candidate: who asks; several may ask about the same network.
        repeated: whether the run has asked the same before.
        simulated_seconds: what the run has spent with this evaluation.
    """

    question: Question
    candidate: Candidate
    repeated: bool = False
    simulated_seconds: float = 0.0


class _Asking:
    """Asks a strategy for as much as it has to ask, and knows when to end.

    Attributes:
        size: candidates in a generation of a steady-state strategy; None for a generational one.
        exhausted: whether the simulated seconds have been spent.
    """

    def __init__(self, strategy: Strategy, desk: Desk, stop: Stop | None, since: Position) -> None:
        self.strategy = strategy
        self.desk = desk
        self.size = strategy.generation_size if isinstance(strategy, SteadyState) else None
        self.exhausted = False
        self._max_generations = stop.generations if stop else None
        self._max_evaluations = stop.evaluations if stop else None
        self._max_seconds = stop.simulated_seconds if stop else None
        self._generations = since.generations
        self._count = since.evaluations
        self._seconds = since.simulated_seconds
        self._seen = set(since.asked)
        self._free = 0  # candidates in a row that were answered before
        self._outstanding: deque[list[Asked]] = deque()  # one list for each `ask`

    def next_batch(self) -> list[Asked]:
        """The next `ask` to be answered and told, after asking ahead; empty at the end."""
        while not self.exhausted and self._may_ask():
            batch = self._asked(self.strategy.ask())
            if not batch:
                break
            self._count += len(batch)
            self._outstanding.append(batch)
        if not self._outstanding:
            return []
        if self.size is None:
            self._generations += 1
        return self._outstanding.popleft()

    def _may_ask(self) -> bool:
        """Whether a generational strategy has all its answers, and no limit forbids a beginning."""
        if self.size is None and self._outstanding:
            return False
        if self.size is not None and self._count % self.size:
            return True
        at = self._generations if self.size is None else self._count // self.size
        over = self._max_generations is not None and at >= self._max_generations
        enough = self._max_evaluations is not None and self._count >= self._max_evaluations
        return not over and not enough

    def _asked(self, candidates: Sequence[Candidate]) -> list[Asked]:
        """Puts candidates to the desk, up to the one that would exceed the simulated seconds."""
        batch: list[Asked] = []
        for candidate in candidates:
            asked = self.desk.question(candidate)
            # One that comes twice is trained for its first place.
            repeated = asked.question in self._seen
            cost = 0.0 if repeated else self.desk.simulated_seconds(asked.candidate)
            self._free = self._free + 1 if repeated else 0
            if self._max_seconds is not None:
                over = self._seconds + cost > self._max_seconds and not repeated
                self.exhausted = over or self._free > MAX_FREE
                if self.exhausted:
                    break
            self._seconds += cost
            self._seen.add(asked.question)
            asked = replace(asked, repeated=repeated, simulated_seconds=self._seconds)
            self.desk.put(asked)
            batch.append(asked)
        return batch


def _generation(
    index: int, answered: Sequence[tuple[Asked, Evaluation]], *, complete: bool = True
) -> Generation:
    return Generation(
        index,
        tuple(asked.question for asked, _ in answered),
        tuple(evaluation for _, evaluation in answered),
        tuple(asked.repeated for asked, _ in answered),
        answered[-1][0].simulated_seconds,
        complete,
    )


class Desk:
    """Where candidates are put, and their answers waited for.

    A known answer is not asked for again, an infeasible network is not trained, and every answer
    is recorded as it arrives. New candidates may be put while others are being evaluated.

    Args:
        seed: the run's.
        budget: for candidates that come without one.
        answers: what is known from before a resume; new answers are added to it.
        dispatcher: where evaluations are made; in this process, if not given.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        space: SearchSpace,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        constraints: Sequence[Constraint] = (),
        answers: Answers | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.space = space
        self.seed = seed
        self.budget = budget
        self.constraints = tuple(constraints)
        self.answers = Memory() if answers is None else answers
        self.dispatcher = InProcess(evaluator) if dispatcher is None else dispatcher
        self._counts = SIMULATED_SECONDS.name in {metric.name for metric in evaluator.metrics}
        self._timed = any(metric.timed and metric.cheap for metric in evaluator.metrics)
        self._open: set[Question] = set()
        self._outstanding: dict[Future[Evaluation], Question] = {}

    def question(self, candidate: Candidate, *names: str | int) -> Asked:
        """A candidate and the question that it puts.

        Args:
            names: what the seed derives from besides the run's seed and the network's key.
        """
        candidate = replace(candidate, budget=candidate.budget or self.budget)
        key = self.space.key(candidate.genome)
        budget = candidate.budget.text if candidate.budget else ""
        return Asked(Question(key, derive_seed(self.seed, key, *names), budget), candidate)

    def put(self, asked: Asked) -> None:
        """Has a question answered, unless it is known, under way, or infeasible."""
        question = asked.question
        if question in self._open or self.answers.get(question) is not None:
            return
        canonical = self._canonical(asked.candidate)
        cheap = self.evaluator.cheap(canonical.genome) if self.constraints else {}
        if violation(cheap, self.constraints) > 0:
            infeasible = Evaluation(
                canonical,
                cheap,
                Status.INFEASIBLE,
                Cost(attempts=0),
                deterministic=not self._timed,
            )
            self.answers.add(question, infeasible)
            return
        self._open.add(question)
        self._outstanding[self.dispatcher.submit(canonical, question.seed)] = question

    def wait(self, asked: Asked) -> Evaluation:
        """The answer, to this candidate: another may have asked about the same network."""
        while (answer := self.answers.get(asked.question)) is None:
            self._take_one()
        return replace(answer, candidate=asked.candidate)

    def answer_all(self, batch: Sequence[Asked]) -> list[Evaluation]:
        """The answers to questions, in their order."""
        for asked in batch:
            self.put(asked)
        return [self.wait(asked) for asked in batch]

    def evaluate_anew(self, candidate: Candidate, seed: int) -> Evaluation:
        """The answer of a new evaluation, which is not recorded; nothing else may be under way."""
        assert not self._outstanding, "the next answer would be another's"
        self.dispatcher.submit(self._canonical(candidate), seed)
        return self.dispatcher.next_done().result()

    def simulated_seconds(self, candidate: Candidate) -> float:
        """What evaluating a candidate will take; nothing if it is infeasible or never counted."""
        if not self._counts:
            return 0.0
        cheap = self.evaluator.cheap(self.space.canonical(candidate.genome))
        return 0.0 if violation(cheap, self.constraints) > 0 else cheap[SIMULATED_SECONDS.name]

    def _canonical(self, candidate: Candidate) -> Candidate:
        return replace(candidate, genome=self.space.canonical(candidate.genome))

    def _take_one(self) -> None:
        assert self._outstanding, "a question is put before its answer is waited for"
        future = self.dispatcher.next_done()
        question, evaluation = self._outstanding.pop(future), future.result()
        if evaluation.status is Status.OK and violation(evaluation.values, self.constraints) > 0:
            evaluation = replace(evaluation, status=Status.INFEASIBLE)
        self._open.remove(question)
        self.answers.add(question, evaluation)


class InProcess:
    """Evaluates in this process, one candidate after the other, when its answer is waited for."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._waiting: deque[tuple[Future[Evaluation], Candidate, int]] = deque()

    def submit(self, candidate: Candidate, seed: int) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        self._waiting.append((future, candidate, seed))
        return future

    def next_done(self) -> Future[Evaluation]:
        future, candidate, seed = self._waiting.popleft()
        future.set_result(guarded(self.evaluator, candidate, seed))
        return future


def guarded(evaluator: Evaluator, candidate: Candidate, seed: int) -> Evaluation:
    """The answer, timed; an exception becomes a crash.

    Raises:
        SearchFailed: the evaluator says that it is the machine's fault, not the candidate's.
    """
    started, clock = time.time(), time.perf_counter()
    try:
        answer = evaluator.evaluate(candidate, seed)
        answer = replace(answer, values={str(k): _plain(v) for k, v in answer.values.items()})
    except (KeyboardInterrupt, SearchFailed):
        raise
    except BaseException as error:  # whatever a user's network may raise, SystemExit included
        answer = Evaluation(candidate, {}, Status.CRASHED, message=error_text(error))
    seconds = time.perf_counter() - clock
    cost = replace(answer.cost, seconds=seconds, started=started, worker=os.getpid())
    return replace(answer, candidate=candidate, cost=cost)


def _plain(value: float) -> float:
    return value if type(value) is int else float(value)


def error_text(error: BaseException) -> str:
    """`ValueError: what it says`, on one line of at most 300 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."

"""The loop that every strategy and evaluator meets in: a generator of generations."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from evonas.core import (
    SIMULATED,
    BatchEvaluator,
    Budget,
    Candidate,
    Constraint,
    Cost,
    Evaluation,
    Evaluator,
    Generation,
    Question,
    SearchFailed,
    Status,
    SteadyState,
    Strategy,
    derive_seed,
    violation,
)
from genomes import SearchSpace

STALE = 5000  # candidates in a row that cost nothing, after which seconds no longer end a search


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


def evolve(
    strategy: Strategy,
    evaluator: Evaluator,
    *,
    space: SearchSpace,
    seed: int,
    generations: int | None = None,
    evaluations: int | None = None,
    simulated_seconds: float | None = None,
    budget: Budget | None = None,
    constraints: Sequence[Constraint] = (),
    answers: Answers | None = None,
    asked: Collection[Question] = (),
    done: tuple[int, int] = (0, 0),
    spent: float = 0.0,
) -> Iterator[Generation]:
    """Asks, evaluates and tells until a limit is reached or the strategy has no more to ask.

    An evaluation's seed derives from `seed` and the network's key, and what is trained is the
    network's canonical genome, so neither order nor spelling nor the number of workers changes a
    result, and what has been answered once is not trained again.

    Args:
        generations: how many in all.
        evaluations: no generation begins once so many candidates have been answered.
        simulated_seconds: the evaluation that would take the sum of its metric of this name over
            the limit is not made, and the search ends before it. It also ends once the last 5,000
            candidates were all answered before, which costs nothing, for ever.
        budget: of candidates that come without one.
        answers: what is known from before a resume; new answers are added as they arrive.
        asked: the questions of all generations before a resume.
        done: generations and evaluations before a resume.
        spent: simulated seconds before a resume.

    Yields:
        Each generation, after the strategy has been told of it, but for an incomplete last one.
    """
    desk = Desk(evaluator, space, constraints, Memory() if answers is None else answers)
    size = strategy.generation_size if isinstance(strategy, SteadyState) else None
    index, count = done  # generations told, candidates asked
    seen = set(asked)
    out: deque[list[_Asked]] = deque()  # asked and not told yet, an ask each
    told: list[tuple[_Asked, Evaluation]] = []  # of the generation at hand
    ended = False  # no simulated seconds are left
    counted = SIMULATED in evaluator.metrics
    stale = 0  # candidates in a row that were answered before
    while True:
        while not ended and (size or not out):  # a generational strategy waits for its answers
            begins, at = (count % size == 0, count // size) if size else (True, index)
            over = generations is not None and at >= generations
            if begins and (over or (evaluations is not None and count >= evaluations)):
                break
            batch = []
            for candidate in strategy.ask():
                candidate = replace(candidate, budget=candidate.budget or budget)
                question = question_of(candidate, space, seed)
                cached = question in seen  # one that stands twice is trained for its first place
                if counted and not cached:
                    spent += desk.simulated_seconds(candidate)
                    if simulated_seconds is not None and spent > simulated_seconds:
                        ended = True
                        break
                stale = stale + 1 if cached else 0
                if simulated_seconds is not None and stale > STALE:
                    ended = True
                    break
                seen.add(question)
                desk.put(question, candidate)
                batch.append(_Asked(question, candidate, cached, spent))
            if not batch:
                break
            count += len(batch)
            out.append(batch)
        if not out:
            break
        batch = out.popleft()
        results = [desk.wait(asked.question, asked.candidate) for asked in batch]
        told += zip(batch, results, strict=True)
        if ended and size is None:
            break
        strategy.tell(results)
        if size is None or len(told) >= size:
            yield _generation(index, told)
            index, told = index + 1, []
    if told:
        yield _generation(index, told, complete=not ended)


@dataclass(frozen=True, slots=True)
class _Asked:
    question: Question
    candidate: Candidate
    cached: bool
    spent: float


def _generation(
    index: int, told: Sequence[tuple[_Asked, Evaluation]], *, complete: bool = True
) -> Generation:
    return Generation(
        index,
        tuple(asked.question for asked, _ in told),
        tuple(evaluation for _, evaluation in told),
        tuple(asked.cached for asked, _ in told),
        told[-1][0].spent,
        complete,
    )


def question_of(candidate: Candidate, space: SearchSpace, seed: int) -> Question:
    """The question that a candidate puts in a run of this seed."""
    key = space.key(candidate.genome)
    budget = candidate.budget.text if candidate.budget else ""
    return Question(key, derive_seed(seed, key), budget)


class Desk:
    """Where questions are put, and their answers waited for.

    What is known is not asked again, what is infeasible is not trained, and every answer is added
    to those known as it arrives. New questions may be put while others are being answered.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        space: SearchSpace,
        constraints: Sequence[Constraint],
        answers: Answers,
    ) -> None:
        self.evaluator = evaluator
        self.space = space
        self.constraints = tuple(constraints)
        self.answers = answers
        self._open: set[Question] = set()
        self._begin()

    def put(self, question: Question, candidate: Candidate) -> None:
        if question in self._open or self.answers.get(question) is not None:
            return
        canonical = replace(candidate, genome=self.space.canonical(candidate.genome))
        cheap = self.evaluator.cheap(canonical.genome) if self.constraints else {}
        if violation(cheap, self.constraints) > 0:
            infeasible = Evaluation(
                canonical,
                cheap,
                Status.INFEASIBLE,
                Cost(attempts=0),
                deterministic=not getattr(self.evaluator, "clocked", False),
            )
            self.answers.add(question, infeasible)
            return
        self._open.add(question)
        self._order.append(question)
        self._tasks.append((canonical, question.seed))

    def wait(self, question: Question, candidate: Candidate) -> Evaluation:
        """The answer, to this candidate: another may have asked for the same network."""
        while (known := self.answers.get(question)) is None:
            self._take_one()
        return replace(known, candidate=candidate)

    def simulated_seconds(self, candidate: Candidate) -> float:
        """What evaluating a candidate will take; nothing where it is infeasible."""
        cheap = self.evaluator.cheap(self.space.canonical(candidate.genome))
        return 0.0 if violation(cheap, self.constraints) > 0 else cheap[SIMULATED]

    def _begin(self) -> None:
        self._tasks: list[tuple[Candidate, int]] = []
        self._order: list[Question] = []
        self._stream = evaluate_all(self.evaluator, self._tasks)

    def _take_one(self) -> None:
        i, evaluation = next(self._stream)
        if evaluation.status is Status.OK and violation(evaluation.values, self.constraints) > 0:
            evaluation = replace(evaluation, status=Status.INFEASIBLE)
        self._open.remove(self._order[i])
        self.answers.add(self._order[i], evaluation)
        if not self._open:
            # To its end: an evaluator whose stream is dropped half-way ends its workers.
            next(self._stream, None)
            self._begin()


def answer(
    questions: Sequence[Question],
    candidates: Sequence[Candidate],
    evaluator: Evaluator,
    space: SearchSpace,
    constraints: Sequence[Constraint],
    answers: Answers,
) -> list[Evaluation]:
    """The answers to questions, in their order; those that are missing are added."""
    desk = Desk(evaluator, space, constraints, answers)
    asked = list(zip(questions, candidates, strict=True))
    for question, candidate in asked:
        desk.put(question, candidate)
    return [desk.wait(question, candidate) for question, candidate in asked]


def evaluate_all(
    evaluator: Evaluator, tasks: Sequence[tuple[Candidate, int]]
) -> Iterator[tuple[int, Evaluation]]:
    """Each task's number and answer, in the order they are done."""
    if isinstance(evaluator, BatchEvaluator):
        yield from evaluator.evaluate_all(tasks)
        return
    for i, (candidate, seed) in enumerate(tasks):
        yield i, guarded(evaluator, candidate, seed)


def guarded(evaluator: Evaluator, candidate: Candidate, seed: int) -> Evaluation:
    """The answer, timed; an exception becomes a crash.

    Raises:
        SearchFailed: the evaluator says that it is the machine's fault, not the candidate's.
    """
    started, clock = time.time(), time.perf_counter()
    try:
        found = evaluator.evaluate(candidate, seed)
        found = replace(found, values={str(k): _plain(v) for k, v in found.values.items()})
    except (KeyboardInterrupt, SearchFailed):
        raise
    except BaseException as error:  # whatever a user's network may raise, SystemExit included
        found = Evaluation(candidate, {}, Status.CRASHED, message=describe(error))
    seconds = time.perf_counter() - clock
    cost = replace(found.cost, seconds=seconds, started=started, worker=os.getpid())
    return replace(found, candidate=candidate, cost=cost)


def _plain(value: float) -> float:
    return value if type(value) is int else float(value)


def describe(error: BaseException) -> str:
    """`ValueError: what it says`, on one line of at most 300 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."

"""The loop that every strategy and evaluator meets in: a generator of generations."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from evonas.core import (
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
    Strategy,
    derive_seed,
    violation,
)
from genomes import SearchSpace


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
    budget: Budget | None = None,
    constraints: Sequence[Constraint] = (),
    answers: Answers | None = None,
    asked: Collection[Question] = (),
    done: tuple[int, int] = (0, 0),
) -> Iterator[Generation]:
    """Asks, evaluates and tells until a limit is reached or the strategy has no more to ask.

    An evaluation's seed derives from `seed` and the network's key, and what is trained is the
    network's canonical genome, so neither order nor spelling nor the number of workers changes a
    result, and what has been answered once is not trained again.

    Args:
        generations: how many in all.
        evaluations: no generation begins once so many candidates have been answered.
        budget: of candidates that come without one.
        answers: what is known from before a resume; new answers are added as they arrive.
        asked: the questions of all generations before a resume.
        done: generations and evaluations before a resume.

    Yields:
        Each generation, after the strategy has been told of it.
    """
    answers = Memory() if answers is None else answers
    index, told = done
    seen = set(asked)
    while (generations is None or index < generations) and (
        evaluations is None or told < evaluations
    ):
        candidates = [
            replace(candidate, budget=candidate.budget or budget) for candidate in strategy.ask()
        ]
        if not candidates:
            return
        questions = [question_of(candidate, space, seed) for candidate in candidates]
        results = answer(questions, candidates, evaluator, space, constraints, answers)
        strategy.tell(results)
        cached = []
        for question in questions:  # one that stands here twice is trained for its first place
            cached.append(question in seen)
            seen.add(question)
        yield Generation(index, tuple(questions), tuple(results), tuple(cached))
        index, told = index + 1, told + len(results)


def question_of(candidate: Candidate, space: SearchSpace, seed: int) -> Question:
    """The question that a candidate puts in a run of this seed."""
    key = space.key(candidate.genome)
    budget = candidate.budget.text if candidate.budget else ""
    return Question(key, derive_seed(seed, key), budget)


def answer(
    questions: Sequence[Question],
    candidates: Sequence[Candidate],
    evaluator: Evaluator,
    space: SearchSpace,
    constraints: Sequence[Constraint],
    answers: Answers,
) -> list[Evaluation]:
    """The answers to questions, in their order.

    Those that are missing are added, each as it arrives; what is infeasible is not trained.
    """
    found: dict[Question, Evaluation] = {}
    todo: dict[Question, Candidate] = {}
    for question, candidate in zip(questions, candidates, strict=True):
        if question in found or question in todo:
            continue
        known = answers.get(question)
        if known is None:
            canonical = replace(candidate, genome=space.canonical(candidate.genome))
            cheap = evaluator.cheap(canonical.genome) if constraints else {}
            if violation(cheap, constraints) == 0:
                todo[question] = canonical
                continue
            known = Evaluation(canonical, cheap, Status.INFEASIBLE, Cost(attempts=0))
            answers.add(question, known)
        found[question] = known
    order = list(todo)
    tasks = [(todo[question], question.seed) for question in order]
    for i, evaluation in evaluate_all(evaluator, tasks):
        if evaluation.status is Status.OK and violation(evaluation.values, constraints) > 0:
            evaluation = replace(evaluation, status=Status.INFEASIBLE)
        answers.add(order[i], evaluation)
        found[order[i]] = evaluation
    return [
        replace(found[question], candidate=candidate)
        for question, candidate in zip(questions, candidates, strict=True)
    ]


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

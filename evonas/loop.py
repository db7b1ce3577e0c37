"""The search loop: a generator of generations, for any strategy and evaluator."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from evonas import interrupts
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
from evonas.protocols import CheapByBudget, Dispatcher, Evaluator, SteadyState, Strategy
from genomes import SearchSpace

# Repeated candidates cost no time and are no new networks, so a limit on these alone would never
# end a search that asks for nothing else. It ends after so many in a row.
MAX_REPEATED = 5000

COST = {name: type(getattr(Cost(), name)) for name in Cost.__slots__}  # the type of each part


class Answers(Protocol):
    """The results of a run so far; `records.Journal` keeps them on disk."""

    def get(self, question: Question) -> Evaluation | None:
        """Return the answer to a question; None if there is none yet."""

    def add(self, question: Question, evaluation: Evaluation) -> None:
        """Record the answer to a question."""


class Memory:
    """Answers in memory, for a search without a run folder."""

    def __init__(self) -> None:
        self._answers: dict[Question, Evaluation] = {}

    def get(self, question: Question) -> Evaluation | None:
        return self._answers.get(question)

    def add(self, question: Question, evaluation: Evaluation) -> None:
        self._answers[question] = evaluation


@dataclass(frozen=True, slots=True)
class Position:
    """How far a search has come.

    Attributes:
        generations, evaluations: the number of each so far.
        simulated_seconds: the simulated time spent so far.
        asked: all questions so far.
    """

    generations: int = 0
    evaluations: int = 0
    simulated_seconds: float = 0.0
    asked: Collection[Question] = ()


START = Position()


def evolve(
    strategy: Strategy,
    desk: Desk,
    *,
    stop: Stop | None = None,
    since: Position = START,
    enough: Callable[[], bool] | None = None,
) -> Iterator[Generation]:
    """Ask, evaluate and tell until a limit is reached or the strategy has nothing more to ask.

    The seed of an evaluation derives from the run's seed and the network's key, and the network is
    trained as its canonical genome. So neither the order, nor the spelling of a genome, nor the
    number of workers changes a result, and no network is trained twice.

    Args:
        stop: the limits; None to leave the end to the strategy. With `simulated_seconds`, the
            search ends before the evaluation that would exceed them. With these, `networks` or
            `seconds`, it also ends after more than 5,000 repeated candidates in a row.
        since: where an earlier part of the search stopped; the strategy is in its state of then.
        enough: whether the limits `seconds` or `stagnation` end the search before a new generation.

    Yields:
        Each generation, after its results were told to the strategy. Only the results of an
        incomplete last generation are not told.
    """
    asking = _Asking(strategy, desk, stop, since, enough)
    index = since.generations
    answered: list[tuple[Asked, Evaluation]] = []  # the current generation so far
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
    """A question to a desk.

    Attributes:
        candidate: the candidate behind it; several may have the same network.
        repeated: whether the run has asked the same question before.
        simulated_seconds: the simulated time of the run, this evaluation included.
    """

    question: Question
    candidate: Candidate
    repeated: bool = False
    simulated_seconds: float = 0.0


class _Asking:
    """The questions of a strategy, up to the limits of the search.

    Attributes:
        size: the generation size of a steady-state strategy; None for a generational one.
        exhausted: whether the simulated time is spent.
    """

    def __init__(
        self,
        strategy: Strategy,
        desk: Desk,
        stop: Stop | None,
        since: Position,
        enough: Callable[[], bool] | None,
    ) -> None:
        self.strategy = strategy
        self.desk = desk
        self.size = strategy.generation_size if isinstance(strategy, SteadyState) else None
        self.exhausted = False
        self._max_generations = stop.generations if stop else None
        self._max_evaluations = stop.evaluations if stop else None
        self._max_networks = stop.networks if stop else None
        self._max_seconds = stop.simulated_seconds if stop else None
        self._enough = enough
        new_alone = stop and (stop.simulated_seconds or stop.networks or stop.seconds)
        self._max_repeated = MAX_REPEATED if new_alone else math.inf
        self._generations = since.generations
        self._count = since.evaluations
        self._seconds = since.simulated_seconds
        self._seen = set(since.asked)
        self._networks = {question.key for question in since.asked}
        self._repeated = 0  # candidates in a row that the run has asked about before
        self._outstanding: deque[list[Asked]] = deque()  # one list for each `ask`

    def next_batch(self) -> list[Asked]:
        """Return the next `ask` to be answered and told, after asking ahead; empty at the end."""
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
        """Return whether the strategy may be asked now.

        A generational strategy must have all its answers, and a new generation may begin only
        within the limits.
        """
        if self.size is None and self._outstanding:
            return False
        if self.size is not None and self._count % self.size:
            return True
        at = self._generations if self.size is None else self._count // self.size
        if self._max_generations is not None and at >= self._max_generations:
            return False
        if self._max_networks is not None and len(self._networks) >= self._max_networks:
            return False
        if self._enough is not None and (self._outstanding or self._enough()):
            return False  # a steady-state strategy is told a whole generation before this is known
        return self._max_evaluations is None or self._count < self._max_evaluations

    def _asked(self, candidates: Sequence[Candidate]) -> list[Asked]:
        """Put candidates to the desk, up to the one that would exceed the simulated time."""
        batch: list[Asked] = []
        for candidate in candidates:
            asked = self.desk.question(candidate)
            # A network that is asked about twice is paid for once.
            repeated = asked.question in self._seen
            cost = 0.0 if repeated else self.desk.simulated_seconds(asked.candidate)
            self._repeated = self._repeated + 1 if repeated else 0
            if self._max_seconds is not None and not repeated:
                self.exhausted = self._seconds + cost > self._max_seconds
            self.exhausted |= self._repeated > self._max_repeated
            if self.exhausted:
                break
            self._seconds += cost
            self._seen.add(asked.question)
            self._networks.add(asked.question.key)
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
    """Takes questions about candidates, and has them answered.

    No question is evaluated twice, an infeasible network is not trained, and every answer is
    recorded as it arrives. New questions may be put while others are being evaluated.

    Args:
        seed: the run's seed.
        budget: the budget of candidates that have none of their own.
        from_pool: the keys of the networks that a warm start has chosen: those are not seeds of the
            user's, though a strategy takes them for such, and their origin says so.
        answers: the answers from before a resume; new ones are added.
        dispatcher: has candidates evaluated; by default, in this process.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        space: SearchSpace,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        constraints: Sequence[Constraint] = (),
        from_pool: Collection[str] = (),
        answers: Answers | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.space = space
        self.seed = seed
        self.budget = budget
        self.constraints = tuple(constraints)
        self.from_pool = frozenset(from_pool)
        self.answers = Memory() if answers is None else answers
        self.dispatcher = InProcess(evaluator) if dispatcher is None else dispatcher
        cheap = [metric for metric in evaluator.metrics if metric.cheap]
        self._counts = SIMULATED_SECONDS.name in {metric.name for metric in cheap}
        self._timed = any(metric.timed for metric in cheap)
        self._open: set[Question] = set()
        self._outstanding: dict[Future[Evaluation], Question] = {}

    def question(self, candidate: Candidate, *names: str | int) -> Asked:
        """Return the question about a candidate.

        Args:
            names: what the seed derives from, besides the run's seed and the network's key.
        """
        key, origin = self.space.key(candidate.genome), candidate.origin
        origin = "warm_start" if origin == "seed" and key in self.from_pool else origin
        candidate = replace(candidate, budget=candidate.budget or self.budget, origin=origin)
        budget = candidate.budget.text if candidate.budget else ""
        return Asked(Question(key, derive_seed(self.seed, key, *names), budget), candidate)

    def put(self, asked: Asked) -> None:
        """Have a question answered, unless it is already answered, under way, or infeasible."""
        question = asked.question
        if question in self._open or self.answers.get(question) is not None:
            return
        canonical = self._canonical(asked.candidate)
        if self.constraints:
            known = self._known(canonical)
            if violation(known.values, self.constraints) > 0:
                known = replace(known, status=Status.INFEASIBLE, deterministic=not self._timed)
            if known.status is not Status.OK:
                self.answers.add(question, known)
                return
        self._open.add(question)
        self._outstanding[self.dispatcher.submit(canonical, question.seed)] = question

    def wait(self, asked: Asked) -> Evaluation:
        """Wait for the answer; return it with this candidate, even if another one asked first."""
        while (answer := self.answers.get(asked.question)) is None:
            self._take_one()
        return replace(answer, candidate=asked.candidate)

    def answer_all(self, batch: Sequence[Asked]) -> list[Evaluation]:
        """Put all questions, and return their answers in the same order."""
        for asked in batch:
            self.put(asked)
        return [self.wait(asked) for asked in batch]

    def evaluate_anew(self, candidate: Candidate, seed: int) -> Evaluation:
        """Evaluate again without recording the result; nothing else may be under way."""
        assert not self._outstanding, "the next result would be another candidate's"
        self.dispatcher.submit(self._canonical(candidate), seed)
        return self.dispatcher.next_done().result()

    def simulated_seconds(self, candidate: Candidate) -> float:
        """Return the simulated time of an evaluation; 0 if infeasible, or if none is counted."""
        if not self._counts:
            return 0.0
        known = self._known(self._canonical(candidate))
        if known.status is not Status.OK or violation(known.values, self.constraints) > 0:
            return 0.0
        seconds = known.values.get(SIMULATED_SECONDS.name, 0.0)
        return max(seconds, 0.0) if math.isfinite(seconds) else 0.0  # else it will have diverged

    def _known(self, canonical: Candidate) -> Evaluation:
        """Return what is known without an evaluation; `crashed` if that cannot be told."""

        def measure() -> Evaluation:
            evaluator = self.evaluator
            if isinstance(evaluator, CheapByBudget):
                values = evaluator.cheap_at(canonical)
            else:
                values = evaluator.cheap(canonical.genome)
            return Evaluation(canonical, numbers(values), cost=Cost(attempts=0))

        known = _attempted(canonical, measure)
        return replace(known, cost=Cost(attempts=0))

    def _canonical(self, candidate: Candidate) -> Candidate:
        return replace(candidate, genome=self.space.canonical(candidate.genome))

    def _take_one(self) -> None:
        assert self._outstanding, "put a question before waiting for its answer"
        future = self.dispatcher.next_done()
        question, evaluation = self._outstanding.pop(future), future.result()
        if evaluation.status is Status.OK and violation(evaluation.values, self.constraints) > 0:
            evaluation = replace(evaluation, status=Status.INFEASIBLE)
        self._open.remove(question)
        self.answers.add(question, evaluation)


class InProcess:
    """A dispatcher that evaluates in this process, one candidate at a time, in `next_done`."""

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
    """Evaluate a candidate and time it; no answer of an evaluator ends the search.

    An exception becomes the status `crashed`, and so does an answer that is not of the types of an
    `Evaluation`, or lacks a metric that the evaluator declares. NaN or infinity in an answer, or a
    number too large for a float, makes it `diverged`.

    Raises:
        SearchFailed: the evaluator reports a failure that is not this candidate's.
    """
    started, clock = time.time(), time.perf_counter()
    names = [metric.name for metric in evaluator.metrics]
    answer = _attempted(candidate, lambda: checked(evaluator.evaluate(candidate, seed), names))
    seconds = time.perf_counter() - clock
    cost = replace(answer.cost, seconds=seconds, started=started, worker=os.getpid())
    return replace(answer, candidate=candidate, cost=cost)


def _attempted(candidate: Candidate, measure: Callable[[], Evaluation]) -> Evaluation:
    try:
        return measure()
    except BaseException as error:  # a user's network may raise anything, even KeyboardInterrupt
        if isinstance(error, SearchFailed) or interrupts.is_real(error):
            raise
        return Evaluation(candidate, {}, Status.CRASHED, message=error_text(error))


def checked(answer: Evaluation, names: Sequence[str] = ()) -> Evaluation:
    """Return an answer in plain types, so that journal, tables and other processes can hold it.

    Args:
        names: the metrics that a good answer has.

    Raises:
        TypeError, ValueError: a part of it is of another type, or a metric is missing.
    """
    for text in (answer.message, answer.weights):
        if not isinstance(text, str):
            raise TypeError(f"a message or a file of weights is {text!r}, not text")
    cost = Cost(**{name: kind(getattr(answer.cost, name)) for name, kind in COST.items()})
    status, message, values = Status(answer.status), answer.message, numbers(answer.values)
    if status is Status.OK:
        infinite = [f"{n} is {value}" for n, value in values.items() if not math.isfinite(value)]
        missing = [name for name in names if name not in values]
        if infinite:
            status, message = Status.DIVERGED, message or ", ".join(infinite)
        elif missing:
            measured = ", ".join(values) or "nothing"
            raise ValueError(f"evaluate returned {measured}, without {', '.join(missing)}")
    # A text may be of a class of the user's too, which another process does not know.
    return Evaluation(
        answer.candidate,
        values,
        status,
        cost,
        str.__str__(message),
        bool(answer.deterministic),
        str.__str__(answer.weights),
    )


def numbers(values: Mapping[Any, Any]) -> dict[str, float]:
    """Return the values of metrics as plain numbers.

    Arrays and tensors of one element are taken too. What is too large for a float is infinite.

    Raises:
        TypeError: these are no values by name, or one is not a number.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{values!r} is not a mapping from metrics to numbers")
    return {str.__str__(str(name)): _number(name, value) for name, value in values.items()}


def _number(name: object, value: Any) -> float:
    if type(value) is int and abs(value) < 2**63:
        return value
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError):  # the last is torch's, for several elements
        raise TypeError(f"{name} is {value!r}, which is not a number") from None


def error_text(error: BaseException) -> str:
    """Return `ValueError: its message` and its last note, in one line of up to 300 characters."""
    try:
        message = str(error)
    except Exception:  # an exception of the user's may not even say what it is
        message = "(without a message)"
    text = " ".join(f"{type(error).__name__}: {message}".split())
    note = "".join(f" {note}" for note in getattr(error, "__notes__", ())[-1:])[:150]
    room = 300 - len(note)
    return (text if len(text) <= room else f"{text[: room - 3]}...") + note

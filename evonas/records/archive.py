"""All evaluations so far, folded into what the next row needs: front, counts, references."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evonas import pareto
from evonas.core import (
    Budget,
    Constraint,
    Evaluation,
    Generation,
    Objective,
    Question,
    SearchFailed,
    Status,
    finite,
)
from evonas.loop import Position
from evonas.protocols import Bounded, Evaluator

FAILURE_WINDOW = 10  # a run ends when its last max(population, 10) evaluations all failed


@dataclass(frozen=True, slots=True)
class Entry:
    """A network on the front, and where it was first found."""

    question: Question
    evaluation: Evaluation
    generation: int
    index: int


class Archive:
    """A fold over generations in order or, on a resume, over the rows of the tables.

    Only results of the same budget are compared: the front is that of the largest budget with a
    result, and begins anew with the first result of a larger one. All else counts all budgets.

    Attributes:
        references: the hypervolume's reference for each objective, in its own unit; None until
            the first generation with a finite value sets it to the worst value there.
    """

    def __init__(self, objectives: Sequence[Objective], references: Sequence[float | None]) -> None:
        self.objectives = tuple(objectives)
        self.references = list(references)
        self.front: list[Entry] = []
        self.asked: set[Question] = set()
        self.keys: set[str] = set()
        self.generations = 0
        self.evaluations = 0
        self.hits = 0
        self.simulated_seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.worked = False  # whether anything was evaluated without a fault
        self._last: deque[tuple[Status, str]] = deque(maxlen=FAILURE_WINDOW)

    def add(self, generation: Generation) -> None:
        """Take in the next generation.

        Raises:
            SearchFailed: a budget is in another unit than that of the front.
        """
        entries = []
        for question, evaluation, cached in zip(
            generation.questions, generation.evaluations, generation.cached, strict=True
        ):
            if not cached and self._counts(evaluation):
                entries.append(Entry(question, evaluation, generation.index, self.evaluations))
            self.asked.add(question)
            self.keys.add(question.key)
            self.evaluations += 1
            self.hits += cached
            if evaluation.status.failed:
                self.faults[evaluation.status] += 1
            else:
                self.worked |= evaluation.cost.attempts > 0 or evaluation.status is Status.OK
        self.generations = generation.index + 1
        self.simulated_seconds = generation.simulated_seconds
        self._refer(generation.evaluations)
        self._merge(entries)
        size = max(len(generation.evaluations), FAILURE_WINDOW)
        self._last = deque(self._last, maxlen=size)
        self._last.extend((e.status, e.message) for e in generation.evaluations)

    @property
    def position(self) -> Position:
        """Where the search stands."""
        return Position(
            self.generations, self.evaluations, self.simulated_seconds, frozenset(self.asked)
        )

    def check_alive(self, *, ended: bool = False, resumable: bool = True) -> None:
        """Raise SearchFailed if the last max(population, 10) evaluations all failed.

        Args:
            ended: whether the search is over; it has failed if each evaluation did, however few.
            resumable: whether the search can go on where it failed.
        """
        last = self._last
        failures = [each for each in last if each[0].failed]
        nothing = ended and bool(failures) and not self.worked
        if not nothing and not len(failures) == len(last) == last.maxlen:
            return
        (status, message), times = Counter(failures).most_common(1)[0]
        which = self.faults.total() if nothing else f"last {len(last)}"
        raise SearchFailed(
            f"the {which} evaluations all failed, {times} of them: {status}: {message}"
            f"; fix the cause, then {'resume' if resumable and not nothing else 'start again'}"
        )

    def losses(self) -> pareto.Losses:
        """Return the losses of the front, (n, m)."""
        return pareto.losses([entry.evaluation for entry in self.front], self.objectives)

    def hypervolume(self) -> float:
        """Return the hypervolume of the front; NaN until all references are known."""
        if any(reference is None for reference in self.references):
            return float("nan")
        return pareto.hypervolume(self.losses(), self._signed(self.references))

    def best(self, objective: Objective) -> Entry | None:
        """Return the front's best entry by one objective; None if the front is empty."""
        values = [e.evaluation.values[objective.name] for e in self.front]
        if not values:
            return None
        return self.front[int(np.argmin(values) if objective.goal == "min" else np.argmax(values))]

    def _counts(self, evaluation: Evaluation) -> bool:
        names = [objective.name for objective in self.objectives]
        return evaluation.status is Status.OK and finite(evaluation.values, names)

    def _merge(self, entries: list[Entry]) -> None:
        """Update the front with new entries; it is sorted by objectives, then by key."""
        candidates = self.front + entries
        if not candidates:
            return
        try:
            ranks = budget_ranks([entry.question.budget for entry in candidates])
        except ValueError as error:
            raise SearchFailed(str(error)) from None
        candidates = [candidates[i] for i in np.flatnonzero(ranks == ranks.max())]
        values = pareto.losses([entry.evaluation for entry in candidates], self.objectives)
        self.front = sorted(
            (candidates[i] for i in np.flatnonzero(pareto.is_on_front(values))),
            key=lambda entry: (
                *pareto.losses([entry.evaluation], self.objectives)[0].tolist(),
                entry.question.key,
            ),
        )

    def _refer(self, evaluations: Sequence[Evaluation]) -> None:
        for i, objective in enumerate(self.objectives):
            if self.references[i] is None:
                values = [
                    e.values[objective.name]
                    for e in evaluations
                    if not e.status.failed and finite(e.values, [objective.name])
                ]
                if values:
                    self.references[i] = max(values) if objective.goal == "min" else min(values)

    def _signed(self, references: Sequence[float | None]) -> list[float]:
        return [
            objective.sign * reference
            for objective, reference in zip(self.objectives, references, strict=True)
            if reference is not None
        ]


def budget_ranks(budgets: Sequence[str]) -> NDArray[np.int64]:
    """The rank of each budget among those given: the larger, the higher.

    A longer training ranks higher and, of two that are equally long, the one with the longer
    horizon.

    Args:
        budgets: n texts (`Question.budget`); no budget, "", has rank 0.

    Returns:
        (n,) ranks; results of different ranks are not to be compared.

    Raises:
        ValueError: a text is no budget, or they have different units.
    """
    known = {text: Budget.from_text(text) for text in set(budgets) if text}
    units = sorted({budget.unit for budget in known.values()})
    if len(units) > 1:
        raise ValueError(f"budgets in {' and in '.join(units)} cannot be compared")
    lengths = {text: (each.amount, each.whole) for text, each in known.items()}
    order = {length: rank for rank, length in enumerate(sorted({(0.0, 0.0), *lengths.values()}))}
    return np.array([order[lengths.get(text, (0.0, 0.0))] for text in budgets], dtype=np.int64)


def known_references(
    objectives: Sequence[Objective], evaluator: Evaluator, constraints: Sequence[Constraint] = ()
) -> list[float | None]:
    """The references that are known before the first training.

    The objective's own; else, where less is better, the most that the metric can be, if the
    evaluator knows it, or the metric's, or the most that a constraint allows.
    """
    references = [objective.reference for objective in objectives]
    if None not in references:
        return references
    known = {constraint.name: constraint.max for constraint in constraints}
    known |= {
        metric.name: metric.reference
        for metric in evaluator.metrics
        if metric.reference is not None
    }
    known |= evaluator.most() if isinstance(evaluator, Bounded) else {}
    return [
        known.get(objective.name) if reference is None and objective.goal == "min" else reference
        for objective, reference in zip(objectives, references, strict=True)
    ]

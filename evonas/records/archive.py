"""All evaluations so far, folded into what the next row needs: front, counts, references."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evonas import pareto
from evonas.core import (
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
        self._last: deque[tuple[Status, str]] = deque(maxlen=FAILURE_WINDOW)

    def add(self, generation: Generation) -> None:
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

    def check_alive(self) -> None:
        """Raise SearchFailed if the last max(population, 10) evaluations all failed."""
        last = self._last
        if len(last) == last.maxlen and all(status.failed for status, _ in last):
            (status, message), times = Counter(last).most_common(1)[0]
            raise SearchFailed(
                f"the last {len(last)} evaluations all failed, {times} of them: {status}: {message}"
                "; fix the cause, then resume"
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


def known_references(objectives: Sequence[Objective], evaluator: Evaluator) -> list[float | None]:
    """The references that are known before the first training.

    The objective's own; else, where less is better, the most that the metric can be, if the
    evaluator knows it, or the metric's.
    """
    references = [objective.reference for objective in objectives]
    if None not in references:
        return references
    known = {metric.name: metric.reference for metric in evaluator.metrics}
    known |= evaluator.most() if isinstance(evaluator, Bounded) else {}
    return [
        known.get(objective.name) if reference is None and objective.goal == "min" else reference
        for objective, reference in zip(objectives, references, strict=True)
    ]

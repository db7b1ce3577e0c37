"""`evonas.search`: a search from Python, with any function as the evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from evonas import config, own_classes, plugins, registry
from evonas.core import (
    Candidate,
    Constraint,
    Evaluation,
    Generation,
    Mistake,
    Objective,
    SearchFailed,
    Status,
    Stop,
    UserError,
)
from evonas.loop import Desk, checked, evolve, numbers
from evonas.metrics import RESERVED, named, refused
from evonas.own import Build, OwnSpace
from evonas.protocols import Setting, Strategy, StrategyClass
from evonas.records import tables
from evonas.records.archive import Archive, known_references
from genomes import Genome, SearchSpace

Evaluate = Callable[[Genome], Mapping[str, float]]
Goal = str | tuple[str, str] | Mapping[str, Any] | Objective
P = TypeVar("P", Objective, Constraint)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search; the tables are like those of a run folder.

    Attributes:
        evaluations: one row per candidate, in ask order; the last column, `message`, says why a
            candidate failed.
        generations: one row per generation.
        front: the non-dominated candidates, sorted by the first objective, best first.
        genomes: the genomes of the front, in the same order.
    """

    evaluations: pd.DataFrame
    generations: pd.DataFrame
    front: pd.DataFrame
    genomes: tuple[Genome, ...]

    @property
    def best(self) -> Genome | None:
        """The best genome by the first objective; None if the front is empty."""
        return self.genomes[0] if self.genomes else None


def search(
    space: SearchSpace | Build | str,
    *,
    evaluate: Evaluate,
    objectives: Sequence[Goal],
    strategy: str | type | Mapping[str, Any] | Strategy = "genetic",
    constraints: Sequence[Constraint | Mapping[str, Any]] = (),
    cheap: Evaluate | None = None,
    generations: int | None = None,
    evaluations: int | None = None,
    seed: int = 0,
) -> SearchResult:
    """Search a space for the genomes that are best by what a function measures.

    Equal networks are evaluated once, in their canonical spelling. If `evaluate` raises an
    exception, or returns something other than numbers, the candidate has the status `crashed`; if
    a number is NaN or infinite, `diverged`. Ctrl-C ends the search.

    Args:
        space: a space, a function that defines one (`evonas.space`), or the name of a space that
            needs no settings, which may be `FILE.py:NAME`.
        evaluate: returns the metrics of a genome by name, each of which becomes a column.
        objectives: for each, the name of a metric to minimise, or a pair such as `("accuracy",
            "max")`, or a mapping as in the YAML.
        strategy: a name, a mapping as in the YAML, a class of your own, or a strategy. In a
            mapping, `name` may be a class, and an operator a function. Paths of your own files, as
            in `crossover: ops.py:mine`, are relative to the working directory.
        constraints: mappings as in the YAML, such as `{"name": "params", "max": 1e6}`.
        cheap: returns the metrics that are known without an evaluation. A genome that violates a
            constraint on them is not evaluated.
        generations, evaluations: the limits of the search; give one or both. The first one reached
            ends the search.
        seed: the seed of the search.

    Raises:
        UserError: a name or a setting is invalid, or the first answer of `evaluate` shows that
            it names a metric like a column that the tables have already, or that it measures
            nothing of a name that a constraint bounds.
        SearchFailed: the last evaluations all failed, or all of a short search; the message says
            why.
    """
    if generations is None and evaluations is None:
        raise UserError("a search needs a limit", hint="give generations, evaluations, or both")
    limits = {"generations": generations, "evaluations": evaluations}
    stop = config.validated(limits, Stop)
    search_space = _space(space)
    goals = _each("objectives", [_objective(goal) for goal in objectives], Objective)
    bounds = _each("constraints", constraints, Constraint)
    if not goals:
        raise UserError("is empty", hint="give at least 1", key="objectives")
    chooser = _strategy(strategy, search_space, goals, bounds, seed)
    evaluator = _Function(evaluate, cheap, goals, bounds)
    desk = Desk(evaluator, search_space, seed=seed, constraints=bounds)
    archive = Archive(goals, known_references(goals, evaluator))
    history: list[tuple[int, Generation]] = []
    rows: list[tables.Row] = []
    try:
        for generation in evolve(chooser, desk, stop=stop):
            history.append((archive.evaluations, generation))
            archive.add(generation)
            rows.append(tables.generation_row(generation, archive))
            archive.check_alive()
    except _Refused as error:
        raise UserError(error.mistake) from None
    archive.check_alive(ended=True)
    return _result(search_space, archive, history, rows)


def _result(
    space: SearchSpace,
    archive: Archive,
    history: Sequence[tuple[int, Generation]],
    rows: Sequence[tables.Row],
) -> SearchResult:
    """Return the tables of a search.

    Args:
        history: each generation, and the number of evaluations before it.
        rows: the row of each generation.
    """
    metrics = [goal.name for goal in archive.objectives]
    for _, generation in history:
        for evaluation in generation.evaluations:
            metrics += [name for name in evaluation.values if name not in metrics]
    evaluations = [
        {**row, "message": evaluation.message}
        for first, generation in history
        for row, evaluation in zip(
            tables.evaluation_rows(generation, first, space, metrics),
            generation.evaluations,
            strict=True,
        )
    ]
    columns = [*tables.evaluation_columns(metrics), "message"]
    return SearchResult(
        pd.DataFrame(evaluations, columns=columns),
        pd.DataFrame(rows, columns=tables.generation_columns(archive.objectives)),
        pd.DataFrame(tables.front_rows(archive, space), columns=tables.front_columns(metrics)),
        tuple(entry.evaluation.candidate.genome for entry in archive.front),
    )


class _Function:
    """A function as an evaluator."""

    def __init__(
        self,
        evaluate: Evaluate,
        cheap: Evaluate | None,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
    ) -> None:
        self._bounded = [constraint.name for constraint in constraints]
        names = [*(objective.name for objective in objectives), *self._bounded]
        self.metrics = tuple(named(name) for name in dict.fromkeys(names))
        self.fingerprint = ""
        self._evaluate = evaluate
        self._cheap = cheap
        self._answered = False

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        values = {} if self._cheap is None else numbers(self._cheap(genome))
        self._refuse(filter(None, map(_refused, values)))
        return values

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        values = {**self.cheap(candidate.genome), **numbers(self._evaluate(candidate.genome))}
        self._refuse(filter(None, map(_refused, values)))
        answer = checked(Evaluation(candidate, values))
        if answer.status is Status.OK and not self._answered:
            missing = [name for name in self._bounded if name not in values]
            hint = f"allowed: {', '.join(values) or 'nothing'}"
            self._refuse(Mistake(f"nothing measures {n}", hint, "constraints") for n in missing)
            self._answered = True
        return answer

    def _refuse(self, mistakes: Iterable[Mistake]) -> None:
        """Refuse the first answer; a later one is a fault of its candidate alone."""
        for mistake in mistakes:
            if self._answered:
                raise ValueError(str(mistake))
            raise _Refused(mistake)


class _Refused(SearchFailed):
    """The first answer of a function cannot be searched with."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def _refused(name: str) -> Mistake | None:
    return refused(name, RESERVED)


def _space(space: SearchSpace | Build | str) -> SearchSpace:
    if isinstance(space, SearchSpace):
        return space
    if not isinstance(space, str):
        return OwnSpace(space, {})
    params = config.component("space", "spaces", {"name": space}).anchored(Path.cwd())
    plugins.allow(params.own_files())
    return registry.make_space(params)


def _objective(goal: Goal) -> Mapping[str, Any] | Objective:
    if isinstance(goal, str):
        return {"name": goal}
    if isinstance(goal, tuple) and len(goal) == 2:
        return {"name": goal[0], "goal": goal[1]}
    return goal


def _each(section: str, values: Sequence[Any], model: type[P]) -> tuple[P, ...]:
    """Return objectives or constraints, validated, each on another metric."""
    checked = tuple(
        each if isinstance(each, model) else config.validated(each, model, f"{section}.{i}")
        for i, each in enumerate(values)
    )
    names = [each.name for each in checked]
    for i, name in enumerate(names):
        key = f"{section}.{i}.name"
        if mistake := refused(name, RESERVED):
            raise UserError(mistake, key=key)
        if name in names[:i]:
            raise UserError(f"{name} is listed twice", hint="list it once", key=key)
    return checked


def _strategy(
    choice: str | type | Mapping[str, Any] | Strategy,
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    seed: int,
) -> Strategy:
    if isinstance(choice, str | type):
        choice = {"name": choice}
    if not isinstance(choice, Mapping):
        registry.check_members(choice, Strategy, type(choice).__name__)
        return choice
    setting = Setting(space, tuple(objectives), tuple(constraints), seed)
    if isinstance(choice.get("name"), type):
        own: Any = choice["name"]
        settings = {key: value for key, value in choice.items() if key != "name"}
        checked = own_classes.settings_of(own, settings, StrategyClass, own.__name__)
        config.refuse_needs(own, own.__name__, "strategy")
        made: Strategy = own(checked, setting)
        registry.check_members(made, Strategy, own.__name__)
        return made
    params = config.component("strategy", "strategies", dict(choice)).anchored(Path.cwd())
    plugins.allow(params.own_files())  # permitted, since the caller's program names them
    config.refuse_training(params, "strategy.name")
    kind, params = config.strategy_of(params)
    return kind(params, setting)

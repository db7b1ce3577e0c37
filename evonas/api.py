"""From Python: a search with any function as the evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from evonas import config, plugins, registry
from evonas.core import (
    Candidate,
    Constraint,
    Evaluation,
    Metric,
    Objective,
    Stop,
    UserError,
)
from evonas.loop import Desk, evolve
from evonas.metrics import named
from evonas.own import Build, OwnSpace
from evonas.protocols import Setting, Strategy
from evonas.records import tables
from evonas.records.archive import Archive, known_references
from genomes import Genome, SearchSpace

Evaluate = Callable[[Genome], Mapping[str, float]]
Wanted = str | tuple[str, str] | Mapping[str, Any] | Objective
P = TypeVar("P", Objective, Constraint)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to; the tables are those of a run folder.

    Attributes:
        evaluations: a row a candidate, in ask order; its last column, `message`, says why one
            failed.
        generations: a row a generation.
        front: the front of all, the best by the first objective first.
        genomes: those of the front, in its order.
    """

    evaluations: pd.DataFrame
    generations: pd.DataFrame
    front: pd.DataFrame
    genomes: tuple[Genome, ...]

    @property
    def best(self) -> Genome | None:
        """The best by the first objective; None where nothing ended well."""
        return self.genomes[0] if self.genomes else None


def search(
    space: SearchSpace | Build | str,
    *,
    evaluate: Evaluate,
    objectives: Sequence[Wanted],
    strategy: str | Mapping[str, Any] | Strategy = "genetic",
    constraints: Sequence[Constraint | Mapping[str, Any]] = (),
    cheap: Evaluate | None = None,
    generations: int | None = None,
    evaluations: int | None = None,
    seed: int = 0,
) -> SearchResult:
    """Searches a space for what a function measures.

    Equal networks are evaluated once, in their canonical spelling. An exception of `evaluate` is a
    crash of that candidate, in the column `status`; Ctrl-C ends the search.

    Args:
        space: itself, or a function that spans one (`evonas.space`), or the name of one that needs
            no settings, `FILE.py:NAME` among them.
        evaluate: from a genome to its metrics.
        objectives: metrics to be minimised by name, or `("accuracy", "max")`, or as in the YAML.
        strategy: a name, settings as in the YAML, or an object that asks and tells. Of a file of
            your own, as in `crossover: ops.py:mine`, the path is as seen from the working folder.
        constraints: as in the YAML, `{"name": "params", "max": 1e6}`.
        cheap: what is known of a genome beforehand; constraints on it spare the evaluation.
        generations, evaluations: when to end, at the first; one of them at least.
        seed: of the search.

    Raises:
        UserError: a name or setting that makes no sense.
        SearchFailed: the last evaluations all failed; the message says how.
    """
    if generations is None and evaluations is None:
        raise UserError("a search needs an end", hint="give generations, evaluations, or both")
    limits = {"generations": generations, "evaluations": evaluations}
    stop = config.validated(limits, Stop)
    searched = _space(space)
    goals = _each("objectives", [_objective(wanted) for wanted in objectives], Objective)
    bounds = _each("constraints", constraints, Constraint)
    if not goals:
        raise UserError("objectives: there is none; allowed: one or more")
    chooser = _strategy(strategy, searched, goals, bounds, seed)
    evaluator = _Function(evaluate, cheap, tuple(named(goal.name) for goal in goals))
    archive = Archive(goals, known_references(goals, evaluator))
    told: list[tuple[int, Any]] = []
    rows: list[tables.Row] = []
    desk = Desk(evaluator, searched, seed=seed, constraints=bounds)
    for generation in evolve(chooser, desk, stop=stop):
        told.append((archive.evaluations, generation))
        archive.add(generation)
        rows.append(tables.generation_row(generation, archive))
        archive.check_alive()
    metrics = [goal.name for goal in goals]
    for _, generation in told:
        for evaluation in generation.evaluations:
            metrics += [name for name in evaluation.values if name not in metrics]
    return SearchResult(
        pd.DataFrame(
            [
                {**row, "message": evaluation.message}
                for first, generation in told
                for row, evaluation in zip(
                    tables.evaluation_rows(generation, first, searched, metrics),
                    generation.evaluations,
                    strict=True,
                )
            ],
            columns=[*tables.evaluation_columns(metrics), "message"],
        ),
        pd.DataFrame(rows, columns=tables.generation_columns(goals)),
        pd.DataFrame(tables.front_rows(archive, searched), columns=tables.front_columns(metrics)),
        tuple(entry.evaluation.candidate.genome for entry in archive.front),
    )


class _Function:
    """A function as an evaluator."""

    def __init__(
        self, evaluate: Evaluate, cheap: Evaluate | None, metrics: tuple[Metric, ...]
    ) -> None:
        self.metrics = metrics
        self.fingerprint = ""
        self._evaluate = evaluate
        self._cheap = cheap

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {} if self._cheap is None else self._cheap(genome)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        genome = candidate.genome
        values = {**self.cheap(genome), **self._evaluate(genome)}
        missing = [metric.name for metric in self.metrics if metric.name not in values]
        if missing:
            raise KeyError(f"evaluate gave no {', '.join(missing)}, but {', '.join(values)}")
        return Evaluation(candidate, values)


def _space(space: SearchSpace | Build | str) -> SearchSpace:
    if isinstance(space, SearchSpace):
        return space
    if not isinstance(space, str):
        return OwnSpace(space, {})
    params = config.component("space", "spaces", {"name": space}).anchored(Path.cwd())
    plugins.allow(params.own_files())
    return registry.make_space(params)


def _objective(wanted: Wanted) -> Mapping[str, Any] | Objective:
    if isinstance(wanted, str):
        return {"name": wanted}
    if isinstance(wanted, tuple) and len(wanted) == 2:
        return {"name": wanted[0], "goal": wanted[1]}
    return wanted


def _each(section: str, wanted: Sequence[Any], model: type[P]) -> tuple[P, ...]:
    """Objectives or constraints, each of a metric of its own."""
    checked = tuple(
        each if isinstance(each, model) else config.validated(each, model, f"{section}.{i}")
        for i, each in enumerate(wanted)
    )
    names = [each.name for each in checked]
    for i, name in enumerate(names):
        if name in names[:i]:
            key = f"{section}.{i}.name"
            raise UserError(f"{name} is listed twice", hint="list it once", key=key)
    return checked


def _strategy(
    wanted: str | Mapping[str, Any] | Strategy,
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    seed: int,
) -> Strategy:
    if isinstance(wanted, str):
        wanted = {"name": wanted}
    if not isinstance(wanted, Mapping):
        return wanted
    params = config.component("strategy", "strategies", dict(wanted)).anchored(Path.cwd())
    plugins.allow(params.own_files())  # the caller's own program names them
    config.refuse_training(params, "strategy.name")
    kind, params = config.strategy_of(params)
    return kind(params, Setting(space, tuple(objectives), tuple(constraints), seed))

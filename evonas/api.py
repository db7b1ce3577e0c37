"""From Python: a search with any function as the evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from evonas import config, plugins, registry
from evonas.core import Candidate, Constraint, Evaluation, Objective, Strategy, UserError
from evonas.loop import evolve
from evonas.own import Build, OwnSpace
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
        raise UserError("a search needs an end; allowed: generations, evaluations, or both")
    searched = _space(space)
    goals = _each("objectives", [_objective(wanted) for wanted in objectives], Objective)
    bounds = _each("constraints", constraints, Constraint)
    if not goals:
        raise UserError("objectives: there is none; allowed: one or more")
    chooser = _strategy(strategy, searched, goals, bounds, seed)
    archive = Archive(goals, known_references(goals, {}))
    told: list[tuple[int, Any]] = []
    rows: list[tables.Row] = []
    for generation in evolve(
        chooser,
        _Function(evaluate, cheap, tuple(goal.name for goal in goals)),
        space=searched,
        seed=seed,
        generations=generations,
        evaluations=evaluations,
        constraints=bounds,
    ):
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
        self, evaluate: Evaluate, cheap: Evaluate | None, metrics: tuple[str, ...]
    ) -> None:
        self.metrics = metrics
        self._evaluate = evaluate
        self._cheap = cheap

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {} if self._cheap is None else self._cheap(genome)

    def prepare(self, run_dir: Path) -> None: ...

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        genome = candidate.genome
        values = {**self.cheap(genome), **self._evaluate(genome)}
        missing = [name for name in self.metrics if name not in values]
        if missing:
            raise KeyError(f"evaluate gave no {', '.join(missing)}, but {', '.join(values)}")
        return Evaluation(candidate, values)


def _space(space: SearchSpace | Build | str) -> SearchSpace:
    if isinstance(space, SearchSpace):
        return space
    if not isinstance(space, str):
        return OwnSpace(space, {})
    if registry.is_own("spaces", space):
        params = config.component("space", "networks", {"name": space}).anchored(Path.cwd())
        plugins.allow(params.own_files())
        return registry.make_space(params)
    loaded = registry.load("spaces", space)
    if registry.load("networks", space).space_keys:
        raise UserError(f"the space {space} needs settings; allowed: the space itself")
    made: SearchSpace = loaded()
    return made


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
            raise UserError(f"{section}.{i}.name: {name} stands twice; allowed: once")
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
    loaded = registry.load("strategies", config.component_name(params))
    if getattr(loaded, "TRAINS", False):
        raise UserError(f"strategy.name: {config.on_images(config.component_name(params))}")
    made: Strategy = loaded(
        params, space=space, objectives=objectives, constraints=constraints, seed=seed
    )
    return made

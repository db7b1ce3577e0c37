"""The benchmark file: a table, a protocol, and the strategies to compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from evonas import config, registry, yamlfile
from evonas.consistency import check_warm_start, refuse_training
from evonas.core import Budget, Objective, Params, Requirement, UserError
from evonas.evaluators.tabular import TabularParams
from evonas.experiment import Name, WarmStart, strategy_of
from evonas.metrics import SIMULATED_SECONDS
from evonas.protocols import HasRungs

Count = Annotated[int, Field(ge=1, le=10_000_000)]
RANDOM = "random"
# The columns of runs.csv and summary.csv beside those of `report`.
COLUMNS = (
    "strategy|seed|queries|asks|simulated_seconds|best|queries_to_optimum|trace|n|found"
    r"|(value|p_random)(_std|_se)?(_at_\d+(_std|_se)?)?|median_(queries|low|high)"
)


class Protocol(Params):
    """When a run ends, and when its best so far is reported."""

    RENAMED: ClassVar = {"asks_a_query": "max_asks_per_query"}

    queries: Count | None = None
    """A run ends after this many distinct genomes, or networks; asking again costs nothing."""
    simulated_seconds: Annotated[float, Field(gt=0)] | None = None
    """A run ends when these are spent; an evaluation that would exceed them is not made."""
    at: Annotated[tuple[Count, ...], Field(max_length=20, strict=False)] = ()
    """Numbers of queries after which the best so far is reported, besides at the end."""
    max_asks_per_query: Count = 20
    """A run ends after this many candidates for each query, since it then asks for the same ones
    again and again. With simulated seconds, the queries made so far count, or 100 if fewer."""

    def model_post_init(self, context: object) -> None:
        if (self.queries is None) == (self.simulated_seconds is None):
            raise Requirement("must have queries or simulated_seconds")
        if self.queries is not None and any(at > self.queries for at in self.at):
            raise Requirement(f"must be at most queries, {self.queries}", "at")


class Bench(Params):
    """A benchmark: strategies, each with many seeds, on one table."""

    RENAMED: ClassVar = {"tell": "report"}

    name: Name
    """The name of the benchmark."""
    space: SerializeAsAny[Params]
    """The genomes of the table."""
    table: TabularParams
    """The table, its metrics, and how long an evaluation takes."""
    distinct: Literal["genomes", "networks"] = "genomes"
    """What a query is: a genome, or a network, which is looked up by its canonical spelling."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=20, strict=False)]
    """The objectives of the search; the first decides which network is the best."""
    score: Annotated[dict[str, str], Field(max_length=20)] = Field(default_factory=dict)
    """With several objectives: the metric that the hypervolume is measured in instead of an
    objective that the search sees, `{val_error: test_error}`."""
    reference: Literal["worst", "nadir"] = "worst"
    """With several objectives: where the hypervolume is measured from in those without a
    `reference` of their own. `worst`: the worst value in the table; `nadir`: the worst value on the
    exact front."""
    report: Annotated[tuple[str, ...], Field(max_length=20, strict=False)] = ()
    """Metrics of the network that is best by the first objective, reported next to it."""
    protocol: Protocol
    """When a run ends."""
    budget: Budget | None = None
    """How long a network of the table was trained. Required for a strategy such as `halving`, with
    `table.fidelities`; a run's best so far is that of the networks that were trained so long."""
    seeds: Count
    """Runs of each strategy, from seed 0."""
    strategies: Annotated[dict[str, SerializeAsAny[Params]], Field(min_length=1, max_length=50)]
    """The strategies, each under its own label; random search is added if it is missing."""
    warm_start: dict[str, WarmStart] = Field(default_factory=dict)
    """By the label of a strategy: the pool whose best are among its first candidates. To rank the
    pool is no query."""


def load(path: Path, overrides: Sequence[str] = (), *, written: bool = False) -> Bench:
    """Read, check and complete a benchmark file.

    Args:
        overrides: `dotted.key=value` each, applied before the checks.
        written: whether it is that of a benchmark's folder, perhaps of an earlier version.

    Raises:
        UserError: at most three lines, each naming the file, the key and the remedy.
    """
    with config.naming(path):
        document = yamlfile.overridden(yamlfile.read(path), overrides)
        return _checked(document, path.parent, written)


def _checked(document: Any, folder: Path, written: bool) -> Bench:
    if not isinstance(document, dict):
        keys = ", ".join(Bench.model_fields)
        raise UserError("is not a mapping", hint=f"allowed: the keys {keys}")
    sections = dict(document)
    if "space" in sections:
        sections["space"] = config.component("space", "spaces", sections["space"])
    arms = sections.get("strategies")
    if isinstance(arms, dict):
        checked = {
            str(label): config.component(f"strategies.{label}", "strategies", arm, written=written)
            for label, arm in arms.items()
        }
        for label, arm in checked.items():
            refuse_training(arm, f"strategies.{label}")
        if not any(registry.name_of(arm) == RANDOM for arm in checked.values()):
            if RANDOM in checked:
                problem = "is the label of random search"
                raise UserError(problem, hint="choose another label", key=f"strategies.{RANDOM}")
            loaded = registry.load("strategies", RANDOM)
            checked = {RANDOM: loaded.Params(), **checked}
        sections["strategies"] = checked
    bench = config.validated(sections, Bench)
    _check_together(bench)
    arms = {label: params.anchored(folder) for label, params in bench.strategies.items()}
    return bench.model_copy(update={"table": bench.table.anchored(folder), "strategies": arms})


def _check_budgets(bench: Bench) -> None:
    """Check that the table has values for all budgets of the strategies."""
    for label, arm in bench.strategies.items():
        if not isinstance(arm, HasRungs):
            continue
        if bench.budget is None:
            hint = f"give it, such as {{epochs: 200}}; strategies.{label} divides it"
            raise UserError("is missing", hint=hint, key="budget")
        bench.table.check_fidelities(arm.rungs(bench.budget), "table")


def _check_score(bench: Bench) -> None:
    """Check how the hypervolume is measured."""
    objectives = [objective.name for objective in bench.objectives]
    given = {"score": bool(bench.score), "reference": bench.reference != "worst"}
    if len(objectives) == 1 and any(given.values()):
        raise UserError(
            "needs several objectives",
            hint="leave it out; report names other metrics of the best network",
            key=next(key for key in given if given[key]),
        )
    for objective, metric in bench.score.items():
        key = f"score.{objective}"
        if objective not in objectives:
            raise UserError(registry.unknown("objective", objective, objectives), key=key)
        if metric not in bench.table.metrics:
            known = list(bench.table.metrics)
            raise UserError(registry.unknown("metric", metric, known), key=key)


def _check_together(bench: Bench) -> None:
    _check_budgets(bench)
    _check_score(bench)
    known = list(bench.table.metrics)
    named: Mapping[str, tuple[str, ...]] = {
        "objectives": tuple(objective.name for objective in bench.objectives),
        "report": bench.report,
    }
    for section, names in named.items():
        for i, name in enumerate(names):
            if name not in known:
                text = registry.unknown("metric", name, known)
                raise UserError(text, key=f"{section}.{i}")
            if name in names[:i]:
                key = f"{section}.{i}"
                raise UserError(f"{name} is listed twice", hint="list it once", key=key)
    columns = [column for name in bench.report for column in (name, f"{name}_std", f"{name}_se")]
    for i, column in enumerate(columns):
        if column in columns[:i] or re.fullmatch(COLUMNS, column):
            raise UserError(
                f"{column} is a column that the tables have already",
                hint="choose another name in table.metrics",
                key=f"report.{i // 3}",
            )
    for label, warm_start in bench.warm_start.items():
        key = f"warm_start.{label}"
        if label not in bench.strategies:
            labels = list(bench.strategies)
            raise UserError(registry.unknown("label of a strategy", label, labels), key=key)
        kind, _ = strategy_of(bench.strategies[label])
        check_warm_start(warm_start, kind, bench.table.cheap, key)
    if bench.protocol.simulated_seconds is not None and bench.table.simulated_seconds is None:
        raise UserError(
            f"the table has no {SIMULATED_SECONDS.name}",
            hint="give queries instead, or table.simulated_seconds",
            key="protocol.simulated_seconds",
        )

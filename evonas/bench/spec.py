"""The benchmark file: a table, a protocol, and the strategies that meet on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from evonas import config, registry, yamlfile
from evonas.core import Objective, Params, Requirement, UserError
from evonas.evaluators.tabular import TabularParams
from evonas.metrics import SIMULATED_SECONDS

Count = Annotated[int, Field(ge=1, le=10_000_000)]
RANDOM = "random"


class Protocol(Params):
    """When a run ends, and when it is looked at."""

    RENAMED: ClassVar = {"asks_a_query": "max_asks_per_query"}

    queries: Count | None = None
    """So many distinct genomes, or networks; asking again costs nothing."""
    simulated_seconds: Annotated[float, Field(gt=0)] | None = None
    """So many; the evaluation that would overspend is not made."""
    at: Annotated[tuple[Count, ...], Field(max_length=20, strict=False)] = ()
    """Queries after which the best so far is told, besides at the end."""
    max_asks_per_query: Count = 20
    """A run ends after this many candidates for each query: it asks for the same again and again.
    With simulated seconds, for each query that it has made, or for 100."""

    def model_post_init(self, context: object) -> None:
        if (self.queries is None) == (self.simulated_seconds is None):
            raise Requirement("must have queries or simulated_seconds")
        if self.queries is not None and any(at > self.queries for at in self.at):
            raise Requirement(f"must be at most queries, {self.queries}", "at")


class Bench(Params):
    """Strategies times seeds on one table."""

    RENAMED: ClassVar = {"tell": "report"}

    name: config.Name
    """Of the benchmark."""
    space: SerializeAsAny[Params]
    """The genomes of the table."""
    table: TabularParams
    """The table, its metrics and what an evaluation takes."""
    distinct: Literal["genomes", "networks"] = "genomes"
    """What a query is: a genome, or a network, whose canonical spelling is looked up for all."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=20, strict=False)]
    """What is searched for, the first first."""
    report: Annotated[tuple[str, ...], Field(max_length=20, strict=False)] = ()
    """Metrics of the network that is best by the first objective, reported beside it."""
    protocol: Protocol
    """When a run ends."""
    seeds: Count
    """Runs of each strategy, from seed 0."""
    strategies: Annotated[dict[str, SerializeAsAny[Params]], Field(min_length=1, max_length=50)]
    """The strategies, each under a label of its own; random search is always among them."""


def load(path: Path, overrides: Sequence[str] = ()) -> Bench:
    """Reads, checks and completes a benchmark file.

    Raises:
        UserError: one to three lines, each naming the file, the key and what is allowed.
    """
    with config.naming(path):
        document = yamlfile.overridden(yamlfile.read(path), overrides)
        return _checked(document, path.parent)


def _checked(document: Any, folder: Path) -> Bench:
    if not isinstance(document, dict):
        raise UserError(f"holds no mapping; allowed: the keys {', '.join(Bench.model_fields)}")
    sections = dict(document)
    if "space" in sections:
        sections["space"] = config.component("space", "spaces", sections["space"])
    arms = sections.get("strategies")
    if isinstance(arms, dict):
        checked = {
            str(label): config.component(f"strategies.{label}", "strategies", arm)
            for label, arm in arms.items()
        }
        for label, arm in checked.items():
            config.refuse_training(arm, f"strategies.{label}")
        if not any(registry.name_of(arm) == RANDOM for arm in checked.values()):
            if RANDOM in checked:
                raise UserError(f"strategies.{RANDOM}: the label of random search")
            loaded = registry.load("strategies", RANDOM)
            checked = {RANDOM: loaded.Params(), **checked}
        sections["strategies"] = checked
    bench = config.validated(sections, Bench)
    _check_together(bench)
    arms = {label: params.anchored(folder) for label, params in bench.strategies.items()}
    return bench.model_copy(update={"table": bench.table.anchored(folder), "strategies": arms})


def _check_together(bench: Bench) -> None:
    known = list(bench.table.metrics)
    named: Mapping[str, tuple[str, ...]] = {
        "objectives": tuple(objective.name for objective in bench.objectives),
        "report": bench.report,
    }
    for section, names in named.items():
        for i, name in enumerate(names):
            if name not in known:
                text = registry.unknown("metric", name, known)
                raise UserError(f"{section}.{i}: {text}")
            if name in names[:i]:
                raise UserError(f"{section}.{i}: {name} stands twice; allowed: once")
    if bench.protocol.simulated_seconds is not None and bench.table.simulated_seconds is None:
        raise UserError(
            f"protocol.simulated_seconds: the table has no {SIMULATED_SECONDS.name}; "
            "allowed: queries, or `table.simulated_seconds`"
        )

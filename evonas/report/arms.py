"""Run folders as they are read for a comparison, and the arms that they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evonas import files, registry, yamlfile
from evonas.core import FAILURES, Objective, Status, UserError
from evonas.pareto import Array, Losses
from evonas.records import guessing, tables
from evonas.records.archive import budget_ranks
from evonas.records.folder import check_run_folder
from evonas.records.folder import environment as noted
from evonas.records.tables import read
from evonas.training.recipe import Recipe

# Settings that cannot change a network's values. Data and tables are identified by fingerprint.
IRRELEVANT = (
    *("seed", "name", "stop", "finalists", "training", "cache", "logging", "data.path"),
    *("parallel.workers", "parallel.per_device", "parallel.timeout"),
    *("parallel.backend", "parallel.address", "evaluator.path"),
)
SECTIONS = ("name", "seed", "space", "strategy", "evaluator", "objectives")
MOST_DIFFERENCES = 3  # in the name of an arm


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder, as far as it is written.

    Attributes:
        config: the resolved experiment, as plain data.
        losses: (n, m), to minimise, in the order of the evaluations' index; a row is all NaN if
            its evaluation failed, is infeasible or has a value that is not finite.
        fidelity: (n,), the rank of each evaluation's budget (`budget_ranks`).
        epochs: (n,), the epochs that each evaluation was trained for; 0 if an earlier one
            answered it.
        tested: the winner's test error, if it has been tested.
        at_chance: whether its best, or its winner, is no better than guessing.
    """

    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    losses: Losses
    fidelity: NDArray[np.int64]
    epochs: Array
    budgets: frozenset[str]
    trained: int
    hours: float
    from_cache: int
    faults: int
    tested: float | None
    at_chance: bool

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that can change a result, by dotted key."""
        return {
            key: value
            for key, value in yamlfile.flat(self.config)
            if not any(key == other or key.startswith(f"{other}.") for other in IRRELEVANT)
            and not (key.startswith("objectives.") and key.endswith(".reference"))
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """All runs with the same settings, ordered by seed; no seed occurs twice."""

    name: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Any]:
        return self.runs[0].settings


def load(path: Path) -> Run:
    """Reads a run folder, finished, running or killed.

    Raises:
        UserError: it is not a run folder, has no generation yet, or is damaged.
    """
    check_run_folder(path)
    tables = [path / f"{name}.csv" for name in ("evaluations", "timings")]
    try:
        config = yamlfile.read(path / "config.yaml")
    except UserError as error:
        raise UserError(str(error), key=str(path / "config.yaml")) from None
    lacking = [name for name in SECTIONS if not isinstance(config, dict) or name not in config]
    if lacking:
        hint = "restore the file as evonas wrote it"
        raise UserError(f"lacks {lacking[0]}", hint=hint, key=str(path / "config.yaml"))
    if not all(table.exists() and b"\n" in files.read(table) for table in tables):
        raise _unfinished(path)
    try:
        environment = noted(path)
        run = _read(path, _as_of_today(config), environment, *map(read, tables))
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        hint = "leave this run out"
        raise UserError(f"is damaged ({reason})", hint=hint, key=str(path)) from None
    if not len(run.losses):
        raise _unfinished(path)
    return run


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Groups runs into arms, in the order in which they are first named.

    Raises:
        UserError: the runs cannot be compared, or two runs of an arm have the same seed.
    """
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if group[0].settings == run.settings:
                group.append(run)
                break
        else:
            groups.append([run])
    names = _names(groups)
    for group in groups:
        group.sort(key=lambda run: run.seed)
        for one, other in pairwise(group):
            if one.seed == other.seed:
                both = f"{one.path} and {other.path}"
                problem = f"{both} are duplicates (same experiment, same seed, {one.seed})"
                raise UserError(problem, hint="give only one of them")
    return [Arm(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that some settings lack, or whose values differ."""
    keys = dict.fromkeys(key for each in settings for key in each)
    first = settings[0]
    return [
        key
        for key in keys
        if any(key not in each or each[key] != first.get(key) for each in settings)
    ]


def _as_of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of any version, with the keys that they would have today."""
    strategy = _recipes_as_of_today(config["strategy"])
    if strategy["name"] in registry.names("strategies"):
        strategy = registry.strategy(strategy["name"]).Params.today(strategy)
    evaluator = _recipes_as_of_today(config["evaluator"])
    if evaluator["name"] == "supernet":  # its class would take seconds to load
        evaluator = {"within_constraints": False, **evaluator}
    # 0.1.0 had no metrics of one's own
    return {"metrics": [], **config, "strategy": strategy, "evaluator": evaluator}


def _recipes_as_of_today(component: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: Recipe.today(value)
        if key in ("recipe", "alone") and isinstance(value, dict)
        else value
        for key, value in component.items()
    }


def _unfinished(path: Path) -> UserError:
    hint = "wait until it has finished one, or leave it out"
    return UserError("no generation is finished yet", hint=hint, key=str(path))


def _read(
    path: Path,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    evaluations: pd.DataFrame,
    timings: pd.DataFrame,
) -> Run:
    evaluations = evaluations.sort_values("index", kind="stable")
    timings = timings[timings["phase"] == "search"]
    objectives = tuple(Objective(**each) for each in config["objectives"])
    signs = [objective.sign for objective in objectives]
    losses = evaluations[[o.name for o in objectives]].to_numpy(np.float64) * signs
    ok = (evaluations["status"] == str(Status.OK)).to_numpy(np.bool_)
    losses[~(ok & np.isfinite(losses).all(axis=1))] = np.nan
    fresh = ~evaluations["cached"].to_numpy(np.bool_)
    failed = evaluations["status"].isin(FAILURES).to_numpy(np.bool_)
    budgets = evaluations["budget"].astype(object).fillna("").astype(str)
    cached = timings.get("from_cache", pd.Series(False, index=timings.index)).astype(str) == "True"
    # The timings say how long each training was, even one that diverged half way. A running
    # process writes that row last; until then the budget stands in.
    timed = timings.drop_duplicates("index").set_index("index")["epochs"]
    epochs = timed.reindex(evaluations["index"]).to_numpy(np.float64)
    planned = budgets.str.extract(r"^epochs=([\d.]+)", expand=False).to_numpy(np.float64)
    epochs = np.where(np.isnan(epochs), np.where(ok, planned, 0.0), epochs)
    winner = tables.winner(path)
    return Run(
        path=path,
        config=config,
        environment=environment,
        objectives=objectives,
        losses=losses,
        fidelity=budget_ranks(budgets.tolist()),
        epochs=np.where(fresh, np.nan_to_num(epochs), 0.0),
        budgets=frozenset(budgets[fresh]),
        trained=len(timings),
        hours=float(timings.loc[~cached, "seconds"].sum()) / 3600,
        from_cache=int(cached.sum()),
        faults=int((failed & fresh).sum()),
        tested=None if winner is None or tables.outdated(path) else float(winner["test_error"]),
        at_chance=bool(guessing.of_search(path) or guessing.of_winner(path)),
    )


def _check_comparable(one: Run, other: Run) -> None:
    """Raises UserError if the values of two runs are not comparable."""

    def goals(run: Run) -> str:
        return ", ".join(f"{o.name} {o.goal}" for o in run.objectives)

    def space(run: Run) -> str:
        return ", ".join(
            f"{key} {value}" for key, value in sorted(yamlfile.flat(run.config["space"]))
        )

    def data(run: Run) -> str:
        fingerprint = run.environment.get("data", "unknown")
        if "data" in run.config:
            return f"{run.config['data']['name']} {fingerprint}"
        metrics = dict(yamlfile.flat(run.config["evaluator"].get("metrics", {})))
        formulas = [f"{goal.name} = {metrics.get(goal.name)}" for goal in run.objectives]
        return f"table {fingerprint}, {', '.join(formulas)}"

    for what, text in (("objectives", goals), ("space", space), ("data", data)):
        if text(one) != text(other):
            raise UserError(
                f"{one.path} ({text(one)}) and {other.path} ({text(other)}) cannot be compared",
                hint=f"give runs with the same {what}",
            )


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The names of the groups' first experiments; what differs is added where groups share one."""
    plain = [str(group[0].config["name"]) for group in groups]
    names = list(plain)
    for name in {each for each in plain if plain.count(each) > 1}:
        places = [i for i, each in enumerate(plain) if each == name]
        settings = [groups[i][0].settings for i in places]
        keys = differing(settings)
        strategies = [str(each["strategy.name"]) for each in settings]
        if len(set(strategies)) == len(places):
            keys = ["strategy.name"]
        for number, (i, each) in enumerate(zip(places, settings, strict=True), 1):
            shown = [f"{_short(key)} {each.get(key, '-')}" for key in keys[:MOST_DIFFERENCES]]
            names[i] = f"{name} ({', '.join(shown)})"
            if len(keys) > MOST_DIFFERENCES:
                names[i] += f" #{number}"
    return names


def _short(key: str) -> str:
    """The last word of a key: `strategy.population` is a population, `strategy.name` a strategy."""
    return key.removesuffix(".name").rpartition(".")[2]

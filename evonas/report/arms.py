"""Run folders as they are read for a comparison, and the arms that they form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evonas import yamlfile
from evonas.core import FAILURES, Objective, Status, UserError
from evonas.pareto import Array, Losses
from evonas.records import tables
from evonas.records.folder import check_run_folder
from evonas.records.tables import read

# What cannot change a network's values; of data and tables the fingerprint tells more than a path.
IRRELEVANT = (
    *("seed", "name", "stop", "finalists", "training", "cache", "data.path"),
    *("parallel.workers", "parallel.timeout", "evaluator.path"),
)
SECTIONS = ("name", "seed", "space", "strategy", "evaluator", "objectives")
MOST_DIFFERENCES = 3  # that a name is made of


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder, as far as it is written.

    Attributes:
        config: the resolved experiment, plain.
        losses: (n, m), of each evaluation in the order of its index, to minimise; NaN in all of a
            row that failed, is infeasible or has a value that is not finite.
        epochs: (n,), what each evaluation was trained for; 0 for one that was answered by an
            earlier one.
        tested: the winner's test error and its standard error, where it has been tested.
    """

    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    losses: Losses
    epochs: Array
    budgets: frozenset[str]
    trained: int
    hours: float
    from_cache: int
    faults: int
    tested: tuple[float, float] | None

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """All that can change a result, by dotted key."""
        return {
            key: value
            for key, value in _flat(self.config)
            if not any(key == other or key.startswith(f"{other}.") for other in IRRELEVANT)
            and not (key.startswith("objectives.") and key.endswith(".reference"))
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """All runs of the same settings, in the order of their seeds, which all differ."""

    name: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Any]:
        return self.runs[0].settings


def load(path: Path) -> Run:
    """Reads a run folder, finished, running or killed.

    Raises:
        UserError: it is none, has no generation yet, or is damaged.
    """
    check_run_folder(path)
    tables = [path / f"{name}.csv" for name in ("evaluations", "timings")]
    try:
        config = yamlfile.read(path / "config.yaml")
    except UserError as error:
        raise UserError(f"{path / 'config.yaml'}: {error}") from None
    lacking = [name for name in SECTIONS if not isinstance(config, dict) or name not in config]
    if lacking:
        raise UserError(
            f"{path / 'config.yaml'} lacks {lacking[0]}; allowed: the file as evonas wrote it"
        )
    if not all(table.exists() and b"\n" in table.read_bytes() for table in tables):
        raise UserError(f"{path}: no generation is finished yet; allowed: runs that have one")
    try:
        environment = json.loads((path / "environment.json").read_text())
        run = _read(path, config, environment, *map(read, tables))
    except (OSError, KeyError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path} is damaged: {type(error).__name__}: {told}") from None
    if not len(run.losses):
        raise UserError(f"{path}: no generation is finished yet; allowed: runs that have one")
    return run


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """The runs as arms, in the order in which they are first named.

    Raises:
        UserError: the runs have nothing to be compared by, or a seed stands twice in an arm.
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
                raise UserError(
                    f"{one.path} and {other.path} are the same experiment with the same seed, "
                    f"{one.seed}; allowed: one of them"
                )
    return [Arm(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that some have and others have not, or with another value."""
    keys = dict.fromkeys(key for each in settings for key in each)
    first = settings[0]
    return [
        key
        for key in keys
        if any(key not in each or each[key] != first.get(key) for each in settings)
    ]


def _read(
    path: Path,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    evaluations: pd.DataFrame,
    timings: pd.DataFrame,
) -> Run:
    evaluations = evaluations.sort_values("index", kind="stable")
    timings = timings[timings["phase"] == "search"]
    objectives = tuple(Objective(**given) for given in config["objectives"])
    signs = [objective.sign for objective in objectives]
    losses = evaluations[[o.name for o in objectives]].to_numpy(np.float64) * signs
    ok = (evaluations["status"] == str(Status.OK)).to_numpy(np.bool_)
    losses[~(ok & np.isfinite(losses).all(axis=1))] = np.nan
    fresh = ~evaluations["cached"].to_numpy(np.bool_)
    failed = evaluations["status"].isin(FAILURES).to_numpy(np.bool_)
    budgets = evaluations["budget"].astype(object).fillna("").astype(str)
    cached = timings.get("from_cache", pd.Series(False, index=timings.index)).astype(str) == "True"
    # Its timing says how long a training was, also one that diverged half way. A running process
    # writes that row last; until then the budget says it.
    told = timings.drop_duplicates("index").set_index("index")["epochs"]
    epochs = told.reindex(evaluations["index"]).to_numpy(np.float64)
    planned = budgets.str.extract(r"^epochs=([\d.]+)", expand=False).to_numpy(np.float64)
    epochs = np.where(np.isnan(epochs), np.where(ok, planned, 0.0), epochs)
    return Run(
        path=path,
        config=config,
        environment=environment,
        objectives=objectives,
        losses=losses,
        epochs=np.where(fresh, np.nan_to_num(epochs), 0.0),
        budgets=frozenset(budgets[fresh]),
        trained=len(timings),
        hours=float(timings.loc[~cached, "seconds"].sum()) / 3600,
        from_cache=int(cached.sum()),
        faults=int((failed & fresh).sum()),
        tested=_tested(path),
    )


def _tested(path: Path) -> tuple[float, float] | None:
    winner = tables.winner(path)
    if winner is None:
        return None
    return float(winner["test_error"]), float(winner["test_error_se"])


def _check_comparable(one: Run, other: Run) -> None:
    """Raises UserError where the values of two runs have nothing to do with each other."""

    def goals(run: Run) -> str:
        return ", ".join(f"{o.name} {o.goal}" for o in run.objectives)

    def space(run: Run) -> str:
        return ", ".join(f"{key} {value}" for key, value in sorted(_flat(run.config["space"])))

    def data(run: Run) -> str:
        fingerprint = run.environment.get("data", "unknown")
        if "data" in run.config:
            return f"{run.config['data']['name']} {fingerprint}"
        metrics = dict(_flat(run.config["evaluator"].get("metrics", {})))
        told = [f"{goal.name} = {metrics.get(goal.name)}" for goal in run.objectives]
        return f"table {fingerprint}, {', '.join(told)}"

    for what, tell in (("objectives", goals), ("space", space), ("data", data)):
        if tell(one) != tell(other):
            raise UserError(
                f"{one.path} ({tell(one)}) and {other.path} ({tell(other)}) cannot be compared; "
                f"allowed: runs with the same {what}"
            )


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The first experiment's, made unique by what differs between those that share one."""
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
            told = [f"{_short(key)} {each.get(key, '-')}" for key in keys[:MOST_DIFFERENCES]]
            names[i] = f"{name} ({', '.join(told)})"
            if len(keys) > MOST_DIFFERENCES:
                names[i] += f" #{number}"
    return names


def _short(key: str) -> str:
    """`strategy.population` is a population, but `strategy.name` a strategy."""
    return key.removesuffix(".name").rpartition(".")[2]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and the values at their ends; an empty list or mapping is one."""
    if isinstance(value, Mapping | list) and value:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, inner in pairs:
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value

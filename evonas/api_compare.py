"""`evonas.compare`: strategies and seeds, searched and summed up in one call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from evonas import arguments, pareto
from evonas.api import goals_of, search
from evonas.core import Objective, Status, UserError
from evonas.markdown import counted
from evonas.results import SearchResult, Shown

HYPERVOLUME = "hypervolume"


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Strategies compared, each over the same seeds.

    Attributes:
        measure: what is compared: the best value of the objective that a search found, or, with
            several objectives, the hypervolume of its front.
        runs: one row per search: `strategy`, `seed`, the measure, and how many candidates were
            asked for (`evaluations`) and were different networks (`networks`).
        summary: one row per strategy: the number of seeds `n`, and mean, standard deviation, least
            and greatest value of the measure over them. `p` is of a two-sided Mann-Whitney test
            against the first strategy; NaN for itself.
        results: the result of each search, by strategy and seed.
    """

    measure: str
    runs: pd.DataFrame
    summary: pd.DataFrame
    results: Mapping[tuple[str, int], SearchResult]

    def _line(self) -> str:
        strategies, seeds = len(self.summary), self.runs["seed"].nunique()
        return f"{strategies} strategies, {counted(seeds, 'seed')} each, by {self.measure}"

    def _table(self) -> pd.DataFrame:
        return self.summary


def compare(
    space: Any,
    *,
    evaluate: Any,
    objectives: Sequence[Any],
    strategies: Mapping[str, Any] | Sequence[Any],
    seeds: int | Sequence[int] = 5,
    **limits: Any,
) -> Comparison:
    """Search with several strategies and several seeds, and compare what they find.

    With several objectives, hypervolumes are measured from one point in all searches: the
    objective's `reference`, or the worst value that any of them found.

    Args:
        space, evaluate, objectives: as in `evonas.search`.
        strategies: a mapping from a label to each strategy, or a list of strategies, each as in
            `evonas.search`. An object is refused, since it would go on where it stopped: give its
            class, or a mapping.
        seeds: how many, from 0, or a list of them.
        limits: the further arguments of `evonas.search`, such as `generations` and `constraints`.

    Raises:
        UserError: an argument is invalid.
        SearchFailed: a search failed.
    """
    named, numbers = _named(strategies), _seeds(seeds)
    if "seed" in limits or "strategy" in limits:
        raise UserError("seed and strategy are set here", hint="give seeds and strategies")
    goals = goals_of(objectives)
    results = {
        (label, seed): search(
            space, evaluate=evaluate, objectives=goals, strategy=strategy, seed=seed, **limits
        )
        for label, strategy in named.items()
        for seed in numbers
    }
    measure = goals[0].name if len(goals) == 1 else HYPERVOLUME
    values = _values(list(results.values()), goals)
    rows = [
        {
            "strategy": label,
            "seed": seed,
            measure: value,
            "evaluations": len(result.evaluations),
            "networks": result.evaluations["key"].nunique(),
        }
        for ((label, seed), result), value in zip(results.items(), values, strict=True)
    ]
    runs = pd.DataFrame(rows)
    return Comparison(measure, runs, _summary(runs, measure), results)


def _values(results: Sequence[SearchResult], goals: Sequence[Objective]) -> list[float]:
    """Return the measure of each result; NaN, or no volume, for an empty front."""
    fronts = [_losses(result.front, goals) for result in results]
    if len(goals) == 1:
        return [goals[0].sign * front[0, 0] if len(front) else math.nan for front in fronts]
    tables = [result.evaluations for result in results]
    ok = [table[table["status"] == Status.OK] for table in tables]
    worst = np.concatenate([_losses(table, goals) for table in ok]).max(axis=0, initial=-math.inf)
    reference = [
        low if goal.reference is None else goal.sign * goal.reference
        for goal, low in zip(goals, worst.tolist(), strict=True)
    ]
    return [pareto.hypervolume(front, reference) for front in fronts]


def _losses(table: pd.DataFrame, goals: Sequence[Objective]) -> pareto.Losses:
    values = table[[goal.name for goal in goals]].to_numpy(dtype=float)
    return np.asarray(values * [goal.sign for goal in goals], dtype=float)


def _summary(runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    groups = {label: group[measure] for label, group in runs.groupby("strategy", sort=False)}
    first = next(iter(groups.values()))
    return pd.DataFrame(
        {
            "strategy": label,
            "n": len(values),
            "mean": values.mean(),
            "std": values.std(),
            "min": values.min(),
            "max": values.max(),
            "p": math.nan if values is first else float(mannwhitneyu(values, first).pvalue),
        }
        for label, values in groups.items()
    )


def _named(strategies: Any) -> dict[str, Any]:
    """Return strategies by their labels."""
    if isinstance(strategies, Mapping) and "name" not in strategies:
        named = {str(label): strategy for label, strategy in strategies.items()}
    else:
        example = '["genetic", "random"], or a mapping from labels to strategies'
        listed = arguments.several("strategies", strategies, example)
        labels = [_label(strategy) for strategy in listed]
        if twice := [label for label in labels if labels.count(label) > 1]:
            hint = "give a mapping from labels to strategies"
            raise UserError(f"{twice[0]} is listed twice", hint=hint, key="strategies")
        named = dict(zip(labels, listed, strict=True))
    if not named:
        raise UserError("is empty", hint="give at least 1", key="strategies")
    for label, strategy in named.items():
        if not isinstance(strategy, str | type | Mapping):
            hint = "give a name, a class or a mapping, of which each search makes a new one"
            raise arguments.refusal(f"strategies.{label}", strategy, hint)
    return named


def _label(strategy: Any) -> str:
    name = strategy.get("name") if isinstance(strategy, Mapping) else strategy
    return str(getattr(name, "__name__", name))


def _seeds(seeds: Any) -> list[int]:
    if not isinstance(seeds, Sequence | np.ndarray):
        return list(range(arguments.whole("seeds", seeds, least=1)))
    listed = arguments.several("seeds", seeds, "[0, 1, 2], or a number of seeds")
    numbers = [arguments.whole(f"seeds.{i}", seed) for i, seed in enumerate(listed)]
    if len(set(numbers)) < len(numbers) or not numbers:
        raise arguments.refusal("seeds", seeds, "must be different seeds, at least 1")
    return numbers

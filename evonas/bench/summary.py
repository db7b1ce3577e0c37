"""The results of a benchmark: a row for each strategy, and curves over queries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from evonas import registry
from evonas.bench.runs import Table
from evonas.bench.spec import RANDOM, Bench

LEVEL = 0.95  # of intervals
POINTS = 200  # in a curve

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeanCurve:
    """The mean over the runs of a strategy, and its interval of 95 % (Student's t).

    Attributes:
        x: (k,), queries, or simulated seconds.
    """

    x: Array
    mean: Array
    low: Array
    high: Array


class Traces:
    """The changes of the best so far, for each run of a strategy."""

    def __init__(self, texts: pd.Series[str], column: int) -> None:
        steps = [
            [tuple(map(float, step.split(":"))) for step in str(text).split()] for text in texts
        ]
        self.x = [np.array([step[column] for step in run]) for run in steps]
        self.values = [np.array([step[2] for step in run]) for run in steps]

    def at(self, x: float) -> Array:
        """The values after x queries or seconds, (n,); NaN for runs that have none yet."""
        latest = []
        for places, values in zip(self.x, self.values, strict=True):
            i = int(np.searchsorted(places, x, side="right")) - 1
            latest.append(values[i] if i >= 0 else math.nan)
        return np.array(latest)

    def curve(self, x: Array) -> MeanCurve:
        values = np.stack([self.at(place) for place in x])
        values[np.isnan(values).any(axis=1)] = np.nan  # until every run has a value
        mean, n = values.mean(axis=1), values.shape[1]
        errors = stats.t.ppf((1 + LEVEL) / 2, n - 1) if n > 1 else 0.0
        half = errors * values.std(axis=1, ddof=min(n - 1, 1)) / n**0.5
        return MeanCurve(x, mean, mean - half, mean + half)


def summary(bench: Bench, table: Table, runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each strategy.

    `value` is the best so far of the objective or, with several, the share of the exact front's
    hypervolume. `p_random` is the p-value of a two-sided Mann-Whitney test of the values against
    those of random search. The interval of a median is distribution-free, from order statistics,
    with at least 95 %; for fewer than 6 runs it goes from the least to the most, with less. A run
    that did not find the optimum counts as one that needs infinitely many queries.
    """
    several = len(bench.objectives) > 1
    traces = {label: Traces(group["trace"], 0) for label, group in runs.groupby("strategy")}
    points = [*bench.protocol.at, None]
    base = _random(bench)
    rows = []
    for label in bench.strategies:
        group = runs[runs["strategy"] == label]
        row: dict[str, object] = {"strategy": label, "n": len(group)}
        for name in ("queries", "asks", "simulated_seconds"):
            row[name] = group[name].mean()
        for point in points:
            after = "" if point is None else f"_at_{point}"
            values = traces[label].at(math.inf if point is None else point)
            row |= _mean_columns(f"value{after}", values)
            if label != base:
                against = traces[base].at(math.inf if point is None else point)
                row[f"p_random{after}"] = float(stats.mannwhitneyu(values, against).pvalue)
        for name in bench.report:
            row |= _mean_columns(name, group[name].to_numpy(dtype=float))
        if not several:
            needed = group["queries_to_optimum"].fillna(math.inf).to_numpy(dtype=float)
            row |= dict(
                zip(("median_queries", "median_low", "median_high"), _median(needed), strict=True)
            )
            row["found"] = float(np.isfinite(needed).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def curves(bench: Bench, runs: pd.DataFrame) -> Mapping[str, MeanCurve]:
    """A curve for each strategy, by queries, or by simulated seconds if the protocol has them."""
    seconds = bench.protocol.simulated_seconds
    most = seconds if seconds is not None else float(bench.protocol.queries or 1)
    least = most / 100 if seconds is not None else 1.0
    x = np.unique(np.geomspace(least, most, POINTS).round(0 if seconds is None else 3))
    column = 0 if seconds is None else 1
    return {
        label: Traces(runs.loc[runs["strategy"] == label, "trace"], column).curve(x)
        for label in bench.strategies
    }


def coverage(runs: int) -> float:
    """Return the least probability with which the interval of a median contains it."""
    return min(LEVEL, 1 - 2 * 0.5**runs)  # with few runs, the widest interval has no more


def _random(bench: Bench) -> str:
    return next(label for label, arm in bench.strategies.items() if registry.name_of(arm) == RANDOM)


def _mean_columns(name: str, values: Array) -> dict[str, float]:
    """The mean, the standard deviation of the sample, and the standard error of the mean."""
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return {name: float(values.mean()), f"{name}_std": std, f"{name}_se": std / len(values) ** 0.5}


def _median(values: Array) -> tuple[float, float, float]:
    """The median, and the order statistics that contain it with probability LEVEL.

    Values may be infinite. For fewer than 6, the interval goes from the least to the most.
    """
    low, high = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
    if math.isnan(low):  # no order statistics contain it with this probability
        low, high = values.min(), values.max()
    return float(np.median(values)), float(low), float(high)

"""What comes out of `pays.py`: the arms' scores, their comparison, the tables and the figure.

The hypervolume is that of test error, in percentage points, and log10 of the params: on a
logarithmic scale every size counts alike, while with plain params whoever has the smallest network
has nearly all of the volume. It lies between the references below, which were fixed before any
search, and networks of fewer than 1,000 params count as if they had 1,000.

Only the networks that no other one of the arm dominates on the validation images enter it, and
the network of each size is chosen on them too; on the test images nothing is chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from evonas import markdown, pareto
from evonas.plots.style import CATEGORIES, WIDTH

Array = NDArray[np.float64]

# Errors that a network must undercut to count: as of a linear model, or above it.
REFERENCE = {"fashion_mnist": 0.20, "cifar10": 0.60, "pneumonia": 0.25}
LARGEST, SMALLEST = 100_000, 1_000  # params
SIZES = {"10k": 10_000, "30k": 30_000, "100k": 100_000}
MARGIN = 0.005  # by which evonas's error at 30k may be above the best hand-made network's
LEVEL = 0.01
FLIPS = 16  # differences up to which all changes of sign are counted


def networks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the networks of one search, with the means of their final trainings."""
    means = rows.groupby("genome")[["params", "val_error", "test_error"]].mean()
    return means.sort_values("params")


def error_at(trained: pd.DataFrame, most: float) -> float:
    """Return the test error of the network that is best on validation among those of a size.

    Args:
        trained: as of `networks`.
        most: how many params it may have; if none is so small, the error is NaN.
    """
    small = trained[trained["params"] <= most]
    if small.empty:
        return float("nan")
    return float(small.loc[small["val_error"].idxmin(), "test_error"])


def volume(trained: pd.DataFrame, reference: float) -> float:
    """Return the hypervolume of the networks that are on the front on validation.

    Args:
        trained: as of `networks`.
        reference: the test error from which on a network counts nothing.
    """
    size = np.log10(np.maximum(trained["params"].to_numpy(), SMALLEST))
    on_front = pareto.is_on_front(np.stack([trained["val_error"].to_numpy(), size], axis=1))
    points = np.stack([100 * trained["test_error"].to_numpy(), size], axis=1)
    return pareto.hypervolume(points[on_front], (100 * reference, np.log10(LARGEST)))


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each search: its hypervolume and its errors at some sizes.

    Args:
        rows: a row for each final training, of searches whose trainings are all there.
    """
    found = []
    for (data, arm, seed), group in rows.groupby(["data", "arm", "seed"], sort=False):
        trained = networks(group)
        row = {"data": data, "arm": arm, "seed": seed, "networks": len(trained)}
        row |= {key: group[key].iloc[0] for key in ("evaluations", "search_seconds")}
        row["hypervolume"] = volume(trained, REFERENCE[str(data)])
        row |= {f"error_{name}": error_at(trained, most) for name, most in SIZES.items()}
        found.append(row)
    return pd.DataFrame(found)


def differences(arms: pd.DataFrame, other: str, column: str = "hypervolume") -> dict[str, Array]:
    """Return, by data set, what evonas has more than another arm: a number for each seed."""
    paired = arms.pivot_table(column, ["data", "seed"], "arm", sort=False)
    if not {"evonas", other} <= set(paired.columns):
        return {}
    gains = (paired["evonas"] - paired[other]).dropna()
    return {str(data): each.to_numpy() for data, each in gains.groupby(level="data", sort=False)}


def sign_flips(gains: Sequence[Array]) -> float:
    """Return the p of a permutation test that flips the signs of paired differences, two-sided.

    The differences of each data set are divided by their root mean square, which no flip changes
    (their standard deviation would be another one), and then all are added up. If the arms were
    alike, each difference would be as likely with the other sign (Fisher, 1935). With 5 seeds of
    3 data sets, the least p is 2 / 2^15; a test of one data set alone could not come below 2 / 2^5.
    With more differences than 16, 2^16 flips are drawn at random.

    Args:
        gains: the differences of each data set.
    """
    scaled = [each / np.sqrt(np.mean(each**2)) for each in gains if np.any(each)]
    if not scaled:
        return 1.0
    pooled = np.concatenate(scaled)
    if len(pooled) <= FLIPS:
        signs = np.array(list(itertools.product((1, -1), repeat=len(pooled))))
    else:
        signs = np.random.default_rng(0).choice((1, -1), (2**FLIPS, len(pooled)))
        signs[0] = 1
    sums = np.abs(signs @ pooled)
    return float(np.mean(sums >= sums[0] * (1 - 1e-9)))


def answer(arms: pd.DataFrame) -> str:
    """Return Markdown that says what came out so far, and of how many seeds."""
    parts = [_means(arms), _comparison(arms), *_verdicts(arms)]
    return "\n\n".join(parts) + "\n"


def _means(arms: pd.DataFrame) -> str:
    header = ["data", "arm", "n", "trained", "search, s", "hypervolume"]
    header += [f"error at {name}, %" for name in SIZES]
    lines = []
    for (data, arm), group in arms.groupby(["data", "arm"], sort=False):
        cells = [data, arm, len(group), f"{group['evaluations'].mean():.0f}"]
        cells += [f"{group['search_seconds'].mean():.0f}", _with_error(group["hypervolume"])]
        cells += [_with_error(100 * group[f"error_{name}"]) for name in SIZES]
        lines.append(cells)
    note = "Means over n seeds, and their standard errors. The hypervolume is in percentage points"
    note += " of test error, times decades of params; trained are the networks of a search."
    return f"{markdown.table(header, lines)}\n\n{note}"


def _with_error(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return ""
    missing = f" (n = {len(known)})" if len(known) < len(values) else ""
    error = f" ± {known.sem():.2f}" if len(known) > 1 else ""
    return f"{known.mean():.2f}{error}{missing}"


def _comparison(arms: pd.DataFrame) -> str:
    others = [arm for arm in arms["arm"].unique() if arm != "evonas"]
    sets = list(arms["data"].unique())
    lines = []
    for other in others:
        gains = differences(arms, other)
        if not gains:
            continue
        cells = [
            other,
            *(_with_error(pd.Series(gains.get(data, []), dtype=float)) for data in sets),
        ]
        n = sum(map(len, gains.values()))
        lines.append([*cells, n, f"{sign_flips(list(gains.values())):.2g}"])
    title = "How much more hypervolume evonas has, by data set, and p over all pairs of seeds"
    title += " (two-sided; signs of paired differences flipped)"
    return f"{title}:\n\n{markdown.table(['than', *sets, 'pairs', 'p'], lines)}"


def _verdicts(arms: pd.DataFrame) -> list[str]:
    """Return the sentences that say whether evonas pays, as far as there are results."""
    told = []
    for other in ("random", "hand_made", "optuna"):
        gains = differences(arms, other)
        if not gains:
            continue
        everywhere = all(each.mean() > 0 for each in gains.values())
        p = sign_flips(list(gains.values()))
        holds = "holds" if everywhere and p < LEVEL else "does not hold"
        sets = markdown.counted(len(gains), "data set")
        pairs = markdown.counted(sum(map(len, gains.values())), "pair")
        told.append(
            f"More hypervolume than {other} on each of {sets}, p < {LEVEL} over {pairs}: {holds}."
        )
    above = {
        data: each.mean() for data, each in differences(arms, "hand_made", "error_30k").items()
    }
    if above:
        holds = "holds" if max(above.values()) <= MARGIN else "does not hold"
        points = ", ".join(f"{data} {100 * each:+.2f}" for data, each in above.items())
        limit = f"at most {100 * MARGIN:g} points above the best hand-made network's"
        told.append(f"Error at 30k params {limit} ({points}): {holds}.")
    return told


def figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the test error of each arm by size: a line for the mean, a band for all seeds.

    Returns:
        The figure, and its numbers.
    """
    sets = list(rows["data"].unique())
    every = sorted(rows["arm"].unique(), key=lambda arm: (arm != "evonas", arm))
    drawn = Figure(figsize=(WIDTH, 0.35 + 1.75 * len(sets)), layout="constrained")
    axes = drawn.subplots(len(sets), 1, squeeze=False, sharex=True)[:, 0]
    grid = np.geomspace(SMALLEST, LARGEST, 200)
    numbers = []
    for ax, data in zip(axes, sets, strict=True):
        seeds = set()
        for arm, colour in zip(every, CATEGORIES, strict=False):
            part = rows[(rows["data"] == data) & (rows["arm"] == arm)]
            if part.empty:
                continue
            runs = [networks(each) for _, each in part.groupby("seed")]
            seeds.add(len(runs))
            errors = np.array([[error_at(run, most) for most in grid] for run in runs])
            there = ~np.isnan(errors).any(axis=0)  # of each seed
            x, errors = grid[there], 100 * errors[:, there]
            low, mean, high = errors.min(axis=0), errors.mean(axis=0), errors.max(axis=0)
            ax.step(x, mean, where="post", color=colour, label=arm)
            if len(runs) > 1:
                ax.fill_between(x, low, high, step="post", color=colour, alpha=0.15, lw=0)
            about = {"data": data, "arm": arm, "n": len(runs), "params": x}
            numbers.append(pd.DataFrame({**about, "mean": mean, "min": low, "max": high}))
        n = f"n = {' to '.join(map(str, sorted({min(seeds), max(seeds)})))}"
        ax.set_title(f"{data}, {n}")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_ylabel("test error (%)")
        top = ax.get_ylim()[1]
        if ax.get_ylim()[0] < 100 * REFERENCE[data] < top:
            ax.set_ylim(None, 100 * REFERENCE[data])
        ax.grid(lw=0.3)
    axes[-1].set_xlabel("params, at most")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=3)
    return drawn, pd.concat(numbers, ignore_index=True)

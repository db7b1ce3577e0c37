"""The training of a supernet, and how well its scores rank networks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from evonas.markdown import counted
from evonas.plots.policy import ENTROPY
from evonas.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    WIDTH,
    Drawing,
    Measure,
    NotYet,
    from_zero,
    marker,
    panels,
    whole_axis,
)
from evonas.plots.tables import Tables

# What some ways of sampling report: label, colour, marker.
MORE = {
    "keep": ("probability to\nkeep an op", SKY, "D"),
    "temperature": ("temperature", ORANGE, "v"),
    "entropy": (ENTROPY, GREEN, "^"),
}
STATISTICS = {"kendall_tau": "Kendall's tau", "spearman": "Spearman's rho"}
MIN_NETWORKS = 3  # networks that can be ranked
FAR = 5  # interquartile ranges above the middle half; larger errors are drawn at the edge


def supernet(tables: Tables) -> Drawing:
    """Draws the loss by epoch, the errors of the networks scored, and what the sampling reports."""
    curve = tables.supernet_curve
    x, dot = curve["epoch"], marker(len(curve))
    try:
        pool = tables.supernet_pool
    except NotYet:
        pool = pd.DataFrame({"epoch": pd.Series(dtype="int64"), "key": [], "val_error": []})
    pool = pool[np.isfinite(pool["val_error"])]
    more = [name for name in MORE if np.isfinite(curve[name]).any()]
    figure, axes = panels(1 + (not pool.empty) + len(more), 1.2)
    axes[0].plot(x, curve["train_loss"], color=VERMILION, marker=dot and "s")
    axes[0].set_ylabel("train loss (nats)")
    if not pool.empty:
        Measure("val_error", pool["val_error"]).write_on(axes[1].yaxis)
        axes[1].set_ylabel("validation error (%)\nwith shared weights")
        axes[1].scatter(
            pool["epoch"],
            pool["val_error"],
            s=7,
            color=GREY,
            lw=0,
            alpha=0.7,
            rasterized=len(pool) > 2000,
            label="a network",
        )
        axes[1].plot(x, curve["pool_error"], color=BLUE, marker=dot, label="mean")
        axes[1].plot(
            x, curve["pool_best"], color=BLACK, ls=":", marker=dot and "P", label="best of them"
        )
        axes[1].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, handlelength=2.4)
    for ax, name in zip(axes[len(axes) - len(more) :], more, strict=True):
        label, colour, shape = MORE[name]
        ax.plot(x, curve[name], color=colour, marker=dot and shape)
        from_zero(ax, curve[name])
        ax.set_ylabel(label)
    for ax in axes:
        whole_axis(ax, x, "epoch of the supernet")
        ax.label_outer()
    figure.align_ylabels(axes)
    # One row for each network scored, with the values of its epoch.
    return Drawing(figure, curve.merge(pool, on="epoch", how="left"))


def rank(tables: Tables) -> Drawing:
    """Draws each network's error with shared weights against its error when trained alone.

    Errors far above the others are drawn at the edge.
    """
    data = tables.ranked
    pair = ["supernet_error", "alone_error"]
    well = data[np.isfinite(data[pair].to_numpy(dtype=np.float64)).all(axis=1)]
    if len(well) < MIN_NETWORKS:
        raise NotYet(f"fewer than {MIN_NETWORKS} networks have been scored and trained")
    summary = tables.rank_summary
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    ax = figure.subplots()
    for axis, name in zip((ax.xaxis, ax.yaxis), pair, strict=True):
        Measure("val_error", well[name]).write_on(axis)
    ax.set_xlabel("validation error with shared weights (%)")
    ax.set_ylabel(f"validation error (%), trained alone ({summary['budget'].iloc[0]})")
    x, y = (_near(well[name]) for name in pair)
    far = (x < well[pair[0]]) | (y < well[pair[1]])
    for part, shape, label in ((~far, "o", None), (far, "^", f"{far.sum()} beyond the axes")):
        if part.any():
            ax.scatter(
                x[part],
                y[part],
                s=14,
                color=BLUE,
                marker=shape,
                lw=0,
                alpha=0.6,
                rasterized=len(well) > 2000,
                label=label,
            )
    best = well.sort_values([pair[0], "key"]).index[:1]
    ax.scatter(x[best], y[best], s=45, fc="none", ec=VERMILION, lw=0.9, label="best by score")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), handletextpad=0.2)
    lines = [f"{counted(len(well), 'network')}; 95 % intervals"]
    for row in summary.to_dict("records"):
        name = STATISTICS.get(str(row["statistic"]), str(row["statistic"]))
        lines.append(f"{name} {_interval(row['value'], row['low'], row['high'])}")
    ax.set_title("\n".join(lines), loc="left")
    return Drawing(figure, data)


def _near(errors: pd.Series[float]) -> pd.Series[float]:
    """Clips errors far above the middle half, so that the others stay distinguishable.

    A network that computes nothing has an error of 90 %, where others differ by 1 %.
    """
    low, high = (float(errors.quantile(share)) for share in (0.25, 0.75))
    return errors.clip(None, high + FAR * (high - low)) if high > low else errors


def _interval(value: float, low: float, high: float) -> str:
    """A statistic with its interval as text; it is undefined if all networks are tied."""
    if not np.isfinite(value):
        return "undefined: all tied"
    return f"{value:.2f}" + (f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else "")

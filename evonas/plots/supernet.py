"""A supernet: how its training goes, and what its scores are worth."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from evonas.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH,
    Drawing,
    Measure,
    NotYet,
    marker,
    panels,
    whole_axis,
)
from evonas.plots.tables import Tables

LABELS = {
    "keep": "probability to\nkeep an op",
    "temperature": "temperature",
    "entropy": "entropy of a gene\n(nats, mean)",
}
STATISTICS = {"kendall_tau": "Kendall's tau", "spearman": "Spearman's rho"}


def supernet(tables: Tables) -> Drawing:
    """Loss by epoch, and the errors of the networks scored after each; what else it tells."""
    frame = tables.shared_curve
    x, dot = frame["epoch"], marker(len(frame))
    more = [name for name in LABELS if np.isfinite(frame[name]).any()]
    scored = bool(np.isfinite(frame["pool_error"]).any())
    figure, axes = panels(1 + scored + len(more), 1.25, above=0.2 if scored else 0.0)
    axes[0].plot(x, frame["train_loss"], color=VERMILION, marker=dot)
    axes[0].set_ylabel("train loss (nats)")
    if scored:
        pool = tables.shared_pool
        ax = axes[1]
        ax.plot(
            pool["epoch"], pool["val_error"], ".", color=SKY, ms=3, mew=0, label="a network",
            rasterized=True,
        )  # fmt: skip
        ax.plot(x, frame["pool_error"], color=BLUE, marker=dot, label="mean")
        ax.plot(x, frame["pool_best"], color=BLACK, ls=":", marker=dot, label="best")
        Measure("val_error", pool["val_error"]).write_on(ax.yaxis)
        ax.set_ylabel("validation error (%)\nwith shared weights")
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    for ax, name, colour in zip(axes[1 + scored :], more, (GREEN, PURPLE, GREEN), strict=False):
        ax.plot(x, frame[name], color=colour, marker=dot)
        ax.set_ylim(bottom=0)
        ax.set_ylabel(LABELS[name])
    for ax in axes:
        whole_axis(ax, x, "epoch of the supernet")
        ax.label_outer()
    figure.align_ylabels(axes)
    return Drawing(figure, frame)


def rank(tables: Tables) -> Drawing:
    """Networks by their error with shared weights and with weights of their own."""
    frame = tables.ranked
    well = frame[np.isfinite(frame[["supernet_error", "alone_error"]]).all(axis=1)]
    if len(well) < 3:
        raise NotYet("fewer than 3 networks are scored and trained")
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    ax = figure.subplots()
    ax.plot(well["supernet_error"], well["alone_error"], "o", color=BLUE, alpha=0.6, ms=3, mew=0)
    for axis, column in ((ax.xaxis, "supernet_error"), (ax.yaxis, "alone_error")):
        Measure("val_error", well[column]).write_on(axis)
    ax.set_xlabel("validation error with shared weights (%)")
    ax.set_ylabel("validation error, trained alone (%)")
    told = [
        f"{STATISTICS.get(row['statistic'], row['statistic'])} = {row['value']:.2f} "
        f"({row['low']:.2f} to {row['high']:.2f})"
        for row in tables.rank_summary.to_dict("records")
    ]
    ax.set_title("\n".join([f"{len(well)} networks", *told]), fontsize=6.5)
    ax.grid(lw=0.3, color=GREY, alpha=0.5)
    return Drawing(figure, frame)

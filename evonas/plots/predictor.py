"""A model's predictions: how well they order a batch, and how far off they are."""

from __future__ import annotations

import numpy as np

from evonas import metrics
from evonas.plots.style import (
    CATEGORIES,
    DASHES,
    Drawing,
    NotYet,
    from_zero,
    panels,
    whole_axis,
)
from evonas.plots.tables import Tables

WINDOW = 10  # generations that a line takes the median of


def predictor(tables: Tables) -> Drawing:
    """Draws the rank correlation of predicted and measured values, and the size of the errors.

    Both are of networks that the model had not seen, one dot for each generation and objective; the
    lines are medians of the last 10 generations. An error is counted in standard deviations of what
    the model expected, so its mean is about 0.8 if the model knows what it does not know.
    """
    predictions = tables.predictions.dropna()
    correlations = tables.predictor
    if predictions.empty:
        raise NotYet("no generation has been predicted yet")
    errors = (predictions["measured"] - predictions["predicted"]).abs()
    beside = predictions.assign(error=errors / predictions["uncertainty"])
    by_generation = beside.groupby(["generation", "objective"])["error"].mean()
    data = correlations.merge(by_generation.reset_index(), on=["generation", "objective"])

    figure, (order, size) = panels(2, 1.4, above=0.3)
    for number, (name, part) in enumerate(data.groupby("objective", sort=False)):
        colour, dashes = CATEGORIES[number % len(CATEGORIES)], DASHES[number % len(DASHES)]
        label = metrics.label(str(name))
        for axes, column in ((order, "rank_correlation"), (size, "error")):
            values = part[column].astype(float)
            middle = values.rolling(WINDOW, min_periods=1).median()
            x = part["generation"]
            axes.plot(x, values, "o", color=colour, ms=2, alpha=0.35, mew=0)
            axes.plot(x, middle, color=colour, ls=dashes, label=label)
    order.axhline(0, color="0.8", lw=0.5, zorder=0)
    order.set_ylim(-1.05, 1.05)
    order.set_ylabel("rank correlation")
    size.axhline(np.sqrt(2 / np.pi), color="0.8", lw=0.5, zorder=0)
    from_zero(size, np.minimum(data["error"], 5.0))
    size.set_ylabel("error (expected\nstandard deviations)")
    for axes in (order, size):
        whole_axis(axes, data["generation"])
        axes.label_outer()
    figure.align_ylabels([order, size])
    handles = order.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, handlelength=2.4)
    return Drawing(figure, data)

"""A particle swarm: its path through the space, and its speed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from evonas.plots.style import (
    BLUE,
    VERMILION,
    WIDTH,
    Drawing,
    NotYet,
    generation_ticks,
    marker,
    sequence,
    whole_axis,
)
from evonas.plots.tables import Tables

MOST = 6000  # particles drawn; larger data are thinned evenly


def swarm(tables: Tables) -> Drawing:
    """Draws particles along two principal components, and their speed by generation.

    The components are the first two of the positions in all generations (Pearson, 1901); the line
    joins the mean positions of the swarm, one for each generation.
    """
    frame = tables.swarm
    places = np.array([text.split() for text in frame["position"]], dtype=np.float64)
    centred = places - places.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    total = float((spread**2).sum())
    if total == 0 or len(places) < 3 or places.shape[1] < 2:
        raise NotYet("the swarm has not moved in two directions yet")
    signs = np.where(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)] < 0, -1.0, 1.0)
    flat = centred @ axes[:2].T * signs  # the sign of a component is arbitrary
    shares = spread[:2] ** 2 / total
    data = frame[["generation", "particle", "speed"]].assign(pc1=flat[:, 0], pc2=flat[:, 1])
    by_generation = data.groupby("generation")
    middle = by_generation[["pc1", "pc2"]].mean()

    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    path, speed = figure.subplots(2, 1, height_ratios=[2, 1])
    shown = data.iloc[:: -(-len(data) // MOST)]
    last = int(data["generation"].max())
    dots = path.scatter(
        shown["pc1"],
        shown["pc2"],
        c=shown["generation"],
        cmap=sequence(),
        norm=Normalize(0, max(last, 1)),
        s=6,
        lw=0,
        alpha=0.7,
        rasterized=True,
    )
    path_words = "middle of the swarm, to the star"
    path.plot(middle["pc1"], middle["pc2"], color=VERMILION, lw=0.9, label=path_words)
    path.plot(middle["pc1"].iloc[-1:], middle["pc2"].iloc[-1:], "*", color=VERMILION, ms=6)
    path.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    path.set_ylabel(f"second component ({shares[1]:.0%})")
    path.legend(loc="lower left", bbox_to_anchor=(0, 1))
    bar = figure.colorbar(dots, ax=path, aspect=25)
    ticks, labels = generation_ticks(0, last)
    bar.set_ticks(ticks, labels=labels)
    bar.set_label("generation")
    bar.solids.set_alpha(1)  # type: ignore[union-attr]  # a drawn bar has them

    speeds = by_generation["speed"]
    numbers = pd.Series(middle.index.to_numpy())
    speed.fill_between(
        numbers, speeds.quantile(0.1), speeds.quantile(0.9), color=BLUE, alpha=0.18, lw=0
    )
    speed.plot(numbers, speeds.mean(), color=BLUE, marker=marker(len(numbers)))
    speed.set_ylim(bottom=0)
    speed.set_ylabel("speed (mean, and 10th\nto 90th percentile)")
    whole_axis(speed, numbers)
    return Drawing(figure, data)

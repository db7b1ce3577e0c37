"""What a method has come to hold likely: the probabilities of choices, and how a policy learns."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evonas.plots.style import (
    BLUE,
    CATEGORIES,
    DASHES,
    GREEN,
    PURPLE,
    SMALL,
    VERMILION,
    WIDTH,
    Drawing,
    marker,
    panels,
    short,
    spell,
    whole_axis,
    whole_ticks,
)
from evonas.plots.tables import Tables

ACROSS = 4  # small panels beside each other, from 13 genes on; 3 below


def probabilities(tables: Tables) -> Drawing:
    """A small panel a gene: the probability of each of its choices, by generation.

    Of a controller, the mean over the genomes that it has written; of a relaxation, the softmax of
    the alphas.
    """
    frame = tables.probabilities
    genes = list(dict.fromkeys(frame["gene"]))
    choices = list(dict.fromkeys(frame["choice"]))
    looks = {
        choice: {"color": CATEGORIES[i % len(CATEGORIES)], "ls": DASHES[i % len(DASHES)]}
        for i, choice in enumerate(choices)
    }
    across = min(len(genes), ACROSS if len(genes) > 12 else 3)
    down = math.ceil(len(genes) / across)
    columns = max(1, min(4, int(26 * WIDTH / 3.35) // max(len(spell(c)) for c in choices) + 1))
    legend = 0.14 * math.ceil(len(choices) / columns) + 0.1
    wide = WIDTH * (1.0 if across <= 3 else 1.35)
    figure = Figure(figsize=(wide, 0.85 * down + legend + 0.3), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    last = int(frame["generation"].max())
    for place, gene in enumerate(genes):
        ax = axes[place // across, place % across]
        _panel(ax, frame[frame["gene"] == gene], looks)
        ax.set_title(short(gene, 16), fontsize=SMALL, pad=2)
        ax.set_xticks(whole_ticks(0, last)[:: 1 if across < 3 else 2])
        ax.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
    for place in range(len(genes), down * across):
        axes[place // across, place % across].set_visible(False)
    axes[0, 0].set_ylim(bottom=0)
    figure.supxlabel("generation", fontsize=7)
    figure.supylabel("probability", fontsize=7)
    handles = [Line2D([], [], **looks[choice]) for choice in choices]
    names = [spell(choice) for choice in choices]
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    return Drawing(figure, frame)


def _panel(ax: Axes, frame: pd.DataFrame, looks: dict[str, dict[str, object]]) -> None:
    for choice, part in frame.groupby("choice", sort=False):
        dot = marker(len(part)) if len(part) == 1 else ""
        ax.plot(part["generation"], part["probability"], marker=dot, lw=0.9, **looks[str(choice)])  # type: ignore[arg-type]  # colour and dashes


def controller(tables: Tables) -> Drawing:
    """Mean reward of a generation beside its moving average, and the mean entropy of a gene."""
    frame = tables.controller
    x, dot = frame["generation"], marker(len(frame))
    figure, (rewards, entropy) = panels(2, 1.4, above=0.2)
    rewards.plot(x, frame["reward"], color=BLUE, marker=dot, lw=0.8, label="mean reward")
    rewards.plot(x, frame["baseline"], color=VERMILION, ls="--", label="moving average")
    rewards.set_ylabel("reward")
    entropy.plot(x, frame["entropy"], color=GREEN, marker=dot and "^")
    entropy.set_ylim(0, 1.08 * max(float(frame["entropy"].max()), 0.01))
    entropy.set_ylabel("entropy of a gene\n(nats, mean)")
    for ax in (rewards, entropy):
        whole_axis(ax, x)
        ax.label_outer()
    figure.align_ylabels([rewards, entropy])
    figure.legend(*rewards.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return Drawing(figure, frame)


def relaxation(tables: Tables) -> Drawing:
    """Of a differentiable method: losses, entropy, the derived genome's skips, temperature."""
    frame = tables.relaxation
    x, dot = frame["generation"], marker(len(frame))
    heated = bool(np.isfinite(frame["temperature"]).any())
    figure, axes = panels(4 if heated else 3, 1.15, above=0.2)
    losses, entropy, skips = axes[:3]
    losses.plot(x, frame["train_loss"], color=VERMILION, ls="--", marker=dot, label="weights")
    losses.plot(x, frame["alpha_loss"], color=BLUE, marker=dot, label="alphas")
    losses.set_ylabel("loss (nats)")
    entropy.plot(x, frame["entropy"], color=GREEN, marker=dot)
    entropy.set_ylabel("entropy of a gene\n(nats, mean)")
    skips.plot(x, 100 * frame["skip_share"], color=PURPLE, marker=dot, drawstyle="steps-mid")
    skips.set_ylim(-4, 104)
    skips.set_ylabel("skips among the\nderived ops (%)")
    if heated:
        axes[3].plot(x, frame["temperature"], color=BLUE, marker=dot)
        axes[3].set_ylabel("temperature")
        axes[3].set_ylim(bottom=0)
    for ax in axes:
        whole_axis(ax, x)
        ax.label_outer()
    figure.align_ylabels(axes)
    handles, labels = losses.get_legend_handles_labels()
    named = [f"loss of {label}" for label in labels]
    figure.legend(handles, named, loc="outside upper center", ncols=2)
    return Drawing(figure, frame)

"""The probability of each choice, and the training of the model that gives it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evonas.plots.style import (
    BLUE,
    CATEGORIES,
    DASHES,
    GREEN,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    WIDTH,
    Drawing,
    NotYet,
    from_zero,
    generation_ticks,
    marker,
    panels,
    short,
    spell,
    text_width,
    whole_axis,
)
from evonas.plots.tables import Tables

MOST_GENES = 36
MOST_NAMES = 24  # choices in the legend
FEW = 9  # genes that fit into one printed column, three side by side
TWO_COLUMNS = 7.0  # inches
MOST_POINTS = 200  # points of a line; a panel has room for no more
ENTROPY = "entropy of a gene\n(nats, mean)"


def probabilities(tables: Tables) -> Drawing:
    """Draws a small panel for each gene, with a line for each choice, which looks alike in all.

    Genes with a single choice are left out. The thin grey line is where all choices of a gene are
    equally likely. If there are too many genes to read, the first are drawn, and the legend says
    so.
    """
    frame = tables.probabilities.dropna()
    several = frame.groupby("gene", sort=False)["choice"].nunique()
    names = several.index[several > 1].tolist()
    if not names:
        raise NotYet("no gene has more than one choice")
    shown = frame[frame["gene"].isin(names[:MOST_GENES])]
    numbers = shown["generation"].unique()
    if len(numbers) > MOST_POINTS:
        kept = np.linspace(0, len(numbers) - 1, MOST_POINTS).round().astype(int)
        shown = shown[shown["generation"].isin(numbers[kept])]

    looks = _looks(shown)
    across = _across(min(len(names), MOST_GENES))
    down = math.ceil(min(len(names), MOST_GENES) / across)
    wide = across > 3
    width = TWO_COLUMNS if wide else WIDTH
    labels = [short(spell(choice), 30) for choice in looks]
    columns = _columns(labels, width)
    height = down * (0.95 if wide else 1.0) + 0.3 + 0.14 * math.ceil(len(labels) / columns)
    left_out = len(names) > MOST_GENES
    figure = Figure(figsize=(width, height + 0.15 * left_out), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for ax, (gene, part) in zip(axes.flat, shown.groupby("gene", sort=False), strict=False):
        _draw_gene(ax, part, looks)
        ax.set_title(short(str(gene), 12 if wide else 16), fontsize=SMALL, pad=2)
    _share_scales(axes.ravel().tolist()[: len(names)], shown, across)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    figure.supxlabel("generation", fontsize=7)
    figure.supylabel("probability (%)", fontsize=7)
    handles = [Line2D([], [], **look) for look in looks.values()]
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=columns,
        handlelength=2.4,
        title=f"the first {MOST_GENES} of {len(names)} genes" if left_out else None,
        title_fontsize=7,
    )
    return Drawing(figure, shown)


def relaxation(tables: Tables) -> Drawing:
    """Draws losses, the mean entropy of a gene, the derived network's skip connections, and the
    temperature.

    During a warm-up the choices are not trained, and have no loss.
    """
    frame = tables.relaxation
    x, dot = frame["generation"], marker(len(frame))
    heated = bool(np.isfinite(frame["temperature"]).any())
    figure, axes = panels(4 if heated else 3, 1.15, above=0.25)
    losses, entropy, skips, *temperature = axes
    losses.plot(
        x,
        frame["train_loss"],
        color=VERMILION,
        ls="--",
        marker=dot and "s",
        label="loss of the weights",
    )
    if np.isfinite(frame["alpha_loss"]).any():
        losses.plot(x, frame["alpha_loss"], color=BLUE, marker=dot, label="loss of the choices")
    losses.set_ylabel("loss (nats)")
    _over_zero(entropy, frame, "entropy", GREEN, dot and "^")
    entropy.set_ylabel(ENTROPY)
    skips.plot(x, 100 * frame["skip_share"], color=PURPLE, marker=dot and "D", lw=0.9)
    skips.set_ylim(-5, 105)
    skips.set_ylabel("skip connections\n(% of live ops)")
    for ax in temperature:
        _over_zero(ax, frame, "temperature", ORANGE, dot and "v")
        ax.set_ylabel("temperature")
    _finish(figure, axes, x)
    return Drawing(figure, frame)


def controller(tables: Tables) -> Drawing:
    """Draws a generation's mean reward, the average it is compared with, and a gene's entropy."""
    frame = tables.controller
    x, dot = frame["generation"], marker(len(frame))
    figure, axes = panels(2, 1.3, above=0.25)
    rewards, entropy = axes
    rewards.plot(x, frame["reward"], color=BLUE, marker=dot, lw=0.9, label="mean reward")
    rewards.plot(
        x, frame["baseline"], color=VERMILION, ls="--", marker=dot and "s", label="moving average"
    )
    rewards.set_ylabel("reward")
    _over_zero(entropy, frame, "entropy", GREEN, dot and "^")
    entropy.set_ylabel(ENTROPY)
    _finish(figure, axes, x)
    return Drawing(figure, frame)


def _looks(shown: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour and dashes of the choices in the legend; of many, those that end up likeliest."""
    choices = shown["choice"].unique().tolist()
    if len(choices) > MOST_NAMES:
        last = shown[shown["generation"] == shown["generation"].max()]
        likely = last.groupby("choice")["probability"].max().nlargest(MOST_NAMES).index
        choices = [choice for choice in choices if choice in likely]
    return {
        choice: {"color": CATEGORIES[i % len(CATEGORIES)], "ls": DASHES[i % len(DASHES)]}
        for i, choice in enumerate(choices)
    }


def _across(count: int) -> int:
    """The number of panels side by side that fills the rows best."""
    if count <= FEW:
        return min(count, 3) if count != 4 else 2
    return min((7, 6, 5), key=lambda across: -count % across)


def _columns(labels: list[str], width: float) -> int:
    """The number of legend columns that fit."""
    widest = max(text_width(label, SMALL) for label in labels) + 0.45
    return max(1, min(len(labels), int((width - 0.2) / widest)))


def _draw_gene(ax: Axes, part: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    ax.axhline(100 / part["choice"].nunique(), color="0.8", lw=0.5, zorder=0)
    for choice, line in part.groupby("choice", sort=False):
        look = looks.get(str(choice), {"color": "0.8", "lw": 0.5, "zorder": 1})
        dot = "o" if len(line) == 1 else ""
        ax.plot(line["generation"], 100 * line["probability"], **{"lw": 0.9, "marker": dot, **look})


def _share_scales(axes: list[Axes], shown: pd.DataFrame, across: int) -> None:
    """Fits the shared scales closely to the data, since choices may differ by little."""
    values = 100 * shown["probability"]
    low, high = float(values.min()), float(values.max())
    margin = max(0.05 * (high - low), 0.5)
    axes[0].set_ylim(max(low - margin, -2.0), min(high + margin, 102.0))
    axes[0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    first, last = int(shown["generation"].min()), int(shown["generation"].max())
    ticks, labels = generation_ticks(first, last)
    margin = max(0.03 * (last - first), 0.1)
    axes[0].set_xlim(first - margin, last + margin)
    step = -(-len(ticks) // 4)
    axes[0].set_xticks(ticks[::step], labels[::step])
    for ax in axes[-across:]:  # the lowest of each column
        ax.tick_params(labelbottom=True)


def _over_zero(ax: Axes, frame: pd.DataFrame, name: str, colour: str, dot: str) -> None:
    """Draws a line over an axis that begins at 0; an entropy of 0 means that all is decided."""
    ax.plot(frame["generation"], frame[name], color=colour, marker=dot)
    from_zero(ax, frame[name])


def _finish(figure: Figure, axes: list[Axes], numbers: pd.Series[int]) -> None:
    """Adds scales, labels, and the legend of the first panel's lines."""
    for ax in axes:
        whole_axis(ax, numbers)
        ax.label_outer()
    figure.align_ylabels(axes)
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=2, handlelength=2.4)

"""What a search cost, what it was spared, and what went wrong, by generation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evonas.plots.style import (
    BLUE,
    CATEGORIES,
    GREY,
    HATCHES,
    ORANGE,
    SKY,
    Drawing,
    generation_axis,
    panels,
)
from evonas.plots.tables import STATUSES, Tables

UNITS = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))


def cost(tables: Tables) -> Drawing:
    """Worker time, how the candidates were answered, and faults by status.

    Trainings that another run had done already are shown apart: their time was not spent here.
    """
    data = _by_generation(tables)
    x = data["generation"]
    figure, (time, answers, faults) = panels(3, 1.45)

    spent = data[["seconds", "from_cache_seconds"]]
    divisor, unit = next(
        (each for each in UNITS if spent.sum(axis=1).max() >= 3 * each[0]), UNITS[-1]
    )
    layers = {"trained here": (spent["seconds"] / divisor, BLUE, "")}
    if data["from_cache"].any():
        layers["taken from the cache"] = (spent["from_cache_seconds"] / divisor, SKY, "////")
    _stack(time, x, layers)
    time.set_ylabel(f"worker time ({unit})")
    time.set_title(_totals(tables), loc="left")

    _stack(
        answers,
        x,
        {
            "trained": (data["trained"], BLUE, ""),
            "from the cache": (data["from_cache"], SKY, "////"),
            "by an earlier one": (data["hits"], ORANGE, "...."),
            "turned down": (data["turned_down"], GREY, "xxxx"),
        },
    )
    answers.set_ylabel("candidates answered")

    _stack(
        faults,
        x,
        {
            status.replace("_", " "): (data[status], CATEGORIES[i], HATCHES[i])
            for i, status in enumerate(STATUSES)
        },
    )
    faults.set_ylabel("faults")
    if not data[STATUSES].to_numpy().any():
        faults.text(0.5, 0.5, "none", transform=faults.transAxes, ha="center", va="center")
        faults.set_yticks([0])
    for ax in (time, answers, faults):
        generation_axis(ax, x)
        ax.set_ylim(bottom=0)
        ax.label_outer()
    for ax in (answers, faults):
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.align_ylabels([time, answers, faults])
    return Drawing(figure, data)


def _by_generation(tables: Tables) -> pd.DataFrame:
    counts = tables.generations.set_index("generation")
    searched = tables.timings[tables.timings["phase"] == "search"]
    spent = searched.assign(generation=searched["generation"].astype(int)).pivot_table(
        index="generation", columns="from_cache", values="seconds", aggfunc=["sum", "size"]
    )
    cached = _column(spent, ("size", True), counts.index).astype(int)
    columns = {
        "seconds": _column(spent, ("sum", False), counts.index),
        "from_cache_seconds": _column(spent, ("sum", True), counts.index),
        "evaluations": counts["evaluations"],
        "trained": counts["trained"] - cached,
        "from_cache": cached,
        "hits": counts["hits"],
        "turned_down": counts["evaluations"] - counts["trained"] - counts["hits"],
        **{status: counts[status] for status in STATUSES},
    }
    return pd.DataFrame(columns).reset_index()


def _column(
    frame: pd.DataFrame, column: tuple[str, bool], index: pd.Index[int]
) -> pd.Series[float]:
    """A column that may be missing, on an index that it may not fill."""
    found = frame[column] if column in frame else pd.Series(0.0, index=index)
    return found.reindex(index).fillna(0.0)


def _stack(
    ax: Axes, generations: pd.Series[int], layers: dict[str, tuple[pd.Series[float], str, str]]
) -> None:
    """Layers upon each other, one a category; those that are empty have no entry in the legend."""
    apart = 0.4 if len(generations) <= 60 else 0.5  # bars; many run together
    edges = np.column_stack([generations - apart, generations + apart]).ravel()
    base = np.zeros(len(generations))
    for name, (values, colour, hatch) in layers.items():
        top = base + values.to_numpy(dtype=np.float64)
        if (top > base).any():
            ax.fill_between(
                edges,
                np.repeat(base, 2),
                np.repeat(top, 2),
                where=np.repeat(top > base, 2),
                facecolor=colour,
                edgecolor="white",
                lw=0,
                hatch=hatch,
                label=name,
            )
        base = top
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, handlelength=1.0)


def _totals(tables: Tables) -> str:
    """Worker time of search and finals; what the cache gave was not spent here."""
    spent = tables.timings[~tables.timings["from_cache"]]
    sums = spent.groupby("phase")["seconds"].sum()
    phases = [phase for phase in ("search", "finalists") if phase in sums]
    return ", ".join(f"{phase} {_told(sums[phase])}" for phase in phases)


def _told(seconds: float) -> str:
    divisor, unit = next((each for each in UNITS if seconds >= 3 * each[0]), UNITS[-1])
    return f"{seconds / divisor:.3g} {unit}"

"""The cost of a search by generation: worker time, how candidates were answered, and failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from evonas.plots.style import (
    BLUE,
    CATEGORIES,
    GREY,
    HATCHES,
    ORANGE,
    SKY,
    Drawing,
    panels,
    whole_axis,
    whole_ticks,
)
from evonas.plots.tables import STATUSES, Tables

UNITS = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))


def cost(tables: Tables) -> Drawing:
    """Draws worker time, how the candidates were answered, and failures by status.

    Trainings taken from the cache are shown apart, since their time was not spent in this run.
    """
    data = by_generation(tables)
    x = data["generation"]
    figure, (time, answers, faults) = panels(3, 1.45)

    spent = data[["seconds", "from_cache_seconds"]]
    divisor, unit = next(
        (each for each in UNITS if spent.sum(axis=1).max() >= 3 * each[0]), UNITS[-1]
    )
    cached = bool(data["from_cache"].any())
    layers = {
        f"{tables.done} here" if cached else tables.done: (spent["seconds"] / divisor, BLUE, "")
    }
    if cached:
        layers["taken from the cache"] = (spent["from_cache_seconds"] / divisor, SKY, "////")
    _stack(time, x, layers)
    time.set_ylabel(f"worker time ({unit})")
    figure.suptitle(_totals(tables), fontsize=7)

    _stack(
        answers,
        x,
        {
            tables.done: (data["trained"], BLUE, ""),
            "from the cache": (data["from_cache"], SKY, "////"),
            "same as an earlier one": (data["hits"], ORANGE, "...."),
            f"infeasible, not {tables.done}": (data["infeasible_untrained"], GREY, "xxxx"),
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
    faults.set_ylabel("failed or infeasible")
    if not data[STATUSES].to_numpy().any():
        faults.text(0.5, 0.5, "none", transform=faults.transAxes, ha="center", va="center")
    for ax in (time, answers, faults):
        whole_axis(ax, x)
        ax.set_ylim(bottom=0)
        ax.label_outer()
    for ax in (answers, faults):
        ax.set_yticks(whole_ticks(0, int(ax.get_ylim()[1])))
    figure.align_ylabels([time, answers, faults])
    return Drawing(figure, data)


def by_generation(tables: Tables) -> pd.DataFrame:
    """One row for each generation: worker time, how candidates were answered, and failures."""
    counts = tables.generations.set_index("generation")
    searched = tables.timings[tables.timings["phase"] == "search"]
    spent = searched.pivot_table(
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
        "infeasible_untrained": counts["evaluations"] - counts["trained"] - counts["hits"],
        **{status: counts[status] for status in STATUSES},
    }
    return pd.DataFrame(columns).reset_index()


def _column(
    frame: pd.DataFrame, column: tuple[str, bool], index: pd.Index[int]
) -> pd.Series[float]:
    """A column on the index given, with 0 where the column or a row of it is missing."""
    values = frame[column] if column in frame else pd.Series(0.0, index=index)
    return values.reindex(index).fillna(0.0)


def _stack(
    ax: Axes, generations: pd.Series[int], layers: dict[str, tuple[pd.Series[float], str, str]]
) -> None:
    """Draws stacked layers, one for each category; empty ones have no entry in the legend."""
    base = np.zeros(len(generations))
    drawn = 0
    for name, (values, colour, hatch) in layers.items():
        height = values.to_numpy(dtype=np.float64)
        look: dict[str, Any] = {"fc": colour, "ec": "white", "lw": 0, "hatch": hatch, "label": name}
        if not height.any():
            continue
        if len(generations) <= 60:
            ax.bar(generations, height, 0.8, base, **look)
        else:  # bars would merge, and a thousand of them are slow to draw
            edges = np.append(generations, generations.iloc[-1] + 1) - 0.5
            ax.stairs(base + height, edges, baseline=base, fill=True, **look)
        base = base + height
        drawn += 1
    if drawn:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=min(drawn, 3), handlelength=1.0)


def _totals(tables: Tables) -> str:
    """The worker time of search and finals as text, without trainings taken from the cache."""
    spent = tables.timings[~tables.timings["from_cache"]]
    sums = spent.groupby("phase")["seconds"].sum()
    phases = [phase for phase in ("search", "finalists") if phase in sums]
    return "worker time: " + ", ".join(f"{phase} {duration(sums[phase])}" for phase in phases)


def duration(seconds: float) -> str:
    """A time in the largest unit of which there are three or more."""
    divisor, unit = next((each for each in UNITS if seconds >= 3 * each[0]), UNITS[-1])
    return f"{seconds / divisor:.3g} {unit}"

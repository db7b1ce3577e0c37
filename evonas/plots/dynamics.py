"""The progress of a search: objectives, hypervolume and diversity by generation."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, PercentFormatter

from evonas.core import Objective
from evonas.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    SKY,
    VERMILION,
    Drawing,
    Measure,
    NotYet,
    headed,
    marker,
    panels,
    whole_axis,
    whole_ticks,
)
from evonas.plots.tables import Tables


def objectives(tables: Tables) -> Drawing:
    """Draws best, mean and spread of every objective over the successful evaluations."""
    parts = [by_generation(tables, objective) for objective in tables.objectives]
    figure, axes = panels(len(parts), 1.45, above=0.5 + 0.12 * bool(tables.verdict))
    for ax, objective, part in zip(axes, tables.objectives, parts, strict=True):
        x, dot = part["generation"], marker(len(part))
        shown = part[["best", "mean", "p10", "p90", "best_so_far"]].to_numpy(dtype=np.float64)
        Measure(objective.name, shown).write_on(ax.yaxis)
        band = "10th to 90th percentile"
        ax.fill_between(x, part["p10"], part["p90"], color=SKY, alpha=0.35, lw=0, label=band)
        if len(part) == 1:  # a single generation has no area to fill
            ax.vlines(x, part["p10"], part["p90"], color=SKY, alpha=0.6, lw=4)
        ax.plot(x, part["mean"], color=VERMILION, ls="--", marker=dot and "s", label="mean")
        ax.plot(x, part["best"], color=BLUE, ls=":", marker=dot, label="best of the generation")
        ax.step(x, part["best_so_far"], where="post", color=BLACK, label="best so far")
        whole_axis(ax, x)
        ax.label_outer()
    figure.align_ylabels(axes)
    handles, labels = axes[0].get_legend_handles_labels()
    order = [3, 2, 1, 0]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper center",
        ncols=2,
        **headed(tables.title, tables.verdict),
    )
    return Drawing(figure, pd.concat(parts, ignore_index=True))


def by_generation(tables: Tables, objective: Objective) -> pd.DataFrame:
    """One row for each generation, blank where no evaluation succeeded."""
    last = int(tables.evaluations["generation"].max())
    grouped = tables.ended_well.groupby("generation")[objective.name]
    best = grouped.min() if objective.goal == "min" else grouped.max()
    comparable = tables.comparable.groupby(["rank", "generation"])[objective.name]
    bests = comparable.min() if objective.goal == "min" else comparable.max()
    by_rank = bests.groupby("rank")
    best_so_far = by_rank.cummin() if objective.goal == "min" else by_rank.cummax()
    frame = pd.DataFrame(
        {
            "count": grouped.size(),
            "best": best,
            "mean": grouped.mean(),
            "p10": grouped.quantile(0.1),
            "p90": grouped.quantile(0.9),
            "best_so_far": best_so_far.droplevel("rank"),
        }
    ).reindex(pd.RangeIndex(last + 1, name="generation"))
    frame["count"] = frame["count"].fillna(0).astype(int)
    frame["best_so_far"] = frame["best_so_far"].ffill()
    frame = frame.reset_index()
    frame.insert(1, "objective", objective.name)
    return frame


def hypervolume(tables: Tables) -> Drawing:
    """Draws the volume between front and reference point, by generation and by evaluations."""
    frame = tables.generations[["generation", "evaluations", "hypervolume"]].copy()
    size = int(frame["evaluations"].iloc[0])
    steady = bool((frame["evaluations"] == size).all())
    frame["evaluations"] = frame["evaluations"].cumsum()
    frame = frame[np.isfinite(frame["hypervolume"])]
    if frame.empty:
        raise NotYet("no reference point is known yet")
    figure, (ax,) = panels(1, 2.1)
    Measure("hypervolume", frame["hypervolume"]).write_on(ax.yaxis)
    x = frame["generation"] if steady else frame["evaluations"]
    where = "steps-post" if len(frame) > 1 else "default"
    ax.plot(x, frame["hypervolume"], color=BLUE, drawstyle=where, marker=marker(len(frame)))
    whole_axis(ax, x, "generation" if steady else "evaluations")
    ax.margins(y=0.08)
    if steady:  # only then are both scales linear
        counts = frame["evaluations"].iloc[-1]
        ticks = whole_ticks(size, counts) if counts > 12 * size else size * (x + 1)
        top = ax.secondary_xaxis("top")
        top.set_xticks([tick / size - 1 for tick in ticks], [f"{tick:,}" for tick in ticks])
        top.set_xlabel("evaluations")
        ax.spines["top"].set_visible(True)
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if all(objective.reference is not None for objective in tables.objectives):
        # Lines break between objectives, not within one.
        points = [_reference(each).replace(" ", "\xa0") for each in tables.objectives]
        note = f"reference\xa0point: {', '.join(points)}"
        ax.set_xlabel(f"{ax.get_xlabel()}\n{textwrap.fill(note, 50)}")
    return Drawing(figure, frame)


def _reference(objective: Objective) -> str:
    assert objective.reference is not None
    measure = Measure(objective.name, [objective.reference])
    return f"{measure.text} {measure.with_unit(objective.reference)}"


def diversity(tables: Tables) -> Drawing:
    """Draws how different the members of a generation are, and how many networks are new."""
    frame = variety(tables)
    x, dot = frame["generation"], marker(len(frame))
    figure, axes = panels(3, 1.15)
    axes[0].plot(x, frame["diversity"], color=BLUE, marker=dot)
    axes[0].set_ylabel("mean Hamming\ndistance (genes)")
    axes[1].plot(x, frame["distinct"], color=VERMILION, marker=dot and "s")
    axes[1].plot(x, frame["evaluations"], color=BLACK, ls="--", lw=0.8)
    axes[1].set_ylabel("distinct networks\n(dashed: candidates)")
    axes[1].set_yticks(whole_ticks(0, int(frame["evaluations"].max())))
    axes[2].plot(x, frame["new_share"], color=GREEN, marker=dot and "^")
    axes[2].set_ylabel("new to the\nrun (%)")
    axes[2].yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    for ax in axes:
        ax.set_ylim(0, 1.08 * max(ax.dataLim.y1, 0.01))
        whole_axis(ax, x)
        ax.label_outer()
    figure.align_ylabels(axes)
    return Drawing(figure, frame)


def variety(tables: Tables) -> pd.DataFrame:
    """One row for each generation: how different its members are, and how many networks are new."""
    keys = tables.evaluations[["generation", "key"]]
    new = (~keys["key"].duplicated()).groupby(keys["generation"]).agg(["sum", "size"])
    frame = tables.generations[["generation", "evaluations", "diversity", "distinct"]].copy()
    frame["new"] = frame["generation"].map(new["sum"])
    frame["new_share"] = frame["generation"].map(new["sum"] / new["size"])
    return frame

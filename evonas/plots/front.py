"""The front: the networks that no other beats in every objective, and when each joined it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from evonas.core import Objective
from evonas.plots.style import (
    BLACK,
    GREY,
    VERMILION,
    Drawing,
    Measure,
    NotYet,
    panels,
    sequence,
    whole_ticks,
)
from evonas.plots.tables import Tables

STAIRCASES = 5  # earlier generations whose front is outlined


def front(tables: Tables) -> Drawing:
    """Draws all networks, those ever on the front coloured by when they joined it, the last ringed.

    The first objective is drawn against each of the others. With two objectives, staircases show
    the region that the front covered after the last generation and after some earlier ones.
    """
    first, *others = tables.objectives
    if not others:
        raise NotYet("with one objective there is no front")
    data = _networks(tables)
    members = data[data["front_from"].notna()].sort_values("front_from", kind="stable")
    if members.empty:
        raise NotYet("no network is on the front yet")
    figure, axes = panels(len(others), 2.5, above=0.35)
    latest = int(tables.fronts["generation"].max())
    colours, norm = sequence(), Normalize(0, max(latest, 1))
    last, best = members[members["on_last_front"] & ~members["winner"]], data[data["winner"]]
    outside = np.zeros(len(data), dtype=np.bool_)
    for ax, other in zip(axes, others, strict=True):
        x, y = first.name, other.name
        Measure(x, data[x]).write_on(ax.xaxis)
        Measure(y, data[y]).write_on(ax.yaxis)
        dots = data[[x, y]].drop_duplicates()
        ax.scatter(dots[x], dots[y], s=6, color=GREY, alpha=0.6, lw=0, rasterized=True)
        if len(others) == 1:
            _staircases(ax, tables.fronts, (first, other), lambda g: colours(norm(g)))
        shown = ax.scatter(
            members[x],
            members[y],
            c=members["front_from"].astype(int),
            cmap=colours,
            norm=norm,
            s=13,
            lw=0.3,
            ec="white",
            zorder=3,
            rasterized=len(members) > 2000,
        )
        ax.scatter(last[x], last[y], s=26, fc="none", ec=BLACK, lw=0.7, zorder=4)
        ax.scatter(best[x], best[y], s=90, marker="*", fc=VERMILION, ec="white", lw=0.5, zorder=5)
        outside |= _close_in(ax.set_xlim, data[x], members[x], first)
        outside |= _close_in(ax.set_ylim, data[y], members[y], other)
        ax.label_outer()
    bar = figure.colorbar(shown, ax=axes, label="joined the front in generation", aspect=30)
    bar.set_ticks(whole_ticks(0, latest))
    word = tables.winner.word if len(best) else ""
    _legend(figure, word, latest, int(outside.sum()))
    return Drawing(figure, data)


def _networks(tables: Tables) -> pd.DataFrame:
    """One row for each network and its values, with the generation in which it joined the front."""
    names = [objective.name for objective in tables.objectives]
    same = ["key", *names]
    data = tables.ended_well[["generation", *same]].drop_duplicates(same)
    fronts = tables.fronts[["generation", *same]]
    arrivals = fronts.groupby(same, sort=False)["generation"].min().rename("front_from")
    data = data.merge(arrivals.reset_index(), on=same, how="left")
    data["front_from"] = data["front_from"].astype("Int64")
    last = fronts[fronts["generation"] == fronts["generation"].max()][same].drop_duplicates()
    data = data.merge(last.assign(on_last_front=True), on=same, how="left")
    data["on_last_front"] = data["on_last_front"].notna()
    try:
        is_winner = data["key"] == tables.winner.key
    except NotYet:
        is_winner = pd.Series(False, index=data.index)
    # One star, at the result of the largest budget.
    data["winner"] = is_winner & ~data["key"].where(is_winner).duplicated(keep="last")
    return data


def _staircases(
    ax: Axes,
    fronts: pd.DataFrame,
    objectives: tuple[Objective, Objective],
    colour: Callable[[int], Any],
) -> None:
    """Draws the edge of the region that a front dominates, after some generations; the last in
    black.
    """
    x, y = objectives
    generations = fronts["generation"].unique()
    some = np.unique(np.linspace(0, len(generations) - 1, STAIRCASES + 1).round().astype(int))
    for generation in generations[some]:
        members = fronts[fronts["generation"] == generation]
        members = members.sort_values(x.name, ascending=x.goal == "min")
        final = generation == generations[-1]
        ax.plot(
            members[x.name],
            members[y.name],
            drawstyle="steps-post",
            color=BLACK if final else colour(generation),
            lw=1.0 if final else 0.7,
            zorder=2,
        )


def _close_in(
    set_limits: Callable[[float, float], Any],
    values: pd.Series[float],
    members: pd.Series[float],
    objective: Objective,
) -> NDArray[np.bool_]:
    """Leaves the worst 5 % out of view where they would widen it by more than half.

    Args:
        members: the values of the networks that were ever on the front, which stay in view.

    Returns:
        (n,), whether each value is out of view.
    """
    sign = objective.sign
    losses, kept = sign * values.to_numpy(), sign * members.to_numpy()
    best, worst = losses.min(), max(np.quantile(losses, 0.95), kept.max())
    measure = Measure(objective.name, values)
    if measure.logarithmic or losses.max() - best <= 1.5 * (worst - best):
        return np.zeros(len(values), dtype=np.bool_)
    margin = 0.06 * (worst - best)
    set_limits(*sorted([sign * (best - margin), sign * (worst + margin)]))
    return np.asarray(losses > worst + margin)


def _legend(figure: Figure, word: str, latest: int, outside: int) -> None:
    evaluated = f"evaluated ({outside} outside)" if outside else "evaluated"
    marks: list[dict[str, Any]] = [
        {"label": evaluated, "marker": "o", "color": GREY, "ms": 3},
        {"label": "once on the front", "marker": "o", "color": sequence()(0.4), "mec": "white"},
        {"label": f"front after generation {latest}", "marker": "o", "mfc": "none", "mec": BLACK},
    ]
    if word:
        marks.append({"label": word, "marker": "*", "color": VERMILION, "mec": "white", "ms": 9})
    lines = [Line2D([], [], ls="", **{"ms": 5, **mark}) for mark in marks]
    figure.legend(handles=lines, loc="outside upper center", ncols=2, handletextpad=0.2)

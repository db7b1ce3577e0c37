"""The front: the networks that no other beats in every objective, and when each joined it.

Beside what the search measured stands what the finals and full trainings measured of its best.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from evonas.core import Objective
from evonas.markdown import counted, length
from evonas.metrics import COUNTED, VAL_ERROR
from evonas.plots.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    Drawing,
    Measure,
    NotYet,
    generation_ticks,
    headed,
    panels,
    sequence,
)
from evonas.plots.tables import Tables
from evonas.records.archive import budget_ranks

STAIRCASES = 5  # earlier generations whose front is outlined
LOOKS: dict[str, dict[str, Any]] = {
    "finals": {"marker": "D", "mfc": "white", "mec": VERMILION, "mew": 0.8, "ms": 3.5},
    "full": {"marker": "s", "mfc": "white", "mec": BLUE, "mew": 0.8, "ms": 4},
    "star": {"marker": "*", "color": VERMILION, "mec": "white", "mew": 0.5, "ms": 9},
}


def front(tables: Tables) -> Drawing:
    """Draws all networks, those ever on the front coloured by when they joined it, the last ringed.

    The first objective is drawn against each of the others. With two objectives, staircases show
    the region that the front covered after the last generation and after some earlier ones.
    Finalists are drawn again where the means of their seeds lie, and networks trained in full at
    their test error, each joined to what the search measured. Dashed lines are constraints.
    """
    first, *others = tables.objectives
    if not others:
        raise NotYet("with one objective there is no front")
    data = _networks(tables)
    members = data[data["front_from"].notna()].sort_values("front_from", kind="stable")
    if members.empty:
        raise NotYet("no network is on the front yet")
    what = f"each dot: one training{length(tables.settings.get('budget'))}, in the search"
    if tables.scored:
        what = f"each dot: a score {tables.scored}"
    alone = len(tables.finals) or len(tables.full_trainings)
    heading = headed(tables.title, tables.verdict, _limits(tables), what if alone else "")
    above = 0.5 + 0.12 * heading["title"].count("\n")
    figure, axes = panels(len(others), 2.5, above=above)
    latest = int(tables.fronts["generation"].max())
    colours, norm = sequence(), Normalize(0, max(latest, 1))
    last = members[members["on_last_front"]]
    outside = np.zeros(len(data), dtype=np.bool_)
    for ax, other in zip(axes, others, strict=True):
        x, y = first.name, other.name
        again = _again(data, x, y)
        anew = pd.concat(again.values())
        Measure(x, pd.concat([data[x], anew["x"]])).write_on(ax.xaxis)
        Measure(y, pd.concat([data[y], anew["y"]])).write_on(ax.yaxis)
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
        _draw_again(ax, data, again, x, y)
        outside |= _close_in(ax.set_xlim, data[x], pd.concat([members[x], anew["x"]]), first)
        outside |= _close_in(ax.set_ylim, data[y], pd.concat([members[y], anew["y"]]), other)
        _draw_limits(ax, tables, x, y)
        ax.label_outer()
    bar = figure.colorbar(shown, ax=axes, label="joined the front in generation", aspect=30)
    ticks, labels = generation_ticks(0, latest)
    bar.set_ticks(ticks, labels=labels)
    _legend(figure, tables, data, int(outside.sum()), heading)
    return Drawing(figure, data)


def _networks(tables: Tables) -> pd.DataFrame:
    """One row for each network, with the generation in which it joined the front.

    The objectives are those of its largest budget in the search; `finals_` stands before the means
    of the finals and their standard deviation, `full_` before what a full training measured.
    """
    names = [objective.name for objective in tables.objectives]
    same = ["key", *names]
    data = tables.ended_well
    with contextlib.suppress(ValueError):  # budgets of different units stay in their order
        data = data.iloc[np.argsort(budget_ranks(data["budget"].tolist()), kind="stable")]
    data = data[["generation", *same]].drop_duplicates("key", keep="last").sort_index()
    fronts = tables.fronts[["generation", *same]]
    arrivals = fronts.groupby(same, sort=False)["generation"].min().rename("front_from")
    data = data.merge(arrivals.reset_index(), on=same, how="left")
    data["front_from"] = data["front_from"].astype("Int64")
    last = fronts[fronts["generation"] == fronts["generation"].max()][same].drop_duplicates()
    data = data.merge(last.assign(on_last_front=True), on=same, how="left")
    data["on_last_front"] = data["on_last_front"].notna()
    try:
        data["winner"] = data["key"] == tables.winner.key
        finals = tables.finals
    except NotYet:
        data["winner"], finals = False, pd.DataFrame()
    for name in (*names, f"{names[0]}_std"):
        data[f"finals_{name}"] = data["key"].map(finals[name]) if name in finals else np.nan
    full = tables.full_trainings
    for name in ("epochs", "test_error"):
        data[f"full_{name}"] = data["key"].map(full[name]).astype(np.float64)
    return data


def _again(data: pd.DataFrame, x: str, y: str) -> dict[str, pd.DataFrame]:
    """Where finals, and full trainings, put networks on these axes: `x`, `y` and `spread` of x.

    Of a full training, the test error stands in for the validation error; sizes stay the same.
    """
    finals = {"x": f"finals_{x}", "y": f"finals_{y}", "spread": f"finals_{x}_std"}
    found = {"finals": data.reindex(columns=list(finals.values())).set_axis(list(finals), axis=1)}
    if {x, y} - {metric.name for metric in COUNTED} == {VAL_ERROR.name}:
        error = data["full_test_error"]
        shown = {
            axis: error if n == VAL_ERROR.name else data[n] for axis, n in (("x", x), ("y", y))
        }
        found["full"] = pd.DataFrame({**shown, "spread": np.nan})[error.notna()]
    return {source: frame.dropna(subset=["x", "y"]) for source, frame in found.items()}


def _draw_again(
    ax: Axes, data: pd.DataFrame, again: Mapping[str, pd.DataFrame], x: str, y: str
) -> None:
    """Draws finalists and full trainings, each with a line from where the search put it."""
    for source, frame in again.items():
        ax.plot(
            [data.loc[frame.index, x], frame["x"]],
            [data.loc[frame.index, y], frame["y"]],
            **{"color": LOOKS[source]["mec"], "lw": 0.6, "alpha": 0.7, "zorder": 4},
        )
        ax.errorbar(
            frame["x"], frame["y"], xerr=frame["spread"].fillna(0), fmt="none",
            ecolor=LOOKS[source]["mec"], elinewidth=0.7, zorder=4,
        )  # fmt: skip
        ax.plot(frame["x"], frame["y"], ls="", zorder=5, **LOOKS[source])
    winner = data[data["winner"]]
    best = again["finals"].loc[again["finals"].index.isin(winner.index)]
    at = winner[[x, y]].set_axis(["x", "y"], axis=1) if best.empty else best
    ax.plot(at["x"], at["y"], ls="", zorder=6, **LOOKS["star"])


def _draw_limits(ax: Axes, tables: Tables, x: str, y: str) -> None:
    """Draws the constraints on an axis, as far as they are in view, and shades what they forbid."""
    for axis, name in (("x", x), ("y", y)):
        shade, line = (ax.axvspan, ax.axvline) if axis == "x" else (ax.axhspan, ax.axhline)
        low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
        for constraint in tables.constraints:
            if constraint.name != name:
                continue
            for limit, end in ((constraint.min, low), (constraint.max, high)):
                if limit is not None and low < limit < high:
                    line(limit, color=BLACK, lw=0.7, ls=(0, (4, 2)), zorder=1)
                    shade(limit, end, color=GREY, alpha=0.2, lw=0, zorder=0)
        (ax.set_xlim if axis == "x" else ax.set_ylim)(low, high)


def _limits(tables: Tables) -> str:
    """The constraints in words."""
    words = []
    for each in tables.constraints:
        for sign, limit in (("≥", each.min), ("≤", each.max)):
            if limit is not None:
                measure = Measure(each.name, [limit])
                words.append(f"{each.name} {sign} {measure.with_unit(limit)}")
    # Lines break between constraints, not within one.
    text = "; ".join(words).replace(" ", "\xa0").replace(";\xa0", "; ")
    return textwrap.fill(f"constraints: {text}", 52) if words else ""


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
        members: the values that stay in view, such as those of networks ever on the front.

    Returns:
        (n,), whether each value is out of view.
    """
    sign = objective.sign
    losses, kept = sign * values.to_numpy(), sign * members.to_numpy()
    best, worst = min(losses.min(), kept.min()), max(np.quantile(losses, 0.95), kept.max())
    measure = Measure(objective.name, values)
    if measure.logarithmic or losses.max() - best <= 1.5 * (worst - best):
        return np.zeros(len(values), dtype=np.bool_)
    margin = 0.06 * (worst - best)
    set_limits(*sorted([sign * (best - margin), sign * (worst + margin)]))
    return np.asarray(losses > worst + margin)


def _legend(
    figure: Figure, tables: Tables, data: pd.DataFrame, outside: int, heading: Mapping[str, Any]
) -> None:
    latest = int(tables.fronts["generation"].max()) + 1
    marks: list[dict[str, Any]] = [
        {
            "label": "evaluated" + (f" ({outside:,} outside)" if outside else ""),
            **{"marker": "o", "color": GREY, "ms": 3},
        },
        {"label": "once on the front", "marker": "o", "color": sequence()(0.4), "mec": "white"},
        {"label": f"front after generation {latest}", "marker": "o", "mfc": "none", "mec": BLACK},
    ]
    if data[f"finals_{tables.objectives[0].name}"].notna().any():
        marks.append({"label": "finalist, mean of seeds", **LOOKS["finals"]})
    if data["winner"].any():
        marks.append({"label": tables.winner.word, **LOOKS["star"]})
    epochs = data["full_epochs"].dropna()
    if len(epochs):
        label = f"in full, {counted(int(epochs.max()), 'epoch')}, test"
        marks.append({"label": label, **LOOKS["full"]})
    lines = [Line2D([], [], ls="", **{"ms": 5, **mark}) for mark in marks]
    figure.legend(handles=lines, loc="outside upper center", ncols=2, handletextpad=0.2, **heading)

"""The ancestors of the winner, by the generation in which each was first tried."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from evonas.core import Objective
from evonas.markdown import counted
from evonas.plots.style import (
    BLACK,
    MARKERS,
    VERMILION,
    WIDTH,
    Drawing,
    Measure,
    NotYet,
    sequence,
    short,
    text_width,
)
from evonas.plots.tables import Tables

MOST = 40  # networks that are still distinguishable
MOST_COLUMNS = 14
LABELLED = 12
KEY = 5.5  # points: the font size of a network's key
# An origin has the same marker in every figure; those not listed share the last marker.
ORIGINS = dict(
    zip(
        ("sampled", "crossover", "crossover+mutation", "mutation", "velocity", "neighbour"),
        MARKERS[:-1],
        strict=True,
    )
)
THROUGH = 0.07  # inches: the height of a line that passes through a column


@dataclass(frozen=True, slots=True)
class _Birth:
    """A network's first evaluation."""

    key: str
    generation: int
    index: int
    origin: str
    parents: tuple[str, ...]
    value: float
    steps: int  # from the winner back to it


def ancestry(tables: Tables) -> Drawing:
    """Draws a node for each network, and a line from each parent to its children.

    If there are many ancestors, only those within some steps of the winner are drawn, and the
    title says how many are left out.
    """
    winner, first = tables.winner, tables.objectives[0]
    levels = _levels(tables, winner.key)
    if len(levels) < 2:
        raise NotYet(f"the {winner.word} has no parents: it was not bred from others")
    shown = _nearest(levels)
    births = {birth.key: birth for level in levels[:shown] for birth in level}
    left_out = sum(map(len, levels)) - len(births)

    columns = sorted({birth.generation for birth in births.values()})
    # Keys are written only where there is room; all columns are equally wide.
    room = (WIDTH - 0.2) / len(columns)
    widest = max(text_width(key, KEY) for key in births) + 0.08
    labelled = len(births) <= LABELLED and widest < room
    places, tallest = _layout(births, columns, 0.3 if labelled else 0.2)
    figure = Figure(figsize=(WIDTH, max(tallest, 1.0) + 1.35), layout="constrained")
    ax = figure.subplots()
    for path in _lines(births, places, columns):
        ax.add_patch(PathPatch(path, fc="none", ec="0.6", lw=0.7, zorder=1))
    measure = Measure(first.name, [birth.value for birth in births.values()])
    _draw_births(figure, ax, list(births.values()), places, columns, measure, first)

    x, y = places[winner.key, columns.index(births[winner.key].generation)]
    ax.scatter([x], [y], s=85, fc="none", ec=VERMILION, lw=1.1, zorder=2)
    for key, birth in births.items() if labelled else ():
        place = places[key, columns.index(birth.generation)]
        label = ax.annotate(key, place, (0, 6), textcoords="offset points", ha="center", zorder=4)
        label.set(fontsize=KEY, path_effects=[Stroke(linewidth=1.5, foreground="white"), Normal()])
    ax.set_xticks(range(len(columns)), [str(generation + 1) for generation in columns])
    ax.set_xlabel("first tried in generation")
    ax.set_xlim(-0.5, len(columns) - 0.5)
    half = max(tallest, 1.0) / 2 + 0.08
    ax.set_ylim(-half, half)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    title = f"{winner.word} (ringed): {short(winner.key)}"
    if left_out:
        title += (
            f"\n{counted(shown - 1, 'step')} back; {counted(left_out, 'earlier ancestor')} left out"
        )
    ax.set_title(title)
    rows = [
        (b.key, b.generation, b.index, b.origin, " ".join(b.parents), b.steps, b.value)
        for b in births.values()
    ]
    names = ["key", "generation", "index", "origin", "parents", "steps_back", first.name]
    return Drawing(figure, pd.DataFrame(rows, columns=names))


def _levels(tables: Tables, winner: str) -> list[list[_Birth]]:
    """The winner, its parents, their parents, ...; each network at its fewest steps."""
    first = tables.evaluations.drop_duplicates("key")
    columns = ["key", "generation", "index", "origin", "parents", tables.objectives[0].name]
    rows = {row[0]: row for row in zip(*(first[name].tolist() for name in columns), strict=True)}
    seen: set[str] = set()
    levels: list[list[_Birth]] = []
    waiting = [winner]
    while waiting:
        level: list[_Birth] = []
        for key in dict.fromkeys(waiting):
            if key in seen or key not in rows:
                continue
            seen.add(key)
            _, generation, index, origin, parent_keys, value = rows[key]
            parents = tuple(
                parent
                for parent in dict.fromkeys(parent_keys.split())
                if parent in rows and rows[parent][2] < index
            )
            level.append(_Birth(key, generation, index, origin, parents, value, len(levels)))
        waiting = [parent for birth in level for parent in birth.parents]
        if level:
            levels.append(level)
    if not levels:
        raise NotYet("the winner is not in evaluations.csv")
    return levels


def _nearest(levels: list[list[_Birth]]) -> int:
    """The number of levels that stay readable when drawn, at least two."""
    count, generations = 0, set()
    for shown, level in enumerate(levels):
        count += len(level)
        generations |= {birth.generation for birth in level}
        if shown >= 2 and (count > MOST or len(generations) > MOST_COLUMNS):
            return shown
    return len(levels)


Places = dict[tuple[str, int], tuple[float, float]]  # (key, column) -> point


def _layout(births: dict[str, _Birth], columns: list[int], slot: float) -> tuple[Places, float]:
    """Places each network, and its line in each column that the line passes through.

    Going back from the winner, each column is sorted by the heights of its members' children,
    which keeps crossings few (the barycentre rule of Sugiyama et al., 1981).

    Args:
        slot: the height of a network, in inches.

    Returns:
        The points, and the height of the tallest column, in inches.
    """
    column_of = {key: columns.index(birth.generation) for key, birth in births.items()}
    last: dict[str, int] = dict(column_of)
    children: dict[str, list[str]] = defaultdict(list)
    for key, birth in births.items():
        for parent in birth.parents:
            if parent in births:
                last[parent] = max(last[parent], column_of[key])
                children[parent].append(key)
    places: Places = {}
    heights: dict[str, float] = {}
    tallest = 0.0
    for column in reversed(range(len(columns))):
        members = [k for k in births if column_of[k] == column or column_of[k] < column < last[k]]

        def pull(key: str, column: int = column) -> tuple[float, int]:
            towards = [heights[c] for c in children[key] if column_of[c] > column]
            here = heights.get(key)
            pulls = towards if here is None else [*towards, here]
            return float(np.mean(pulls)) if pulls else 0.0, births[key].index

        members.sort(key=pull)
        sizes = [slot if column_of[key] == column else THROUGH for key in members]
        total = sum(sizes)
        tallest = max(tallest, total)
        y = -total / 2
        for key, size in zip(members, sizes, strict=True):
            places[key, column] = (float(column), y + size / 2)
            heights[key] = y + size / 2
            y += size
    return places, tallest


def _lines(births: dict[str, _Birth], places: Places, columns: list[int]) -> list[Path]:
    """Curves from each parent to its children; a stretch that several share is drawn once."""
    pieces: dict[tuple[tuple[float, float], tuple[float, float]], None] = {}
    for key, birth in births.items():
        to = columns.index(birth.generation)
        for parent in birth.parents:
            if parent in births:
                start = columns.index(births[parent].generation)
                way = [places[parent, column] for column in range(start, to)]
                pieces |= dict.fromkeys(zip(way, [*way[1:], places[key, to]], strict=True))
    codes = [Path.MOVETO, *[Path.CURVE4] * 3]
    return [
        Path([(a, b), ((a + c) / 2, b), ((a + c) / 2, d), (c, d)], codes)
        for (a, b), (c, d) in pieces
    ]


def _draw_births(
    figure: Figure,
    ax: Axes,
    births: list[_Birth],
    places: Places,
    columns: list[int],
    measure: Measure,
    objective: Objective,
) -> None:
    """Draws the networks: coloured by the first objective, grey without it, with a marker for the
    origin.
    """
    values = np.array([birth.value for birth in births])
    finite = values[np.isfinite(values)]
    low, high, extend = _scale(finite, objective)
    norm = Normalize(low, high)
    shades = sequence().with_extremes(bad="0.75")
    origins = list(dict.fromkeys(sorted(birth.origin for birth in births)))
    for origin in origins:
        marker = ORIGINS.get(origin, MARKERS[-1])
        some = [i for i, birth in enumerate(births) if birth.origin == origin]
        points = [places[births[i].key, columns.index(births[i].generation)] for i in some]
        x, y = np.array(points).T
        dots = ax.scatter(
            x,
            y,
            c=values[some],
            cmap=shades,
            norm=norm,
            plotnonfinite=True,
            marker=marker,
            s=24,
            ec="white",
            lw=0.4,
            zorder=3,
        )
        ax.plot([], [], ls="", marker=marker, color=BLACK, ms=3.5, label=origin)
    if len(finite):
        bar = figure.colorbar(dots, ax=ax, location="bottom", aspect=40, extend=extend)
        bar.set_label(measure.label)
        bar.formatter = measure.formatter
    figure.legend(loc="outside upper center", ncols=min(len(origins), 3), handletextpad=0.2)


def _scale(values: NDArray[np.float64], objective: Objective) -> tuple[float, float, str]:
    """The ends of the colour scale, and which end is open: the worst one, if the worst tenth of the
    values lies far from the rest.
    """
    if not len(values):
        return 0.0, 1.0, "neither"
    sign = objective.sign
    losses = sign * values
    best, usual, worst = losses.min(), float(np.quantile(losses, 0.9)), losses.max()
    far = usual > best and worst - best > 2 * (usual - best)
    low, high = sorted([sign * best, sign * (usual if far else worst)])
    beyond = ("max" if sign > 0 else "min") if far else "neither"
    return low, high if high > low else low + 1e-6 + abs(low) / 100, beyond

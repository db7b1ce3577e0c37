"""A genome drawn as a graph: nodes one below the other, ops along the arrows between them.

Lengths are in inches throughout, so that what fits can be computed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from evonas.core import UserError
from evonas.plots import style
from evonas.plots.style import (
    BLACK,
    CATEGORIES,
    GREY,
    SMALL,
    WIDTH,
    Drawing,
    NotYet,
    short,
    spell,
    text_width,
)
from evonas.plots.tables import Tables
from evonas.records.files import write_atomic
from genomes import Edge, Genome, Graph, SearchSpace

FORMATS = ("png", "svg", "pdf")
STEP = 0.52  # from a node to the next one below
HALF = 0.1  # of a node's height
PAD = 0.09  # between a label and what is beside it


@dataclass(frozen=True, slots=True)
class _Lane:
    """Where an edge runs: to the right of the nodes or the left, and how far out; 0 is straight."""

    side: int
    level: int


def cell(tables: Tables) -> Drawing:
    """The winner's cell."""
    space, winner = tables.space, tables.winner
    try:
        genome = space.genome(winner.genes)
    except ValueError as error:
        raise NotYet(f"the {winner.word} is not of its space: {error}") from None
    return _drawn(space, genome, f"{winner.word}: {short(winner.key)}")


def draw_cell(space: SearchSpace, genome: Genome, path: Path) -> None:
    """Draws any genome into a PNG, SVG or PDF file.

    Raises:
        UserError: another ending, or a folder that is not there.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise UserError(f"{path}: cannot be drawn as {path.suffix or 'it is'}; allowed: {endings}")
    with style.styled():
        content = style.rendered(_drawn(space, genome, short(space.key(genome))).figure, kind)
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; allowed: a file in a folder there is"
        ) from None


def _drawn(space: SearchSpace, genome: Genome, title: str) -> Drawing:
    graph = space.graph(genome)
    order = _order(graph)
    lanes = _lanes(graph.edges, order)
    ops = list(dict.fromkeys(c for gene in space.genes for c in gene.choices if c != "none"))
    colours = {op: CATEGORIES[i % len(CATEGORIES)] for i, op in enumerate(ops)}

    # How far out each level is: past the widest label, at least, of all that are further in.
    widest = max((text_width(spell(edge.op), SMALL) for edge in graph.edges), default=0.0)
    names = _names(graph)
    half_node = max(text_width(name, 7) for name in names.values()) / 2 + 0.08
    first, more = max(half_node, widest / 2) + widest / 2 + 2 * PAD, widest + 2 * PAD
    sides = {
        side: max((lane.level for lane in lanes if lane.side == side), default=0)
        for side in (-1, 1)
    }
    reach = {
        side: first + (level - 1) * more + widest / 2 + PAD if level else half_node + PAD
        for side, level in sides.items()
    }
    caption = "dashed: dead, no part of the network" if any(not e.live for e in graph.edges) else ""
    top, bottom = 0.45, 0.34 if caption else 0.16
    width = max(WIDTH, reach[-1] + reach[1], text_width(title, 7) + 0.2)
    height = (len(order) - 1) * STEP + top + bottom
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    left = -reach[-1] - (width - reach[-1] - reach[1]) / 2
    ax.set_xlim(left, left + width)
    ax.set_ylim((len(order) - 1) * STEP + bottom, -top)

    for edge, lane in zip(graph.edges, lanes, strict=True):
        out = 0.0 if lane.level == 0 else lane.side * (first + (lane.level - 1) * more)
        ends = (order[edge.source] * STEP, order[edge.target] * STEP)
        _draw_edge(ax, edge, ends, out, colours.get(edge.op, BLACK), half_node)
    for node, row in order.items():
        alive = any(e.live and node in (e.source, e.target) for e in graph.edges)
        _draw_node(ax, names[node], row * STEP, half_node, alive)
    middle = left + width / 2
    ax.text(middle, -top + 0.1, title, ha="center", va="top", fontsize=7)
    ax.text(
        middle, (len(order) - 1) * STEP + bottom - 0.06, caption,
        ha="center", va="bottom", fontsize=SMALL, color="0.35",
    )  # fmt: skip
    rows = [(e.source, e.target, e.op, e.live) for e in graph.edges]
    return Drawing(figure, pd.DataFrame(rows, columns=["source", "target", "op", "live"]))


def _order(graph: Graph) -> dict[str, int]:
    """A row for each node: by its longest path from a source, then as the space lists them."""
    depth = dict.fromkeys(graph.nodes, 0)
    for _ in graph.nodes:  # as often as a path can be long
        for edge in graph.edges:
            depth[edge.target] = max(depth[edge.target], depth[edge.source] + 1)
    # A node that no edge reaches keeps its place in the list, between its neighbours.
    reached = {edge.target for edge in graph.edges}
    sought, deepest = {}, 0
    for node in graph.nodes:
        sought[node] = depth[node] if node in reached else deepest
        deepest = max(deepest, sought[node])
    sought[graph.nodes[-1]] = deepest + 1
    places = {node: i for i, node in enumerate(graph.nodes)}
    ranked = sorted(graph.nodes, key=lambda node: (sought[node], places[node]))
    return {node: row for row, node in enumerate(ranked)}


def _lanes(edges: Sequence[Edge], order: dict[str, int]) -> list[_Lane]:
    """A lane for each edge, no two at once in one; short ones inside, few that cross."""
    taken: list[tuple[_Lane, int, int]] = []
    lanes: dict[int, _Lane] = {}
    spans = [sorted((order[edge.source], order[edge.target])) for edge in edges]
    for i in sorted(range(len(edges)), key=lambda i: (spans[i][1] - spans[i][0], spans[i], i)):
        low, high = spans[i]
        levels = [0] if high - low == 1 else []
        options = [_Lane(1, 0)] if levels else []
        options += [_Lane(side, level) for level in range(1, len(edges) + 1) for side in (1, -1)]
        free = [
            lane
            for lane in options
            if not any(lane == other and low < b and a < high for other, a, b in taken)
            # Outside all that it spans, or it would run through their labels.
            and not any(
                lane.side == other.side and low <= a and b <= high and 0 < lane.level <= other.level
                for other, a, b in taken
            )
        ]
        crossings = {
            lane: sum(
                lane.side == other.side and (low < a < high < b or a < low < b < high)
                for other, a, b in taken
            )
            for lane in free
        }
        lanes[i] = min(free, key=lambda lane: (crossings[lane] > 0, lane.level, -lane.side))
        taken.append((lanes[i], low, high))
    return [lanes[i] for i in range(len(edges))]


def _names(graph: Graph) -> dict[str, str]:
    names = {node: node for node in graph.nodes}
    for node, role in ((graph.nodes[0], "input"), (graph.nodes[-1], "output")):
        if role not in node:
            names[node] = f"{node} ({role})"
    return names


def _draw_node(ax: Axes, name: str, y: float, half_width: float, alive: bool) -> None:
    width = text_width(name, 7) / 2 + 0.08
    ax.add_patch(
        FancyBboxPatch(
            (-width, y - HALF),
            2 * width,
            2 * HALF,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="0.93" if alive else "white",
            edgecolor=BLACK if alive else GREY,
            lw=0.7,
            zorder=3,
        )
    )
    colour = BLACK if alive else "0.45"
    ax.text(0, y, name, ha="center", va="center_baseline", fontsize=7, color=colour, zorder=5)


def _draw_edge(
    ax: Axes, edge: Edge, ends: tuple[float, float], out: float, colour: str, half_node: float
) -> None:
    """An arrow, straight or in an arc whose middle is `out` to the side, and its label there."""
    start, end = ends
    down = math.copysign(1, end - start)
    if out == 0:
        points = [(0.0, start), (0.0, end - down * HALF)]
        codes = [Curve.MOVETO, Curve.LINETO]
    else:
        # A cubic whose two inner points are at x is at 3/4 x in its middle. It leaves and meets
        # the nodes slantwise, beside those who go straight.
        x = out / 0.75
        slant = min(0.22 * abs(end - start), 0.35) * down
        inner = [(x, start + slant), (x, end - slant)]
        tip = (math.copysign(min(half_node, 0.1), out), end - down * HALF)
        points = [(0.0, start), *inner, tip]
        codes = [Curve.MOVETO, *[Curve.CURVE4] * 3]
    shade = colour if edge.live else GREY
    ax.add_patch(
        FancyArrowPatch(
            path=Curve(np.array(points), codes),
            arrowstyle="-|>,head_length=3.2,head_width=1.5",
            color=shade,
            lw=1.3 if edge.live else 0.8,
            linestyle="-" if edge.live else (0, (4, 2)),
            joinstyle="miter",
            capstyle="butt",
            zorder=2,
        )
    )
    ax.text(
        out,
        (start + end) / 2,
        spell(edge.op),
        ha="center",
        va="center_baseline",
        fontsize=SMALL,
        color=BLACK if edge.live else "0.45",
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": shade, "lw": 0.5},
        zorder=4,
    )

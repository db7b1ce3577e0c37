"""Draws a genome as a graph: nodes one below the other, with ops on the arrows between them.

Where its space knows no graph, the genome is a table of its genes.

All lengths are in inches, so that what fits can be computed in advance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline

from evonas.core import UserError
from evonas.files import write_atomic
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
from genomes import Edge, Genome, Graph, SearchSpace

FORMATS = ("png", "svg", "pdf")
STEP = 0.52  # from a node to the next one below
HALF = 0.1  # half of a node's height
TOP = 0.45  # above the first node, for the title
ROW = 0.16  # from a row of a table to the next
TALL = 30  # the rows of a table before it has another column
LONGEST = 40  # the letters of a gene or a choice
PAD = 0.09  # the gap between a label and its neighbours


@dataclass(frozen=True, slots=True)
class Lane:
    """Where an edge runs: right (1) or left (-1) of the nodes, and how far out; 0 is straight."""

    side: int
    level: int


def cell(tables: Tables) -> Drawing:
    """Draws the winner's cell."""
    space, winner = tables.space, tables.winner
    try:
        genome = space.genome(winner.genes)
    except ValueError as error:
        raise NotYet(f"the {winner.word} is not a genome of the run's space: {error}") from None
    return _drawn(space, genome, f"{winner.word}: {short(winner.key)}")


def draw_cell(space: SearchSpace, genome: Genome, path: Path) -> None:
    """Draws any genome into a PNG, SVG or PDF file.

    Raises:
        UserError: the file name ends otherwise, or the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        problem = f"cannot be drawn as {path.suffix}" if kind else "has no file name extension"
        raise UserError(problem, hint=f"allowed: {endings}", key=str(path))
    with style.styled():
        content = style.rendered(_drawn(space, genome, short(space.key(genome))).figure, kind)
    try:
        write_atomic(path, content)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        hint = "the folder must exist and be writable"
        raise UserError(problem, hint=hint, key=str(path)) from None


def categories(space: SearchSpace) -> dict[str, int]:
    """The colour of each op of a space, by its place in `CATEGORIES`."""
    ops = dict.fromkeys(c for gene in space.genes for c in gene.choices if c != "none")
    return {op: i % len(CATEGORIES) for i, op in enumerate(ops)}


def _drawn(space: SearchSpace, genome: Genome, title: str) -> Drawing:
    graph = space.graph(genome)
    if graph is None:
        return _table(space, genome, title)
    parts = [Part.of(part) for part in connected(graph)]
    colours = {op: CATEGORIES[i] for op, i in categories(space).items()}
    dead = any(not edge.live for edge in graph.edges)
    notes = [graph.note, "dashed: dead, not part of the network" if dead else ""]
    caption = "\n".join(filter(None, notes))
    bottom = 0.24 + 0.1 * len(caption.splitlines()) if caption else 0.16
    inner = sum(part.left + part.right for part in parts)
    written = [text_width(line, SMALL) for line in caption.splitlines()]
    width = max(WIDTH, inner, *(each + 0.2 for each in (text_width(title, 7), *written)))
    last = (max(len(part.order) for part in parts) - 1) * STEP
    figure, ax = _page(width, last, bottom, title, caption)
    at = (width - inner) / 2
    for part in parts:
        part.draw(ax, at + part.left, colours)
        at += part.left + part.right
    rows = [(e.source, e.target, e.op, e.live) for e in graph.edges]
    return Drawing(figure, pd.DataFrame(rows, columns=["source", "target", "op", "live"]))


def _page(
    width: float, last: float, bottom: float, title: str, caption: str
) -> tuple[Figure, Axes]:
    """Return a figure with a title above and a caption below, and axes with y from 0 to `last`."""
    figure = Figure(figsize=(width, TOP + last + bottom))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(last + bottom, -TOP)
    ax.text(width / 2, 0.1 - TOP, title, ha="center", va="top", fontsize=7)
    ax.text(
        width / 2, last + bottom - 0.06, caption,
        ha="center", va="bottom", fontsize=SMALL, color="0.35",
    )  # fmt: skip
    return figure, ax


def _table(space: SearchSpace, genome: Genome, title: str) -> Drawing:
    """Draws the genes and their choices, in as many columns as they need."""
    live = space.live(genome)
    rows = [(gene.name, space.choice(genome, i), live[i]) for i, gene in enumerate(space.genes)]
    header = ("gene", "choice")
    texts = [header, *((short(gene, LONGEST), short(choice, LONGEST)) for gene, choice, _ in rows)]
    first, second = (max(text_width(row[i], 7) for row in texts) + 0.25 for i in (0, 1))
    blocks = math.ceil(len(rows) / max(TALL, 2 * math.sqrt(len(rows))))
    tall = math.ceil(len(rows) / blocks)
    inner = blocks * (first + second)
    dead = "grey: dead, not part of the network" if not all(live) else ""
    width = max(WIDTH, inner + 0.2, text_width(title, 7) + 0.2)
    figure, ax = _page(width, tall * ROW, 0.34 if dead else 0.16, title, dead)
    for block in range(blocks):
        x = (width - inner) / 2 + block * (first + second)
        part = texts[1:][block * tall : (block + 1) * tall]
        for i, row in enumerate([header, *part]):
            grey = i > 0 and not live[block * tall + i - 1]
            colour = "0.35" if i == 0 else "0.55" if grey else BLACK
            for at, text in zip((x, x + first), row, strict=True):
                ax.text(
                    at, i * ROW, text,
                    va="center_baseline", fontsize=7, color=colour, parse_math=False,
                )  # fmt: skip
        ax.plot([x, x + first + second - 0.25], [ROW / 2] * 2, color=GREY, lw=0.6)
    return Drawing(figure, pd.DataFrame(rows, columns=["gene", "choice", "live"]))


@dataclass(frozen=True)
class Part:
    """A connected part of a graph, its nodes one below the other.

    Attributes:
        first, more: how far out the first lane is, and each further one beyond the one before.
        half_node: half the width of the widest node.
        left, right: how far the part extends to either side of its nodes' centres.
    """

    graph: Graph
    order: dict[str, int]
    lanes: list[Lane]
    names: dict[str, str]
    first: float
    more: float
    half_node: float
    left: float
    right: float

    @classmethod
    def of(cls, graph: Graph) -> Part:
        order = _order(graph)
        lanes = _lanes(graph.edges, order)
        # Each level lies far enough out to clear the widest label of the levels inside it.
        widest = max((text_width(spell(edge.op), SMALL) for edge in graph.edges), default=0.0)
        names = _names(graph)
        half_node = max(text_width(name, 7) for name in names.values()) / 2 + 0.08
        first, more = max(half_node, widest / 2) + widest / 2 + 2 * PAD, widest + 2 * PAD
        reach = []
        for side in (-1, 1):
            level = max((lane.level for lane in lanes if lane.side == side), default=0)
            straight = max(half_node, widest / 2) + PAD
            outermost = first + (level - 1) * more + widest / 2 + PAD
            reach.append(max(outermost, straight) if level else straight)
        return cls(graph, order, lanes, names, first, more, half_node, *reach)

    def out(self, lane: Lane) -> float:
        """How far the middle of a lane's edges lies to the right of the nodes' centres."""
        if not lane.level:
            return 0.0
        return lane.side * (self.first + (lane.level - 1) * self.more)

    def draw(self, ax: Axes, x: float, colours: Mapping[str, str]) -> None:
        for edge, lane in zip(self.graph.edges, self.lanes, strict=True):
            out = self.out(lane)
            ends = (self.order[edge.source] * STEP, self.order[edge.target] * STEP)
            _draw_edge(
                ax,
                edge,
                x,
                ends,
                out,
                colours.get(edge.op.partition(",")[0], BLACK),
                self.half_node,
            )
        for node, row in self.order.items():
            alive = any(e.live and node in (e.source, e.target) for e in self.graph.edges)
            _draw_node(ax, self.names[node], x, row * STEP, alive)


def connected(graph: Graph) -> list[Graph]:
    """The connected parts of a graph; a node without edges goes into the first."""
    group = {node: node for node in graph.nodes}

    def root(node: str) -> str:
        while group[node] != node:
            node = group[node]
        return node

    for edge in graph.edges:
        group[root(edge.target)] = root(edge.source)
    connected = {node for edge in graph.edges for node in (edge.source, edge.target)}
    first = root(next((node for node in graph.nodes if node in connected), graph.nodes[0]))
    roots = {node: root(node) if node in connected else first for node in graph.nodes}
    inputs, outputs = graph.inputs or graph.nodes[:1], graph.outputs or graph.nodes[-1:]
    return [
        Graph(
            tuple(node for node in graph.nodes if roots[node] == each),
            tuple(edge for edge in graph.edges if roots[edge.source] == each),
            tuple(node for node in inputs if roots[node] == each),
            tuple(node for node in outputs if roots[node] == each),
        )
        for each in dict.fromkeys(roots.values())
    ]


def _order(graph: Graph) -> dict[str, int]:
    """A row for each node: by its longest path from a source, then in the space's order."""
    depth = dict.fromkeys(graph.nodes, 0)
    for _ in graph.nodes:  # no path is longer
        for edge in graph.edges:
            depth[edge.target] = max(depth[edge.target], depth[edge.source] + 1)
    # A node that no edge reaches keeps its place in the list, between its neighbours.
    reached = {edge.target for edge in graph.edges}
    level, deepest = {}, 0
    for node in graph.nodes:
        level[node] = depth[node] if node in reached else deepest
        deepest = max(deepest, level[node])
    for node in graph.outputs:
        level[node] = deepest + 1
    places = {node: i for i, node in enumerate(graph.nodes)}
    ranked = sorted(graph.nodes, key=lambda node: (level[node], places[node]))
    return {node: row for row, node in enumerate(ranked)}


def _lanes(edges: Sequence[Edge], order: dict[str, int]) -> list[Lane]:
    """A lane for each edge: no two overlap in one, short edges run inside, and few cross."""
    taken: list[tuple[Lane, int, int]] = []
    lanes: dict[int, Lane] = {}
    spans = [sorted((order[edge.source], order[edge.target])) for edge in edges]
    for i in sorted(range(len(edges)), key=lambda i: (spans[i][1] - spans[i][0], spans[i], i)):
        low, high = spans[i]
        levels = [0] if high - low == 1 else []
        options = [Lane(1, 0)] if levels else []
        options += [Lane(side, level) for level in range(1, len(edges) + 1) for side in (1, -1)]
        free = [
            lane
            for lane in options
            if not any(lane == other and low < b and a < high for other, a, b in taken)
            # It must run outside all edges that it spans, or it would cross their labels.
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
    for nodes, role in ((graph.inputs, "input"), (graph.outputs, "output")):
        for node in nodes:
            if role not in node:
                names[node] = f"{node} ({role})"
    return names


def _draw_node(ax: Axes, name: str, x: float, y: float, alive: bool) -> None:
    width = text_width(name, 7) / 2 + 0.08
    ax.add_patch(
        FancyBboxPatch(
            (x - width, y - HALF),
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
    ax.text(x, y, name, ha="center", va="center_baseline", fontsize=7, color=colour, zorder=5)


def arrow(
    x: float, ends: tuple[float, float], out: float, half_node: float
) -> list[tuple[float, float]]:
    """The points of an edge: two of a line or, with its middle `out` to the side, four of a cubic
    curve.
    """
    start, end = ends
    down = math.copysign(1, end - start)
    if out == 0:
        return [(x, start), (x, end - down * HALF)]
    # The middle of a cubic curve is 3/4 as far out as its two inner points. The curve leaves
    # and meets the nodes at a slant, which keeps it clear of straight arrows.
    far = x + out / 0.75
    slant = min(0.22 * abs(end - start), 0.35) * down
    tip = (x + math.copysign(min(half_node, 0.1), out), end - down * HALF)
    return [(x, start), (far, start + slant), (far, end - slant), tip]


def _draw_edge(
    ax: Axes,
    edge: Edge,
    x: float,
    ends: tuple[float, float],
    out: float,
    colour: str,
    half_node: float,
) -> None:
    """Draws an arrow, straight or in an arc whose middle is `out` to the side, and its label."""
    start, end = ends
    points = arrow(x, ends, out, half_node)
    codes = [Outline.MOVETO, *([Outline.LINETO] if out == 0 else [Outline.CURVE4] * 3)]
    shade = colour if edge.live else GREY
    ax.add_patch(
        FancyArrowPatch(
            path=Outline(np.array(points), codes),
            arrowstyle="-|>,head_length=3.2,head_width=1.5",
            color=shade,
            lw=1.3 if edge.live else 0.8,
            linestyle="-" if edge.live else (0, (4, 2)),
            joinstyle="miter",
            capstyle="butt",
            zorder=2,
        )
    )
    if not edge.op:
        return
    ax.text(
        x + out,
        (start + end) / 2,
        spell(edge.op),
        ha="center",
        va="center_baseline",
        fontsize=SMALL,
        color=BLACK if edge.live else "0.45",
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": shade, "lw": 0.5},
        zorder=4,
    )

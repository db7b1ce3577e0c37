"""The drawing of a genome as a small SVG within a page, whose style sheet colours it.

It is laid out as `cell` does. An edge has the class `e`, and `o0` to `o6` for the colour of its op
(`style.CATEGORIES`), or `dead`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from evonas.plots.cell import HALF, STEP, Part, arrow, categories, connected
from evonas.plots.style import SMALL, short, spell, text_width
from genomes import Genome, SearchSpace

SCALE = 118  # pixels an inch, so that the smallest text has 10.5
ROW = 0.17  # inches, from a row of a table to the next
MOST_ROWS = 40
MARGIN = 0.06  # inches
WIDE = 4.2  # inches; what is wider needs a line of its own
HEAD = (0.085, 0.04)  # the length of an arrow's head, and half its width, in inches


def inline(space: SearchSpace, genome: Genome) -> str:
    """Return a genome's graph or, where its space knows none, its genes, as an `svg` element."""
    graph = space.graph(genome)
    if graph is None:
        return _table(space, genome)
    colours = categories(space)
    parts = [Part.of(part) for part in connected(graph)]
    at, shapes = MARGIN, []
    for part in parts:
        shapes += _drawn(part, at + part.left, colours)
        at += part.left + part.right
    height = (max(len(part.order) for part in parts) - 1) * STEP + 2 * (HALF + MARGIN)
    ops = ", ".join(
        f"{edge.source} to {edge.target}: {spell(edge.op)}" for edge in graph.edges if edge.live
    )
    return _svg(at + MARGIN, height, shapes, f"The network's graph: {ops or 'no live edge'}")


def _drawn(part: Part, x: float, colours: dict[str, int]) -> list[str]:
    """The shapes of a connected part, edges before nodes, so that nodes cover their ends."""
    shapes, labels = [], []
    top = HALF + MARGIN
    for edge, lane in zip(part.graph.edges, part.lanes, strict=True):
        out = part.out(lane)
        start, end = (part.order[node] * STEP + top for node in (edge.source, edge.target))
        points = arrow(x, (start, end), out, part.half_node)
        number = colours.get(edge.op.partition(",")[0])
        look = "dead" if not edge.live else "" if number is None else f"o{number}"
        shapes += [_line(points, look), _head(points, look)]
        if edge.op:
            labels += _label(x + out, (start + end) / 2, spell(edge.op), look)
    live = {node for edge in part.graph.edges if edge.live for node in (edge.source, edge.target)}
    for node, row in part.order.items():
        half, y = text_width(part.names[node], 7) / 2 + 0.08, row * STEP + top
        look = "" if node in live else " dead"
        shapes.append(_box("n" + look, x - half, y - HALF, 2 * half, 2 * HALF))
        labels.append(_text(x, y, part.names[node], look.strip()))
    return [*shapes, *labels]


def _table(space: SearchSpace, genome: Genome) -> str:
    live = space.live(genome)
    rows = [(gene.name, space.choice(genome, i), live[i]) for i, gene in enumerate(space.genes)]
    shown = [(short(name, 24), short(choice, 24), alive) for name, choice, alive in rows]
    more = len(shown) - MOST_ROWS + 1
    if more > 1:
        shown = [*shown[: MOST_ROWS - 1], (f"and {more} more", "", False)]
    first = max(text_width(name, SMALL) for name, _, _ in shown) + 0.2
    second = max(text_width(choice, SMALL) for _, choice, _ in shown)
    shapes = []
    for i, (name, choice, alive) in enumerate(shown):
        y = MARGIN + (i + 0.5) * ROW
        look = "start" if alive else "start dead"
        shapes += [_text(MARGIN, y, name, f"{look} q"), _text(MARGIN + first, y, choice, look)]
    genes = ", ".join(f"{name} {choice}" for name, choice, _ in shown)
    width = first + second + 2 * MARGIN
    return _svg(width, len(shown) * ROW + 2 * MARGIN, shapes, f"The network's genes: {genes}")


def _svg(width: float, height: float, shapes: Sequence[str], label: str) -> str:
    size, look = f"{_n(width)} {_n(height)}", "net wide" if width > WIDE else "net"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{look}" role="img" viewBox="0 0 {size}" '
        f'width="{_n(width)}" height="{_n(height)}" aria-label="{html.escape(label)}">'
        f"{''.join(shapes)}</svg>"
    )


def _line(points: Sequence[tuple[float, float]], look: str) -> str:
    first, *others = (f"{_n(x)} {_n(y)}" for x, y in points)
    look = f"e {look}".strip()
    return f'<path class="{look}" d="M{first}{"C" if others[1:] else "L"}{" ".join(others)}"/>'


def _head(points: Sequence[tuple[float, float]], look: str) -> str:
    """The arrow's head, which points as the line does at its end."""
    (x0, y0), (x, y) = points[-2:]
    size = math.hypot(x - x0, y - y0) or 1.0
    dx, dy = (x - x0) / size, (y - y0) / size
    long, wide = HEAD
    left = (x - long * dx - wide * dy, y - long * dy + wide * dx)
    right = (x - long * dx + wide * dy, y - long * dy - wide * dx)
    corners = "L".join(f"{_n(a)} {_n(b)}" for a, b in ((x, y), left, right))
    look = f"h {look}".strip()
    return f'<path class="{look}" d="M{corners}Z"/>'


def _label(x: float, y: float, text: str, look: str) -> list[str]:
    half = text_width(text, SMALL) / 2 + 0.05
    box = _box(f"l {look}".strip(), x - half, y - 0.075, 2 * half, 0.15)
    return [box, _text(x, y, text, look if look == "dead" else "")]


def _box(look: str, x: float, y: float, width: float, height: float) -> str:
    place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
    return f'<rect class="{look}" {place} rx="5"/>'


def _text(x: float, y: float, text: str, look: str) -> str:
    style = f' class="{look}"' if look else ""
    return f'<text{style} x="{_n(x)}" y="{_n(y)}" dy=".35em">{html.escape(text)}</text>'


def _n(inches: float) -> str:
    """A length in pixels, as short as it is exact enough."""
    return f"{inches * SCALE:.0f}"

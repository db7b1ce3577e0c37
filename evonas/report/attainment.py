"""What the seeds of an arm attain in two objectives: the empirical attainment function.

The surface of half of the seeds is the set of best points that half of the runs dominate or equal
(Grunert da Fonseca et al., 2001). It says in objective space what a median says of one number.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import moocore
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evonas.pareto import Array, Losses
from evonas.plots.style import CATEGORIES, DASHES, SMALL, WIDTH, Measure, rendered, styled
from evonas.report.arms import Arm
from evonas.report.curves import comparable

LEVELS = (25.0, 50.0, 75.0)  # percent of the seeds
HEIGHT, LEGEND_ROW, WRAP = 2.2, 0.15, 58


def surface(runs: Sequence[Losses], level: float) -> Array:
    """Return the points of the surface that `level` percent of the runs attain, by the first loss.

    Args:
        runs: (n, 2) of each run; rows of NaN are left out. A run may have none.
    """
    good = [losses[np.isfinite(losses).all(axis=1)] for losses in runs]
    needed = int(np.ceil(len(runs) * level / 100 - 1e-9))
    found = [losses for losses in good if len(losses)]
    if len(found) < max(needed, 1):
        return np.empty((0, 2))
    sets = np.repeat(np.arange(1, len(found) + 1), list(map(len, found)))
    attained = moocore.eaf(np.vstack(found), sets, percentiles=[100 * needed / len(found)])
    points = attained[:, :2]
    return np.asarray(points[np.argsort(points[:, 0])], dtype=float)


def figure(arms: Sequence[Arm]) -> list[bytes]:
    """Draws the surfaces of each arm at the end of its runs; as PNG and SVG."""
    objectives = arms[0].runs[0].objectives
    signs = np.array([objective.sign for objective in objectives])
    runs = [[comparable(run)[-1] for run in arm.runs] for arm in arms]
    everything = np.vstack([losses for of_arm in runs for losses in of_arm])
    worst = np.nanmax(everything, axis=0)
    measures = [
        Measure(objective.name, everything[:, i] * signs[i])
        for i, objective in enumerate(objectives)
    ]
    with styled():
        names = [textwrap.fill(f"{arm.name}, n={len(arm.runs)}", WRAP) for arm in arms]
        lines = sum(name.count("\n") + 1 for name in names)
        size = (WIDTH, HEIGHT + LEGEND_ROW * (1 + lines))
        drawn = Figure(figsize=size, layout="constrained")
        panel = drawn.subplots()
        for i, of_arm in enumerate(runs):
            _draw(panel, of_arm, i, worst, signs)
        for axis, measure in zip((panel.xaxis, panel.yaxis), measures, strict=True):
            measure.write_on(axis)
        drawn.legend(
            panel.get_lines(),
            names,
            loc="outside upper left",
            title="attained by half of the seeds; band: by a quarter to three quarters",
            alignment="left",
            title_fontsize=SMALL,
            handlelength=2.4,
        )
        png = rendered(drawn, "png")
        drawn.set_layout_engine("none")
        return [png, rendered(drawn, "svg")]


def _draw(panel: Axes, runs: Sequence[Losses], i: int, worst: Array, signs: Array) -> None:
    colour, dashes = CATEGORIES[i % len(CATEGORIES)], DASHES[i % len(DASHES)]
    few, half, most = (_stairs(surface(runs, level), worst) for level in LEVELS)
    if len(few) and len(most):
        outline = np.vstack([few, most[::-1]]) * signs
        panel.fill(*outline.T, color=colour, alpha=0.18, linewidth=0)
    panel.plot(*(half * signs).T, color=colour, linestyle=dashes)


def _stairs(points: Array, worst: Array) -> Array:
    """Return the corners of a surface, out to the worst of each loss."""
    if not len(points):
        return points
    x = np.repeat(points[:, 0], 2)
    y = np.concatenate([[max(worst[1], points[0, 1])], np.repeat(points[:, 1], 2)[:-1]])
    stairs = np.column_stack([x, y])
    return np.vstack([stairs, [max(worst[0], points[-1, 0]), points[-1, 1]]])

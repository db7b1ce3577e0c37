"""The figure of a benchmark: the best so far, by queries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from evonas.bench.spec import Bench
from evonas.bench.summary import MeanCurve
from evonas.markdown import counted
from evonas.plots.style import CATEGORIES, DASHES, SMALL, WIDTH, Drawing, Measure

ROW = 0.15  # inches: the height of a row of the legend
SHOWN_FROM = 0.02  # of the evaluations, on a logarithmic axis


def best_so_far(bench: Bench, curves: Mapping[str, MeanCurve]) -> Drawing:
    """Draw a line for each strategy, the mean over its runs, with a 95 % interval of that mean."""
    several, seconds = len(bench.objectives) > 1, bench.protocol.simulated_seconds
    rows = -(-len(curves) // 2)
    figure = Figure(figsize=(WIDTH, 2.3 + ROW * (rows + 1)), layout="constrained")
    ax = figure.subplots()
    frames, shown = [], []
    for i, (label, curve) in enumerate(curves.items()):
        colour, dashes = CATEGORIES[i % len(CATEGORIES)], DASHES[i % len(DASHES)]
        ax.plot(curve.x, curve.mean, color=colour, linestyle=dashes, label=label)
        ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        late = curve.x >= SHOWN_FROM * curve.x[-1]
        shown += [curve.low[late], curve.high[late], curve.mean[late]]
        frames.append(
            pd.DataFrame(
                {
                    "strategy": label,
                    "simulated_seconds" if seconds is not None else "queries": curve.x,
                    "mean": curve.mean,
                    "low": curve.low,
                    "high": curve.high,
                }
            )
        )
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if several:
        ax.set_ylabel("hypervolume (share of the exact front's)")
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        measure = Measure(bench.objectives[0].name, values)
        ax.set_ylabel(f"best {measure.label}")
        ax.yaxis.set_major_formatter(measure.formatter)
    if len(values):
        margin = 0.04 * (values.max() - values.min())
        ax.set_ylim(values.min() - margin, values.max() + margin)
    ax.set_xscale("log")
    end = next(iter(curves.values())).x[-1]
    ax.set_xlim(SHOWN_FROM * end, end)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    what = f"distinct {bench.distinct} evaluated"
    ax.set_xlabel("simulated seconds" if seconds is not None else what)
    figure.legend(
        loc="outside upper left",
        ncols=2,
        title=f"mean of {counted(bench.seeds, 'run')} each; band: its 95 % interval",
        alignment="left",
        title_fontsize=SMALL,
        handlelength=2.4,
    )
    return Drawing(figure, pd.concat(frames, ignore_index=True))

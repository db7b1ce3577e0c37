"""The figures of a comparison: the progress of each arm, by evaluations and by epochs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from evonas.core import Objective
from evonas.plots.style import CATEGORIES, DASHES, SMALL, WIDTH, Measure, rendered, styled
from evonas.report.arms import Arm
from evonas.report.curves import Band, By

ROW, LEGEND_ROW = 1.3, 0.15  # inches
WRAP, HALF = 58, 25  # characters that fit in a line of the legend, and in half a line
LABELS: Mapping[By, str] = {"evaluations": "evaluations", "epochs": "trained epochs"}
HYPERVOLUME = "hypervolume (share)"
Bands = Mapping[By, Sequence[Band]]  # one for each arm


def best_figure(arms: Sequence[Arm], bands: Bands, objectives: Sequence[Objective]) -> list[bytes]:
    """Draws the best so far, a row of panels for each objective; as PNG and SVG."""
    names = [objective.name for objective in objectives]
    return _drawn(arms, bands, dict(enumerate(names)))


def hypervolume_figure(arms: Sequence[Arm], bands: Bands) -> list[bytes]:
    """Draws hypervolume as a share of the box; as PNG and SVG."""
    last = len(arms[0].runs[0].objectives)
    return _drawn(arms, bands, {last: HYPERVOLUME})


def _drawn(arms: Sequence[Arm], bands: Bands, rows: Mapping[int, str]) -> list[bytes]:
    """Draws a row of panels for each of the bands' columns in `rows`, a panel for each `By`."""
    with styled():
        names = [textwrap.fill(f"{arm.name}, n={len(arm.runs)}", WRAP) for arm in arms]
        columns = 2 if max(map(len, names)) <= HALF else 1
        lines = sum(name.count("\n") + 1 for name in names)
        height = ROW * len(rows) + LEGEND_ROW * (2 + -(-lines // columns))
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(len(rows), len(bands), squeeze=False, sharey="row", sharex="col")
        for row, (column, name) in zip(axes, rows.items(), strict=True):
            for panel, by in zip(row, bands, strict=True):
                _draw(panel, bands[by], column)
            _scale(row[0], [band for each in bands.values() for band in each], column, name)
        for panel, by in zip(axes[-1], bands, strict=True):
            panel.set_xlabel(LABELS[by])
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            panel.set_xlim(left=0)
        figure.legend(
            axes[0, 0].get_lines()[::2],  # without the dots at the ends
            names,
            loc="outside upper left",
            ncols=columns,
            title=_title(next(iter(bands.values()))),
            alignment="left",
            title_fontsize=SMALL,
            handlelength=2.4,
        )
        png = rendered(figure, "png")
        figure.set_layout_engine("none")  # laid out once, so that formats agree
        return [png, rendered(figure, "svg")]


def _draw(panel: Axes, bands: Sequence[Band], column: int) -> None:
    for i, band in enumerate(bands):
        colour, dashes = CATEGORIES[i % len(CATEGORIES)], DASHES[i % len(DASHES)]
        low, mean, high = (part[:, column] for part in (band.low, band.mean, band.high))
        changes = _changes(low, mean, high)
        x = band.x[changes]
        if band.kind:
            panel.fill_between(
                x, low[changes], high[changes], step="post", color=colour, alpha=0.18, linewidth=0
            )
        panel.step(x, mean[changes], where="post", color=colour, linestyle=dashes)
        panel.plot(x[-1:], mean[-1:], ".", color=colour, markersize=3)  # a dot at the end


def _changes(*columns: Any) -> Any:
    """Where some column takes a new value, and both ends: all the points that a step plot needs."""
    values = np.nan_to_num(np.stack(columns), nan=np.inf)
    kept = np.ones(values.shape[1], dtype=np.bool_)
    kept[1:-1] = (values[:, 1:-1] != values[:, :-2]).any(axis=0)
    return kept


def _scale(panel: Axes, bands: Sequence[Band], column: int, name: str) -> None:
    """Labels a panel as in a run's own figures, and sets its scale, which is logarithmic for a best
    that spans more than a factor of five.

    Hypervolume rises fast and then slowly, so its panel begins at the value after a tenth of the
    way; otherwise later differences could not be seen.
    """
    values = np.concatenate([np.append(b.low[:, column], b.high[:, column]) for b in bands])
    values = values[np.isfinite(values)]
    measure = Measure(name, values)
    panel.set_ylabel(name if name == HYPERVOLUME else f"best {measure.label}")
    if not len(values):
        return
    low, high = values.min(), values.max()
    if column == bands[0].mean.shape[1] - 1:
        later = np.concatenate([b.low[b.x >= 0.1 * b.x[-1], column] for b in bands])
        low = np.nanmin(later)
        if high > low:
            panel.set_ylim(low - 0.1 * (high - low), high + 0.05 * (high - low))
    elif low > 0 and high / low > 5:
        panel.set_yscale("log")
        subs = (1, 2, 5) if high / low < 300 else (1,)
        panel.yaxis.set_major_locator(LogLocator(subs=subs))
        panel.yaxis.set_minor_formatter(NullFormatter())
    if measure.share or measure.large or low > 1e-3:
        panel.yaxis.set_major_formatter(measure.formatter)


def _title(bands: Sequence[Band]) -> str:
    """The title of the legend, which says what lines and bands are."""
    kinds = list(dict.fromkeys(band.kind for band in bands if band.kind))
    if not kinds:
        return "one seed each"
    return f"mean over seeds; band: {', or '.join(kinds)}"

"""The look of figures: one journal column wide, in colours that suit colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import (
    EngFormatter,
    Formatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
)
from numpy.typing import ArrayLike

from evonas import metrics
from evonas.files import write_atomic

WIDTH = 3.35  # inches: one column, 8.5 cm
SMALL = 6.5  # points

# Okabe and Ito (2008); yellow, which white swallows, is left out.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#999999"
CATEGORIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "----")
# Seven colours and five dashes: no pair repeats before the 36th line.
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (2, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

CANVASES = {"png": FigureCanvasAgg, "svg": FigureCanvasSVG, "pdf": FigureCanvasPdf}
DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

STYLE = {
    "figure.dpi": 300,
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "hatch.linewidth": 0.5,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.03,
    "svg.hashsalt": "evonas",  # the same figure has the same bytes
    "pdf.fonttype": 42,  # fonts as TrueType, which journals ask for
}


class NotYet(Exception):
    """A figure cannot be drawn yet; the message says why."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure and the numbers it shows."""

    figure: Figure
    data: pd.DataFrame


@contextmanager
def styled() -> Iterator[None]:
    """Applies these settings alone, whatever the user's matplotlibrc says."""
    with mpl.style.context(STYLE, after_reset=True):
        yield


def save(drawing: Drawing, folder: Path, name: str, *, pdf: bool = False) -> list[Path]:
    """Writes NAME.png, NAME.svg, NAME.csv and perhaps NAME.pdf, each whole or not at all."""
    png = rendered(drawing.figure, "png")
    drawing.figure.set_layout_engine("none")  # laid out once, so that formats agree
    contents: dict[str, bytes | str] = {
        "png": png,
        "svg": rendered(drawing.figure, "svg"),
        "csv": drawing.data.to_csv(index=False, lineterminator="\n"),
    }
    if pdf:
        contents["pdf"] = rendered(drawing.figure, "pdf")
    for kind, content in contents.items():
        write_atomic(folder / f"{name}.{kind}", content)
    return [folder / f"{name}.{kind}" for kind in contents]


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as the bytes of a PNG, SVG or PDF file, without a timestamp."""
    buffer = io.BytesIO()
    # savefig would draw everything twice.
    print_ = getattr(CANVASES[kind](figure), f"print_{kind}")
    print_(buffer, metadata=DATELESS.get(kind))
    return buffer.getvalue()


def panels(count: int, height: float, *, above: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure of panels, one below the other, and their axes; sizes in inches."""
    figure = Figure(figsize=(WIDTH, count * height + above), layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0])


class Measure:
    """How the values of a metric are written: percent, thousands, logarithmic or plain."""

    def __init__(self, name: str, values: ArrayLike) -> None:
        array = np.asarray(values, dtype=np.float64)
        array = array[np.isfinite(array)]
        low, high = (array.min(), array.max()) if len(array) else (0.0, 1.0)
        named_share = name.endswith(("error", "accuracy"))
        self.name = name
        self.share = bool(named_share and low >= 0 and high <= 1)
        self.large = max(abs(low), abs(high)) >= 1000
        self.decades = float(np.log10(high / low)) if low > 0 else 0.0

    @property
    def text(self) -> str:
        return metrics.label(self.name)

    @property
    def label(self) -> str:
        return f"{self.text} (%)" if self.share else self.text

    @property
    def logarithmic(self) -> bool:
        """Whether to use a logarithmic scale: for positive values that span over 1.5 decades."""
        return self.decades > 1.5

    @property
    def formatter(self) -> Formatter:
        if self.share:
            return FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}")
        if self.large:
            return EngFormatter(sep="")
        return ScalarFormatter(useOffset=False)

    def with_unit(self, value: float) -> str:
        """A value with its unit, for titles."""
        if self.share:
            return f"{100 * value:.3g}%"
        return EngFormatter(sep="")(float(f"{value:.3g}")) if self.large else f"{value:.4g}"

    def write_on(self, axis: Axis) -> None:
        """Sets label, ticks and scale of an axis."""
        axis.set_label_text(self.label)
        if self.logarithmic:
            across = axis is axis.axes.xaxis
            (axis.axes.set_xscale if across else axis.axes.set_yscale)("log")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if self.decades < 2.5 else (1,)))
            axis.set_minor_formatter(NullFormatter())
        if not (self.logarithmic and isinstance(self.formatter, ScalarFormatter)):
            axis.set_major_formatter(self.formatter)


def whole_axis(axes: Axes, numbers: pd.Series[int], label: str = "generation") -> None:
    """Puts whole numbers along x, with room for a marker at either end.

    Generations are counted as on screen, from 1; the tables count them from 0.
    """
    first, last = int(numbers.min()), int(numbers.max())
    margin = max(0.5, 0.02 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    if label == "generation":
        axes.set_xticks(*generation_ticks(first, last))
    else:
        axes.set_xticks(whole_ticks(first, last))
    axes.set_xlabel(label)


def generation_ticks(first: int, last: int) -> tuple[list[int], list[str]]:
    """A few generations, as the tables number them from 0, and their names, which count from 1."""
    names = whole_ticks(first + 1, last + 1)
    return [name - 1 for name in names], [f"{name:,}" for name in names]


def whole_ticks(low: int, high: int) -> list[int]:
    """A few whole numbers from `low` to `high`, both of which may be among them."""
    ticks = MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]).tick_values(low, high)
    return sorted({int(tick) for tick in ticks if low <= tick <= high})


def from_zero(axes: Axes, values: ArrayLike) -> None:
    """Begins the y axis at 0, with room above the largest of the values."""
    array = np.asarray(values, dtype=np.float64)
    axes.set_ylim(0, 1.1 * max(array[np.isfinite(array)], default=1.0) or 1.0)


def headed(*lines: str) -> dict[str, Any]:
    """Returns what gives a legend above a figure a heading, which is the figure's title.

    (A figure's own title would be drawn over a legend outside of the axes.)
    """
    text = "\n".join(filter(None, lines)).replace("$", r"\$")
    return {"title": text, "title_fontsize": 7}


def marker(count: int) -> str:
    """The marker of a line of `count` points: none where they would run together."""
    return "o" if count <= 30 else ""


def sequence() -> Colormap:
    """Viridis without its yellow end, which white swallows."""
    viridis = mpl.colormaps["viridis"]
    return ListedColormap(viridis(np.linspace(0.0, 0.88, 256)), name="viridis_on_white")


@lru_cache(maxsize=4096)  # the names of ops and nodes come again and again
def text_width(text: str, size: float) -> float:
    """The width of a line of text, in inches."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72


def short(text: str, most: int = 45) -> str:
    """The text, shortened so that it fits above a figure."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def spell(op: str) -> str:
    """An op's name as short as it is clear: `nor_conv_3x3` is a `conv 3x3`."""
    return op.removeprefix("nor_").removesuffix("_connect").replace("_", " ")

"""A table of a page, and how a metric's values are written in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from evonas import metrics
from evonas.plots.style import Measure
from evonas.report.front import number

NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as it is shown, and as it is copied."""

    text: str
    value: float


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first cell of a row names the row.

    Attributes:
        keys: the network of each row, if each has one.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric on the page.

    Attributes:
        goal: `min` or `max`; "" if it is no objective.
        share: whether its values are shares, shown in percent.
        large: whether an axis has thousands and millions.
        log: whether an axis is logarithmic.
    """

    name: str
    label: str
    goal: str
    share: bool
    large: bool
    log: bool

    @classmethod
    def of(cls, name: str, values: ArrayLike, goal: str = "") -> Shown:
        """The metric of a name, shown as fits its values."""
        measure = Measure(name, values)
        large, log = bool(measure.large), bool(measure.logarithmic)  # not NumPy's, for JSON
        return cls(name, metrics.label(name), goal, measure.share, large, log)

    def text(self, value: float, spread: float = math.nan) -> str:
        """A value as text, with ± if a spread is given."""
        if math.isnan(value):
            return NOTHING
        if self.share:
            more = "" if math.isnan(spread) else f" ± {100 * spread:.2f}"
            return f"{100 * value:.2f}{more} %"
        return number(value) + ("" if math.isnan(spread) else f" ± {spread:.4f}")

    def cell(self, value: float, spread: float = math.nan) -> Cell:
        """A value as a cell of a table."""
        return Cell(self.text(value, spread), value)

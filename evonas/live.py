"""What a terminal shows of a run while it goes on: front, dynamics, faults, from its tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.text import Text

from evonas import yamlfile
from evonas.core import FAILURES, UserError
from evonas.files import escaped
from evonas.markdown import counted
from evonas.records import tables
from evonas.report.front import number

BARS = "▁▂▃▄▅▆▇█"
WIDEST = 72  # columns of the plot
ROWS = 8  # of the plot
ROOM = 18  # rows of a terminal that has room for the plot
SPARKS = 32  # columns of a sparkline
PAUSE = 1.0  # seconds between two readings of the tables, at least
SHARE = 0.9  # of all networks that the plot has room for; the worst lie outside
TEXT = ("key", "genes", "genome", "status", "budget", "message", "phase", "worker")

Array = NDArray[np.float64]


class Panel:
    """The front as a plot of letters, sparklines, faults and workers, as the tables stand.

    The tables are read again when they have grown, at most once a second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at, self._size = -PAUSE, -1
        self._tables: tuple[dict[str, Any], dict[str, pd.DataFrame]] | None = None

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the lines for a terminal of this size; none before the first generation."""
        self._read()
        if self._tables is None:
            return []
        settings, frames = self._tables
        try:
            return [
                Text(escaped(line)[:width], no_wrap=True)
                for line in _lines(settings, frames, width, height)
            ]
        except (LookupError, TypeError, ValueError):
            return []  # a table that is damaged, of which `show` tells

    def _read(self) -> None:
        now = time.monotonic()
        if now - self._read_at < PAUSE:
            return
        self._read_at = now
        size = size_of(self.path)
        if size in (self._size, 0):
            return
        try:
            settings = yamlfile.read(self.path / "config.yaml")
            names = ("generations", "evaluations", "front", "timings")
            frames = {name: tables.read(self.path / f"{name}.csv", text=TEXT) for name in names}
        except (UserError, OSError, ValueError):
            return  # while a table is being made anew
        self._tables, self._size = (settings, frames), size


def size_of(path: Path) -> int:
    """Return how large the table of generations is, which grows last; 0 where there is none."""
    file = path / "generations.csv"
    return file.stat().st_size if file.exists() else 0


def _lines(
    settings: dict[str, Any], frames: dict[str, pd.DataFrame], width: int, height: int
) -> Iterator[str]:
    generations, evaluations, timings = (
        frames[name] for name in ("generations", "evaluations", "timings")
    )
    goals = settings["objectives"]
    if len(goals) > 1 and height >= ROOM:
        x, y = goals[1]["name"], goals[0]["name"]
        well = evaluations[evaluations["status"] == "ok"]
        yield from plot(
            well[[x, y]].to_numpy(float), frames["front"][[x, y]].to_numpy(float), (x, y), width
        )
    first = goals[0]
    so_far = generations[f"{first['name']}_best"]
    so_far = so_far.cummin() if first.get("goal", "min") == "min" else so_far.cummax()
    rows = {f"best {first['name']}": so_far}
    rows |= {name: generations[name] for name in ("hypervolume", "diversity")}
    labels = max(map(len, rows))
    for name, values in rows.items():
        line = sparkline(values.to_numpy(float), max(min(SPARKS, width - labels - 14), 8))
        if line:
            yield f"{name:<{labels}}  {line}  {number(values.iloc[-1])}"
    failed = timings[timings["status"].isin(FAILURES)]["status"].value_counts()
    faults = ", ".join(f"{count} {status}" for status, count in failed.items()) or "none"
    last = timings[timings["generation"] == generations["generation"].max()]
    workers = last["worker"].nunique()
    yield f"faults: {faults}" + (f"; {counted(workers, 'worker')}" if workers else "")


def sparkline(values: Array, columns: int) -> str:
    """Return numbers, of many some, as a line of bars, with gaps where one is not finite."""
    if len(values) > columns:
        values = values[np.linspace(0, len(values) - 1, columns).round().astype(int)]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ""
    low, span = finite.min(), np.ptp(finite)
    steps = (len(BARS) - 1) / span if span else 0.0
    return "".join(BARS[round((v - low) * steps)] if np.isfinite(v) else " " for v in values)


def plot(networks: Array, front: Array, names: Sequence[str], width: int) -> Iterator[str]:
    """Plot networks as dots and the front as circles.

    Args:
        networks: (n, 2), x and y; of these the worst may lie outside.
        front: (m, 2), which lies inside.
        names: of x and y.
        width: columns of the terminal.
    """
    networks, front = (each[np.isfinite(each).all(axis=1)] for each in (networks, front))
    if not len(front):
        return
    columns = max(min(width - 2, WIDEST), 10)
    both = np.vstack([networks, front])
    low = np.minimum(np.quantile(both, 1 - SHARE, axis=0), front.min(axis=0))
    high = np.maximum(np.quantile(both, SHARE, axis=0), front.max(axis=0))
    span = np.where(high > low, high - low, 1.0)
    cells = [[" "] * columns for _ in range(ROWS)]
    for letter, points in (("·", networks), ("o", front)):
        inside = points[((points >= low) & (points <= high)).all(axis=1)]
        places = ((inside - low) / span * [columns - 1, ROWS - 1]).round().astype(int)
        for column, row in places:
            cells[ROWS - 1 - row][column] = letter
    x, y = ([number(low[i]), number(high[i])] for i in (0, 1))
    yield f"{names[1]}, {y[0]} to {y[1]}; o on the front"
    for cell in cells:
        yield f"│{''.join(cell).rstrip()}"
    yield f"└{'─' * columns}"
    yield f" {names[0]}, {x[0]} to {x[1]}".rstrip()

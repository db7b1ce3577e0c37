"""Draws the figures of a run from its tables alone: as PNG and SVG, with their numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from evonas import files, registry
from evonas.core import UserError
from evonas.plots import (
    ancestry,
    cell,
    cost,
    curve,
    dynamics,
    front,
    genes,
    policy,
    predictor,
    supernet,
    swarm,
)
from evonas.plots.cell import draw_cell
from evonas.plots.style import Drawing, NotYet, save, styled
from evonas.plots.tables import Tables

__all__ = ["Drawn", "draw", "draw_cell", "figure"]

FIGURES: dict[str, Callable[[Tables], Drawing]] = {
    "objectives": dynamics.objectives,
    "front": front.front,
    "hypervolume": dynamics.hypervolume,
    "diversity": dynamics.diversity,
    "ops": genes.ops,
    "ancestry": ancestry.ancestry,
    "cell": cell.cell,
    "cost": cost.cost,
}
# Figures that only some runs have, each with the table that it is drawn from.
TRACES: dict[str, tuple[str, Callable[[Tables], Drawing]]] = {
    "swarm": ("swarm", swarm.swarm),
    "predictor": ("predictor", predictor.predictor),
    "probabilities": ("probabilities", policy.probabilities),
    "relaxation": ("relaxation", policy.relaxation),
    "controller": ("controller", policy.controller),
    "supernet": ("supernet/curve", supernet.supernet),
    "rank": ("rank/networks", supernet.rank),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """The result of `draw`.

    Attributes:
        folder: where the figures are.
        figures: the names of the figures drawn; each is a PNG, an SVG and a CSV file.
        skipped: the names of those that could not be drawn, each with the reason in one line.
    """

    folder: Path
    figures: tuple[str, ...]
    skipped: dict[str, str]


def draw(run_dir: Path, only: Collection[str] = (), *, pdf: bool = False) -> Drawn:
    """Draws all figures of a run, or of a full training, finished or not, into its `figures/`.

    A figure that cannot be drawn yet is skipped, and its files from an earlier call are removed.

    Args:
        only: the names of the figures to draw; if empty, all.
        pdf: whether to draw each as a PDF too. One that is there already is drawn anew anyhow.

    Raises:
        UserError: `run_dir` is not a run folder.
    """
    makers = _makers(run_dir)
    if only:
        makers = {name: make for name, make in makers.items() if name in only}
    folder = run_dir / "figures"
    files.make_folder(folder)
    figures, skipped = [], {}
    with styled():
        for name, make in makers.items():
            try:
                save(make(), folder, name, pdf=pdf or (folder / f"{name}.pdf").exists())
                figures.append(name)
            except NotYet as reason:
                skipped[name] = str(reason)
                for kind in ("png", "svg", "csv", "pdf"):
                    files.remove(folder / f"{name}.{kind}")
    return Drawn(folder, tuple(figures), skipped)


def figure(run_dir: Path, name: str) -> Figure:
    """Returns a figure of a run, or of a full training, as an object of matplotlib.

    Raises:
        UserError: `run_dir` is not a run folder, or has no such figure, or not yet.
    """
    makers = _makers(run_dir)
    if name not in makers:
        raise UserError(registry.unknown("figure", name, list(makers)))
    try:
        with styled():
            return makers[name]().figure
    except NotYet as reason:
        raise UserError(f"the figure {name} cannot be drawn, since {reason}") from None


def _makers(run_dir: Path) -> dict[str, Callable[[], Drawing]]:
    """Returns what draws each figure that a folder may have."""
    if (run_dir / "training.yaml").is_file():
        files.check_folder(run_dir)
        return {"curve": partial(curve.curve, run_dir)}
    tables = Tables(run_dir)
    traces = {name: f for name, (table, f) in TRACES.items() if (run_dir / f"{table}.csv").exists()}
    return {name: partial(f, tables) for name, f in (FIGURES | traces).items()}

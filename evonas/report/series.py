"""The line and bar figures of a page: their numbers, and how to draw and read them.

A figure is plain data, which `report/script` draws. Colours are names of the style sheet's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evonas.plots import cost, dynamics, genes
from evonas.plots.cell import categories
from evonas.plots.style import NotYet, spell
from evonas.plots.tables import STATUSES, Tables
from evonas.report.compare import Comparison
from evonas.report.curves import Band
from evonas.report.grid import Shown

Figure = dict[str, Any]
COLOURS = ("blue", "vermilion", "green", "orange", "purple", "sky", "ink")
MOST_BINS = 60  # columns of a gene's heat map
MOST_POINTS = 600  # of a line; more cannot be told apart


def progress(tables: Tables) -> Iterator[Figure]:
    """Best so far of each objective, hypervolume and diversity, as far as there are tables."""
    makers: list[Callable[[Tables], Figure]] = [
        *(_best(i) for i in range(len(tables.objectives))),
        *(_hypervolume, _distance, _new),
    ]
    for make in makers:
        try:
            yield make(tables)
        except NotYet:
            continue


def costs(tables: Tables) -> Iterator[Figure]:
    """Worker time and answers by generation, and failures if there are any."""
    try:
        frame = cost.by_generation(tables)
    except NotYet:
        return
    seconds = frame[["seconds", "from_cache_seconds"]].sum(axis=1).max()
    divisor, unit = next((u for u in cost.UNITS if seconds >= 3 * u[0]), cost.UNITS[-1])
    x = frame["generation"] + 1
    spent = [
        _line("here", frame["seconds"] / divisor, "blue"),
        _line("taken from the cache", frame["from_cache_seconds"] / divisor, "sky"),
    ]
    if seconds > 0:
        yield _bars(f"Worker time ({unit})", x, spent, f"Worker time by generation, in {unit}.")
    answered = [
        _line(tables.done, frame["trained"], "blue"),
        _line("from the cache", frame["from_cache"], "sky"),
        _line("same as an earlier one", frame["hits"], "orange"),
        _line(f"infeasible, not {tables.done}", frame["infeasible_untrained"], "grey"),
    ]
    yield _bars("Candidates", x, answered, "How the candidates of a generation were answered.")
    failed = [
        _line(status.replace("_", " "), frame[status], COLOURS[i])
        for i, status in enumerate(STATUSES)
    ]
    if frame[STATUSES].to_numpy().any():
        yield _bars("Failed or infeasible", x, failed, "What failed or was infeasible.")


def ops(tables: Tables) -> dict[str, Any] | None:
    """How often each gene takes each choice, by generation, in thousandths; None without genes."""
    try:
        frame = genes.shares(tables, tables.genes, MOST_BINS)
    except NotYet:
        return None
    try:
        colours = categories(tables.space)
    except NotYet:
        colours = {}
    bins = frame[["first_generation", "last_generation"]].drop_duplicates().to_numpy()
    shares = frame["share"].to_numpy().reshape(len(bins), -1).T
    rows = iter(np.rint(1000 * shares).astype(int))
    return {
        "bins": bins + 1,
        "genes": [
            {
                "name": gene.name,
                "choices": [
                    {"name": spell(choice), "op": colours.get(choice), "shares": next(rows)}
                    for choice in gene.choices
                ],
            }
            for gene in tables.genes
        ],
    }


def compared(comparison: Comparison) -> Iterator[Figure]:
    """The best so far of each objective and the hypervolume, a line for each arm."""
    objectives = comparison.arms[0].runs[0].objectives
    names = [*(objective.name for objective in objectives), "hypervolume"]
    for by, bands in comparison.bands().items():
        along = "evaluations" if by == "evaluations" else "trained epochs"
        for column, name in enumerate(names):
            values = np.concatenate([band.mean[:, column] for band in bands])
            if not np.isfinite(values).any():
                continue
            hypervolume = column == len(objectives)
            shown = Shown.of(name, values)
            title = "hypervolume (share of the box)" if hypervolume else f"best {shown.label}"
            yield {
                "title": f"{title[:1].upper()}{title[1:]}, by {along}",
                "says": _says(bands),
                "x": along,
                "y": _axis(shown, title),
                "step": True,
                "series": [
                    _arm(f"{arm.name}, n={len(arm.runs)}", band, column, i)
                    for i, (arm, band) in enumerate(zip(comparison.arms, bands, strict=True))
                ],
            }


def _best(i: int) -> Callable[[Tables], Figure]:
    def figure(tables: Tables) -> Figure:
        objective = tables.objectives[i]
        frame = dynamics.by_generation(tables, objective)
        some = frame[["best", "mean", "p10", "p90", "best_so_far"]].to_numpy(dtype=np.float64)
        shown = Shown.of(objective.name, some)
        better = "lower" if objective.goal == "min" else "higher"
        return {
            "title": f"{shown.label[:1].upper()}{shown.label[1:]}",
            "says": f"By generation; {better} is better. If the mean improves too, the search has "
            "learned something; if only the best does, that may be luck.",
            "x": "generation",
            "y": _axis(shown, shown.label),
            "series": [
                {
                    **_line("mean", frame["mean"], "vermilion", dash="6 3"),
                    "low": frame["p10"],
                    "high": frame["p90"],
                    "band": "10th to 90th percentile",
                },
                _line("best of the generation", frame["best"], "blue", dash="1.5 3"),
                {**_line("best so far", frame["best_so_far"], "ink"), "step": True},
            ],
            "at": frame["generation"] + 1,
        }

    return figure


def _hypervolume(tables: Tables) -> Figure:
    frame = tables.generations[["generation", "hypervolume"]]
    frame = frame[np.isfinite(frame["hypervolume"])]
    if frame.empty or len(tables.objectives) < 2:
        raise NotYet("no reference point is known yet")
    shown = Shown.of("hypervolume", frame["hypervolume"])
    return {
        "title": "Hypervolume",
        "says": "How large the region is that the front dominates. If it has been flat for long, "
        "more generations will hardly help.",
        "x": "generation",
        "y": {**_axis(shown, "hypervolume"), "log": False},
        "series": [{**_line("hypervolume", frame["hypervolume"], "blue"), "step": True}],
        "at": frame["generation"] + 1,
    }


def _distance(tables: Tables) -> Figure:
    frame = dynamics.variety(tables)
    shown = Shown.of("distance", frame["diversity"])
    return {
        "title": "Diversity",
        "says": "In how many live genes two members of a generation differ on average. Near zero, "
        "the population has converged.",
        "x": "generation",
        "y": {**_axis(shown, "mean Hamming distance"), "zero": True, "log": False},
        "series": [_line("mean distance", frame["diversity"], "green")],
        "at": frame["generation"] + 1,
    }


def _new(tables: Tables) -> Figure:
    frame = dynamics.variety(tables)
    shown = Shown.of("networks", frame["evaluations"])
    return {
        "title": "New networks",
        "says": "Of the candidates of a generation, those that differ from one another, and those "
        "that the run has not seen before.",
        "x": "generation",
        "y": {**_axis(shown, "networks"), "zero": True, "log": False},
        "series": [
            _line("candidates", frame["evaluations"], "ink", dash="6 3"),
            _line("distinct", frame["distinct"], "vermilion"),
            _line("new to the run", frame["new"], "green", dash="1.5 3"),
        ],
        "at": frame["generation"] + 1,
    }


def _arm(name: str, band: Band, column: int, i: int) -> dict[str, Any]:
    """A line of an arm, with a point only where something changes."""
    low, mean, high = (part[:, column] for part in (band.low, band.mean, band.high))
    values = np.nan_to_num(np.stack([low, mean, high]), nan=np.inf)
    kept = np.ones(len(mean), dtype=np.bool_)
    kept[1:-1] = (values[:, 1:-1] != values[:, :-2]).any(axis=0)
    rows = np.flatnonzero(kept)
    if len(rows) > MOST_POINTS:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int))]
    dashes = ("", "6 3", "1.5 3", "8 3 1.5 3", "3 3")
    line = {
        **_line(name, mean[rows], COLOURS[i % len(COLOURS)], dash=dashes[i % len(dashes)]),
        "at": band.x[rows],
    }
    return line | ({"low": low[rows], "high": high[rows], "band": band.kind} if band.kind else {})


def _says(bands: Sequence[Band]) -> str:
    kinds = list(dict.fromkeys(band.kind for band in bands if band.kind))
    return f"Mean over seeds; band: {', or '.join(kinds)}." if kinds else "One seed each."


def _line(name: str, values: Any, colour: str, dash: str = "") -> dict[str, Any]:
    return {"name": name, "values": np.asarray(values), "colour": colour, "dash": dash}


def _bars(title: str, x: Any, series: Sequence[Mapping[str, Any]], says: str) -> Figure:
    some = [each for each in series if np.nan_to_num(each["values"]).any()]
    total = sum((each["values"] for each in some), np.zeros(len(x)))
    axis = {**_axis(Shown.of("count", total), ""), "log": False, "zero": True}
    look = {"says": says, "x": "generation", "y": axis, "stacked": True}
    return {"title": title, **look, "series": some, "at": np.asarray(x)}


def _axis(shown: Shown, label: str) -> dict[str, Any]:
    return {"label": label, "share": shown.share, "large": shown.large, "log": shown.log}
